"""Which token may see which: masks beyond those of padding."""

from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Bool

TextAttention = Literal["bidirectional", "separate", "causal"]


def media_location_mask(
    locations: Bool[Array, "*batch t"], num_media: int, *, immediate_only: bool = True
) -> Bool[Array, "*batch t m"]:
    r"""Which of the media each text token may see: $c_t = \sum_{u \le t} \ell_u$ counts them.

    Args:
      locations: True at the text tokens that stand for a medium; the k-th of them is medium k.
      num_media: the number of media m.
      immediate_only: a token sees the last medium up to it ($j + 1 = c_t$); otherwise all those up
        to it ($j < c_t$).

    Returns:
      A row of False for text before any medium, and with `immediate_only` for text after a location
      that has no medium. flamingo-pytorch, without `immediate_only`, spreads the attention of text
      before any medium evenly; the paper gives it nothing, as here.

    Raises:
      TypeError: if `locations` is not boolean.
      ValueError: if it has no axis, or `num_media` is not positive.

    Reference: Alayrac et al., 2022, arXiv:2204.14198, section 2.4 and figure 7.

    Example:
      >>> media_location_mask(jnp.array([False, True, False, True]), 2).astype(int)
      Array([[0, 0],
             [1, 0],
             [1, 0],
             [0, 1]], dtype=int32)
    """
    if locations.dtype != jnp.bool_:
        raise TypeError(f"locations must be boolean, got {locations.dtype}")
    if locations.ndim == 0 or num_media < 1:
        raise ValueError(
            f"expected locations [..., t] and num_media of at least 1, got {locations.shape} "
            f"and {num_media}"
        )
    count = jnp.cumsum(locations, axis=-1, dtype=jnp.int32)[..., None]
    shape = (*locations.shape, num_media)
    medium = jnp.broadcast_to(jnp.arange(1, num_media + 1, dtype=jnp.int32), shape)
    count = jnp.broadcast_to(count, shape)
    return medium == count if immediate_only else medium <= count


def query_text_mask(
    num_queries: int, num_text: int, *, text_attention: TextAttention = "bidirectional"
) -> Bool[Array, "n n"]:
    """Which of q queries and t text tokens after them may see which: [q + t, q + t].

    Args:
      num_queries, num_text: the numbers of tokens, 0 or more.
      text_attention: `"bidirectional"`: all see all (image-text matching). `"separate"`: queries
        see queries, text sees text (contrastive). `"causal"`: queries see queries, text sees the
        queries and the text up to itself (captioning).

    Raises:
      ValueError: for another choice, or a negative number.

    Reference: Li et al., 2023, arXiv:2301.12597, figure 2.

    Example:
      >>> query_text_mask(1, 2, text_attention="causal").astype(int)
      Array([[1, 0, 0],
             [1, 1, 0],
             [1, 1, 1]], dtype=int32)
    """
    if text_attention not in get_args(TextAttention):
        choices = list(get_args(TextAttention))
        raise ValueError(f"text_attention must be one of {choices}, got {text_attention!r}")
    if num_queries < 0 or num_text < 0:
        raise ValueError(
            f"num_queries and num_text must not be negative, got {num_queries}, {num_text}"
        )
    total = num_queries + num_text
    if text_attention == "bidirectional":
        return jnp.ones((total, total), bool)
    query = jnp.arange(total) < num_queries
    alike = query[:, None] == query[None, :]
    if text_attention == "separate":
        return alike
    return jnp.where(query[:, None], query[None, :], jnp.tril(jnp.ones((total, total), bool)))
