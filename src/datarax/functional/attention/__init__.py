"""Attention between token sequences: scaled dot products, positions, masks."""

from datarax.functional.attention.absorbed import absorbed_attention
from datarax.functional.attention.dot_product import dot_product_attention
from datarax.functional.attention.rotary import rotary_embedding
from datarax.functional.attention.shared_similarity import co_attention
from datarax.functional.attention.token_masks import media_location_mask, query_text_mask

__all__ = [
    "absorbed_attention",
    "co_attention",
    "dot_product_attention",
    "media_location_mask",
    "query_text_mask",
    "rotary_embedding",
]
