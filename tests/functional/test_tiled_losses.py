"""Blocks of logits beside the dense form: values, gradients, traps, products, what is skipped."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from functional_case import on_device
from tiled_cases import VARIANTS

from datarax.functional import (
    info_nce,
    nt_xent,
    sigmoid_contrastive,
    supervised_contrastive,
    symile,
    volume_contrastive,
)
from datarax.functional.contrastive import tiles
from datarax.functional.contrastive.tiles import choose_tile

N, D, TILE = 22, 5, 8
WHERE = np.random.default_rng(1).random(N) < 0.7
IDS = np.random.default_rng(2).integers(0, 6, N).astype(np.int32)
SIZES = np.array([1.0, -2.0, 0.5] * 8)[:N]


def embeddings(*, n=N, d=D, count=2, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, d))
    rows = [shared + rng.normal(size=(n, d)) for _ in range(count)]
    return [jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype) for x in rows]


def nce(a, b, s, c, **options):
    return info_nce(a, b, logit_scale=s, logit_bias=c, **options)


def queue(a, b, s, c, **options):
    more = {"negatives_a": 0.3 * b[:9], "negatives_b": 0.5 * a[:9]}
    if "directions" in options:
        more.pop("negatives_a")
    return info_nce(a, b, logit_scale=s, logit_bias=c, **more, **options)


def lopsided(a, b, s, c, **options):
    """Extra columns for one direction alone, with ids below and among those of the rows."""
    more = {"negatives_b": 0.5 * a[:9], "negatives_ids": jnp.arange(-4, 5)}
    return info_nce(a, b, logit_scale=s, logit_bias=c, **more, **options)


def sigmoid(a, b, s, c, **options):
    return sigmoid_contrastive(a, b, logit_scale=s, logit_bias=c, **options)


def relative(a, b, s, c, **options):
    return sigmoid_contrastive(a, b, logit_scale=s, relative_bias=c, **options)


def views(a, b, s, c, **options):
    return nt_xent(a, b, logit_scale=s, **options)


def labelled(a, b, s, c, **options):
    return supervised_contrastive(a, logit_scale=s, ids=jnp.asarray(IDS), **options)


def mean(losses, where=None):
    return jnp.mean(losses)


def kept_mean(losses, where):
    return jnp.sum(jnp.where(where, losses, 0)) / jnp.sum(where, dtype=losses.dtype)


def weighted(losses, where=None):
    return jnp.sum(losses * jnp.asarray(SIZES, losses.dtype))


FORMS = {
    "both": (nce, mean, {}),
    "both, masked ids": (nce, weighted, {"where": WHERE, "ids": IDS, "label_smoothing": 0.1}),
    "one way": (nce, mean, {"directions": "a_to_b"}),
    "one way, masked": (nce, kept_mean, {"directions": "b_to_a", "where": WHERE}),
    "one way, weighted": (nce, weighted, {"directions": "a_to_b", "where": WHERE, "ids": IDS}),
    "queue": (queue, weighted, {"ids": IDS, "label_smoothing": 0.2}),
    "queue, one way": (queue, kept_mean, {"directions": "a_to_b", "where": WHERE}),
    "queue of one side": (lopsided, weighted, {"ids": IDS, "where": WHERE}),
    "decoupled": (nce, weighted, {"decoupled": True, "where": WHERE}),
    "sigmoid": (sigmoid, mean, {}),
    "sigmoid, weighted": (relative, weighted, {"where": WHERE, "ids": IDS}),
    "views": (views, mean, {}),
    "nt_xent": (views, weighted, {"where": WHERE, "decoupled": True}),
    "supervised": (labelled, weighted, {"where": WHERE}),
}
GATE = (
    "both, masked ids",
    "one way, masked",
    "queue, one way",
    "queue of one side",
    "sigmoid, weighted",
    "nt_xent",
)


def gradients(form, *, tile, sides=(0, 1, 2, 3), **more):
    """Of the objective with respect to the sides, and the losses."""
    run, reduce, options = FORMS[form]
    arrays = {k: jnp.asarray(v) for k, v in options.items() if isinstance(v, np.ndarray)}
    options = {**options, **arrays, **more}

    def objective(a, b, s, c):
        losses = run(a, b, s, c, tile=tile, **options)
        return reduce(losses, options.get("where")), losses

    return jax.grad(objective, sides, has_aux=True)


@pytest.mark.parametrize(
    "form", [pytest.param(f, marks=[] if f in GATE else pytest.mark.slow) for f in FORMS]
)
def test_equals_the_dense_form_with_every_gradient(form, monkeypatch):
    # Chunks of 16 columns where there are some, so that the last is short as the last block is.
    monkeypatch.setattr(tiles, "_CHUNK_BYTES", {"cpu": 1})
    monkeypatch.setattr(tiles, "_LEAST_ROWS", 1)
    with jax.enable_x64(True):
        arguments = (*embeddings(dtype=np.float64), jnp.asarray(7.0), jnp.asarray(-0.5))
        found, exact = jax.jit(
            lambda *x: (gradients(form, tile=TILE)(*x), gradients(form, tile=None)(*x))
        )(*arguments)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("form", ["both", "one way", "views"])
def test_pairs_that_match_have_no_noise_for_a_gradient(form):
    """Of identical pairs the own weight is 1 - 1: a product with it in would leave its rounding."""
    a, _ = embeddings(n=N, d=64)
    found = jax.jit(gradients(form, tile=TILE, sides=(0, 1, 2)))(a, a, 100.0, None)[0]
    assert max(np.abs(x).max() for x in jax.tree.leaves(found)) < 1e-12


@pytest.mark.parametrize("share", [1, 2])
@pytest.mark.parametrize("form", ["both", "one way", "views"])
def test_pairs_that_match_are_as_exact_as_in_the_dense_form(form, share):
    rng = np.random.default_rng(0)
    part = share * rng.normal(size=(256, 128))
    rows = [part + rng.normal(size=(256, 128)) for _ in range(2)]
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows)
    with jax.enable_x64(True):
        exact = jax.jit(gradients(form, tile=None, sides=(0, 1, 2)))(a, b, 20.0, None)[0]
    data = (*(jnp.asarray(x, jnp.float32) for x in (a, b)), 20.0, None)
    errors = []
    for tile in (64, None):
        found = jax.jit(gradients(form, tile=tile, sides=(0, 1, 2)))(*data)[0]
        pairs = zip(in_float64(found), in_float64(exact), strict=True)
        errors.append(max(np.abs(x - y).max() / np.abs(y).max() for x, y in pairs))
    assert errors[0] <= max(2 * errors[1], 1e-6)


@pytest.mark.parametrize("case", VARIANTS, ids=lambda c: c.name)
def test_variant_matches_its_loop(case):
    arrays = case.arrays()
    run, xs = on_device(case, arrays, case.some_mask(), case.labels())
    expected = case.oracle(*(x.astype(np.float64) for x in arrays), case.some_mask(), case.labels())
    np.testing.assert_allclose(jax.jit(run)(*xs), expected, rtol=1e-5, atol=1e-5)


def in_float64(tree):
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]


def _random(a, b):
    return a, b


def _half_identical(a, b):
    return a, np.where(np.arange(len(a))[:, None] % 2 == 0, a, b)


def _opposed(a, b):
    return np.abs(a), -np.abs(b)


def _identical(a, b):
    return a, a


def _one_outlier(a, b):
    """One column that every row prefers by far: its log-sum is 100 above the others'."""
    b = b.copy()
    b[3] = a.mean(axis=0) / np.linalg.norm(a.mean(axis=0))
    return a, b


