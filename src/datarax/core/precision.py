"""The dtype that an operator computes in: fields are cast on their way in, parameters never."""

from typing import Any

import jax
import jax.numpy as jnp

from datarax.core.element_batch import Batch

COMPUTE_DTYPES = ("float32", "bfloat16", "float16")


def cast_floating(tree: Any, dtype: str) -> Any:
    """The tree with its floating arrays in a dtype; all other leaves are the same objects.

    Raises:
      ValueError: unless `dtype` is one of `COMPUTE_DTYPES`.

    Example:
      >>> cast_floating({"a": jnp.zeros(2), "b": jnp.zeros(2, bool)}, "bfloat16")["a"].dtype.name
      'bfloat16'
    """
    if dtype not in COMPUTE_DTYPES:
        raise ValueError(f"compute_dtype must be one of {COMPUTE_DTYPES} or None, got {dtype!r}")

    def cast(x: Any) -> Any:
        floating = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype != jnp.dtype(dtype)
        return jnp.asarray(x).astype(dtype) if floating else x

    return jax.tree.map(cast, tree)


def restore_uncast(batch: Batch, cast: Batch, out: Batch) -> Batch:
    """`out` with the fields of `batch` for those that came from `cast` and were handed through."""
    before, after = jax.tree.leaves(batch.data), jax.tree.leaves(cast.data)
    original = {id(new): old for new, old in zip(after, before, strict=True)}
    return out.replace(data=jax.tree.map(lambda x: original.get(id(x), x), out.data))
