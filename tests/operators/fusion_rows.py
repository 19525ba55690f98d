"""Rows of fusion."""

from flax import nnx
from operator_row import MIXED, PAIR, Row, plain

from datarax.operators import FusionOperator, FusionOperatorConfig


def _fusion(method, **options):
    config = FusionOperatorConfig(
        input_fields=["a", "b", "c"],
        output_fields=["joint"],
        method=method,
        features={"a": 4, "b": 3, "c": 5},
        out_features=7,
        **options,
    )
    return lambda: FusionOperator(config, rngs=nnx.Rngs(0))


ROWS = {
    "fusion plain": Row(
        plain(FusionOperator, ["a", "b"], "joint"), PAIR, ("joint", (4,)), absent_ok=True
    ),
    **{
        f"fusion {method}": Row(_fusion(method), MIXED, ("joint", (7,)), absent_ok=True)
        for method in ("concat", "weighted_sum", "attention", "gated")
    },
    "fusion gated sigmoid": Row(
        _fusion("gated", gate="sigmoid"), MIXED, ("joint", (7,)), absent_ok=True
    ),
}
