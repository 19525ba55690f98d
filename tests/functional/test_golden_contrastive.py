"""Values and gradients of the originals (tools/golden/contrastive.py), named in each failure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_file import Golden

from datarax import functional

GOLDEN = Golden("contrastive")


def clip(a, b, scale, bias):
    return functional.info_nce(a, b, logit_scale=scale, logit_bias=bias).mean()


def siglip(a, b, scale, bias):
    return functional.sigmoid_contrastive(a, b, logit_scale=scale, logit_bias=bias).mean()


def all_pairs(scale, **x):
    losses, _ = functional.pairwise_multimodal(list(x.values()), logit_scale=scale)
    return losses.mean()


def smoothed(a, b, scale):
    return functional.info_nce(a, b, logit_scale=scale, label_smoothing=0.1).mean()


def shared_ids(a, b, scale, targets, ids):
    return functional.info_nce(a, b, logit_scale=scale, ids=ids).mean()


def distilled(a, b, scale, teacher_a, teacher_b, targets, alpha):
    """Both directions: `supervised_contrastive` has the anchors in its first argument."""
    teacher = jax.lax.stop_gradient(scale * teacher_a @ teacher_b.T)
    losses = (
        functional.supervised_contrastive(
            *pair, logit_scale=scale, targets=targets, teacher_similarity=t, distillation=alpha
        )
        for pair, t in (((a, b), teacher), ((b, a), teacher.T))
    )
    return sum(loss.mean() for loss in losses) / 2


def two_views(a, b, *, decoupled):
    a, b = functional.safe_l2_normalize(a), functional.safe_l2_normalize(b)
    return functional.nt_xent(a, b, logit_scale=5.0, decoupled=decoupled).mean()


def triplet(a, b, ids, margin, *, mining):
    return functional.triplet(a, b, margin=margin, mining=mining, directions="a_to_b")


def volume_loss(**x):
    """GRAM is a mean over rows of both directions."""
    losses, _ = functional.volume_contrastive(
        list(x.values()), logit_scale=5.0, label_smoothing=0.1
    )
    return losses.mean()


def symile(scale, **x):
    losses, _ = functional.symile(list(x.values()), logit_scale=scale)
    return losses.mean()


def info_loob(a, b, scale):
    """cloob multiplies by the temperature."""
    losses = functional.info_nce(a, b, logit_scale=scale, directions="a_to_b", decoupled=True)
    return losses.mean() / scale


def cross_modal_dcl(text, image, log_scale):
    text, image = functional.safe_l2_normalize(text), functional.safe_l2_normalize(image)
    return functional.info_nce(text, image, logit_scale=jnp.exp(log_scale), decoupled=True).mean()


def filip(text, image, log_scale, mask):
    """x-clip takes both softmaxes over images; the paper takes the second over texts."""
    text, image = functional.safe_l2_normalize(text), functional.safe_l2_normalize(image)
    text_to_image = functional.late_interaction(text, image, a_mask=mask)
    image_to_text = functional.late_interaction(image, text, b_mask=mask)
    losses = (
        functional.info_nce_from_similarity(
            similarity, logit_scale=jnp.exp(log_scale), directions="a_to_b"
        )
        for similarity in (text_to_image, image_to_text.T)
    )
    return sum(loss.mean() for loss in losses) / 2


OURS = {
    **{f"open_clip_ClipLoss_{case}": clip for case in ("small", "clip", "one")},
    **{f"open_clip_SigLipLoss_{case}": siglip for case in ("small", "clip", "one")},
    "open_clip_pairs": all_pairs,
    "label_smoothing": smoothed,
    "albef_ids": shared_ids,
    "albef_distilled": distilled,
    "dcl_views": lambda a, b: two_views(a, b, decoupled=True),
    "nt_xent": lambda a, b: two_views(a, b, decoupled=False),
    "supcon_one_set": lambda a, ids: functional.supervised_contrastive(
        a, logit_scale=1 / 0.3, ids=ids
    ),
    "supcon_two_sets": lambda a, b, ids: functional.supervised_contrastive(
        a, b, logit_scale=1 / 0.3, ids=ids
    ),
    "triplet_hardest": lambda **x: triplet(**x, mining="hard"),
    "triplet_every": lambda **x: triplet(**x, mining="sum").sum(),
    **{
        f"gram_volume_{m}": lambda x0, **x: functional.gram_volume(x0, list(x.values()))
        for m in (2, 3, 4)
    },
    **{f"gram_loss_{m}": volume_loss for m in (2, 3, 4)},
    "triangle_area": lambda language, video, audio: functional.triangle_area(
        language, video, audio, root=False
    ),
    "symile_3": symile,
    "symile_4": symile,
    "info_loob": info_loob,
    "dcl_cross_modal": cross_modal_dcl,
    "filip": filip,
    "masked": lambda a, b, scale, mask: functional.info_nce(a, b, logit_scale=scale, where=mask),
}


def test_every_case_of_the_file_is_compared():
    assert sorted([*OURS, "gram_alike"]) == sorted(GOLDEN.cases)


VARIANTS = ("gram_volume_2", "gram_volume_4", "gram_loss_2", "gram_loss_4", "symile_4", "Loss_one")


def rows():
    """Every case in both precisions; variants in float32 are of the exhaustive grid."""
    for case in OURS:
        yield pytest.param(case, True, id=f"{case}-f64")
        marks = pytest.mark.slow if any(name in case for name in VARIANTS) else ()
        yield pytest.param(case, False, id=f"{case}-f32", marks=marks)


@pytest.mark.parametrize(("case", "wide"), list(rows()))
def test_agrees_with_the_original(case, wide):
    GOLDEN.check(case, OURS[case], wide=wide)


def test_alike_modalities_have_the_paper_s_gradient_where_gram_has_none():
    """GRAM's root has an infinite slope at volume 0: its gradient is no number, ours is finite."""
    inputs = GOLDEN.entries("gram_alike", "in")
    assert not all(np.isfinite(x).all() for x in GOLDEN.entries("gram_alike", "grad").values())
    for dtype, close in ((jnp.float32, 1e-5), (jnp.float64, 1e-7)):
        with jax.enable_x64(dtype == jnp.float64):
            run = jax.jit(jax.value_and_grad(lambda x: volume_loss(**x)))
            value, gradients = run({name: jnp.asarray(x, dtype) for name, x in inputs.items()})
        np.testing.assert_allclose(value, GOLDEN.arrays["gram_alike/value"], rtol=close)
        assert all(np.isfinite(x).all() for x in gradients.values())
