"""What the operators compute, against float64 loops written from the papers, and open_clip."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import Batch, CrossModalOperatorConfig
from datarax.operators import (
    AlignmentOperator,
    AlignmentOperatorConfig,
    ContrastiveOperator,
    ContrastiveOperatorConfig,
    CrossAttentionOperator,
    CrossAttentionOperatorConfig,
    FusionOperator,
    Normalize,
    NormalizeConfig,
    Resize,
    ResizeConfig,
)


def vectors(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def batch(**fields):
    presence = fields.pop("presence", None)
    return Batch.from_parts(
        {name: jnp.asarray(x, jnp.float32) for name, x in fields.items()}, presence=presence
    )


def loss_config(method, **options):
    return ContrastiveOperatorConfig(
        input_fields=["a", "b"],
        output_fields=["loss"],
        method=method,
        features={"a": 8, "b": 8},
        **options,
    )


def clip_row_losses(a, b, scale):
    logits = scale * unit(a) @ unit(b).T
    losses = []
    for i in range(len(a)):
        row = np.log(sum(np.exp(logits[i, j]) for j in range(len(a)))) - logits[i, i]
        column = np.log(sum(np.exp(logits[j, i]) for j in range(len(a)))) - logits[i, i]
        losses.append((row + column) / 2)
    return np.array(losses)


def test_info_nce_is_the_paper_s():
    a, b = vectors(7, 8), vectors(7, 8, seed=1)
    op = ContrastiveOperator(loss_config("info_nce"))
    out = op(batch(a=a, b=b))
    np.testing.assert_allclose(out["loss"], clip_row_losses(a, b, 1 / 0.07), rtol=1e-5)
    assert float(out.batch_state["loss"]["temperature"]) == pytest.approx(0.07)


def test_absent_rows_are_not_negatives():
    a, b = vectors(7, 8), vectors(7, 8, seed=1)
    there = np.array([True, True, False, True, True, True, False])
    out = ContrastiveOperator(loss_config("info_nce"))(
        batch(a=a, b=b, presence={"b": jnp.asarray(there)})
    )
    expected = np.zeros(7)
    expected[there] = clip_row_losses(a[there], b[there], 1 / 0.07)
    np.testing.assert_allclose(out["loss"], expected, rtol=1e-5)
    assert float(out.mean("loss")) == pytest.approx(expected[there].mean(), rel=1e-5)


def test_sigmoid_is_the_paper_s():
    a, b = vectors(6, 8), vectors(6, 8, seed=1)
    op = ContrastiveOperator(loss_config("sigmoid", initial_bias=-3.0))
    logits = 10.0 * unit(a) @ unit(b).T - 3.0
    expected = [
        sum(np.log1p(np.exp(-(1 if i == j else -1) * logits[i, j])) for j in range(6))
        for i in range(6)
    ]
    np.testing.assert_allclose(op(batch(a=a, b=b))["loss"], expected, rtol=1e-5)


def test_three_modalities_average_the_pairs_a_row_is_in():
    a, b, c = (vectors(6, 8, seed=s) for s in range(3))
    there = np.array([True, False, True, True, False, True])
    config = ContrastiveOperatorConfig(
        input_fields=["a", "b", "c"],
        output_fields=["loss"],
        features={"a": 8, "b": 8, "c": 8},
    )
    out = ContrastiveOperator(config)(batch(a=a, b=b, c=c, presence={"c": jnp.asarray(there)}))
    expected = clip_row_losses(a, b, 1 / 0.07)
    some = np.flatnonzero(there)
    ac, bc = (clip_row_losses(x[some], c[some], 1 / 0.07) for x in (a, b))
    expected[some] = (expected[some] + ac + bc) / 3
    np.testing.assert_allclose(out["loss"], expected, rtol=1e-5)


def test_ids_are_positives_of_each_other():
    a, b = vectors(4, 8), vectors(4, 8, seed=1)
    config = loss_config("info_nce", ids_field="id")
    op = ContrastiveOperator(config)
    data = batch(a=a, b=b).data
    out = op(Batch.from_parts({**data, "id": jnp.asarray([0, 0, 1, 2])}))
    logits = unit(a) @ unit(b).T / 0.07

    def lse(x):
        return np.log(np.exp(x).sum())

    first = (lse(logits[0]) - logits[0, :2].mean() + lse(logits[:, 0]) - logits[:2, 0].mean()) / 2
    assert float(out["loss"][0]) == pytest.approx(first, rel=1e-5)


def test_embeddings_and_embed_agree():
    config = ContrastiveOperatorConfig(
        input_fields=["a", "b"],
        output_fields=["loss", "za", "zb"],
        features={"a": 8, "b": 5},
        projection_features=3,
    )
    op = ContrastiveOperator(config, rngs=nnx.Rngs(0))
    records = batch(a=vectors(4, 8), b=vectors(4, 5))
    out = op(records)
    np.testing.assert_allclose(out["zb"], op.embed("b", records["b"]), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(out["za"], axis=-1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="'c' is no input"):
        op.embed("c", records["a"])


@pytest.mark.parametrize("kind", ["zero", "same", "bf16"])
def test_the_loss_is_finite_where_others_are_not(kind):
    a = np.zeros((4, 8)) if kind == "zero" else np.ones((4, 8))
    dtype = jnp.bfloat16 if kind == "bf16" else jnp.float32
    for method in ("info_nce", "sigmoid"):
        op = ContrastiveOperator(loss_config(method, initial_scale=100.0))
        records = Batch.from_parts({"a": jnp.asarray(a, dtype), "b": jnp.asarray(a, dtype)})
        out = op(records)
        assert out["loss"].dtype == jnp.float32
        assert np.all(np.isfinite(out["loss"]))
        grads = nnx.grad(lambda op, r: op(r).mean("loss"))(op, records)
        assert all(
            np.isfinite(np.asarray(g)).all()
            for g in nnx.to_pure_dict(grads)["logit_scale"].values()
        )


def test_similarity_is_the_cosine_and_noise_is_small():
    a, b = vectors(5, 8), vectors(5, 8, seed=1)
    fields = {"input_fields": ["a", "b"], "output_fields": ["s"], "operation": "contrastive"}
    plain = ContrastiveOperator(CrossModalOperatorConfig(**fields))
    cosine = np.sum(unit(a) * unit(b), axis=-1)
    np.testing.assert_allclose(plain(batch(a=a, b=b))["s"], cosine, rtol=1e-5, atol=1e-6)
    noisy = ContrastiveOperator(
        CrossModalOperatorConfig(**fields, stochastic=True, stream_name="contrastive"),
        rngs=nnx.Rngs(0, contrastive=1),
    )
    moved = np.asarray(noisy(batch(a=a, b=b))["s"]) - cosine
    assert np.all(moved != 0)
    assert np.abs(moved).max() < 0.5
    noisy.eval()
    np.testing.assert_allclose(noisy(batch(a=a, b=b))["s"], cosine, rtol=1e-5, atol=1e-6)


def test_plain_fusion_is_a_learned_weighted_sum():
    a, b = vectors(5, 4), vectors(5, 4, seed=1)
    config = CrossModalOperatorConfig(input_fields=["a", "b"], output_fields=["joint"])
    op = FusionOperator(config)
    op.fusion.weights[...] = jnp.asarray([2.0, -1.0])
    there = np.array([True, True, False, True, True])
    out = op(batch(a=a, b=b, presence={"a": jnp.asarray(there)}))
    np.testing.assert_allclose(out["joint"], 2 * a * there[:, None] - b, rtol=1e-5, atol=1e-6)
    assert np.all(out.presence["joint"])


def test_attention_is_softmax_of_scaled_products():
    query, context = vectors(2, 3, 6), vectors(2, 4, 5, seed=1)
    keep = np.array([[True, True, False, True], [False] * 4])
    config = CrossAttentionOperatorConfig(
        input_fields=["q", "c"],
        output_fields=["out", "weights"],
        features={"q": 6, "c": 5},
        num_heads=2,
        context_mask="keep",
    )
    op = CrossAttentionOperator(config, rngs=nnx.Rngs(0))
    data = {**batch(q=query, c=context).data, "keep": jnp.asarray(keep)}
    out = op(Batch.from_parts(data))
    part = op.attention
    layers = {
        name: (np.asarray(layer.kernel[...], np.float64), np.asarray(layer.bias[...], np.float64))
        for name, layer in zip("qkvo", (part.query, part.key, part.value, part.output), strict=True)
    }

    def linear(name, x):
        kernel, bias = layers[name]
        return x @ kernel + bias

    q, k, v = linear("q", query[0]), linear("k", context[0]), linear("v", context[0])
    heads = []
    for h in range(2):
        part = slice(3 * h, 3 * h + 3)
        logits = np.where(keep[0], q[:, part] @ k[:, part].T / np.sqrt(3), -np.inf)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(out["weights"][0, h], weights, rtol=1e-5, atol=1e-6)
        heads.append(weights @ v[:, part])
    expected = linear("o", np.concatenate(heads, axis=1))
    np.testing.assert_allclose(out["out"][0], expected, rtol=1e-5, atol=1e-5)
    assert not np.any(np.asarray(out["out"][1]))


def test_alignment_and_uniformity_are_wang_and_isola_s():
    a, b = unit(vectors(5, 8)), unit(vectors(5, 8, seed=1))
    config = AlignmentOperatorConfig(
        input_fields=["a", "b"], output_fields=["loss"], method="alignment_uniformity"
    )

    def spread(x):
        pairs = [
            np.exp(-2 * np.sum((x[i] - x[j]) ** 2)) for i in range(5) for j in range(5) if i != j
        ]
        return np.log(np.mean(pairs))

    expected = np.sum((a - b) ** 2, axis=1) + (spread(a) + spread(b)) / 2
    out = AlignmentOperator(config)(batch(a=3 * a, b=b))
    np.testing.assert_allclose(out["loss"], expected, rtol=1e-5, atol=1e-6)


def test_modality_gap_is_the_distance_of_centroids():
    a, b = vectors(5, 8), vectors(5, 8, seed=1)
    config = AlignmentOperatorConfig(
        input_fields=["a", "b"], output_fields=["gap"], method="modality_gap"
    )
    gap = np.linalg.norm(unit(a).mean(axis=0) - unit(b).mean(axis=0))
    np.testing.assert_allclose(
        AlignmentOperator(config)(batch(a=a, b=b))["gap"], np.full(5, gap), rtol=1e-5
    )


def test_normalize_takes_statistics():
    config = NormalizeConfig(
        input_fields=["x"],
        output_fields=["x"],
        batch_stats_fn=lambda data: {"mean": data["x"].mean(0), "std": data["x"].std(0)},
    )
    x = vectors(50, 3) * 5 + 2
    out = Normalize(config)(batch(x=x))["x"]
    np.testing.assert_allclose(out, (x - x.mean(0)) / x.std(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="needs mean and std"):
        Normalize(NormalizeConfig(input_fields=["x"], output_fields=["x"]))(batch(x=x))


def test_resize_keeps_integers():
    config = ResizeConfig(input_fields=["x"], output_fields=["x"], size=(1, 1))
    picture = jnp.asarray([[[0, 255], [255, 254]]], jnp.uint8)
    out = Resize(config)(Batch.from_parts({"x": picture}))["x"]
    assert out.dtype == jnp.uint8
    assert out.tolist() == [[[191]]]
