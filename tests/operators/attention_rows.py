"""Rows of attention."""

from flax import nnx
from operator_row import Row

from datarax.operators import CrossAttentionOperator, CrossAttentionOperatorConfig


def _attention():
    config = CrossAttentionOperatorConfig(
        input_fields=["query", "context"],
        output_fields=["attended", "weights"],
        features={"query": 6, "context": 5},
        num_heads=2,
        context_mask="keep",
    )
    return CrossAttentionOperator(config, rngs=nnx.Rngs(0))


ROWS = {
    "cross attention": Row(_attention, {"query": (3, 6), "context": (4, 5)}, ("attended", (3, 6))),
}
