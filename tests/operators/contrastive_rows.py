"""Rows of the contrastive operators."""

from flax import nnx
from operator_row import MIXED, PAIR, Row, plain

from datarax.operators import ContrastiveOperator, ContrastiveOperatorConfig


def _loss(method, inputs=("a", "b"), **options):
    widths = {name: MIXED[name][0] if options else 4 for name in inputs}
    config = ContrastiveOperatorConfig(
        input_fields=list(inputs),
        output_fields=["loss"],
        method=method,
        features=widths,
        **options,
    )
    return lambda: ContrastiveOperator(config, rngs=nnx.Rngs(0))


ROWS = {
    "similarity": Row(plain(ContrastiveOperator, ["a", "b"], "s"), PAIR, ("s", ())),
    "similarity of three": Row(
        plain(ContrastiveOperator, ["a", "b", "c"], "s"), {**PAIR, "c": (4,)}, ("s", (2,))
    ),
    "info_nce": Row(_loss("info_nce"), PAIR, ("loss", ()), True, True),
    "info_nce smooth": Row(
        _loss("info_nce", projection_features=3, hidden_features=8, label_smoothing=0.1),
        {"a": (4,), "b": (3,)},
        ("loss", ()),
        True,
        True,
    ),
    "sigmoid": Row(_loss("sigmoid"), PAIR, ("loss", ()), True, True),
    "info_nce of three": Row(
        _loss("info_nce", ("a", "b", "c"), projection_features=6), MIXED, ("loss", ()), True, True
    ),
}
