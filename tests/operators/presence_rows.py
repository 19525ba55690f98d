"""Rows of the operators on presence."""

from flax import nnx
from operator_row import Row

from datarax.operators import MissingModalityEmbedding, MissingModalityEmbeddingConfig

SHAPES = {"a": (4,), "b": (2, 3)}


def _missing():
    config = MissingModalityEmbeddingConfig(
        input_fields=["a", "b"], output_fields=["a", "b"], features={"a": 4, "b": [2, 3]}
    )
    return MissingModalityEmbedding(config, rngs=nnx.Rngs(0))


ROWS = {
    "missing modality": Row(
        _missing,
        SHAPES,
        ("a", (4,)),
        absent_ok=True,
        fills=True,
        changes={"features": {"a": 4, "b": [3, 2]}, "mark_present": "yes"},
    ),
}
