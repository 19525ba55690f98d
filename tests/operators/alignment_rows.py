"""Rows of alignment."""

from operator_row import PAIR, Row, plain

from datarax.operators import (
    AlignmentOperator,
    AlignmentOperatorConfig,
    ProcrustesOperator,
    ProcrustesOperatorConfig,
)

FLAT = {"a": (2,), "b": (2,)}  # their best map is a reflection
FOUR = {**PAIR, "s": (3,), "t": (3,)}


def _alignment(method, fields=("a", "b"), **options):
    config = AlignmentOperatorConfig(
        input_fields=list(fields), output_fields=["loss"], method=method, **options
    )
    return lambda: AlignmentOperator(config)


def _procrustes(**options):
    config = ProcrustesOperatorConfig(
        input_fields=["a", "b"], output_fields=["moved"], features=2, **options
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
        {"form": "pairs", "objective": "sum", "ridge": 0.5, "components": 1},
        form="gcca",
        ridge=0.1,
    ),
    "cka": _loss(
        "cka",
        {"a": (4,), "b": (3,)},
        {"kernel": "linear", "bandwidth": 2.0, "debiased": True, "teacher_gradient": True},
        kernel="rbf",
    ),
    "similarity_distillation": _loss(
        "similarity_distillation",
        FOUR,
        {"logit_scale": 3.0, "teacher_logit_scale": 5.0, "subtract_entropy": True},
        logit_scale=2.0,
    ),
    "procrustes loss": _loss("procrustes", FLAT, {"reflection": False, "center": True}),
    "procrustes": Row(
        _procrustes(),
        FLAT,
        ("moved", (2,)),
        False,
        True,
        changes={"features": 5, "fit": "stored", "reflection": False, "center": True},
    ),
    "procrustes stored": Row(_procrustes(fit="stored"), FLAT, ("moved", (2,))),
}
