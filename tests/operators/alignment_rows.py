"""Rows of alignment."""

from operator_row import PAIR, Row, plain

from datarax.operators import AlignmentOperator, AlignmentOperatorConfig


def _alignment(method):
    config = AlignmentOperatorConfig(input_fields=["a", "b"], output_fields=["loss"], method=method)
    return lambda: AlignmentOperator(config)


ROWS = {
    "alignment plain": Row(plain(AlignmentOperator, ["a", "b"], "loss"), PAIR, ("loss", ())),
    "alignment cosine": Row(_alignment("cosine"), PAIR, ("loss", ())),
    "alignment squared_error": Row(_alignment("squared_error"), PAIR, ("loss", ())),
    "alignment uniformity": Row(
        _alignment("alignment_uniformity"), PAIR, ("loss", ()), False, True
    ),
    "modality gap": Row(_alignment("modality_gap"), PAIR, ("loss", ()), False, True),
}
