"""Rows of the contrastive operators."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from operator_row import MIXED, PAIR, Row, plain

from datarax.operators import (
    ContrastiveOperator,
    ContrastiveOperatorConfig,
    MatchingOperator,
    MatchingOperatorConfig,
)

TRIO = {**PAIR, "c": (4,)}
TOKENS = {"a": (3, 4), "b": (2, 4)}
HEADS = {"projection_features": 3, "hidden_features": 8}
HEAD_CHANGES = {"projection_features": 4, "hidden_features": 5}
SCALES = {"initial_scale": 3.0, "max_scale": 9.0}
PAIRS = {"pairs": "anchor", "pair_weights": (1.0, 2.0, 3.0), "per_pair_temperature": True}


def _loss(method, shapes=PAIR, **options):
    config = ContrastiveOperatorConfig(
        input_fields=list(shapes),
        output_fields=["loss"],
        method=method,
        features={name: shape[-1] for name, shape in shapes.items()},
        **options,
    )
    return lambda: ContrastiveOperator(config, rngs=nnx.Rngs(0, symile=1))


def _row(method, shapes=PAIR, *, changes=None, reads=None, **options):
    """A row that relates records; `absent_ok`: it may lack a field, if two are left."""
    return Row(
        _loss(method, shapes, **options),
        shapes,
        ("loss", ()),
        absent_ok=method not in ("volume", "triangle", "symile"),
        relates_rows=True,
        changes=changes or {},
        reads=reads,
    )


def _ids(rng, rows):
    return {"id": jnp.asarray(rng.integers(0, 3, rows), jnp.int32)}


def _teachers(rng, rows):
    names = ("ta", "tb", "ua", "ub")
    return {n: jnp.asarray(rng.normal(size=(rows, 5)), jnp.float32) for n in names}


def _token_masks(rng, rows):
    return {
        name: jnp.asarray(rng.random((rows, 3)) < 0.5).at[:, 0].set(True)
        for name in ("there", "here")
    }


def _negatives(rng, rows):
    return {n: jnp.asarray(rng.normal(size=(rows, 2, 4)), jnp.float32) for n in ("na", "nb")}


def _filled(make):
    """An operator whose queue holds records, in eval mode: a call leaves the queue as it is."""

    def filled():
        op = make()
        rng = np.random.default_rng(5)
        for _ in range(2):
            vectors = [jnp.asarray(rng.normal(size=(3, 4)), jnp.float32) for _ in range(2)]
            ids = jnp.asarray(rng.integers(0, 3, 3), jnp.int32)
            op.queue.enqueue(vectors, ids=ids)
        op.eval()
        return op

    return filled


def _matching(shapes=PAIR, *, changes, out="loss", **options):
    config = MatchingOperatorConfig(
        input_fields=list(shapes),
        output_fields=["loss", "logit"],
        features={name: shape[-1] for name, shape in shapes.items()},
        **options,
    )
    return Row(
        lambda: MatchingOperator(config, rngs=nnx.Rngs(0, draw=1)),
        shapes,
        (out, ()),
        relates_rows=True,
        changes=changes,
        reads=lambda rng, rows: _ids(rng, rows) | _teachers(rng, rows),
    )


QUEUE = {"queue_size": 4, "ids_field": "id"}
ROWS = {
    "similarity": Row(plain(ContrastiveOperator, ["a", "b"], "s"), PAIR, ("s", ())),
    "similarity of three": Row(plain(ContrastiveOperator, ["a", "b", "c"], "s"), TRIO, ("s", (2,))),
    "info_nce": _row(
        "info_nce",
        changes={
            **SCALES,
            "method": "nt_xent",
            "directions": "a_to_b",
            "decoupled": True,
            "features": {"a": 5, "b": 5},
            "similarity": "late_interaction",
            "unpaired_negatives": 1,
            "ids_field": "id",
            "negatives_fields": {"b": "nb"},
            "queue_size": 3,
            "axis_name": "data",
            "collective": "ring",
        },
        reads=lambda rng, rows: _ids(rng, rows) | _negatives(rng, rows),
    ),
    "info_nce smooth": _row(
        "info_nce",
        {"a": (4,), "b": (3,)},
        label_smoothing=0.1,
        **HEADS,
        changes={**HEAD_CHANGES, "label_smoothing": 0.2},
    ),
    "info_nce of three": _row("info_nce", MIXED, projection_features=6, changes=PAIRS),
    "info_nce with a queue": Row(
        _filled(_loss("info_nce", **QUEUE)),
        PAIR,
        ("loss", ()),
        absent_ok=True,
        relates_rows=True,
        changes={"queue_size": 3, "enqueue": "before"},
        reads=_ids,
    ),
    "info_nce of tokens": _row(
        "info_nce",
        TOKENS,
        similarity="late_interaction",
        token_masks={"a": "there"},
        changes={
            "token_masks": {"a": "here"},
            "token_reduction": "sum",
            "directions": "a_to_b",
        },
        reads=_token_masks,
    ),
    "sigmoid": _row(
        "sigmoid",
        changes={"initial_bias": -3.0, "relative_bias": True, "ids_field": "id"},
        reads=_ids,
    ),
    "supervised": _row(
        "supervised",
        ids_field="id",
        teacher_fields={"a": "ta", "b": "tb"},
        changes={
            "directions": "a_to_b",
            "ids_field": None,
            "teacher_fields": {"a": "ua", "b": "ub"},
            "distillation": 0.7,
        },
        reads=lambda rng, rows: _ids(rng, rows) | _teachers(rng, rows),
    ),
    "nt_xent": _row("nt_xent", changes={"decoupled": True}),
    "triplet": _row(
        "triplet",
        changes={
            "margin": 0.5,
            "mining": "hard",
            "distance": "euclidean",
            "directions": "b_to_a",
            "ids_field": "id",
        },
        reads=_ids,
    ),
    "volume": _row(
        "volume",
        TRIO,
        changes={"initial_scale": 3.0, "directions": "a_to_b", "ids_field": "id"},
        reads=_ids,
    ),
    "triangle": _row("triangle", TRIO, changes={"triangle_root": False}),
    "symile": _row("symile", TRIO, changes={"symile_negatives": "n"}),
    "matching": _matching(
        hidden_features=5,
        changes={
            "features": {"a": 5, "b": 5},
            "fusion": "product",
            "hidden_features": None,
            "similarity_fields": {"a": "ta", "b": "tb"},
            "margin": 0.5,
        },
    ),
}

# Rows that only test_config_fields.py reads.
CONFIG_ROWS = {
    "info_nce with negatives": _row(
        "info_nce",
        negatives_fields={"b": "nb"},
        changes={"negatives_fields": {"a": "na"}, "directions": "b_to_a"},
        reads=_negatives,
    ),
    "matching drawn": _matching(
        {"a": (4,), "b": (3,)},
        out="logit",
        fusion="concat",
        similarity_fields={"a": "ta", "b": "tb"},
        stochastic=True,
        stream_name="draw",
        changes={
            "sampling_scale": 0.0,
            "similarity_fields": {"a": "ua", "b": "ub"},
            "ids_field": "id",
        },
    ),
}
