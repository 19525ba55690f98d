"""Losses of alignment on batches: absent rows are as if they were not in the batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax import functional
from datarax.core import Batch
from datarax.operators import (
    AlignmentOperator,
    AlignmentOperatorConfig,
    ProcrustesOperator,
    ProcrustesOperatorConfig,
    build_operator,
)

PAIR = {"input_fields": ["a", "b"], "output_fields": ["loss"]}
VALID = np.array([1, 1, 1, 0, 1, 1, 1, 1], bool)
PRESENT = np.array([1, 0, 1, 1, 1, 1, 1, 1], bool)
KEPT = VALID & PRESENT


def arrays(*widths):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(8, d)), jnp.float32) for d in widths]


def unit(function):
    return lambda *x: function(*map(functional.safe_l2_normalize, x))


def spread(a, b):
    return (functional.uniformity(a) + functional.uniformity(b)) / 2


METHODS = {
    "gap_closing": unit(
        lambda a, b: functional.alignment_loss(a, b) + functional.centroid_uniformity(a, b)[None]
    ),
    "alignment_uniformity": unit(lambda a, b: functional.alignment_loss(a, b) + spread(a, b)[None]),
    "modality_gap": unit(functional.modality_gap),
    "vicreg": functional.vicreg,
    "barlow_twins": functional.barlow_twins,
    "cca": lambda a, b: functional.cca_loss([a, b]),
    "hsic": lambda a, b: -functional.hsic(a, b),
    "cka": lambda a, b: 1 - functional.cka(a, b),
    "cross_modal_consistency": unit(functional.cross_modal_consistency),
    "in_modal_consistency": unit(functional.in_modal_consistency),
    "similarity_matching": unit(functional.similarity_matching),
    "relational_distance": functional.relational_distance,
    "relational_angle": functional.relational_angle,
    "procrustes": functional.procrustes_residual,
}


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_is_that_of_the_rows_that_are_there(method):
    a, b = arrays(3, 3)
    op = build_operator({"operation": "alignment", "method": method, **PAIR})
    dirty = Batch.from_parts(
        {"a": a.at[~KEPT].set(jnp.nan), "b": b},
        valid_mask=jnp.asarray(VALID),
        presence={"a": jnp.asarray(PRESENT)},
    )
    out = op(dirty)
    expected = jax.jit(METHODS[method])(a[KEPT], b[KEPT])
    np.testing.assert_allclose(
        out["loss"][KEPT], np.broadcast_to(expected, 6), rtol=2e-5, atol=2e-6
    )
    assert not out["loss"][~KEPT].any()
    assert out.presence["loss"].tolist() == KEPT.tolist()


def test_the_terms_of_vicreg_are_in_the_state():
    a, b = arrays(3, 3)
    config = AlignmentOperatorConfig(**PAIR, method="vicreg")
    batch = Batch.from_parts({"a": a, "b": b}, batch_state={"step": jnp.int32(3)})
    state = AlignmentOperator(config)(batch).batch_state
    terms = functional.vicreg_terms(a, b)
    assert state["step"] == 3
    for name, term in terms._asdict().items():
        np.testing.assert_allclose(state["loss"][name], term, rtol=1e-6)


@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize("method", ["relational_distance", "similarity_distillation"])
def test_a_teacher_learns_only_if_told(method, passes):
    names = ["a", "b", "s", "t"][: 2 if method == "relational_distance" else 4]
    config = AlignmentOperatorConfig(
        input_fields=names, output_fields=["loss"], method=method, teacher_gradient=passes
    )
    op = AlignmentOperator(config)

    @jax.jit
    def slope(data):
        return jax.grad(lambda data: op(Batch.from_parts(data)).mean("loss"))(data)

    gradients = slope(dict(zip(names, arrays(*[3] * len(names)), strict=True)))
    assert bool(gradients[names[-1]].any()) is passes
    assert gradients["a"].any()


def test_methods_that_relate_rows_refuse_a_record():
    op = AlignmentOperator(AlignmentOperatorConfig(**PAIR, method="cka"))
    with pytest.raises(ValueError, match="cka relates rows: call the operator on a batch"):
        op.apply({"a": jnp.ones(2), "b": jnp.ones(2)}, {}, None)
    op = ProcrustesOperator(ProcrustesOperatorConfig(**PAIR, features=2))
    with pytest.raises(ValueError, match="fit='batch' relates rows"):
        op.apply({"a": jnp.ones(2), "b": jnp.ones(2)}, {}, None)


BAD = [
    ({"method": "vicregg"}, "method must be one of .*'vicreg'"),
    ({"method": "cka", "input_fields": ["a"]}, "input_fields must hold 2 fields, got 1"),
    ({"method": "cca", "input_fields": ["a"]}, "input_fields must hold two or more"),
    ({"method": "similarity_distillation"}, "input_fields must hold 4 fields, got 2"),
    ({"method": "cosine", "delta": 0.5}, r"delta=0.5 is read by \['huber', 'relational_dist"),
    ({"method": "vicreg", "ridge": 0.5}, r"ridge=0.5 is read by \['cca'\] only, got 'vicreg'"),
    ({"method": "hsic", "kernel": "poly"}, "kernel must be one of"),
    ({"method": "hsic", "bandwidth": 1.0}, "bandwidth=1.0 is read by kernel 'rbf' only"),
    ({"method": "hsic", "kernel": "rbf", "bandwidth": 0.0}, "bandwidth must be a number"),
    ({"method": "barlow_twins", "ddof": 2}, "ddof must be one of"),
    ({"method": "barlow_twins", "statistics": "all"}, "statistics must be one of"),
    ({"method": "barlow_twins", "redundancy_weight": -1.0}, "redundancy_weight must be a number"),
    ({"method": "vicreg", "variance_weight": -1.0}, "variance_weight must be a number"),
    ({"method": "cca", "form": "kcca"}, "form must be one of"),
    ({"method": "cca", "objective": "max"}, "objective must be one of"),
    ({"method": "cca", "components": 2}, r"components=2 is read by \['gcca'\] only"),
    ({"method": "cca", "form": "gcca", "components": 0}, "components must be a positive"),
    ({"method": "cca", "form": "ey", "objective": "sum"}, r"objective='sum' is read by \['pairs"),
    ({"method": "cca", "form": "ey", "ridge": 0.1}, "ridge=0.1 is read by"),
    ({"method": "cca", "ridge": -0.1}, "ridge must be a number"),
    ({"method": "huber", "delta": 0.0}, "delta must be a number"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_config_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        AlignmentOperatorConfig(**PAIR | options)


def procrustes(**options):
    return ProcrustesOperator(
        ProcrustesOperatorConfig(
            input_fields=["a", "b"], output_fields=["moved"], features=3, **options
        )
    )


def test_a_stored_map_carries_to_records_without_the_second_field():
    a, _ = arrays(3, 3)
    rotation = jnp.asarray(np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0], a.dtype)
    b = (a @ rotation + 2).at[~KEPT].set(jnp.nan)
    op = procrustes(fit="stored", center=True)
    op.fit(Batch.from_parts({"a": a, "b": b}, presence={"b": jnp.asarray(KEPT)}))
    out = op(Batch.from_parts({"a": a}))
    np.testing.assert_allclose(out["moved"], a @ rotation + 2, rtol=1e-5, atol=1e-5)
    assert not nnx.state(op, nnx.Param)
    copied = nnx.merge(*nnx.split(op))
    np.testing.assert_array_equal(copied(Batch.from_parts({"a": a}))["moved"], out["moved"])


def test_a_map_of_the_batch_carries_to_rows_without_the_second_field():
    a, _ = arrays(3, 3)
    rotation = jnp.asarray(np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0], a.dtype)
    b = (a @ rotation).at[~KEPT].set(jnp.nan)
    batch = Batch.from_parts({"a": a, "b": b}, presence={"b": jnp.asarray(KEPT)})
    out = procrustes()(batch)
    np.testing.assert_allclose(out["moved"], a @ rotation, rtol=1e-5, atol=1e-5)
    assert out.presence.get("moved") is None or out.presence["moved"].all()


def test_procrustes_refuses():
    config = {"input_fields": ["a", "b"], "output_fields": ["c"], "features": 3}
    for options, message in (
        ({"features": 0}, "features must be a positive"),
        ({"fit": "always"}, "fit must be one of"),
        ({"input_fields": ["a"]}, "input_fields must hold 2"),
        ({"center": 1}, "center must be True or False, got 1"),
        ({"reflection": "no"}, "reflection must be True or False, got 'no'"),
    ):
        with pytest.raises(ValueError, match=message):
            ProcrustesOperatorConfig(**config | options)
    a, b = arrays(3, 3)
    with pytest.raises(ValueError, match="fit='batch' keeps no map: give fit='stored'"):
        procrustes().fit(Batch.from_parts({"a": a, "b": b}))
    with pytest.raises(ValueError, match="features=3 must be the width"):
        procrustes()(Batch.from_parts({"a": a[:, :2], "b": b[:, :2]}))
    with pytest.raises(KeyError, match="'a'"):
        procrustes(fit="stored")(Batch.from_parts({"b": b}))
    op = procrustes()
    with pytest.raises(ValueError, match=r"copy cannot change \['fit'\]"):
        op.copy(config=dataclasses.replace(op.config, fit="stored"))
