"""Random keys for the layers of a module."""

from collections.abc import Sequence

import jax
from jaxtyping import Array


def split_keys(rng_key: Array | None, count: int) -> Sequence[Array | None]:
    """One key a layer, or `None` for each, which turns their dropout off.

    Example:
      >>> split_keys(None, 2)
      [None, None]
    """
    return [None] * count if rng_key is None else list(jax.random.split(rng_key, count))
