"""B5: rows processed and skipped, wherever NNX can carry the count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import Batch

from .examples import FusionOperator, PairLoss, arrays, config, counts, records

VALID = jnp.asarray([True, True, True, True, False, False])
TEXT = jnp.asarray([True, True, False, True, True, False])
BOTH = (3, 3)  # rows 0, 1, 3


def masked():
    return records(valid_mask=VALID, presence={"text": TEXT})


def loss(op, batch):
    return op(batch)["joint"].sum()


@pytest.fixture(params=[FusionOperator, PairLoss], name="op")
def _op(request):
    return request.param(config())


CALLS = {
    "eager": lambda op, b: op(b),
    "nnx.jit": nnx.jit(lambda op, b: op(b).data),
    "nnx.grad": lambda op, b: nnx.grad(loss)(op, b),
    "nnx.value_and_grad": lambda op, b: nnx.value_and_grad(loss)(op, b),
    "nnx.jit(nnx.grad)": lambda op, b: nnx.jit(lambda op, b: nnx.grad(loss)(op, b))(op, b),
    "nnx.cond": lambda op, b: nnx.cond(jnp.bool_(True), loss, lambda op, b: jnp.zeros(()), op, b),
    "nnx.remat": lambda op, b: nnx.remat(loss)(op, b),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_counts(op, call):
    call(op, masked())
    assert counts(op) == BOTH
    call(op, records())
    assert counts(op) == (9, 3)


def test_a_branch_not_taken_counts_nothing(op):
    nnx.cond(jnp.bool_(False), loss, lambda op, b: jnp.zeros(()), op, masked())
    assert counts(op) == (0, 0)


@pytest.mark.parametrize("parts", [{"valid_mask": VALID}, {"presence": {"text": TEXT}}])
def test_each_mask_by_itself(op, parts):
    op(records(**parts))
    assert counts(op) == (4, 2)


def test_presence_of_a_field_not_required_is_no_skip(op):
    batch = Batch.from_parts(
        arrays(names=("image", "text", "sound")), presence={"sound": jnp.zeros(6, bool)}
    )
    op(batch)
    assert counts(op) == (6, 0)


def test_a_scan_with_the_operator_carried(op):
    stack = {name: jnp.stack([x, x, x]) for name, x in arrays().items()}
    mask = jnp.stack([VALID, ~VALID, VALID])

    @nnx.scan(in_axes=(nnx.Carry, 0, 0), out_axes=(nnx.Carry, 0))
    def steps(op, data, mask):
        return op, op(Batch.from_parts(data, valid_mask=mask))["joint"]

    steps(op, stack, mask)
    assert counts(op) == (10, 8)
    op(masked())  # eagerly on top of what the device counted
    assert counts(op) == (13, 11)


CLOSURES = {
    "jax.jit": lambda op, b: jax.jit(lambda data: op(b.replace(data=data)).data)(b.data),
    "jax.vmap": lambda op, b: jax.vmap(lambda data: op(b.replace(data=data))["joint"])(
        jax.tree.map(lambda x: jnp.stack([x, x]), b.data)
    ),
    "jax.grad": lambda op, b: jax.grad(lambda data: loss(op, b.replace(data=data)))(b.data),
    "jax.jit(jax.grad)": lambda op, b: jax.jit(
        jax.grad(lambda data: loss(op, b.replace(data=data)))
    )(b.data),
    "jax.lax.scan": lambda op, b: jax.lax.scan(
        lambda c, data: (c, op(b.replace(data=data))["joint"]),
        0,
        jax.tree.map(lambda x: x[None], b.data),
    ),
    "jax.eval_shape": lambda op, b: jax.eval_shape(lambda data: op(b.replace(data=data)), b.data),
}


@pytest.mark.parametrize("call", CLOSURES.values(), ids=CLOSURES)
def test_plain_closures_work_and_count_nothing(op, call):
    op(masked())
    call(op, masked())
    assert counts(op) == BOTH
    assert not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(nnx.state(op)))
    op(masked())  # and the operator is whole
    assert counts(op) == (6, 6)


@pytest.mark.parametrize("call", CLOSURES.values(), ids=CLOSURES)
def test_the_mask_may_be_traced_too(op, call):
    def traced(data, mask):
        return op(Batch.from_parts(data, valid_mask=mask))["joint"]

    out = jax.jit(traced)(arrays(), VALID)
    np.testing.assert_allclose(out, op(records(valid_mask=VALID))["joint"], rtol=1e-5)


def test_python_ints_and_reset(op):
    op(masked())
    got = op.get_operation_stats()
    assert got == {"applied_count": 3, "skipped_count": 3}
    assert all(type(x) is int for x in got.values())
    op.reset_operation_stats()
    assert counts(op) == (0, 0)
    nnx.jit(loss)(op, masked())
    assert counts(op) == BOTH
    op.reset_operation_stats()
    assert counts(op) == (0, 0)


def test_counters_are_variables_but_no_parameters(op):
    assert isinstance(op.applied_count, nnx.Variable)
    assert isinstance(op.skipped_count, nnx.Variable)
    paths = [path for path, _ in nnx.to_flat_state(nnx.state(op, nnx.Param))]
    assert not any("count" in str(path) for path in paths)


def test_counting_is_modulo_two_to_the_32(op):
    op.applied_count.set_raw_value(np.uint32(2**32 - 2))
    op(records())
    assert counts(op)[0] == 4


def test_an_empty_batch_counts_nothing(op):
    op(records(0))
    nnx.jit(loss)(op, records(0))
    assert counts(op) == (0, 0)


def test_a_mask_on_the_host_counts_alike(op):
    op(records(valid_mask=np.asarray(VALID), presence={"text": np.asarray(TEXT)}))
    assert counts(op) == BOTH
