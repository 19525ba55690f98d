"""Each method of the contrastive operator is the function of its name, on unit vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax import functional
from datarax.core import Batch
from datarax.operators import ContrastiveOperator, ContrastiveOperatorConfig

N = 6
NAMES = ("a", "b", "c")
IDS = jnp.asarray([0, 0, 1, 2, 3, 3], jnp.int32)
HAS_B = jnp.asarray([True, True, False, True, True, True])


def normal(*shape, seed):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


VECTORS = {name: normal(N, 4, seed=m) for m, name in enumerate(NAMES)}
UNITS = {name: functional.safe_l2_normalize(x) for name, x in VECTORS.items()}
A, B, C = UNITS.values()
TEACHERS = {f"t{name}": normal(N, 5, seed=10 + m) for m, name in enumerate(NAMES)}
NEGATIVES = normal(N, 2, 4, seed=20)
MORE = functional.safe_l2_normalize(NEGATIVES).reshape(-1, 4)
TOKENS = {"a": normal(N, 3, 4, seed=30), "b": normal(N, 2, 4, seed=31)}
KEEP = jnp.asarray(np.random.default_rng(32).random((N, 3)) < 0.6).at[:, 0].set(True)
CLIP = 1 / 0.07


def operator(method, fields="ab", **options):
    config = ContrastiveOperatorConfig(
        input_fields=list(fields),
        output_fields=["loss"],
        method=method,
        features=dict.fromkeys(fields, 4),
        **options,
    )
    return ContrastiveOperator(config, rngs=nnx.Rngs(0))


def records(presence=None, **fields):
    return Batch.from_parts({**VECTORS, "id": IDS, **TEACHERS, **fields}, presence=presence)


def teacher(scale):
    return functional.pairwise_cosine_similarity(TEACHERS["ta"], TEACHERS["tb"]) * scale


def distilled(x, y, taught):
    options = {"logit_scale": CLIP, "teacher_similarity": taught, "distillation": 0.4}
    return functional.supervised_contrastive(x, y, **options)


def supervised(x, y):
    return functional.supervised_contrastive(x, y, logit_scale=CLIP, ids=IDS)


CASES = {
    "info_nce": (
        {"label_smoothing": 0.1, "ids_field": "id", "directions": "b_to_a"},
        lambda: functional.info_nce(
            A, B, logit_scale=CLIP, label_smoothing=0.1, ids=IDS, directions="b_to_a"
        ),
    ),
    "info_nce decoupled": (
        {"decoupled": True},
        lambda: functional.info_nce(A, B, logit_scale=CLIP, decoupled=True),
    ),
    "sigmoid relative": (
        {"relative_bias": True, "initial_bias": -4.0, "initial_scale": 5.0},
        lambda: functional.sigmoid_contrastive(A, B, logit_scale=5.0, relative_bias=0.8),
    ),
    "supervised": (
        {"ids_field": "id"},
        lambda: (supervised(A, B) + supervised(B, A)) / 2,
    ),
    "supervised by a teacher": (
        {"teacher_fields": {"a": "ta", "b": "tb"}},
        lambda: (distilled(A, B, teacher(CLIP)) + distilled(B, A, teacher(CLIP).T)) / 2,
    ),
    "nt_xent": ({}, lambda: functional.nt_xent(A, B, logit_scale=10.0)),
    "triplet": ({}, lambda: functional.triplet(A, B, margin=0.2, mining="semi_hard")),
    "triplet apart": (
        {"distance": "euclidean", "mining": "sum", "margin": 0.5},
        lambda: functional.triplet(A, B, margin=0.5, mining="sum", distance="euclidean"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_of_two_fields(case):
    options, expected = CASES[case]
    out = operator(case.split()[0], **options)(records())
    np.testing.assert_allclose(out["loss"], expected(), rtol=2e-5, atol=1e-5)
    cosines = np.asarray(A @ B.T)
    watched = out.batch_state["loss"]
    assert float(watched["positive_similarity"]) == pytest.approx(np.diag(cosines).mean(), abs=1e-6)
    others = cosines[~np.eye(N, dtype=bool)].mean()
    assert float(watched["negative_similarity"]) == pytest.approx(others, abs=1e-6)


def presences():
    return [jnp.ones(N, bool), HAS_B, jnp.ones(N, bool)]


def volume(shape):
    return functional.volume_contrastive(
        [A, B, C], logit_scale=CLIP, shape=shape, presence=presences()
    )


OF_ALL = {
    "volume": ({}, lambda: volume("volume")),
    "triangle": ({}, lambda: volume("triangle_root")),
    "triangle squared": ({"triangle_root": False}, lambda: volume("triangle")),
    "symile": (
        {"initial_scale": 3.0},
        lambda: functional.symile([A, B, C], logit_scale=3.0, presence=presences()),
    ),
    "info_nce": (
        {"pair_weights": (1.0, 0.0, 3.0), "per_pair_temperature": True},
        lambda: functional.pairwise_multimodal(
            [A, B, C],
            logit_scale=jnp.full(3, CLIP),
            presence=presences(),
            pair_weights=jnp.asarray([1.0, 0.0, 3.0]),
        ),
    ),
    "sigmoid": (
        {"pairs": "anchor"},
        lambda: functional.pairwise_multimodal(
            [A, B, C],
            logit_scale=10.0,
            logit_bias=-10.0,
            loss="sigmoid",
            pairs="anchor",
            presence=presences(),
        ),
    ),
}


@pytest.mark.parametrize("case", OF_ALL)
def test_of_three_fields_with_one_that_is_absent(case):
    options, expected = OF_ALL[case]
    garbage = jnp.where(HAS_B[:, None], VECTORS["b"], jnp.nan)
    out = operator(case.split()[0], "abc", **options)(records({"b": HAS_B}, b=garbage))
    losses, used = expected()
    np.testing.assert_allclose(out["loss"], losses, rtol=2e-5, atol=1e-5)
    assert out.presence["loss"].tolist() == used.tolist()


def test_three_fields_share_no_temperature_if_each_pair_has_its_own():
    op = operator("info_nce", "abc", per_pair_temperature=True)
    op.logit_scale.log_scale[...] = jnp.log(jnp.asarray([1.0, 2.0, 4.0]))
    out = op(records())
    scale = jnp.asarray([1.0, 2.0, 4.0])
    expected, _ = functional.pairwise_multimodal([A, B, C], logit_scale=scale)
    np.testing.assert_allclose(out["loss"], expected, rtol=2e-5)
    np.testing.assert_allclose(out.batch_state["loss"]["temperature"], 1 / scale, rtol=1e-5)


def test_unpaired_halves_stay_negatives_if_asked_for():
    out = operator("info_nce", unpaired_negatives=True)(records({"b": HAS_B}))
    expected = functional.info_nce(A, B, logit_scale=CLIP, where_b=HAS_B)
    np.testing.assert_allclose(out["loss"], expected, rtol=2e-5)
    apart = operator("info_nce")(records({"b": HAS_B}))
    assert np.abs(np.asarray(out["loss"] - apart["loss"])).max() > 1e-3
    assert out.presence["loss"].tolist() == HAS_B.tolist()


def test_given_negatives_are_more_columns_of_their_field():
    there = HAS_B
    batch = records({"n": there}, n=jnp.where(there[:, None, None], NEGATIVES, jnp.nan))
    out = operator("info_nce", negatives_fields={"b": "n"})(batch)
    where = jnp.repeat(there, 2)
    first = functional.info_nce(
        A, B, logit_scale=CLIP, directions="a_to_b", negatives_b=MORE, negatives_where=where
    )
    second = functional.info_nce(A, B, logit_scale=CLIP, directions="b_to_a")
    np.testing.assert_allclose(out["loss"], (first + second) / 2, rtol=2e-5)


@pytest.mark.parametrize("method", ["info_nce", "sigmoid"])
def test_tokens_meet_late(method):
    op = operator(method, similarity="late_interaction", token_masks={"a": "keep"})
    dirty = jnp.where(KEEP[:, :, None], TOKENS["a"], jnp.nan)
    a, b = (functional.safe_l2_normalize(TOKENS[name]) for name in "ab")
    there = functional.late_interaction(a, b, a_mask=KEEP)
    back = functional.late_interaction(b, a, b_mask=KEEP)
    out = op(Batch.from_parts({"a": dirty, "b": TOKENS["b"], "keep": KEEP}))
    if method == "info_nce":
        expected = functional.info_nce_from_similarity(there, back, logit_scale=CLIP)
    else:
        scalars = {"logit_scale": 10.0, "logit_bias": -10.0}
        parts = [functional.sigmoid_from_similarity(x, **scalars) for x in (there, back)]
        expected = sum(parts[1:], parts[0]) / 2
    np.testing.assert_allclose(out["loss"], expected, rtol=2e-5)


def test_masked_tokens_have_no_gradient_and_spoil_no_head():
    op = operator(
        "info_nce", similarity="late_interaction", token_masks={"a": "keep"}, projection_features=3
    )
    dirty = jnp.where(KEEP[:, :, None], TOKENS["a"], jnp.nan)

    def objective(op, a):
        return op(Batch.from_parts({"a": a, "b": TOKENS["b"], "keep": KEEP})).mean("loss")

    heads, tokens = nnx.jit(nnx.grad(objective, argnums=(0, 1)))(op, dirty)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(heads))
    assert not np.asarray(tokens)[~np.asarray(KEEP)].any()
    assert np.asarray(tokens)[np.asarray(KEEP)].any()


def test_a_record_without_tokens_is_absent():
    op = operator("info_nce", similarity="late_interaction", token_masks={"a": "keep"})
    data = {**TOKENS, "keep": KEEP.at[2].set(False)}
    out = op(Batch.from_parts(data))
    assert out.presence["loss"].tolist() == [True, True, False, True, True, True]
    assert float(out["loss"][2]) == 0


def draws(**options):
    return ContrastiveOperator(
        ContrastiveOperatorConfig(
            input_fields=["a", "b", "c"],
            output_fields=["loss"],
            method="symile",
            features=dict.fromkeys("abc", 4),
            symile_negatives="n",
            stochastic=True,
            stream_name="symile",
            **options,
        ),
        rngs=nnx.Rngs(0, symile=1),
    )


def test_symile_draws_its_negatives_once_a_batch():
    op, index = draws(), jnp.arange(N, dtype=jnp.uint32)
    batch = records().replace(record_index=index, epoch=jnp.uint32(0))
    first = np.asarray(op(batch)["loss"])
    np.testing.assert_array_equal(op(batch)["loss"], first)
    later = op(batch.replace(epoch=jnp.uint32(1)))["loss"]
    assert np.abs(np.asarray(later) - first).max() > 1e-3
    free = records()
    assert np.abs(np.asarray(op(free)["loss"] - op(free)["loss"])).max() > 1e-3
    op.eval()
    np.testing.assert_array_equal(op(free)["loss"], op(free)["loss"])
