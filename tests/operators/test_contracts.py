"""Every operator of the table keeps every contract."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from operator_row import ROWS, batch_of, floats
from operator_table import TABLE, VARIANTS

from datarax.core import Batch, CrossModalOperator

every = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in VARIANTS else []) for n in TABLE],
)
# What costs a program of its own: every third row in the gate, all of them in `make test-all`.
THIRD = [name for name in TABLE if name not in VARIANTS][::3]
sampled = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in THIRD else pytest.mark.slow) for n in TABLE],
)
ODD = np.array([True, False, True, True, False, True])
ALL = np.ones(ROWS, bool)


def objective(op, batch, field):
    out = op(batch)
    return jnp.sum(jnp.sin(out[field].astype(jnp.float32))), out


@lru_cache(maxsize=4)
def compiled(name):
    """One program a row: what comes out, and the gradients by parameters and by data."""
    row = TABLE[name]
    graph, parameters, rest = nnx.split(row.make(), nnx.Param, ...)

    def run(batch):
        def value(parameters, data):
            op = nnx.merge(graph, parameters, rest)
            return objective(op, batch.replace(data={**batch.data, **data}), row.out[0])

        gradients, out = jax.grad(value, (0, 1), has_aux=True)(parameters, floats(batch))
        return out[row.out[0]], out.presence[row.out[0]], *gradients

    return jax.jit(run)


def masked_batch(name, *, valid=ALL, present=None, seed=0, rows=ROWS):
    """Records of a row with every mask given, so that all tests share one program."""
    row = TABLE[name]
    presence = {field: jnp.asarray(ALL[:rows]) for field in row.shapes}
    presence |= {field: jnp.asarray(mask) for field, mask in (present or {}).items()}
    return batch_of(row, seed, rows, valid_mask=jnp.asarray(valid[:rows]), presence=presence)


def replaced(batch, change):
    """The batch with `change(field, value)` in place of its floating fields."""
    return batch.replace(data={**batch.data, **{n: change(n, x) for n, x in floats(batch).items()}})


def spoiled(x, rows, garbage):
    """The array with `garbage` in these rows; in NumPy, where it costs no program."""
    return np.where(rows.reshape(-1, *[1] * (x.ndim - 1)), np.asarray(garbage, x.dtype), x)


def all_finite(*trees):
    return all(np.isfinite(x).all() for x in jax.tree.leaves(trees))


def same(a, b, **tolerance):
    tolerance = {"rtol": 2e-5, "atol": 2e-6} | tolerance
    np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), **tolerance)


@every
def test_shape_and_spec(name):
    row = TABLE[name]
    op, batch = row.make(), batch_of(row)
    field, shape = row.out
    out = jax.eval_shape(op, batch)
    assert isinstance(out, Batch)
    assert out[field].shape == (ROWS, *shape)
    spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch.data)
    told = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), out.data)
    assert op.output_spec(spec) == told


@sampled
def test_jit_equals_eager(name):
    row = TABLE[name]
    batch = masked_batch(name, valid=ODD)
    eager = row.make()(batch)
    value, presence, *_ = compiled(name)(batch)
    same(eager[row.out[0]], value)
    assert eager.presence[row.out[0]].tolist() == presence.tolist()
    for n, x in masked_batch(name, valid=ODD).data.items():
        same(batch[n], x, rtol=0, atol=0)


@sampled
def test_scan_equals_vmap(name):
    row = TABLE[name]
    op = row.make()
    if row.relates_rows or not isinstance(op, CrossModalOperator):
        pytest.skip("has no map over records of its own")
    options = {f: getattr(op.config, f) for f in op.config.__dataclass_fields__}
    scan = op.copy(config=type(op.config)(**{**options, "batch_strategy": "scan"}))
    batch = masked_batch(name, valid=ODD)
    same(scan(batch)[row.out[0]], compiled(name)(batch)[0])


@every
@pytest.mark.parametrize("garbage", [np.nan, np.inf])
def test_garbage_in_skipped_rows_changes_nothing(name, garbage):
    batch = masked_batch(name, valid=ODD)
    dirty = replaced(batch, lambda n, x: spoiled(x, ~ODD, garbage))
    clean, value = compiled(name)(batch)[0], compiled(name)(dirty)
    same(value[0], clean, rtol=0, atol=0)
    assert not np.any(np.asarray(value[0])[~ODD])
    assert value[1].tolist() == ODD.tolist()
    assert all_finite(value)
    assert not any(np.any(np.asarray(g)[~ODD]) for g in value[3].values())


@every
def test_absent_field(name):
    row = TABLE[name]
    lacking = next(iter(row.shapes))
    batch = masked_batch(name, present={lacking: ODD})
    dirty = replaced(batch, lambda n, x: spoiled(x, ~ODD, np.nan) if n == lacking else x)
    value, presence, parameters, gradients = compiled(name)(dirty)
    alone = len(row.shapes) - 1 < 2 and (row.relates_rows or not row.absent_ok)
    there = ODD if alone or not row.absent_ok else ALL
    assert presence.tolist() == there.tolist()
    assert all_finite(value, parameters, gradients)
    assert not np.any(np.asarray(value)[~there])
    if lacking in gradients:
        assert not np.any(np.asarray(gradients[lacking])[~ODD])


@every
def test_all_absent(name):
    batch = masked_batch(name, present=dict.fromkeys(TABLE[name].shapes, ~ALL))
    value, presence, _, gradients = compiled(name)(batch)
    if not TABLE[name].fills:
        assert not np.any(np.asarray(value))
        assert not np.any(np.asarray(presence))
    assert not any(np.any(np.asarray(g)) for g in gradients.values())


@sampled
def test_no_rows(name):
    row = TABLE[name]
    assert row.make()(batch_of(row, rows=0))[row.out[0]].shape == (0, *row.out[1])


@sampled
def test_one_row(name):
    value = compiled(name)(masked_batch(name, rows=1))
    assert value[0].shape == (1, *TABLE[name].out[1])
    assert all_finite(value)


@every
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_zero_and_identical_records(name, value):
    flat = replaced(masked_batch(name), lambda n, x: np.full_like(x, value))
    assert all_finite(compiled(name)(flat))


@sampled
@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_half_precision(name, dtype):
    row = TABLE[name]
    half, wide = batch_of(row, dtype=dtype), masked_batch(name)
    wide = wide.replace(
        data={n: x.astype(jnp.float32) if n in floats(half) else x for n, x in half.data.items()}
    )
    expected = np.asarray(compiled(name)(wide)[0], np.float64)
    close = 0.06 * max(1.0, float(np.abs(expected).max()))
    same(row.make()(half)[row.out[0]].astype(jnp.float32), expected, rtol=0, atol=close)


@every
def test_permuting_rows_permutes_results(name):
    batch = masked_batch(name)
    order = jnp.asarray([3, 0, 5, 1, 4, 2])
    permuted = batch.replace(
        data=jax.tree.map(lambda x: x[order], batch.data), record_index=batch.record_index[order]
    )
    same(compiled(name)(permuted)[0], compiled(name)(batch)[0][order])


@every
def test_parameters_get_gradients(name):
    row = TABLE[name]
    absent = dict.fromkeys(row.shapes, ODD) if row.fills else None  # learned where a field lacks
    gradients = jax.tree.leaves(compiled(name)(masked_batch(name, present=absent))[2])
    assert all_finite(gradients)
    assert not gradients or any(np.any(np.asarray(g) != 0) for g in gradients)


@every
def test_gradient_by_differences(name):
    row = TABLE[name]
    batch = masked_batch(name)
    target = next((n for n in row.shapes if n in floats(batch)), None)
    if target is None:
        pytest.skip("reads no floating field")
    direction = np.asarray(masked_batch(name, seed=1)[target])
    step = 1e-3

    def moved(sign):
        there = replaced(batch, lambda n, x: x + sign * step * direction if n == target else x)
        return float(np.sum(np.sin(np.asarray(compiled(name)(there)[0], np.float32))))

    numeric = (moved(1) - moved(-1)) / (2 * step)
    gradient = compiled(name)(batch)[3][target]
    same(np.sum(gradient * direction), numeric, rtol=3e-2, atol=5e-3)
