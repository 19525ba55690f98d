"""One vector from several: weighted sums, gates, products, tensors and experts."""

from datarax.functional.fusion.bilinear import (
    block_product,
    hadamard_product,
    mfb_product,
    mfh_product,
    mutan_product,
    power_normalize,
    signed_sqrt,
    tucker_product,
)
from datarax.functional.fusion.experts import mixture_of_experts, product_of_experts
from datarax.functional.fusion.gating import feature_modulation, gated_product
from datarax.functional.fusion.multiplicative import multiplicative_interaction
from datarax.functional.fusion.tensor import low_rank_tensor, outer_product
from datarax.functional.fusion.weighted import (
    attention_weighted_sum,
    gated_sum,
    masked_concatenate,
    weighted_sum,
)

__all__ = [
    "attention_weighted_sum",
    "block_product",
    "feature_modulation",
    "gated_product",
    "gated_sum",
    "hadamard_product",
    "low_rank_tensor",
    "masked_concatenate",
    "mfb_product",
    "mfh_product",
    "mixture_of_experts",
    "multiplicative_interaction",
    "mutan_product",
    "outer_product",
    "power_normalize",
    "product_of_experts",
    "signed_sqrt",
    "tucker_product",
    "weighted_sum",
]
