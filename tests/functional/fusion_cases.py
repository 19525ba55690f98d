"""Rows of the fusions."""

from functools import partial

import functional_oracles as oracle
import fusion_oracles as loops
import jax.numpy as jnp
import numpy as np
from functional_case import Case, N

from datarax import functional


def _stacked(name, function, reference, *, second):
    return Case(
        name=name,
        run=lambda x, y, mask, ids: function(x, y, presence=mask),
        oracle=reference,
        shapes=((N, 3, 4), second),
        kind="pointwise",
        mask=(N, 3),
        spoiled=(0, 1),
    )


def _concatenate(x, mask, ids):
    presence = None if mask is None else [mask[..., m] for m in range(3)]
    return functional.masked_concatenate([x[..., m, :] for m in range(3)], presence=presence)


def _numbers(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


CORE, CORE_BIAS = _numbers(4, 4, 3, seed=20), _numbers(3, seed=21)
FACTORS = [_numbers(2, 5, 3, seed=22 + m) for m in range(3)]
RANK_WEIGHTS, RANK_BIAS = _numbers(2, seed=25), _numbers(3, seed=26)
MATRIX = [_numbers(*shape, seed=27) for shape in ((4, 4, 3), (4, 3), (4, 3), (3,))]
VECTOR = [_numbers(*shape, seed=28) for shape in ((4, 4), (4, 4), (4,), (4,))]
SCALAR = [_numbers(*shape, seed=29) for shape in ((4,), (4,), (1,), (1,))]
STEEP = 112  # draws no number near 0, where a square root is too steep for differences
NORM = [_numbers(5, seed=s) for s in (30, 31)]


def _like(x, *arrays):
    return [jnp.asarray(a).astype(x.dtype) for a in arrays]


def _sets(name, run, reference, *, shape=(3, 4), **options):
    """A function of one stack of modalities [..., m, d], called with the presence [..., m]."""
    return Case(
        name=name,
        run=lambda x, mask, ids: run(x, mask),
        oracle=reference,
        shapes=((N, *shape),),
        kind="pointwise",
        mask=(N, shape[0]),
        spoiled=(0,),
        **options,
    )


def _gate(x, mask):
    return functional.gated_product(x[..., 0, :], x[..., 1, :], presence=mask)


def _film(x, mask):
    # The conditioning side must use its whole width, the other only half of its own.
    scale, shift = jnp.split(x[..., 0, :], 2, axis=-1)
    return functional.feature_modulation(scale, shift, x[..., 1, :2], presence=mask)


def _mfh(x, mask):
    stages = jnp.stack([x[..., :4], x[..., 4:]], axis=-3)
    return functional.mfh_product(stages, rank=2, normalize=True, presence=mask)


def _mfh_loop(x, mask, ids):
    return loops.mfh(2)(np.stack([x[..., :4], x[..., 4:]], axis=1), mask, ids)


def _block(x, mask):
    chunks = [x[..., :4], x[..., 4:]]
    return functional.block_product(chunks, rank=2, normalize=True, presence=mask)


def _tucker(x, mask):
    core, bias = _like(x, CORE, CORE_BIAS)
    return functional.tucker_product(x, core, bias=bias, presence=mask)


def _apart(x, mask):
    count = x.shape[-2]
    presence = None if mask is None else [mask[..., m] for m in range(count)]
    return [x[..., m, :] for m in range(count)], presence


def _outer(x, mask):
    inputs, presence = _apart(x, mask)
    return functional.outer_product(inputs, presence=presence)


def _low_rank(x, mask):
    inputs, presence = _apart(x, mask)
    weights, bias = _like(x, RANK_WEIGHTS, RANK_BIAS)
    return functional.low_rank_tensor(
        inputs, _like(x, *FACTORS), weights=weights, bias=bias, presence=presence
    )


def _experts(function, **options):
    def run(x, mask):
        means, log_variances = jnp.split(x, 2, axis=-1)
        return jnp.concatenate(function(means, log_variances, presence=mask, **options), axis=-1)

    return run


def _multiplicative(form, parameters):
    def run(x, mask):
        W, U, V, b = _like(x, *parameters)
        return functional.multiplicative_interaction(
            x[..., 0, :],
            x[..., 1, :],
            interaction=W,
            from_x=U,
            from_y=V,
            bias=b,
            form=form,
            presence=mask,
        )

    return run


def _layer_norm(x):
    return functional.layer_norm(x, *_like(x, *NORM))


def _alone(name, run, reference, **options):
    return Case(
        name=name,
        run=lambda x, mask, ids: run(x),
        oracle=reference,
        shapes=((N, 5),),
        kind="pointwise",
        **options,
    )


NEW = [
    _sets("gated_product", _gate, loops.gate, shape=(2, 4)),
    _sets("feature_modulation", _film, loops.film, shape=(2, 4)),
    _alone("signed_sqrt", functional.signed_sqrt, loops.signed_sqrt, check_seed=STEEP),
    _alone("power_normalize", functional.power_normalize, loops.power_normalize, check_seed=STEEP),
    _alone("layer_norm", _layer_norm, loops.layer_norm(*NORM, 1e-6)),
    _sets(
        "hadamard_product", lambda x, p: functional.hadamard_product(x, presence=p), loops.hadamard
    ),
    _sets(
        "mfb_product",
        lambda x, p: functional.mfb_product(x, rank=2, presence=p),
        loops.mfb(2),
        shape=(3, 6),
    ),
    _sets("mfh_product", _mfh, _mfh_loop, shape=(2, 8)),
    _sets(
        "mutan_product",
        lambda x, p: functional.mutan_product(x, rank=2, presence=p),
        loops.mutan(2),
        shape=(3, 6),
    ),
    _sets("block_product", _block, loops.block((2, 3), 2), shape=(2, 10), check_seed=STEEP),
    _sets("tucker_product", _tucker, loops.tucker(CORE, CORE_BIAS), shape=(2, 4), tolerance=1e-1),
    _sets("outer_product", _outer, loops.outer),
    _sets(
        "low_rank_tensor",
        _low_rank,
        loops.low_rank(FACTORS, RANK_WEIGHTS, RANK_BIAS),
        tolerance=1e-1,
    ),
    _sets(
        "product_of_experts",
        _experts(functional.product_of_experts, eps=1e-2),
        loops.product_of_experts(1e-2),
    ),
    _sets(
        "mixture_of_experts", _experts(functional.mixture_of_experts), loops.mixture_of_experts()
    ),
    *(
        _sets(
            f"multiplicative_{form}",
            _multiplicative(form, parameters),
            loops.multiplicative(*parameters, form),
            shape=(2, 4),
            tolerance=1e-1,
        )
        for form, parameters in (("matrix", MATRIX), ("vector", VECTOR), ("scalar", SCALAR))
    ),
]


CASES = [
    *NEW,
    _stacked("weighted_sum", functional.weighted_sum, oracle.weighted_sum, second=(N, 3)),
    _stacked(
        "attention_weighted_sum",
        functional.attention_weighted_sum,
        oracle.attention_weighted_sum,
        second=(N, 3),
    ),
    _stacked(
        "gated_sum_softmax", functional.gated_sum, oracle.gated_sum("softmax"), second=(N, 3, 4)
    ),
    _stacked(
        "gated_sum_sigmoid",
        partial(functional.gated_sum, gate="sigmoid"),
        oracle.gated_sum("sigmoid"),
        second=(N, 3, 4),
    ),
    Case(
        name="masked_concatenate",
        run=_concatenate,
        oracle=oracle.concatenate,
        shapes=((N, 3, 4),),
        kind="pointwise",
        mask=(N, 3),
        spoiled=(0,),
    ),
]
