"""Blocks of rows: how many rows at once, the loop over them, and the products inside it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array

from datarax.functional.checks import accumulation_dtype

# Up to this many logits one block would hold them all, and the dense form is as fast.
DENSE_LOGITS = 2**18
# The most rows of a block, and its bytes. Gradients of columns are read and written once a block,
# which 512 rows hide behind the products of a CPU; a GPU is faster, and wants longer ones.
_MOST_ROWS = {"cpu": 512, "gpu": 4096, "tpu": 2048}
_BLOCK_BYTES = {"cpu": 64 * 2**20, "gpu": 512 * 2**20, "tpu": 256 * 2**20}
_LEAST_ROWS, _STEP = 64, 16


@dataclass(frozen=True)
class Tiling:
    """Rows of a block, and the dtype that the operands of its products are rounded to."""

    tile: int
    operands: DTypeLike | None = None

    @classmethod
    def of(cls, x: Array, y: Array, *, tile: int | None, operands: DTypeLike | None) -> "Tiling":
        """The given tile, or the chosen one for x [n, d] and y [m, d]."""
        size = jnp.dtype(accumulation_dtype(x)).itemsize
        rows = choose_tile(len(x), len(y), itemsize=size) if tile is None else tile
        return cls(rows, None if operands is None else jnp.dtype(operands))


def choose_tile(rows: int, columns: int, *, itemsize: int = 4, budget: int | None = None) -> int:
    """Rows of a block `[tile, columns]` of logits, so that the blocks are about equally long.

    Args:
      rows, columns: of the whole matrix of logits.
      itemsize: bytes of one logit.
      budget: bytes of one block; `None` takes what suits the default backend.

    Returns:
      At least 1, at most `rows`; not below 64 for the budget's sake.
    """
    backend = jax.default_backend()
    kind = backend if backend in _MOST_ROWS else "cpu"
    fitting = (_BLOCK_BYTES[kind] if budget is None else budget) // max(columns * itemsize, 1)
    most = max(_LEAST_ROWS, min(fitting, _MOST_ROWS[kind]))
    if rows <= most:
        return max(rows, 1)
    even = math.ceil(rows / math.ceil(rows / most))
    return min(_STEP * math.ceil(even / _STEP), most)


def is_dense(
    rows: int, columns: int, *, tile: int | None, operand_dtype: DTypeLike | None = None
) -> bool:
    """Whether the dense form is taken: nothing asks for blocks, and one would hold everything."""
    if rows == 0:
        return True
    return tile is None and operand_dtype is None and rows * columns <= DENSE_LOGITS


def check_tile(tile: int | None) -> None:
    """Reject a number of rows that is not positive.

    Raises:
      ValueError: if it is not.
    """
    if tile is not None and tile < 1:
        raise ValueError(f"tile must be at least 1 row, got {tile}")


def scan_rows(
    body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, arrays: Any, *, tile: int
) -> tuple[Any, Any]:
    """`lax.scan` over blocks of `tile` rows; a shorter block at the end has a body of its own.

    Args:
      body: maps (carry, block) to (carry, rows of the block); the block is `arrays`, sliced.
      carry: what the blocks hand on.
      arrays: a pytree of arrays with the rows on axis 0, all of one length.
      tile: rows of a block.

    Returns:
      The last carry, and the rows that the blocks gave, in order.
    """
    n = jax.tree.leaves(arrays)[0].shape[0]
    tile = min(tile, n)
    count = n // tile

    def block(start: Any, size: int) -> Any:
        return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, size), arrays)

    if count == 1:
        carry, given = body(carry, block(0, tile))
    else:
        starts = jnp.arange(count, dtype=jnp.int32) * tile
        carry, given = lax.scan(lambda c, start: body(c, block(start, tile)), carry, starts)
        given = jax.tree.map(lambda x: x.reshape(count * tile, *x.shape[2:]), given)
    if count * tile == n:
        return carry, given
    carry, last = body(carry, block(count * tile, n - count * tile))
    return carry, jax.tree.map(lambda x, y: jnp.concatenate([x, y]), given, last)


def logits_of(x: Array, y: Array) -> Array:
    """All products, x y^T [t, m], accumulated in at least float32."""
    return _product(x, y, contract=(1, 1))


def weighted_rows(weights: Array, y: Array) -> Array:
    """W y [t, d]: the weights are rounded to the dtype of `y`, the sum is not."""
    return _weighted(weights, y, axis=1)


def weighted_columns(weights: Array, x: Array) -> Array:
    """W^T x [m, d], as `weighted_rows`."""
    return _weighted(weights, x, axis=0)


def row_dot_products(x: Array, y: Array) -> Array:
    """The dot product of each row with its own [n], in at least float32."""
    wide = accumulation_dtype(x, y)
    return jnp.sum(x.astype(wide) * y.astype(wide), axis=1)


def narrowed(x: Array, dtype: DTypeLike | None) -> Array:
    """`x` in the dtype of the products' operands."""
    return x if dtype is None else x.astype(dtype)


def is_narrow(x: Array) -> bool:
    """Whether a product rounds its operands to less than float32."""
    return x.dtype != accumulation_dtype(x)


def _weighted(weights: Array, y: Array, *, axis: int) -> Array:
    if y.dtype != jnp.float16:
        return _product(weights.astype(y.dtype), y, contract=(axis, 0))
    # Weights of a mean are about 1 / n^2, and float16 ends at 6e-8: relative to their largest.
    top = jnp.max(jnp.abs(weights), axis=axis)
    unit = jnp.where(top > 0, top, 1)
    relative = weights / jnp.expand_dims(unit, axis)
    return _product(relative.astype(y.dtype), y, contract=(axis, 0)) * unit[:, None]


def _product(x: Array, y: Array, *, contract: tuple[int, int]) -> Array:
    axes = (((contract[0],), (contract[1],)), ((), ()))
    # float32 in full: a GPU's default would round it to TF32.
    precision = None if is_narrow(x) else lax.Precision.HIGHEST
    wide = accumulation_dtype(x)
    return lax.dot_general(x, y, axes, precision=precision, preferred_element_type=wide)
