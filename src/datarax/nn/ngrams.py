"""Text as hashed pieces of its words, from the bytes alone: no vocabulary, no tokenizer."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt8, UInt32

SPACE = 32


def hash_words(
    text: UInt8[Array, "n t"], *, max_words: int
) -> tuple[UInt32[Array, "n w"], Bool[Array, "n w"]]:
    """A hash of each of the first words, and which of them there are.

    Words are separated by spaces; zero bytes are padding and separate too. The hash is the sum
    over a word's bytes of a mix of value and place.

    Args:
      text: UTF-8 bytes, padded with zeros.
      max_words: later words are left out.

    Returns:
      uint32 [n, max_words] and bool [n, max_words].

    Example:
      >>> text = jnp.frombuffer(b"an owl an", jnp.uint8)[None]
      >>> hashes, exists = hash_words(text, max_words=4)
      >>> bool(hashes[0, 0] == hashes[0, 2]), exists[0].tolist()
      (True, [True, True, True, False])
    """
    word, inside, start = _words(text)
    place = jnp.arange(text.shape[1], dtype=jnp.int32)[None, :]
    offset = place - jax.lax.cummax(jnp.where(start, place, 0), axis=1)
    mixed = _mix(text.astype(jnp.uint32) + (offset.astype(jnp.uint32) << 8))
    member = (word[:, None, :] == jnp.arange(max_words)[None, :, None]) & inside[:, None, :]
    hashes = jnp.sum(jnp.where(member, mixed[:, None, :], 0), axis=2, dtype=jnp.uint32)
    return hashes, jnp.any(member, axis=2)


def hash_ngrams(
    text: UInt8[Array, "n t"], *, sizes: Sequence[int]
) -> tuple[UInt32[Array, "n p"], Int[Array, "n p"]]:
    """Hashes of the runs of `sizes` bytes in each word, and the word that each is in.

    A run may take in the space before and the space after its word (there is one at both ends of
    the text), which tells the ends of a word from its middle; it reaches no other word.

    Args:
      text: UTF-8 bytes, padded with zeros.
      sizes: lengths of the runs, at least 1 and at most t.

    Returns:
      uint32 [n, p] and int32 [n, p], one column for each place where a run might be: the number of
      its word from 0, or -1 where there is none.

    Example:
      >>> text = jnp.frombuffer(b"an owl", jnp.uint8)[None]
      >>> hash_ngrams(text, sizes=[3])[1].tolist()
      [[0, 0, -1, 1, 1, 1]]
    """
    ends = jnp.full((text.shape[0], 1), SPACE, jnp.uint8)
    text = jnp.concatenate([ends, jnp.where(text == 0, SPACE, text), ends], axis=1)
    word, inside, _ = _words(text)
    hashes, owners = [], []
    for size in sizes:
        width = text.shape[1] - size + 1
        runs = jnp.stack([text[:, i : i + width] for i in range(size)])
        solid = jnp.stack([inside[:, i : i + width] for i in range(size)])
        value = jnp.full(runs.shape[1:], size, jnp.uint32)
        for byte in runs:
            value = _mix(value * jnp.uint32(257) + byte.astype(jnp.uint32))
        whole = jnp.all(solid[1:-1], axis=0) & jnp.any(solid, axis=0)
        owner = jnp.maximum(word[:, :width], word[:, min(1, size - 1) :][:, :width])
        hashes.append(value)
        owners.append(jnp.where(whole, owner, -1))
    return jnp.concatenate(hashes, axis=1), jnp.concatenate(owners, axis=1)


def _words(text: Array) -> tuple[Array, Array, Array]:
    """For each byte: the number of words that began so far, less 1; is it in one; does it begin."""
    inside = (text != SPACE) & (text != 0)
    start = inside & ~jnp.pad(inside[:, :-1], ((0, 0), (1, 0)))
    return jnp.cumsum(start, axis=1, dtype=jnp.int32) - 1, inside, start


def _mix(x: Array) -> Array:
    """The finaliser of MurmurHash3: every bit of the input reaches every bit of the result."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
