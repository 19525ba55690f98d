"""One of several operators for each record, and compositions from tables of a TOML file."""

import tomllib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import Batch
from datarax.operators import (
    AlignmentOperator,
    AlignmentOperatorConfig,
    Crop,
    CropConfig,
    Identity,
    Normalize,
    NormalizeConfig,
    OneOf,
    RandomFlip,
    RandomFlipConfig,
    Sequential,
    build_operator,
)

FIELD = {"input_fields": ["x"], "output_fields": ["x"]}


def shift(amount, **fields):
    return Normalize(NormalizeConfig(**(FIELD | fields), mean=-float(amount), std=1.0))


def one_of(operators, probabilities=None, seed=0):
    return OneOf(operators, probabilities, rngs=nnx.Rngs(seed))


def batch(index, epoch=0, **parts):
    index = jnp.asarray(index, jnp.uint32)
    data = {"x": jnp.zeros((len(index), 2)), "y": jnp.ones((len(index), 1))}
    return Batch.from_parts(data, record_index=index, epoch=jnp.uint32(epoch), **parts)


@pytest.mark.parametrize("probabilities", [None, [0.2, 0.5, 0.3], [0.0, 1.0, 0.0]])
def test_each_comes_as_often_as_asked_and_alone(probabilities):
    parts = [shift(1), shift(2), shift(3)]
    out = one_of(parts, probabilities)(batch(np.arange(4000)))
    x = np.asarray(out["x"])
    assert (x[:, 0] == x[:, 1]).all()
    shares = [np.mean(x[:, 0] == amount) for amount in (1, 2, 3)]
    np.testing.assert_allclose(shares, probabilities or [1 / 3] * 3, atol=0.025)
    assert sum(shares) == 1
    counts = [part.get_operation_stats()["applied_count"] for part in parts]
    np.testing.assert_array_equal(np.array(counts), np.array(shares) * 4000)


def test_a_record_draws_the_same_anywhere():
    op = Sequential([one_of([shift(1), shift(2), Identity()]), shift(10)])

    def run(index, epoch=0):
        return np.asarray(op(batch(index, epoch))["x"])[:, 0]

    whole = run(np.arange(60))
    assert set(whole) == {10, 11, 12}
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_array_equal(run(order), whole[order])
    np.testing.assert_array_equal(run(order[:7]), whole[order[:7]])
    assert (run(np.arange(60), epoch=1) != whole).any()
    traced = nnx.jit(lambda op, batch: op(batch))(op, batch(np.arange(60)))
    np.testing.assert_array_equal(traced["x"][:, 0], whole)


def test_evaluation_takes_the_first():
    op = one_of([shift(1), shift(2)])
    op.eval()
    assert (np.asarray(op(batch(np.arange(9)))["x"]) == 1).all()
    flip = RandomFlip(
        RandomFlipConfig(**FIELD, horizontal=1.0, stochastic=True, stream_name="noise"),
        rngs=nnx.Rngs(0),
    )
    op = one_of([flip, shift(2)])
    pictures = Batch.from_parts({"x": jnp.arange(12.0).reshape(2, 2, 3)})
    op.eval()
    np.testing.assert_array_equal(op(pictures)["x"], pictures["x"])


def test_masks_are_those_of_each_operator():
    """A row that is invalid or lacks what its operator needs is empty, whoever drew it."""
    there, valid = np.arange(40) % 3 > 0, np.arange(40) % 4 > 0
    op = one_of([shift(1), shift(2, input_fields=["y"]), Identity()])
    records = batch(np.arange(40), presence={"x": jnp.asarray(there)}, valid_mask=valid)
    records = records.replace(
        data={**records.data, "x": jnp.where(jnp.asarray(there)[:, None], records["x"], jnp.nan)}
    )
    with pytest.raises(ValueError, match=r"\(Normalize\) leaves x float32\[2\], .* float32\[1\]"):
        op(records)
    records = records.replace(data={**records.data, "y": jnp.ones((40, 2))})
    drawn = np.asarray(op.draw(records))
    assert set(drawn[valid & there]) == {0, 1, 2}
    out = op(records)
    presence = np.where(drawn == 1, valid, valid & there)
    np.testing.assert_array_equal(out.presence["x"], presence)
    values = np.array([1.0, 3.0, 0.0])[drawn]
    np.testing.assert_array_equal(out["x"][:, 0], np.where(presence, values, 0))
    assert out["y"] is records["y"]
    np.testing.assert_array_equal(out.valid_mask, valid)


