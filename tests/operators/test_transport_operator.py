"""The transport operator: what it writes, reads from a table, and refuses."""

import jax.numpy as jnp
import numpy as np
import pytest

from datarax.core import Batch
from datarax.operators import TransportOperator, TransportOperatorConfig, build_operator

FIELDS = {"input_fields": ["a", "b"], "output_fields": ["loss", "brought", "converged", "plan"]}


def test_tokens_find_their_copies_and_ignore_padding():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 3)).astype(np.float32)
    y = np.concatenate([x[:, [2, 0, 3, 1]], np.full((2, 1, 3), np.nan, np.float32)], axis=1)
    keep = jnp.asarray([[True] * 4 + [False]] * 2)
    table = {"operation": "transport", **FIELDS, "target_mask": "keep", "epsilon": 0.005}
    batch = Batch.from_parts({"a": jnp.asarray(x), "b": jnp.asarray(y), "keep": keep})
    out = build_operator(table | {"num_iterations": 1000})(batch)
    np.testing.assert_allclose(out["brought"], x, atol=1e-3)
    assert out["converged"].tolist() == [True, True]
    assert not np.any(np.asarray(out["plan"])[:, :, 4])


def test_rows_without_both_fields_take_no_part():
    rng = np.random.default_rng(1)
    a, b = (jnp.asarray(rng.normal(size=(5, 3)), jnp.float32) for _ in range(2))
    config = TransportOperatorConfig(
        input_fields=["a", "b"],
        output_fields=["loss", "brought", "converged"],
        level="rows",
        epsilon=0.5,
    )
    there = jnp.asarray([True, True, False, True, True])
    out = TransportOperator(config)(
        Batch.from_parts({"a": a.at[2].set(jnp.nan), "b": b}, presence={"a": there})
    )
    alone = TransportOperator(config)(Batch.from_parts({"a": a[there], "b": b[there]}))
    np.testing.assert_allclose(out["loss"][there], alone["loss"], rtol=1e-5)
    np.testing.assert_allclose(out["brought"][there], alone["brought"], rtol=1e-4)
    assert out["converged"].tolist() == [True, True, False, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sliced"}, r"method must be one of \['balanced', 'unbalanced'"),
        ({"level": "batch"}, r"level must be one of \['tokens', 'rows'\], got 'batch'"),
        ({"level": "rows"}, "level 'rows' writes no plan, got output_fields"),
        ({"objective": "primal"}, "objective must be one of"),
        ({"metric": "l1"}, "metric must be one of"),
        ({"method": "partial", "objective": "divergence"}, "'divergence' is of method 'balanced'"),
        ({"mass": 0.25}, r"mass=0.25 is read by \['partial'\] only, got 'balanced'"),
        ({"method": "partial", "mass": 2.0}, r"mass must be a number in \(0, 1\], got 2"),
        ({"epsilon": 0}, r"epsilon must be a number in \(0"),
        ({"num_iterations": 0}, "num_iterations must be a positive integer, got 0"),
        ({"input_fields": ["a"]}, "input_fields must hold 2 fields, got 1"),
        (
            {"level": "rows", "output_fields": ["loss"], "source_mask": "keep"},
            "source_mask is read at level 'tokens' only, got 'keep'",
        ),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        TransportOperatorConfig(**FIELDS | options)


def test_rows_are_related_by_batches_alone():
    config = TransportOperatorConfig(input_fields=["a", "b"], output_fields=["loss"], level="rows")
    with pytest.raises(ValueError, match="level 'rows' relates rows: call the operator on a batch"):
        TransportOperator(config).apply({"a": jnp.ones(2), "b": jnp.ones(2)}, {}, None)
