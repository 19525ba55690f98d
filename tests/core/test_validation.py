"""B2: what does not fit is refused, and the message says what would fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import Batch, CrossModalOperator

from .examples import FusionOperator, Identity, PairLoss, config, records


def ragged(**parts):
    data = {"image": np.zeros((4, 2), np.float32), "text": np.zeros((3, 2), np.float32)}
    return Batch.from_parts(data, validate=False, **parts)


class Pooled(CrossModalOperator):
    """Lives with inputs of different lengths."""

    def apply_batch(self, batch, stats=None):
        a, b = self._extract_inputs(batch.data)
        out = jnp.broadcast_to(b.mean(), (a.shape[0],))
        return batch.replace(data=self._store_outputs(batch.data, [out]))


CALLS = {"eager": lambda op, b: op(b), "jit": nnx.jit(lambda op, b: op(b))}


@pytest.fixture(params=CALLS, name="call")
def _call(request):
    return CALLS[request.param]


def test_misaligned_inputs_are_named_with_their_shapes(call):
    with pytest.raises(ValueError, match=r"'image' \[4, 2\], 'text' \[3, 2\]"):
        call(PairLoss(config()), ragged())
    with pytest.raises(ValueError, match=r"'image' \[4, 2\], 'text' \[3, 2\]"):
        call(FusionOperator(config()), ragged())


def test_misaligned_inputs_are_left_to_the_operator(call):
    op = Pooled(config(validate_alignment=False))
    assert call(op, ragged())["joint"].shape == (4,)


def test_alignment_looks_at_inputs_only():
    op = FusionOperator(config("image", "image"))
    batch = records(4)
    assert op(batch)["joint"].shape == (4, 3)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["a", "b"], r"'text' \(list, no array\)"),
        ({"a": np.zeros((2, 2))}, r"'text' \(dict, no array\)"),
        (3.0, r"'text' (\[\]|\(float, no array\))"),
        (np.zeros((), np.float32), r"'text' \[\]"),
    ],
)
def test_inputs_are_arrays(value, told):
    data = {"image": np.zeros((2, 2), np.float32), "text": value}
    with pytest.raises(
        ValueError, match=rf"one batch size on axis 0, got 'image' \[2, 2\], {told}"
    ):
        FusionOperator(config())(Batch.from_parts(data, validate=False))


def test_missing_fields_and_those_there_are(call):
    op = FusionOperator(config("image", "sound", "depth"))
    with pytest.raises(KeyError, match=r"lacks fields \['sound', 'depth'\].*\['image', 'text'\]"):
        call(op, records())
    op = FusionOperator(config("image", "audio.b"))
    data = {"image": np.zeros((2, 1)), "audio": {"a": np.zeros((2, 1))}}
    with pytest.raises(KeyError, match=r"\['audio.b'\].*\['audio.a', 'image'\]"):
        op(Batch.from_parts(data))


def test_missing_fields_by_hand():
    op = FusionOperator(config("image", "sound"))
    with pytest.raises(KeyError, match=r"\['sound'\].*\['image'\]"):
        op.apply({"image": np.zeros(2)}, {}, None)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_the_number_of_outputs(number):
    op = Identity(config(out=["a", "b"]))
    with pytest.raises(ValueError, match=rf"2 output_fields \['a', 'b'\], got {number} outputs"):
        op._store_outputs({}, [jnp.zeros(())] * number)


def test_the_number_of_outputs_in_a_call(call):
    with pytest.raises(ValueError, match=r"FusionOperator has 2 output_fields.*got 1 outputs"):
        call(FusionOperator(config(out=["a", "b"])), records())


def test_store_outputs_copies():
    op = Identity(config(out=["a"]))
    data = {"a": 1, "b": 2}
    assert op._store_outputs(data, [3]) == {"a": 3, "b": 2}
    assert data == {"a": 1, "b": 2}


def test_extract_inputs_keeps_the_order():
    op = Identity(config("text", "image", "text"))
    assert op._extract_inputs({"image": 1, "text": 2}) == [2, 1, 2]


def test_an_operator_may_be_applied_to_its_own_result(call):
    op = FusionOperator(config("image", "joint"))
    batch = records()
    batch = batch.replace(data={**batch.data, "joint": batch["text"]})
    twice = call(op, call(op, batch))
    np.testing.assert_allclose(twice["joint"], 2 * batch["image"] + batch["text"], rtol=1e-6)
    plain = FusionOperator(config())
    np.testing.assert_array_equal(call(plain, call(plain, batch))["joint"], plain(batch)["joint"])


def test_an_output_may_replace_an_input(call):
    op = FusionOperator(config("image", "text", out=["image"]))
    batch = records()
    out = call(op, call(op, batch))
    np.testing.assert_allclose(out["image"], batch["image"] + 2 * batch["text"], rtol=1e-5)


def test_a_dict_is_no_batch(untyped):
    with pytest.raises(TypeError, match=r"takes a Batch, got dict.*Batch.from_parts\(data\)"):
        FusionOperator(config())({"image": jnp.zeros((2, 1)), "text": jnp.zeros((2, 1))})


@pytest.mark.parametrize("returned", [None, {"joint": 1}, ({}, {})])
def test_apply_returns_a_triple(returned):
    class Wrong(CrossModalOperator):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            return returned

    with pytest.raises(ValueError, match=r"apply must return \(data, state, metadata\)"):
        Wrong(config())(records())


def test_apply_batch_returns_a_batch(call):
    class Wrong(CrossModalOperator):
        def apply_batch(self, batch, stats=None):
            return batch.data

    with pytest.raises(TypeError, match="apply_batch of Wrong must return a Batch, got dict"):
        call(Wrong(config()), records())


def test_apply_must_be_implemented(call):
    with pytest.raises(NotImplementedError, match="CrossModalOperator must implement apply"):
        call(CrossModalOperator(config()), records())
    with pytest.raises(NotImplementedError, match="CrossModalOperator must implement apply"):
        CrossModalOperator(config()).apply({}, {}, None)


def test_random_params_must_be_implemented():
    op = CrossModalOperator(config(stochastic=True, stream_name="noise"), rngs=nnx.Rngs(0, noise=1))
    with pytest.raises(NotImplementedError, match="must implement generate_random_params"):
        op.generate_random_params(jax.random.key(0), {})
    assert CrossModalOperator(config()).generate_random_params(jax.random.key(0), {}) is None


def test_no_call_changes_its_input():
    batch = records(presence={"text": jnp.arange(6) < 3})
    before = dict(batch.data), dict(batch.presence)
    FusionOperator(config())(batch)
    assert batch.data.keys() == before[0].keys()
    assert batch.presence.keys() == before[1].keys()