def test_what_was_not_drawn_has_gradient_zero():
    class Root(Normalize):
        def transform(self, x, random_params, stats):
            return jnp.sqrt(x)

    op = one_of([Root(NormalizeConfig(**FIELD)), shift(1)])
    records = batch(np.arange(20))
    drawn = np.asarray(op.draw(records))
    x = jnp.asarray(np.where(drawn == 0, 4.0, 0.0)[:, None] * np.ones((1, 2)), jnp.float32)

    def total(x):
        return jnp.sum(op(records.replace(data={**records.data, "x": x}))["x"])

    expected = np.where(drawn == 0, 0.25, 1.0)
    np.testing.assert_allclose(jax.grad(total)(x)[:, 0], expected)


def test_one_of_refuses():
    with pytest.raises(ValueError, match="OneOf needs at least one operator"):
        one_of([])
    with pytest.raises(TypeError, match="OneOf takes operators, got function"):
        one_of([shift(1), lambda batch: batch])
    with pytest.raises(ValueError, match=r"probabilities must be 2 numbers, got \[1.0\]"):
        one_of([shift(1), shift(2)], [1.0])
    with pytest.raises(ValueError, match="probabilities must have sum 1"):
        one_of([shift(1), shift(2)], [0.5, 0.6])
    with pytest.raises(ValueError, match="probabilities must be a number in"):
        one_of([shift(1), shift(2)], [1.5, -0.5])
    with pytest.raises(ValueError, match="needs rngs"):
        OneOf([shift(1)])
    gap = AlignmentOperatorConfig(
        input_fields=["x", "y"], output_fields=["x"], method="modality_gap"
    )
    with pytest.raises(ValueError, match="single records, AlignmentOperator relates rows"):
        one_of([AlignmentOperator(gap)])
    crop = Crop(CropConfig(**FIELD, size=(1, 1)))
    pictures = Batch.from_parts({"x": jnp.zeros((2, 3, 3))})
    with pytest.raises(ValueError, match=r"operators\[1\] \(Crop\) x float32\[1, 1\]"):
        one_of([shift(1), crop])(pictures)


TABLE = """
operation = "sequential"
[[operators]]
operation = "random_crop"
input_fields = ["image"]
output_fields = ["image"]
size = [4, 4]
padding = 1
stochastic = true
stream_name = "augmentation"
[[operators]]
operation = "one_of"
probabilities = [0.25, 0.75]
stream_name = "choice"
[[operators.operators]]
operation = "identity"
[[operators.operators]]
operation = "normalize"
input_fields = ["image"]
output_fields = ["image"]
mean = 0.5
std = 0.5
"""


def test_compositions_from_a_table():
    op = build_operator(tomllib.loads(TABLE), rngs=nnx.Rngs(0))
    assert isinstance(op, Sequential)
    choice = op.operators[1]
    assert isinstance(choice, OneOf)
    assert choice.probabilities == (0.25, 0.75)
    assert choice.config.stream_name == "choice"
    index = jnp.arange(200, dtype=jnp.uint32)
    out = op(Batch.from_parts({"image": jnp.ones((200, 6, 6, 3)) / 2}, record_index=index))
    assert out["image"].shape == (200, 4, 4, 3)
    changed = np.asarray(out["image"])[:, 1, 1, 0] == 0
    assert changed.mean() == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"one_of"', '"on_of"'), r"operators\[1\] of 'sequential': .*did you mean 'one_of'"),
        (
            ('"normalize"', '"normalise"'),
            r"operators\[1\] of 'sequential': operators\[1\] of 'one_of': .*mean 'normalize'",
        ),
        (("padding =", "paddding ="), r"operators\[0\].*'paddding'.*did you mean 'padding'"),
        (("probabilities =", "probabilitis ="), "'probabilitis' of operation 'one_of'"),
        (("[0.25, 0.75]", "0.25"), r"operators\[1\].*probabilities must be a list of numbers"),
        (("[0.25, 0.75]", "[0.25]"), r"operators\[1\].*probabilities must be 2 numbers"),
        (("size = [4, 4]\n", ""), r"operators\[0\] of 'sequential': .*needs \['size'\]"),
    ],
)
def test_tables_say_what_is_wrong_and_where(change, message):
    with pytest.raises(ValueError, match=message):
        build_operator(tomllib.loads(TABLE.replace(*change)), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("operators", [None, "crop", [1]])
def test_operators_must_be_tables(operators):
    with pytest.raises(ValueError, match="operators of 'sequential' must be a list of tables"):
        build_operator({"operation": "sequential", "operators": operators})
