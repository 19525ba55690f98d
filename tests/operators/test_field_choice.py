"""One of several fields in place of the first, drawn for each record."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.operators.field_choice import FieldChoice, FieldChoiceConfig

NAMES = ["face", "serif", "mono"]


def operator(rate):
    config = FieldChoiceConfig(
        input_fields=NAMES,
        output_fields=["face"],
        rate=rate,
        stochastic=True,
        stream_name="augmentation",
    )
    return FieldChoice(config, rngs=nnx.Rngs(0))


def batch(n=2000):
    values = {name: jnp.full((n, 2), place, jnp.uint8) for place, name in enumerate(NAMES, 1)}
    return Batch.from_parts(
        values,
        presence={"mono": jnp.arange(n) % 2 == 0},
        record_index=jnp.arange(n, dtype=jnp.uint32),
        epoch=jnp.uint32(0),
    )


def test_each_alternative_is_as_likely_and_an_absent_one_changes_nothing():
    chosen = np.asarray(operator(0.6)(batch())["face"])[:, 0]
    has_mono = np.arange(2000) % 2 == 0
    shares = [np.mean(chosen[has_mono] == place) for place in (1, 2, 3)]
    np.testing.assert_allclose(shares, [0.4, 0.3, 0.3], atol=0.05)
    shares = [np.mean(chosen[~has_mono] == place) for place in (1, 2, 3)]
    np.testing.assert_allclose(shares, [0.7, 0.3, 0.0], atol=0.05)


def test_a_record_draws_the_same_anywhere_and_another_epoch_draws_others():
    op = operator(0.6)
    whole = np.asarray(op(batch(50))["face"])
    part = Batch.from_parts(
        {name: batch(50)[name][30:] for name in NAMES},
        presence={"mono": batch(50).presence["mono"][30:]},
        record_index=batch(50).record_index[30:],
        epoch=jnp.uint32(0),
    )
    np.testing.assert_array_equal(op(part)["face"], whole[30:])
    later = np.asarray(op(batch(50).replace(epoch=jnp.uint32(1)))["face"])
    assert (later != whole).any()


def test_never_at_rate_0_nor_in_evaluation():
    assert (np.asarray(operator(0.0)(batch())["face"]) == 1).all()
    op = operator(1.0)
    assert (np.asarray(op(batch())["face"])[::2] > 1).all()
    op.eval()
    assert (np.asarray(op(batch())["face"]) == 1).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 1.5}, "rate must be a number in"),
        ({"output_fields": ["serif"]}, "the first of at least 2"),
        ({"input_fields": ["face"]}, "the first of at least 2"),
        ({"stochastic": False, "stream_name": None}, "field_choice draws: give stochastic=True"),
    ],
)
def test_refusals(changes, message):
    good = {"input_fields": NAMES, "output_fields": ["face"], "rate": 0.5}
    with pytest.raises(ValueError, match=message):
        FieldChoiceConfig(**({"stochastic": True, "stream_name": "x"} | good | changes))


def test_alternatives_of_other_shapes_are_refused():
    values = batch(2).data
    other = Batch.from_parts({**values, "serif": jnp.zeros((2, 3), jnp.uint8)})
    with pytest.raises(ValueError, match=r"'face' uint8\[2\], 'serif' uint8\[3\]"):
        operator(0.5)(other)