TRAPS = (_random, _half_identical, _opposed, _identical, _one_outlier)


@pytest.mark.parametrize("form", ["both", "one way", "sigmoid", "views"])
def test_trap_inputs_at_scale_100(form):
    """One shift for all gives -inf or NaN here, a factored exponential wrong gradients."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(2, 64, 48))
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    programs = [jax.jit(gradients(form, tile=t)) for t in (24, None)]
    for make in TRAPS:
        narrow = [x.astype(np.float32) for x in make(*rows)]
        with jax.enable_x64(True):
            wide = [jnp.asarray(x, jnp.float64) for x in narrow]
            exact = in_float64(programs[1](*wide, jnp.asarray(100.0), jnp.asarray(-10.0)))
        tiled, dense = (p(*map(jnp.asarray, narrow), 100.0, -10.0) for p in programs)
        for x, y, z in zip(in_float64(tiled), in_float64(dense), exact, strict=True):
            size = max(np.abs(z).max(), 1)
            ours, theirs = (np.abs(v - z).max() / size for v in (x, y))
            assert ours <= max(2 * theirs, 1e-6), make.__name__
            assert ours <= 1e-5, make.__name__


def products(jaxpr, *, branch=min):
    """Multiplications of a traced program, its loops counted, by the cheaper `branch`."""
    total = 0
    for step in jaxpr.eqns:
        times = step.params.get("length", 1)
        if step.primitive.name == "dot_general":
            ((contracted, _), _) = step.params["dimension_numbers"]
            left = step.invars[0].aval.shape
            total += step.outvars[0].aval.size * np.prod([left[axis] for axis in contracted])
        elif step.primitive.name == "cond":
            total += branch(products(b.jaxpr, branch=branch) for b in step.params["branches"])
        else:
            inner = [getattr(v, "jaxpr", v) for v in step.params.values()]
            inner = [v for v in inner if isinstance(v, jax.extend.core.Jaxpr)]
            total += times * sum(products(v, branch=branch) for v in inner)
    return total


@pytest.mark.parametrize(
    ("form", "size", "all_sides", "locked", "alone"),
    [
        ("both", N * N, 4, 3, 1),
        ("one way", N * N, 3, 2, 1),
        ("sigmoid", N * N, 3, 2, 1),
        ("views", 4 * N * N, 3, 3, 1),
    ],
)
def test_no_product_is_made_that_nothing_needs(form, size, all_sides, locked, alone):
    """The loss alone costs 1, and a tower that is locked (LiT) saves that of its gradient."""
    run, reduce, options = FORMS[form]
    arguments = (*embeddings(), 7.0, -0.5)

    def objective(a, b, s, c):
        return reduce(run(a, b, s, c, tile=TILE, **options))

    def count(function, **how):
        return products(jax.make_jaxpr(function)(*arguments).jaxpr, **how) / (size * D)

    assert count(objective) == alone
    assert count(jax.jit(objective)) == alone
    assert count(jax.grad(objective, (0, 1, 2, 3))) == all_sides
    assert count(jax.grad(objective, (1, 2, 3))) == locked
    assert count(jax.grad(jax.jit(objective), (0, 2))) == locked
    assert count(jax.grad(objective, 2)) <= locked
    dearest = count(jax.grad(objective, (0, 1)), branch=max)
    assert dearest == all_sides + (2 if form in ("one way", "sigmoid") else 0)


def test_mapped_over_batches_equals_a_loop():
    a, b = (x.reshape(2, N // 2, D) for x in embeddings())
    sides = {"directions": "a_to_b", "tile": 4}

    def objective(x, y):
        return jnp.mean(info_nce(x, y, logit_scale=5.0, **sides) * jnp.arange(N // 2.0))

    mapped = jax.jit(jax.vmap(jax.value_and_grad(objective, (0, 1))))(a, b)
    summed = jax.jit(jax.grad(lambda x, y: jnp.sum(jax.vmap(objective)(x, y)), (0, 1)))(a, b)
    single = jax.jit(jax.value_and_grad(objective, (0, 1)))
    looped = jax.tree.map(
        lambda *x: jnp.stack(x), *(single(x, y) for x, y in zip(a, b, strict=True))
    )
    for x, y in zip(jax.tree.leaves(mapped), jax.tree.leaves(looped), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    for x, y in zip(summed, looped[1], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["both, masked ids", "one way, weighted", "nt_xent"])
def test_scale_of_zero_has_its_gradient_without_that_of_a(form):
    a, b = embeddings()
    sides = (2,) if form == "nt_xent" else (1, 2)
    found, exact = jax.jit(
        lambda *x: [gradients(form, tile=tile, sides=sides)(*x)[0] for tile in (TILE, None)]
    )(a, b, 0.0, 0.0)
    for x, y in zip(found, exact, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["one way", "sigmoid"])
def test_derivative_of_a_gradient_in_weights_that_are_equal(form):
    """As in learning to weigh rows: the gradient formed for equal weights depends on each."""
    run, _, options = FORMS[form]
    a, b, along = embeddings(count=3)

    def moved(weights, b, tile):
        def objective(b):
            return weights @ run(a, b, 3.0, -1.0, tile=tile, **options)

        return jnp.vdot(along, jax.grad(objective)(b))

    found, exact = jax.jit(lambda *x: [jax.grad(moved, (0, 1))(*x, tile) for tile in (TILE, None)])(
        jnp.ones(N), b
    )
    for x, y in zip(found, exact, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def volume(a, b, s, c, **options):
    return volume_contrastive([a, b, a * b], logit_scale=s, **options)[0]


def tuples(a, b, s, c, **options):
    return symile([a, b, a + b], logit_scale=s, **options)[0]


@pytest.mark.parametrize("run", [views, labelled, volume, tuples])
def test_a_device_alone_under_shard_map_has_types(run):
    """Its arrays vary over the axis and the scale does not, which is a matter of tracing."""
    mesh = jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = jax.sharding.PartitionSpec("x"), jax.sharding.PartitionSpec()

    def loss(a, b, s):
        return jax.lax.pmean(jnp.mean(run(a, b, s, 0.0, tile=TILE)), "x")

    spread = jax.shard_map(loss, mesh=mesh, in_specs=(rows, rows, whole), out_specs=whole)
    found = jax.eval_shape(jax.grad(spread, (0, 1, 2)), *embeddings(), jnp.float32(3.0))
    assert [x.shape for x in found] == [(N, D), (N, D), ()]


@pytest.mark.parametrize("form", ["both", "one way", "sigmoid", "views"])
def test_rounded_operands_keep_the_gradient(form):
    """Against float64 of the rounded embeddings: well matched pairs, where 1 - P is small."""
    a, b = embeddings(n=64, d=32, seed=4)
    b = 0.8 * a + 0.2 * b
    rounded = [x.astype(jnp.bfloat16) for x in (a, b)]
    found = jax.jit(gradients(form, tile=24, operand_dtype=jnp.bfloat16))(a, b, 20.0, -5.0)

    with jax.enable_x64(True):
        wide = [x.astype(jnp.float64) for x in rounded]
        exact = jax.jit(gradients(form, tile=None))(*wide, jnp.asarray(20.0), jnp.asarray(-5.0))
    assert all(x.dtype == jnp.float32 for x in found[0])
    exact = in_float64(exact)[:2]
    for x, y in zip(in_float64(found), exact, strict=False):
        assert np.abs(x - y).max() <= 4e-3 * np.abs(y).max()


@pytest.mark.parametrize("form", ["both", "sigmoid"])
def test_small_weights_of_a_large_batch_stay_in_float16(form):
    """Its least number is 6e-8; weights of 1e-8 stand for those of many rows."""
    run, _, options = FORMS[form]

    def objective(a, b, weights):
        losses = run(a, b, 3.0, -1.0, tile=TILE, operand_dtype=jnp.float16, **options)
        return weights @ losses

    sides = jax.jit(jax.grad(objective, (0, 1)))
    a, b = embeddings()
    weights = jnp.asarray(SIZES, jnp.float32)
    for small, large in zip(sides(a, b, 1e-8 * weights), sides(a, b, weights), strict=True):
        np.testing.assert_allclose(1e8 * small, large, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_embeddings_have_narrow_gradients(dtype):
    a, b = (x.astype(dtype) for x in embeddings())
    (of_a, _, of_s, _), losses = jax.jit(gradients("both", tile=TILE))(a, b, 7.0, -0.5)
    exact = jax.jit(gradients("both", tile=None))(
        *(x.astype(jnp.float32) for x in (a, b)), 7.0, 0.0
    )
    assert of_a.dtype == dtype
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, exact[1], rtol=1e-5)
    np.testing.assert_allclose(of_a.astype(jnp.float32), exact[0][0], rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(of_s, exact[0][2], rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (4096, 4096, 512),
        (600, 600, 304),
        (4097, 4097, 464),
        (65536, 65536, 256),
        (5, 5, 5),
        (1, 9, 1),
    ],
)
def test_blocks_are_about_equally_long(rows, columns, expected):
    assert choose_tile(rows, columns) == expected


def test_a_budget_bounds_the_block():
    assert choose_tile(4096, 4096, budget=4096 * 4 * 128) == 128
    assert choose_tile(4096, 4096, budget=1) == 64


def test_many_rows_are_taken_in_blocks_by_default():
    """Seen in the memory of the program: two of a gradient and a block, not n x n."""
    n, d = 1024, 8
    a, b = embeddings(n=n, d=d)
    program = jax.jit(jax.grad(lambda x: jnp.mean(info_nce(x, b, logit_scale=5.0))))
    assert program.lower(a).compile().memory_analysis().temp_size_in_bytes < 3.2e6 < 4 * n * n
    assert (nce(a, b, 5.0, 0.0) >= 0).all()


def test_errors_of_blocks():
    a, b = embeddings()
    with pytest.raises(ValueError, match="tile must be at least 1"):
        info_nce(a, b, logit_scale=1.0, tile=0)
    with pytest.raises(ValueError, match="targets are taken whole"):
        sigmoid_contrastive(
            a, b, logit_scale=1.0, logit_bias=0.0, targets=jnp.zeros((N, N)), tile=4
        )
    with pytest.raises(ValueError, match="taken whole"):
        supervised_contrastive(a, logit_scale=1.0, targets=jnp.zeros((N, N)), tile=4)
    with pytest.raises(ValueError, match="is read by direction 'a_to_b'"):
        info_nce(a, b, logit_scale=1.0, tile=4, directions="b_to_a", negatives_b=b)
