"""From a method's name and options to the function that computes it, for a record or a batch."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

from datarax.functional.alignment.correlation import cca_loss
from datarax.functional.alignment.distances import (
    alignment_loss,
    centroid_uniformity,
    cosine_alignment,
    huber_alignment,
    modality_gap,
    squared_error_alignment,
    uniformity,
)
from datarax.functional.alignment.distillation import (
    relational_angle,
    relational_distance,
    similarity_distillation,
)
from datarax.functional.alignment.kernels import cka, hsic
from datarax.functional.alignment.procrustes import procrustes_residual
from datarax.functional.alignment.redundancy import barlow_twins, vicreg, vicreg_terms
from datarax.functional.alignment.relational import (
    cross_modal_consistency,
    in_modal_consistency,
    similarity_matching,
)
from datarax.functional.masking import safe_l2_normalize
from datarax.operators.alignment_config import AlignmentOperatorConfig

RecordLoss = Callable[[AlignmentOperatorConfig, Array, Array], Array]
BatchLoss = Callable[[AlignmentOperatorConfig, Sequence[Array], Array | None], Array]
ON_SPHERE = (
    "alignment_uniformity",
    "gap_closing",
    "modality_gap",
    "cross_modal_consistency",
    "in_modal_consistency",
    "similarity_matching",
    "similarity_distillation",
)


def vectors(config: AlignmentOperatorConfig, inputs: Sequence[Array]) -> list[Array]:
    """The inputs, made unit vectors where the config or the method's definition asks for them."""
    normalize = config.normalize
    if normalize is None:
        normalize = config.method in ON_SPHERE
    return [safe_l2_normalize(x) for x in inputs] if normalize else list(inputs)


def state_terms(
    config: AlignmentOperatorConfig, inputs: Sequence[Array], where: Array | None
) -> dict[str, Array]:
    """Scalars worth watching: the unweighted terms of VICReg."""
    if config.method != "vicreg":
        return {}
    terms = vicreg_terms(*inputs, where=where)._asdict()
    return {name: jax.lax.stop_gradient(term) for name, term in terms.items()}


def _alignment_uniformity(
    config: AlignmentOperatorConfig, inputs: Sequence[Array], where: Array | None
) -> Array:
    a, b = inputs
    spread = (uniformity(a, t=config.t, where=where) + uniformity(b, t=config.t, where=where)) / 2
    loss = alignment_loss(a, b, power=config.power)
    return loss + jnp.broadcast_to(config.uniformity_weight * spread, loss.shape)


def _gap_closing(
    config: AlignmentOperatorConfig, inputs: Sequence[Array], where: Array | None
) -> Array:
    spread = centroid_uniformity(*inputs, t=config.t, where=where)
    loss = alignment_loss(*inputs, power=config.power)
    return loss + jnp.broadcast_to(config.uniformity_weight * spread, loss.shape)


def _distillation(
    config: AlignmentOperatorConfig, inputs: Sequence[Array], where: Array | None
) -> Array:
    a, b, teacher_a, teacher_b = inputs
    return similarity_distillation(
        a,
        b,
        teacher_a=_teacher(config, teacher_a),
        teacher_b=_teacher(config, teacher_b),
        logit_scale=config.logit_scale,
        teacher_logit_scale=config.teacher_logit_scale,
        subtract_entropy=config.subtract_entropy,
        where=where,
    )


def _relational(function: Callable[..., Array]) -> BatchLoss:
    return lambda config, inputs, where: function(
        inputs[0], _teacher(config, inputs[1]), delta=config.delta, where=where
    )


def _teacher(config: AlignmentOperatorConfig, x: Array) -> Array:
    return x if config.teacher_gradient else jax.lax.stop_gradient(x)


def _vicreg(config: AlignmentOperatorConfig, inputs: Sequence[Array], where: Array | None) -> Array:
    return vicreg(
        *inputs,
        invariance_weight=config.invariance_weight,
        variance_weight=config.variance_weight,
        covariance_weight=config.covariance_weight,
        where=where,
    )


def _barlow_twins(
    config: AlignmentOperatorConfig, inputs: Sequence[Array], where: Array | None
) -> Array:
    return barlow_twins(
        *inputs,
        redundancy_weight=config.redundancy_weight,
        ddof=config.ddof,
        statistics=config.statistics,
        where=where,
    )


def _cca(config: AlignmentOperatorConfig, inputs: Sequence[Array], where: Array | None) -> Array:
    return cca_loss(
        inputs,
        form=config.form,
        objective=config.objective,
        components=config.components,
        ridge=config.ridge,
        where=where,
    )


def _kernel(
    function: Callable[..., Array],
    config: AlignmentOperatorConfig,
    inputs: Sequence[Array],
    where: Array | None,
) -> Array:
    return function(
        *inputs,
        kernel=config.kernel,
        bandwidth=config.bandwidth,
        debiased=config.debiased,
        where=where,
    )


def _procrustes(
    config: AlignmentOperatorConfig, inputs: Sequence[Array], where: Array | None
) -> Array:
    return procrustes_residual(
        *inputs, reflection=config.reflection, center=config.center, where=where
    )


def _plain(function: Callable[..., Array]) -> BatchLoss:
    return lambda config, inputs, where: function(*inputs, where=where)


OF_RECORDS: dict[str, RecordLoss] = {
    "cosine": lambda config, a, b: cosine_alignment(a, b),
    "squared_error": lambda config, a, b: squared_error_alignment(a, b),
    "huber": lambda config, a, b: huber_alignment(a, b, delta=config.delta),
}
OF_BATCHES: dict[str, BatchLoss] = {
    "alignment_uniformity": _alignment_uniformity,
    "gap_closing": _gap_closing,
    "modality_gap": _plain(modality_gap),
    "vicreg": _vicreg,
    "barlow_twins": _barlow_twins,
    "cca": _cca,
    "hsic": lambda config, inputs, where: -_kernel(hsic, config, inputs, where),
    "cka": lambda config, inputs, where: 1 - _kernel(cka, config, inputs, where),
    "cross_modal_consistency": _plain(cross_modal_consistency),
    "in_modal_consistency": _plain(in_modal_consistency),
    "similarity_matching": _plain(similarity_matching),
    "relational_distance": _relational(relational_distance),
    "relational_angle": _relational(relational_angle),
    "similarity_distillation": _distillation,
    "procrustes": _procrustes,
}
