"""Changes to sequences of token ids `[..., t]`, padded behind; a mask says which tokens there are.

The ids are integers of any kind: of a vocabulary, or hashes of words and n-grams.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Num

from datarax.functional.checks import check_mask


def is_one_of(tokens: Num[Array, "*batch t"], ids: Sequence[int]) -> Bool[Array, "*batch t"]:
    """Where a token is one of the ids; nowhere if there are none.

    Raises:
      TypeError: if `tokens` are not integers.

    Example:
      >>> is_one_of(jnp.array([1, 5, 2]), [1, 2]).tolist()
      [True, False, True]
    """
    _check_tokens(tokens)
    found = jnp.zeros(tokens.shape, bool)
    info = jnp.iinfo(tokens.dtype)
    for token in ids:
        if not info.min <= token <= info.max:
            continue  # none of them is: an int8 cannot be 300
        found = found | (tokens == jnp.asarray(token, tokens.dtype))
    return found


def keep_tokens(
    tokens: Num[Array, "*batch t"], keep: Array, *, pad_id: int = 0
) -> tuple[Integer[Array, "*batch t"], Bool[Array, "*batch t"]]:
    """The tokens that are kept, in their order and moved to the front, and where they are.

    Args:
      tokens: ids.
      keep: bool, the shape of `tokens`; False for padding.
      pad_id: what the slots behind them hold.

    Returns:
      Tokens in the same shape and dtype, and their mask.

    Raises:
      TypeError: if `tokens` are not integers or `keep` not boolean.
      ValueError: if the shapes differ, or `pad_id` is outside of the dtype.

    Example:
      >>> tokens, mask = keep_tokens(jnp.array([7, 8, 9]), jnp.array([True, False, True]))
      >>> tokens.tolist(), mask.tolist()
      ([7, 9, 0], [True, True, False])
    """
    _check_tokens(tokens)
    check_mask(keep, shape=tokens.shape, name="keep")
    _check_id("pad_id", pad_id, tokens)
    order = jnp.argsort(~keep, axis=-1, stable=True)
    mask = jnp.take_along_axis(keep, order, axis=-1)
    moved = jnp.take_along_axis(tokens, order, axis=-1)
    return jnp.where(mask, moved, jnp.asarray(pad_id, tokens.dtype)), mask


def surviving_tokens(
    draws: Float[Array, "*batch t"], mask: Array, *, rate: float | int
) -> Bool[Array, "*batch t"]:
    """Which tokens stay when each is dropped with probability `rate`; never none of those there.

    Args:
      draws: uniform in [0, 1), one a token; below `rate` it is dropped. Where that would drop all,
        the one with the greatest number stays.
      mask: bool, the shape of `draws`, True where there is a token.
      rate: in [0, 1].

    Returns:
      False where there is no token.

    Raises:
      TypeError: if `mask` is not boolean.
      ValueError: if the shapes differ.

    Reference: Iyyer et al., 2015, "Deep unordered composition rivals syntactic methods for text
    classification" (word dropout).

    Example:
      >>> draws = jnp.array([0.1, 0.6, 0.9])
      >>> surviving_tokens(draws, jnp.array([True, True, False]), rate=0.5).tolist()
      [False, True, False]
    """
    check_mask(mask, shape=draws.shape, name="mask")
    if draws.shape[-1] == 0:
        return mask
    known = jnp.where(mask, draws, -1)
    last = jnp.arange(draws.shape[-1]) == jnp.argmax(known, axis=-1, keepdims=True)
    return mask & ((draws >= rate) | last)


def mask_tokens(
    tokens: Num[Array, "*batch t"],
    maskable: Array,
    draws: Float[Array, "..."],
    *,
    mask_id: int,
    vocabulary_size: int,
    special_ids: Sequence[int] = (),
    rate: float = 0.15,
    mask_share: float = 0.8,
    random_share: float = 0.1,
    ignore_index: int = -100,
) -> tuple[Integer[Array, "*batch t"], Integer[Array, "*batch t"]]:
    """Masked language modelling: tokens with some hidden, and what they were.

    A token that may be masked is chosen with probability `rate`. Of those chosen `mask_share`
    become `mask_id`, `random_share` an ordinary id, each alike, and the others stay.

    Args:
      tokens: ids.
      maskable: bool, the shape of `tokens`; False for padding and for special tokens.
      draws: three uniform numbers in [0, 1) a token: whether it is chosen, what it becomes, and
        which ordinary id.
      mask_id: written for a masked token.
      vocabulary_size: ids are in [0, vocabulary_size).
      special_ids: never written as an ordinary id, as is `mask_id`.
      rate, mask_share, random_share: in [0, 1].
      ignore_index: the label of a token that was not chosen.

    Returns:
      Tokens in their dtype, and labels in int32 (int64 if the tokens are), both in their shape.

    Raises:
      TypeError: if `tokens` are not integers or `maskable` not boolean.
      ValueError: if the shapes differ, `mask_id` or an ordinary id is outside of the dtype, or no
        id is ordinary.

    Reference: Devlin et al., 2018, arXiv:1810.04805, section 3.1 and appendix A.1. There the number
    of chosen tokens is fixed; here each is chosen for itself, as RoBERTa and later code do.

    Example:
      >>> draws = jnp.array([[0.1, 0.5, 0.0], [0.9, 0.5, 0.0]])
      >>> tokens, maskable = jnp.array([7, 8]), jnp.ones(2, bool)
      >>> [x.tolist() for x in mask_tokens(tokens, maskable, draws, mask_id=1, vocabulary_size=9)]
      [[1, 8], [7, -100]]
    """
    _check_tokens(tokens)
    check_mask(maskable, shape=tokens.shape, name="maskable")
    _check_id("mask_id", mask_id, tokens)
    _check_id("vocabulary_size - 1", vocabulary_size - 1, tokens)
    if draws.shape != (*tokens.shape, 3):
        raise ValueError(f"draws must have shape {(*tokens.shape, 3)}, got {draws.shape}")
    choice, action, word = (draws[..., i] for i in range(3))
    chosen = maskable & (choice < rate)
    ordinary = _ordinary_ids(word, {mask_id, *special_ids}, vocabulary_size)
    hidden = jnp.where(
        action < mask_share,
        jnp.asarray(mask_id, tokens.dtype),
        jnp.where(action < mask_share + random_share, ordinary.astype(tokens.dtype), tokens),
    )
    wide = jnp.int64 if tokens.dtype == jnp.int64 else jnp.int32
    labels = jnp.where(chosen, tokens.astype(wide), jnp.asarray(ignore_index, wide))
    return jnp.where(chosen, hidden, tokens), labels


def _ordinary_ids(draws: Array, special: set[int], size: int) -> Array:
    """Ids in [0, size) without the special ones, each as likely, from uniform numbers."""
    inside = sorted(token for token in special if 0 <= token < size)
    count = size - len(inside)
    if count < 1:
        raise ValueError(f"vocabulary_size {size} leaves no id that is not special: {inside}")
    ids = jnp.floor(draws * jnp.asarray(count, draws.dtype)).astype(jnp.int32)
    ids = jnp.minimum(ids, count - 1)
    for token in inside:  # ascending: each step over one special id
        ids = ids + (ids >= token).astype(jnp.int32)
    return ids


def _check_id(name: str, token: int, tokens: Array) -> None:
    info = jnp.iinfo(tokens.dtype)
    if not info.min <= token <= info.max:
        raise ValueError(f"{name} must be an {tokens.dtype}, as the tokens are, got {token}")


def _check_tokens(tokens: Array) -> None:
    if not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise TypeError(f"tokens must be integers, got {tokens.dtype} of shape {tokens.shape}")
