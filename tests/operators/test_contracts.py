"""Every operator of the table keeps every contract."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from operator_row import ROWS, batch_of, floats
from operator_table import TABLE

from datarax.core import Batch

every = pytest.mark.parametrize("name", TABLE)
ODD = np.array([True, False, True, True, False, True])


def objective(op, batch, field):
    out = op(batch)
    return jnp.sum(jnp.sin(out[field].astype(jnp.float32)))


def gradient(op, batch, field):
    def loss(data):
        return objective(op, batch.replace(data={**batch.data, **data}), field)

    return jax.grad(loss)(floats(batch))


def same(a, b, **tolerance):
    tolerance = {"rtol": 2e-5, "atol": 2e-6} | tolerance
    np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), **tolerance)


@every
def test_shape_and_spec(name):
    row = TABLE[name]
    op, batch = row.make(), batch_of(row)
    field, shape = row.out
    assert op(batch)[field].shape == (ROWS, *shape)
    spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch.data)
    out = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), op(batch).data)
    assert op.output_spec(spec) == out


@every
def test_jit_equals_eager(name):
    row = TABLE[name]
    op, batch = row.make(), batch_of(row, valid_mask=jnp.asarray(ODD))
    eager = op(batch)
    traced = nnx.jit(lambda op, batch: op(batch))(row.make(), batch)
    jax.tree.map(same, eager.data, traced.data)
    assert eager.presence.keys() == traced.presence.keys()


@every
def test_scan_equals_vmap(name):
    row = TABLE[name]
    if row.relates_rows or name == "sequential":
        pytest.skip("has no map over records of its own")
    op = row.make()
    options = {f: getattr(op.config, f) for f in op.config.__dataclass_fields__}
    scan = op.copy(config=type(op.config)(**{**options, "batch_strategy": "scan"}))
    batch = batch_of(row, valid_mask=jnp.asarray(ODD))
    same(scan(batch)[row.out[0]], op(batch)[row.out[0]])


@every
def test_garbage_in_skipped_rows_changes_nothing(name):
    row = TABLE[name]
    op, field = row.make(), row.out[0]
    batch = batch_of(row, valid_mask=jnp.asarray(ODD))
    clean = op(batch)
    for garbage in (jnp.nan, jnp.inf):
        data = {
            n: x.at[jnp.asarray(~ODD)].set(garbage) if jnp.issubdtype(x.dtype, jnp.floating) else x
            for n, x in batch.data.items()
        }
        dirty = batch.replace(data=data)
        out = op(dirty)
        same(out[field], clean[field], rtol=0, atol=0)
        assert not np.any(np.asarray(out[field][~ODD]))
        assert out.presence[field].tolist() == ODD.tolist()
        for grad in gradient(op, dirty, field).values():
            assert np.all(np.isfinite(grad))
            assert not np.any(np.asarray(grad)[~ODD])
        parameters = nnx.grad(objective)(op, dirty, field)
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(parameters))


@every
def test_absent_field(name):
    row = TABLE[name]
    op, field = row.make(), row.out[0]
    lacking = next(iter(row.shapes))
    batch = batch_of(row, presence={lacking: jnp.asarray(ODD)})
    dirty = batch.replace(
        data={**batch.data, lacking: batch[lacking].at[jnp.asarray(~ODD)].set(jnp.nan)}
    )
    out = op(dirty)
    alone = len(row.shapes) - 1 < 2 and (row.relates_rows or not row.absent_ok)
    there = ODD if alone or not row.absent_ok else np.ones(ROWS, bool)
    assert out.presence[field].tolist() == there.tolist()
    assert np.all(np.isfinite(out[field]))
    assert not np.any(np.asarray(out[field])[~there])
    grads = gradient(op, dirty, field)
    assert not np.any(np.asarray(grads[lacking])[~ODD])
    assert all(np.all(np.isfinite(g)) for g in grads.values())


@every
def test_all_absent(name):
    row = TABLE[name]
    op, field = row.make(), row.out[0]
    none = jnp.zeros(ROWS, bool)
    batch = batch_of(row, presence=dict.fromkeys(row.shapes, none))
    out = op(batch)
    assert not np.any(np.asarray(out[field]))
    assert not np.any(np.asarray(out.presence[field]))
    for grad in gradient(op, batch, field).values():
        assert not np.any(np.asarray(grad))


@every
@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(name, rows):
    row = TABLE[name]
    op, field = row.make(), row.out[0]
    batch = batch_of(row, rows=rows)
    out = op(batch)
    assert out[field].shape == (rows, *row.out[1])
    assert np.all(np.isfinite(out[field]))
    if rows:
        assert all(np.all(np.isfinite(g)) for g in gradient(op, batch, field).values())


@every
def test_zero_and_identical_records(name):
    row = TABLE[name]
    op, field = row.make(), row.out[0]
    batch = batch_of(row)
    for value in (0.0, 1.0):
        flat = batch.replace(
            data={**batch.data, **{n: jnp.full_like(x, value) for n, x in floats(batch).items()}}
        )
        assert np.all(np.isfinite(op(flat)[field]))
        assert all(np.all(np.isfinite(g)) for g in gradient(op, flat, field).values())


@every
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision(name, dtype):
    row = TABLE[name]
    op, field = row.make(), row.out[0]
    half = batch_of(row, dtype=dtype)
    wide = batch_of(row).replace(
        data={n: x.astype(jnp.float32) if n in floats(half) else x for n, x in half.data.items()}
    )
    expected = np.asarray(op(wide)[field], np.float64)
    close = 0.06 * max(1.0, float(np.abs(expected).max()))
    same(op(half)[field].astype(jnp.float32), expected, rtol=0, atol=close)


@every
def test_permuting_rows_permutes_results(name):
    row = TABLE[name]
    op, field = row.make(), row.out[0]
    batch = batch_of(row)
    order = jnp.asarray([3, 0, 5, 1, 4, 2])
    permuted = batch.replace(data=jax.tree.map(lambda x: x[order], batch.data))
    same(op(permuted)[field], op(batch)[field][order])


@every
def test_parameters_get_gradients(name):
    row = TABLE[name]
    op = row.make()
    grads = jax.tree.leaves(nnx.grad(objective)(op, batch_of(row), row.out[0]))
    assert all(np.all(np.isfinite(g)) for g in grads)
    if nnx.state(op, nnx.Param):
        assert any(np.any(np.asarray(g) != 0) for g in grads)


@every
def test_gradient_by_differences(name):
    row = TABLE[name]
    op, field = row.make(), row.out[0]
    batch = batch_of(row)
    target = next(iter(row.shapes))
    grads = gradient(op, batch, field)[target]
    direction = batch_of(row, seed=1)[target]
    step = 1e-3

    def moved(sign):
        data = {**batch.data, target: batch[target] + sign * step * direction}
        return float(objective(op, batch.replace(data=data), field))

    numeric = (moved(1) - moved(-1)) / (2 * step)
    same(jnp.sum(grads * direction), numeric, rtol=3e-2, atol=5e-3)


@every
def test_inputs_are_untouched(name):
    row = TABLE[name]
    batch = batch_of(row)
    before = {n: np.array(x) for n, x in batch.data.items()}
    out = row.make()(batch)
    assert isinstance(out, Batch)
    for n, x in before.items():
        same(batch[n], x, rtol=0, atol=0)
