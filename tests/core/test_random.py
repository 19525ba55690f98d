"""B6: a record draws the same values in whatever batch it arrives."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import Batch, random, split_index

from .examples import (
    FusionOperator,
    Noisy,
    NoisyUniform,
    arrays,
    config,
    indexed,
    records,
    stochastic,
)

STRATEGIES = ("vmap", "scan")


def noisy(kind=Noisy, seed=0, **options):
    return kind(stochastic(**options), rngs=nnx.Rngs(0, noise=seed))


def take(batch, rows):
    return jax.tree.map(lambda x: x[rows] if jnp.ndim(x) else x, batch)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", [Noisy, NoisyUniform])
@pytest.mark.parametrize("make", [records, indexed], ids=["plain", "indexed"])
def test_the_examples_of_the_page(kind, strategy, make):
    drawn = np.asarray(noisy(kind, batch_strategy=strategy)(make(512))["joint"])
    assert drawn.shape == (512,)
    assert len(np.unique(drawn)) > 500
    if kind is NoisyUniform:
        assert 0 <= drawn.min() < 0.01 < 0.09 < drawn.max() < 0.1
    else:
        assert abs(drawn.mean()) < 0.2
        assert 0.85 < drawn.std() < 1.15


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_key_and_real_shapes_without_record_index(strategy):
    seen = []

    class Looking(Noisy):
        def generate_random_params(self, rng, data_shapes):
            seen.append((jnp.shape(rng), data_shapes))
            return super().generate_random_params(rng, data_shapes)

    noisy(Looking, batch_strategy=strategy)(records(5))
    assert seen == [((), {"image": (5, 3), "text": (5, 3)})]
    noisy(Looking, batch_strategy=strategy)(indexed(5))
    assert seen[1:] == [((), {"image": (1, 3), "text": (1, 3)})]


def test_the_key_of_a_record_is_the_one_of_the_design():
    op, batch = noisy(), indexed(4, first=7, epoch=3)
    base = jax.random.wrap_key_data(op.base_key.get_raw_value(), impl="threefry2x32")
    expected = [
        jax.random.normal(jax.random.fold_in(jax.random.fold_in(base, 3), i), (1,))[0]
        for i in range(7, 11)
    ]
    np.testing.assert_array_equal(op(batch)["joint"], np.stack(expected))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("make", [Noisy, NoisyUniform])
def test_invariant_to_batch_size_order_and_split(strategy, make):
    op = noisy(make, batch_strategy=strategy)
    whole = indexed(12)
    expected = np.asarray(op(whole)["joint"])
    order = np.asarray([5, 3, 11, 0, 7, 1, 2, 4, 6, 8, 9, 10])
    np.testing.assert_array_equal(op(take(whole, order))["joint"], expected[order])
    for size in (1, 3, 4):
        parts = [op(take(whole, slice(i, i + size)))["joint"] for i in range(0, 12, size)]
        np.testing.assert_array_equal(np.concatenate(parts), expected)
    twice = take(whole, np.asarray([2, 2, 9]))
    np.testing.assert_array_equal(op(twice)["joint"], expected[[2, 2, 9]])


def test_both_strategies_draw_alike():
    a, b = (noisy(batch_strategy=s)(indexed())["joint"] for s in STRATEGIES)
    np.testing.assert_array_equal(a, b)


def test_invariant_to_resume_and_masks():
    op = noisy()
    expected = np.asarray(op(indexed(12))["joint"])
    fresh = noisy(seed=5)
    fresh.set_state(op.get_state())
    np.testing.assert_array_equal(fresh(indexed(6, first=6))["joint"], expected[6:])
    valid = jnp.arange(12) % 2 == 0
    masked = op(indexed(12, valid_mask=valid))["joint"]
    np.testing.assert_array_equal(masked, np.where(valid, expected, 0))


def test_transforms_draw_alike():
    op, batch = noisy(), indexed()
    expected = op(batch)["joint"]
    np.testing.assert_array_equal(nnx.jit(lambda op, b: op(b)["joint"])(op, batch), expected)
    np.testing.assert_array_equal(jax.jit(lambda b: op(b)["joint"])(batch), expected)
    rows = jax.tree.map(lambda x: x[:, None] if jnp.ndim(x) else x, batch)
    axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, batch)
    each = jax.vmap(lambda b: op(b)["joint"], in_axes=(axes,))(rows)
    np.testing.assert_array_equal(each[:, 0], expected)


SHARDED = """
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from core.test_random import noisy, indexed
assert len(jax.devices()) == 4
op, batch = noisy(), indexed(12)
mesh = Mesh(np.asarray(jax.devices()), ("rows",))
put = lambda x: jax.device_put(x, NamedSharding(mesh, P("rows") if x.ndim else P()))
split = jax.tree.map(put, batch)
assert len(split["image"].sharding.device_set) == 4
expected = np.asarray(op(batch)["joint"])
np.testing.assert_array_equal(op(split)["joint"], expected)
np.testing.assert_array_equal(jax.jit(lambda b: op(b)["joint"])(split), expected)
print("equal")
"""


def test_invariant_to_a_split_over_devices():
    done = subprocess.run(
        [sys.executable, "-c", SHARDED],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "JAX_PLATFORMS": "cpu",
        },
    )
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


def test_epochs_and_seeds_and_operators_differ():
    op = noisy()
    first = np.asarray(op(indexed())["joint"])
    assert not np.intersect1d(first, op(indexed(epoch=1))["joint"]).size
    assert not np.intersect1d(first, noisy(seed=1)(indexed())["joint"]).size
    np.testing.assert_array_equal(noisy()(indexed())["joint"], first)
    np.testing.assert_array_equal(op(indexed())["joint"], first)  # no state advances
    rngs = nnx.Rngs(0, noise=1)
    one, two = Noisy(stochastic(), rngs=rngs), Noisy(stochastic(), rngs=rngs)
    assert not np.intersect1d(one(indexed())["joint"], two(indexed())["joint"]).size


def test_no_epoch_is_epoch_zero():
    index = jnp.arange(6, dtype=jnp.uint32)
    np.testing.assert_array_equal(
        noisy()(records(record_index=index))["joint"], noisy()(indexed(epoch=0))["joint"]
    )


def test_the_same_seed_gives_the_same_numbers_without_record_index():
    one, two, other = noisy(), noisy(), noisy(seed=1)
    first = np.asarray(one(records())["joint"])
    np.testing.assert_array_equal(two(records())["joint"], first)
    second = np.asarray(one(records())["joint"])
    np.testing.assert_array_equal(two(records())["joint"], second)
    assert not np.intersect1d(first, second).size
    assert not np.intersect1d(first, other(records())["joint"]).size


def test_wide_record_numbers():
    op = noisy()
    narrow = np.asarray(op(indexed(4))["joint"])
    small = records(4, record_index=split_index(np.arange(4)), epoch=0)
    np.testing.assert_array_equal(op(small)["joint"], narrow)
    large = records(4, record_index=split_index(np.arange(4) + 2**32), epoch=0)
    larger = records(4, record_index=split_index(np.arange(4) + 2**33), epoch=0)
    drawn = [np.asarray(op(b)["joint"]) for b in (large, larger)]
    assert len(np.unique(np.concatenate([narrow, *drawn]))) == 12
    np.testing.assert_array_equal(op(take(large, np.asarray([3, 1])))["joint"], drawn[0][[3, 1]])


def test_the_epoch_and_the_high_word_are_not_confused():
    op = noisy()
    a = op(records(1, record_index=np.array([[1, 0]], np.uint32), epoch=0))["joint"]
    b = op(records(1, record_index=np.array([[0, 1]], np.uint32), epoch=0))["joint"]
    c = op(records(1, record_index=np.array([[0, 0]], np.uint32), epoch=1))["joint"]
    assert len({float(x[0]) for x in (a, b, c)}) == 3


def test_eval_and_train():
    op = noisy()
    expected = op(indexed())["joint"]
    op.eval()
    np.testing.assert_array_equal(op(indexed())["joint"], np.full(6, -1))  # random_params is None
    np.testing.assert_array_equal(jax.jit(lambda b: op(b)["joint"])(records()), np.full(6, -1))
    op.train()
    np.testing.assert_array_equal(op(indexed())["joint"], expected)


@pytest.mark.parametrize(
    ("draw", "shape"),
    [
        (lambda rng, n: jax.random.normal(rng), r"\(\)"),
        (lambda rng, n: jax.random.normal(rng, (n + 1,)), r"\([27],\)"),
        (lambda rng, n: {"a": jnp.zeros(n), "b": jnp.zeros((3, n))}, r"\(3, [16]\) for b"),
    ],
)
@pytest.mark.parametrize("make", [records, indexed])
def test_a_draw_without_the_leading_axis(draw, shape, make):
    class Wrong(Noisy):
        def generate_random_params(self, rng, data_shapes):
            return draw(rng, data_shapes["image"][0])

    with pytest.raises(ValueError, match=f"batch size [16] on axis 0, got shape {shape}"):
        noisy(Wrong)(make())


@pytest.mark.parametrize("make", [records, indexed])
def test_a_tree_of_draws(make):
    class Tree(Noisy):
        def generate_random_params(self, rng, data_shapes):
            n = data_shapes["image"][0]
            a, b = jax.random.split(rng)
            return {"a": jax.random.normal(a, (n, 2)), "b": [jax.random.normal(b, (n,))]}

        def apply(self, data, state, metadata, random_params=None, stats=None):
            assert random_params["a"].shape == (2,)
            total = random_params["a"].sum() + random_params["b"][0]
            return self._store_outputs(data, [total]), state, metadata

    assert len(np.unique(noisy(Tree)(make())["joint"])) == 6


PLAIN = {
    "jit": lambda f: jax.jit(f),
    "grad": lambda f: jax.grad(lambda x: f(x).sum()),
    "vmap": lambda f: lambda x: jax.vmap(f)(x[None]),
}


@pytest.mark.parametrize("transform", PLAIN.values(), ids=PLAIN)
def test_a_closure_without_record_index_raises_and_says_why(transform):
    op = noisy()

    def f(x):
        return op(Batch.from_parts({"image": x, "text": x}))["joint"]

    with pytest.raises(ValueError, match=r"'noise'.*cannot advance.*same numbers.*record_index"):
        transform(f)(arrays()["image"])
    index = jnp.arange(6, dtype=jnp.uint32)
    with_index = transform(
        lambda x: op(Batch.from_parts({"image": x, "text": x}, record_index=index))["joint"]
    )
    assert jnp.isfinite(with_index(arrays()["image"])).all()


def test_nnx_transforms_advance_the_stream():
    op, eager = noisy(), noisy()
    jitted = nnx.jit(lambda op, b: op(b)["joint"])
    for _ in range(2):
        np.testing.assert_array_equal(jitted(op, records()), eager(records())["joint"])


def test_the_default_implementation_makes_no_difference_to_invariance():
    with jax.default_prng_impl("rbg"):
        op = noisy()
        whole = indexed(12)
        expected = np.asarray(op(whole)["joint"])
        rows = np.asarray([7, 2])
        np.testing.assert_array_equal(op(take(whole, rows))["joint"], expected[rows])
        assert len(np.unique(op(records(12))["joint"])) == 12
        assert random.threefry_data(jax.random.key(0)).shape == (2,)


def test_a_deterministic_operator_draws_nothing():
    op = FusionOperator(config())
    assert op.draw(indexed()) is None


def test_stats_and_draws_together():
    class Both(Noisy):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            return self._store_outputs(data, [random_params * stats["std"]]), state, metadata

    op = noisy(Both, precomputed_stats={"std": np.float32(0)})
    np.testing.assert_array_equal(op(indexed())["joint"], 0)
