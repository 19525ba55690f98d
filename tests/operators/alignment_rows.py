"""Rows of alignment."""

from operator_row import PAIR, Row, plain

from datarax.operators import (
    AlignmentOperator,
    AlignmentOperatorConfig,
    ProcrustesOperator,
    ProcrustesOperatorConfig,
)

FOUR = {**PAIR, "s": (3,), "t": (3,)}


def _alignment(method, fields=("a", "b"), **options):
    config = AlignmentOperatorConfig(
        input_fields=list(fields), output_fields=["loss"], method=method, **options
    )
    return lambda: AlignmentOperator(config)


def _procrustes(**options):
    config = ProcrustesOperatorConfig(
        input_fields=["a", "b"], output_fields=["moved"], features=4, **options
    )
    return lambda: ProcrustesOperator(config)


def _loss(method, shapes=PAIR, changes=None, **options):
    """A row of a loss that relates rows."""
    make = _alignment(method, tuple(shapes), **options)
    return Row(make, shapes, ("loss", ()), False, True, changes=changes or {})


ROWS = {
    "alignment plain": Row(plain(AlignmentOperator, ["a", "b"], "loss"), PAIR, ("loss", ())),
    "alignment cosine": Row(
        _alignment("cosine"), PAIR, ("loss", ()), changes={"method": "squared_error"}
    ),
    "alignment squared_error": Row(
        _alignment("squared_error"), PAIR, ("loss", ()), changes={"normalize": True}
    ),
    "huber": Row(_alignment("huber"), PAIR, ("loss", ()), changes={"delta": 0.5}),
    "alignment uniformity": _loss(
        "alignment_uniformity", changes={"power": 1.0, "t": 1.0, "uniformity_weight": 0.5}
    ),
    "gap closing": _loss("gap_closing"),
    "modality gap": _loss("modality_gap"),
    "vicreg": _loss(
        "vicreg",
        changes={"invariance_weight": 1.0, "variance_weight": 1.0, "covariance_weight": 25.0},
    ),
    "barlow_twins": _loss(
        "barlow_twins", changes={"redundancy_weight": 0.1, "ddof": 1, "statistics": "pooled"}
    ),
    "cca": _loss(
        "cca",
        {"a": (2,), "b": (3,), "c": (2,)},
        {"form": "gcca", "objective": "sum", "ridge": 0.5},
        ridge=0.1,
    ),
    "gcca": _loss(
        "cca", {"a": (2,), "b": (3,), "c": (2,)}, {"components": 1}, form="gcca", ridge=0.1
    ),
    "cka": _loss(
        "cka",
        {"a": (4,), "b": (3,)},
        {"kernel": "linear", "bandwidth": 2.0, "debiased": True},
        kernel="rbf",
    ),
    "similarity_distillation": _loss(
        "similarity_distillation",
        FOUR,
        {"logit_scale": 3.0, "teacher_logit_scale": 5.0, "subtract_entropy": True},
        logit_scale=2.0,
    ),
    "relational_distance": _loss("relational_distance", {"a": (4,), "b": (3,)}),
    "procrustes loss": _loss("procrustes", changes={"reflection": False, "center": True}),
    "procrustes": Row(
        _procrustes(),
        PAIR,
        ("moved", (4,)),
        False,
        True,
        changes={"features": 5, "fit": "stored", "reflection": False, "center": True},
    ),
    "procrustes stored": Row(_procrustes(fit="stored"), PAIR, ("moved", (4,))),
}
