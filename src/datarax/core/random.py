"""Keys that belong to a record, not to the batch it happens to arrive in.

All are threefry keys whatever the default implementation is: other generators give different
numbers under `vmap`, and a record would then draw by its place in the batch.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32


def threefry_data(key: Array) -> UInt32[Array, "2"]:
    """The data of a threefry key drawn from `key`, which may be of any implementation."""
    return jax.random.bits(key, (2,), jnp.uint32)


def threefry_key(data: UInt32[Array, "2"]) -> Array:
    """The typed key of such data."""
    return jax.random.wrap_key_data(data, impl="threefry2x32")


def record_key(base_key: Array, epoch: Array | np.generic | None, record_index: Any) -> Array:
    """The key of one record: `fold_in(fold_in(base_key, epoch), record_index)`.

    Args:
      base_key: the operator's key.
      epoch: uint32 scalar; `None` counts as 0.
      record_index: uint32 scalar, or `[2]` as (high, low) words. A record number below 2^32 has
        the same key in both forms.
    """
    epoch_key = jax.random.fold_in(base_key, jnp.uint32(0) if epoch is None else epoch)
    if jnp.ndim(record_index) == 0:
        return jax.random.fold_in(epoch_key, record_index)
    high, low = record_index[0], record_index[1]
    short = jax.random.fold_in(epoch_key, low)
    return jnp.where(high == 0, short, jax.random.fold_in(short, high))
