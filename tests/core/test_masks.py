"""Skipped rows: zeros, presence False, gradient exactly 0, whatever garbage lay there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import Batch, CrossModalOperator

from .examples import FusionOperator, Identity, PairLoss, arrays, config, records

STRATEGIES = ("vmap", "scan")
ROWS = np.asarray([True, True, False, True, False, False])
VALID = jnp.asarray([True, True, True, True, False, False])
TEXT = jnp.asarray([True, True, False, True, True, True])


def dirty(garbage, **replaced):
    """Garbage in every masked slot."""
    data = arrays()
    data["image"] = jnp.where(VALID[:, None], data["image"], garbage)
    data["text"] = jnp.where((VALID & TEXT)[:, None], data["text"], garbage)
    return Batch.from_parts(data | replaced, valid_mask=VALID, presence={"text": TEXT})


def fusion(strategy="vmap", **options):
    return FusionOperator(config(batch_strategy=strategy, **options))


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("jit", [False, True])
def test_values_and_gradients(garbage, strategy, jit):
    op, batch = fusion(strategy), dirty(garbage)
    call = nnx.jit(lambda op, b: op(b)) if jit else (lambda op, b: op(b))
    out = call(op, batch)
    expected = np.asarray(arrays()["image"] + arrays()["text"]) * ROWS[:, None]
    np.testing.assert_allclose(out["joint"], expected, rtol=1e-6)
    assert (np.asarray(out["joint"])[~ROWS] == 0).all()
    np.testing.assert_array_equal(out.presence["joint"], ROWS)

    def loss(op, data):
        return (op(batch.replace(data=data))["joint"] ** 2).sum()

    by_op, by_data = nnx.grad(loss, argnums=(0, 1))(op, batch.data)
    clean = nnx.grad(loss)(op, dirty(0.0).data)
    np.testing.assert_allclose(
        by_op["fusion_weights"][...], clean["fusion_weights"][...], rtol=1e-5
    )
    for gradient in by_data.values():
        assert (np.asarray(gradient)[~ROWS] == 0).all()
        assert (np.asarray(gradient)[ROWS] != 0).all()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_new_fields_are_zeros_whatever_apply_makes_of_zeros(strategy):
    class Biased(CrossModalOperator):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            return self._store_outputs(data, [data["image"] + 1]), state, metadata

    out = Biased(config(batch_strategy=strategy))(dirty(np.nan))
    expected = (np.asarray(arrays()["image"]) + 1) * ROWS[:, None]
    np.testing.assert_allclose(out["joint"], expected, rtol=1e-6)


def test_what_is_handed_through_stays_as_it_came():
    batch = dirty(np.nan)
    out = fusion()(batch)
    assert all(out[name] is batch[name] for name in ("image", "text"))
    assert out.valid_mask is batch.valid_mask
    assert out.presence["text"] is batch.presence["text"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_overwritten_field_is_masked_too(strategy):
    op = FusionOperator(config("image", "text", out=["text"], batch_strategy=strategy))
    out = op(dirty(np.nan))
    assert np.isfinite(out["text"]).all()
    np.testing.assert_array_equal(out.presence["text"], ROWS)


def test_without_masks_there_are_none():
    assert fusion()(records()).presence == {}
    assert fusion()(records()).valid_mask is None


class Filled(CrossModalOperator):
    """Requires the image only; a missing text is replaced by the image."""

    @property
    def required_fields(self):
        return ("image",)

    def apply(self, data, state, metadata, random_params=None, stats=None):
        image, text = self._extract_inputs(data)
        there = metadata["presence"]["text"]
        return self._store_outputs(data, [jnp.where(there, text, image)]), state, metadata


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fewer_required_fields(strategy):
    op = Filled(config(batch_strategy=strategy))
    batch = dirty(np.nan)
    out = op(batch)
    rows = arrays()
    expected = np.where(np.asarray(TEXT)[:, None], rows["text"], rows["image"])
    valid = np.asarray(VALID)
    np.testing.assert_array_equal(out["joint"], expected * valid[:, None])
    np.testing.assert_array_equal(out.presence["joint"], valid)
    gradient = jax.grad(lambda d: op(batch.replace(data=d))["joint"].sum())(batch.data)
    np.testing.assert_array_equal(gradient["text"][:, 0], np.asarray(TEXT) & valid)
    np.testing.assert_array_equal(gradient["image"][:, 0], ~np.asarray(TEXT) & valid)


def test_an_absent_field_that_is_not_required_is_zero_for_apply():
    class Reads(Filled):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            return self._store_outputs(data, [data["text"]]), state, metadata

    out = Reads(config())(dirty(np.nan))
    np.testing.assert_array_equal(out["joint"][2], np.zeros(3))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("in_place", [False, True])
def test_presence_returned_by_apply(strategy, in_place):
    class Negative(CrossModalOperator):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            out = self._store_outputs(data, [data["image"]])
            there = data["image"][0] <= 0  # holds for a zeroed row
            if in_place:
                metadata["presence"]["joint"] = there
                return out, state, metadata
            return out, state, {"presence": {"joint": there}}

    negative = np.asarray(arrays()["image"])[:, 0] <= 0
    op = Negative(config(batch_strategy=strategy))
    np.testing.assert_array_equal(op(records()).presence["joint"], negative)
    np.testing.assert_array_equal(op(dirty(np.nan)).presence["joint"], negative & ROWS)


def test_metadata_of_a_row():
    seen = []

    class Looking(Identity):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            seen.append(jax.tree.map(lambda x: (jnp.shape(x), x.dtype.name), metadata))
            return data, state, metadata

    index = np.arange(6, dtype=np.uint32)
    Looking(config())(dirty(0.0).replace(record_index=index))
    flag = ((), "bool")
    assert seen == [
        {"valid": flag, "presence": {"image": flag, "text": flag}, "record_index": ((), "uint32")}
    ]


@pytest.mark.parametrize("returned", [{"loss": 1}, {"valid": True, "other": 2}])
def test_unknown_metadata(returned):
    class Wrong(Identity):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            return data, state, returned

    with pytest.raises(ValueError, match=r"apply returned metadata .* may only return \['pres"):
        Wrong(config())(records())


def test_presence_is_one_bool_a_row():
    class Wrong(Identity):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            return data, state, {"presence": {"image": jnp.ones(3, bool)}}

    with pytest.raises(ValueError, match=r"presence of 'image' must be one bool, got shape \(3,\)"):
        Wrong(config())(records())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_states_of_skipped_rows_are_kept(strategy):
    class Counting(Identity):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            return data, {**state, "n": state["n"] + 1, "seen": jnp.bool_(True)}, metadata

    batch = dirty(np.nan).replace(states={"n": jnp.arange(6), "other": jnp.ones(6)})
    out = Counting(config(batch_strategy=strategy))(batch)
    np.testing.assert_array_equal(out.states["n"], np.arange(6) + ROWS)
    np.testing.assert_array_equal(out.states["seen"], ROWS)
    assert out.states["other"] is batch.states["other"]


def nested(garbage):
    data = {
        "audio": {"a": jnp.full((4, 2), garbage), "b": jnp.full((4, 2), garbage)},
        "text": jnp.ones((4, 2)),
    }
    there = jnp.asarray([True, False, True, True])
    data["audio"] = {n: jnp.where(there[:, None], 2.0, x) for n, x in data["audio"].items()}
    return Batch.from_parts(data, presence={"audio": there})


@pytest.mark.parametrize("kind", [FusionOperator, PairLoss])
def test_presence_of_a_tree_speaks_of_what_is_in_it(kind):
    op = kind(config("audio.a", "text", out=["made.joint"]))
    out = op(nested(np.nan))
    assert np.isfinite(out["made.joint"]).all()
    np.testing.assert_array_equal(out.presence["made.joint"], [True, False, True, True])
    assert out["audio.b"] is nested(np.nan)["audio.b"] or np.isnan(out["audio.b"][1]).all()


@pytest.mark.parametrize("kind", [FusionOperator, PairLoss])
def test_writing_into_a_tree_leaves_its_presence_alone(kind):
    batch = nested(0.0)
    text = jnp.asarray([True, True, False, True])
    batch = batch.replace(presence={**batch.presence, "text": text})
    out = kind(config("audio.a", "text", out=["audio.joint"]))(batch)
    np.testing.assert_array_equal(out.where("audio.a"), batch.presence["audio"])
    np.testing.assert_array_equal(out.where("audio.joint"), [True, False, False, True])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_removed_field_takes_its_presence_along(strategy):
    class Only(CrossModalOperator):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            return self._store_outputs({}, [data["text"]]), state, metadata

    out = Only(config(batch_strategy=strategy))(dirty(np.nan))
    assert list(out) == ["joint"]
    assert list(out.presence) == ["joint"]
    Batch.from_parts(out.data, presence=out.presence, valid_mask=out.valid_mask)


def test_an_all_masked_batch():
    batch = dirty(np.nan).replace(valid_mask=jnp.zeros(6, bool))
    op = fusion()
    assert not np.asarray(op(batch)["joint"]).any()
    gradient = nnx.grad(lambda op: op(batch)["joint"].sum())(op)
    assert not np.asarray(gradient["fusion_weights"][...]).any()
