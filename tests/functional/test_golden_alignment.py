"""Values and gradients of the originals (tools/golden/alignment.py), named in each failure."""

import jax.numpy as jnp
import pytest
from golden_file import Golden

from datarax import functional

GOLDEN = Golden("alignment")


def mean(loss):
    return lambda *x, **options: jnp.mean(loss(*x, **options))


def hypersphere(a, b):
    a, b = functional.safe_l2_normalize(a), functional.safe_l2_normalize(b)
    spread = functional.uniformity(a) + functional.uniformity(b)
    return jnp.mean(functional.alignment_loss(a, b)) + spread / 2


def platonic_cka(kernel, debiased):
    """Our CKA over a denominator to which 1e-6 is added, as platonic-rep does."""

    def ours(a, b):
        options = {"kernel": kernel, "debiased": debiased}
        if kernel == "rbf":
            options["bandwidth"] = 2.0
        scale = 1 if debiased else (a.shape[0] - 1) ** 2  # its biased HSIC is not divided
        own = functional.hsic(a, a, **options) * functional.hsic(b, b, **options)
        denominator = scale * jnp.sqrt(own)
        return functional.cka(a, b, **options) * denominator / (denominator + 1e-6)

    return ours


def similarity_matching(a, b):
    a, b = functional.safe_l2_normalize(a), functional.safe_l2_normalize(b)
    return jnp.mean(functional.similarity_matching(a, b))


def distilled(a, b, scale, teacher_a, teacher_b, teacher_scale):
    return jnp.mean(
        functional.similarity_distillation(
            a,
            b,
            teacher_a=teacher_a,
            teacher_b=teacher_b,
            logit_scale=scale,
            teacher_logit_scale=teacher_scale,
        )
    )


def hsic(a, b, *, debiased):
    scale = 1 if debiased else (a.shape[0] - 1) ** 2
    return scale * functional.hsic(a, b, debiased=debiased)


OURS = {
    "vicreg": functional.vicreg,
    "barlow_twins": functional.barlow_twins,
    "hypersphere": hypersphere,
    "alignment": mean(functional.alignment_loss),
    "uniformity": lambda a, b: functional.uniformity(a),
    "centroid_uniformity": functional.centroid_uniformity,
    "modality_gap": functional.modality_gap,
    "CCALoss": lambda **x: functional.cca_loss(list(x.values()), ridge=1e-3),
    "MCCALoss": lambda **x: functional.cca_loss(list(x.values()), ridge=1e-3),
    "GCCALoss": lambda **x: functional.cca_loss(list(x.values()), form="gcca", ridge=1e-3),
    "DCCAEY": lambda **x: functional.cca_loss(list(x.values()), form="ey"),
    "cka_ip_biased": platonic_cka("linear", False),
    "cka_ip_debiased": platonic_cka("linear", True),
    "cka_rbf_biased": platonic_cka("rbf", False),
    "cka_rbf_debiased": platonic_cka("rbf", True),
    "hsic_biased": lambda a, b: hsic(a, b, debiased=False),
    "hsic_unbiased": lambda a, b: hsic(a, b, debiased=True),
    "cyclip_in_modal": mean(functional.in_modal_consistency),
    "cyclip_cross_modal": mean(functional.cross_modal_consistency),
    "similarity_matching": similarity_matching,
    "distill_clip": distilled,
    "rkd_distance": mean(functional.relational_distance),
    "rkd_angle": mean(functional.relational_angle),
}


def test_every_case_of_the_file_is_compared():
    assert sorted(OURS) == sorted(GOLDEN.cases)


VARIANTS = ("debiased", "cka_rbf", "unbiased", "MCCALoss", "cyclip_in_modal")


def rows():
    """Every case in both precisions; variants in float32 are of the exhaustive grid."""
    for case in OURS:
        yield pytest.param(case, True, id=f"{case}-f64")
        marks = pytest.mark.slow if any(name in case for name in VARIANTS) else ()
        yield pytest.param(case, False, id=f"{case}-f32", marks=marks)


@pytest.mark.parametrize(("case", "wide"), list(rows()))
def test_agrees_with_the_original(case, wide):
    GOLDEN.check(case, OURS[case], wide=wide)
