"""Rows of optimal transport."""

from operator_row import PAIR, Row

from datarax.operators import TransportOperator, TransportOperatorConfig

TOKENS = {"context": (4, 3), "tokens": (5, 3)}
REVERSED = ("tokens", "context")
ALL_OUTPUTS = ("loss", "brought", "converged", "plan")


def _transport(method, fields, outputs=("loss",), **options):
    config = TransportOperatorConfig(
        input_fields=list(fields), output_fields=list(outputs), method=method, **options
    )
    return lambda: TransportOperator(config)


def _rows(method, changes=None, *, shapes=PAIR, **options):
    make = _transport(method, shapes, level="rows", **options)
    return Row(make, shapes, ("loss", ()), False, True, changes=changes or {})


ROWS = {
    "transport tokens": Row(
        _transport("balanced", TOKENS, ALL_OUTPUTS, source_mask="keep", epsilon=0.3),
        TOKENS,
        ("loss", ()),
        changes={
            "method": "partial",
            "level": "rows",
            "objective": "cost",
            "metric": "cosine",
            "epsilon": 0.1,
            "num_iterations": 1,
            "tolerance": 1.0,
            "source_mask": None,
        },
    ),
    "transport brought": Row(
        _transport(
            "balanced",
            TOKENS,
            ("loss", "brought"),
            source_mask="keep",
            epsilon=0.5,
            num_iterations=20,
            unroll=True,
        ),
        TOKENS,
        ("brought", (4, 3)),
        changes={"unroll": False, "num_iterations": 1},
    ),
    "transport unbalanced": Row(
        _transport("unbalanced", REVERSED, target_mask="keep", epsilon=0.3),
        TOKENS,
        ("loss", ()),
        changes={"target_mask": None, "relaxation": 0.1, "regulariser": "entropy"},
    ),
    "transport partial": Row(
        _transport("partial", TOKENS, source_mask="keep", epsilon=0.3),
        TOKENS,
        ("loss", ()),
        changes={"mass": 0.25, "regulariser": "entropy"},
    ),
    "transport rows": _rows("balanced", epsilon=0.5, tolerance=1e-5),
    "transport divergence": _rows(
        "balanced", {"objective": "cost"}, objective="divergence", epsilon=0.5, tolerance=1e-5
    ),
    "gromov rows": _rows(
        "gromov",
        {"inner_iterations": 1},
        shapes={"a": (4,), "c": (3,)},
        epsilon=0.5,
        tolerance=1e-5,
    ),
}
