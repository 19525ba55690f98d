"""Shapes of records and batches as trees of `jax.ShapeDtypeStruct`."""

from typing import Any

import jax
import numpy as np


def spec_of(tree: Any) -> Any:
    """The spec of a tree of arrays.

    Example:
      >>> spec_of({"a": np.zeros((2, 3), np.float32)})
      {'a': ShapeDtypeStruct(shape=(2, 3), dtype=float32)}
    """
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), _dtype(x)), tree)


def batch_spec(spec: Any, batch_size: int) -> Any:
    """The spec of `batch_size` such records."""
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((batch_size, *s.shape), _dtype(s)), spec)


def record_spec(spec: Any) -> Any:
    """The spec of one record of such a batch.

    Raises:
      ValueError: if a leaf has no leading axis to take off.
    """

    def drop(path: Any, s: Any) -> jax.ShapeDtypeStruct:
        if not s.shape:
            raise ValueError(f"field {jax.tree_util.keystr(path)} has no batch axis: {s}")
        return jax.ShapeDtypeStruct(s.shape[1:], s.dtype)

    return jax.tree_util.tree_map_with_path(drop, spec)


def keep_equal(before: Any, after: Any) -> Any:
    """`after`, with the leaf of `before` wherever the device would hold both alike."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(before)
    known = dict(leaves)

    def pick(path: Any, s: jax.ShapeDtypeStruct) -> Any:
        return known[path] if path in known and spec_of(known[path]) == s else s

    return jax.tree_util.tree_map_with_path(pick, after)


def batch_shapes(data: Any, batch_size: int | None = None) -> Any:
    """The tree of shapes of batched data, with the batch size replaced if one is given."""

    def shape(x: Any) -> tuple[int, ...]:
        return np.shape(x) if batch_size is None else (batch_size, *np.shape(x)[1:])

    return jax.tree.map(shape, data)


def zeros(spec: Any) -> Any:
    """Arrays of zeros of a spec."""
    return jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), spec)


def _dtype(x: Any) -> Any:
    known = isinstance(x, jax.Array | np.ndarray | np.generic | jax.ShapeDtypeStruct)
    dtype = x.dtype if known else np.result_type(x)
    return jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True)
