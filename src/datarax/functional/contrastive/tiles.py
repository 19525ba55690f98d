"""Blocks of rows: how many rows at once, the loop over them, and the products inside it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
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
# What is done to each logit goes several times over them: in chunks of columns that a cache holds.
_MOST_CHUNKED_ROWS = {"cpu": 1024}
_CHUNK_BYTES = {"cpu": 4 * 2**20}


@dataclass(frozen=True)
class Tiling:
    """Rows of a block, and the dtype that the operands of its products are rounded to."""

    tile: int
    operands: DTypeLike | None = None

    @classmethod
    def of(
        cls,
        x: Array,
        y: Array,
        *,
        tile: int | None,
        operands: DTypeLike | None,
        chunked: bool = False,
    ) -> "Tiling":
        """The given tile, or the chosen one for x [n, d] and y [m, d]."""
        size = jnp.dtype(accumulation_dtype(x)).itemsize
        if tile is None:
            tile = choose_tile(len(x), len(y), itemsize=size, chunked=chunked)
        return cls(tile, None if operands is None else jnp.dtype(operands))


def choose_tile(
    rows: int,
    columns: int,
    *,
    itemsize: int = 4,
    budget: int | None = None,
    chunked: bool = False,
) -> int:
    """Rows of a block `[tile, columns]` of logits, so that the blocks are about equally long.

    Args:
      rows, columns: of the whole matrix of logits.
      itemsize: bytes of one logit.
      budget: bytes of one block; `None` takes what suits the default backend.
      chunked: whether a block is taken in chunks of columns (`scan_columns`), never whole.

    Returns:
      At least 1, at most `rows`; not below 64 for the budget's sake.
    """
    backend = jax.default_backend()
    kind = backend if backend in _MOST_ROWS else "cpu"
    fitting = (_BLOCK_BYTES[kind] if budget is None else budget) // max(columns * itemsize, 1)
    most = max(_LEAST_ROWS, min(fitting, _MOST_ROWS[kind]))
    if chunked and budget is None and kind in _CHUNK_BYTES:  # a quarter at most, for few rows
        most = min(max(rows // 4, _MOST_ROWS[kind]), _MOST_CHUNKED_ROWS[kind])
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
    """Reject a number of rows that is not whole and positive.

    Raises:
      TypeError: if it is no whole number.
      ValueError: if it is not positive.
    """
    if tile is not None and (isinstance(tile, bool) or not isinstance(tile, Integral)):
        raise TypeError(f"tile must be a whole number of rows, got {tile!r}")
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


def scan_columns(
    body: Callable[[Any, Any, Any], tuple[Any, Any]],
    carry: Any,
    columns: Any,
    arrays: Any,
    *,
    rows: int,
) -> tuple[Any, Any]:
    """A loop over chunks of the columns of one block of rows, for `scan_rows`' body.

    Args:
      body: maps (carry, chunk of `columns`, chunk of `arrays`) to (carry, chunk of `columns`).
      carry: what the chunks hand on.
      columns: a pytree of arrays with the columns on the last axis, which the chunks replace.
      arrays: a pytree of arrays with the columns on axis 0, all of one length.
      rows: of the block.

    Returns:
      The last carry, and the columns.
    """
    leaves = jax.tree.leaves(arrays)
    m = leaves[0].shape[0]
    width = _chunk_columns(rows, m, itemsize=jnp.dtype(accumulation_dtype(leaves[0])).itemsize)
    count = m // width

    def step(state: tuple[Any, Any], start: Any, size: int) -> tuple[Any, Any]:
        carry, columns = state
        part = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, size, axis=-1), columns)
        given = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, size), arrays)
        carry, part = body(carry, part, given)
        columns = jax.tree.map(
            lambda x, new: lax.dynamic_update_slice_in_dim(x, new, start, axis=-1), columns, part
        )
        return carry, columns

    if count == 1:
        state = step((carry, columns), 0, width)
    else:
        starts = jnp.arange(count, dtype=jnp.int32) * width
        state, _ = lax.scan(lambda s, at: (step(s, at, width), None), (carry, columns), starts)
    return state if count * width == m else step(state, count * width, m - count * width)


def _chunk_columns(rows: int, columns: int, *, itemsize: int) -> int:
    most = _CHUNK_BYTES.get(jax.default_backend())
    if most is None or rows * columns * itemsize <= most:
        return max(columns, 1)
    fitting = max(most // (rows * itemsize), _LEAST_ROWS)
    even = math.ceil(columns / math.ceil(columns / fitting))
    return min(_STEP * math.ceil(even / _STEP), columns)


def logits_of(x: Array, y: Array) -> Array:
    """All products, x y^T [t, m], accumulated in at least float32."""
    return _product(x, y, contract=(1, 1))


def weighted_rows(weights: Array, y: Array) -> Array:
    """W y [t, d]: the weights are rounded to the dtype of `y`, the sum is not."""
    if y.dtype != jnp.float16:
        return _product(weights.astype(y.dtype), y, contract=(1, 0))
    relative, unit = _relative(weights, axis=1)
    return _product(relative.astype(y.dtype), y, contract=(1, 0)) * unit


def no_columns(x: Array, y: Array) -> Array:
    """What sums W^T x over blocks begin with, for y [m, d]: zeros [d, m] that vary as x does."""
    # `_like` x: under `shard_map` the carry of a loop must vary over devices as its body does.
    return jnp.zeros_like(x, shape=y.shape[::-1], dtype=accumulation_dtype(x))


def turned(x: Array) -> Array:
    """The rows of a block as columns, for `columns_of`.

    A CPU takes two thirds of the time for x^T W [d, m] that it takes for W^T x [m, d], where each
    row of W is read across; the barrier keeps XLA from making one of the other.
    """
    return lax.optimization_barrier(x.T)


def columns_of(columns: Array, weights: Array) -> Array:
    """x^T W [d, m] of `turned` rows x, rounded as in `weighted_rows`."""
    if columns.dtype != jnp.float16:
        return _product(columns, weights.astype(columns.dtype), contract=(1, 0))
    relative, unit = _relative(weights, axis=0)
    return _product(columns, relative.astype(columns.dtype), contract=(1, 0)) * unit


def row_dot_products(x: Array, y: Array) -> Array:
    """The dot product of each row with its own [n], in at least float32."""
    wide = accumulation_dtype(x, y)
    return jnp.sum(x.astype(wide) * y.astype(wide), axis=1)


def narrowed(x: Array, dtype: DTypeLike | None) -> Array:
    """`x` in the dtype of the products' operands.

    Raises:
      TypeError: if it is not floating point.
    """
    if dtype is None:
        return x
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"operand_dtype must be floating point, got {jnp.dtype(dtype)}")
    return x.astype(dtype)


def is_narrow(x: Array) -> bool:
    """Whether a product rounds its operands to less than float32."""
    return x.dtype != accumulation_dtype(x)


def _relative(weights: Array, *, axis: int) -> tuple[Array, Array]:
    """Weights of a mean are about 1 / n^2, and float16 ends at 6e-8: relative to their largest."""
    top = jnp.max(jnp.abs(weights), axis=axis, keepdims=True)
    unit = jnp.where(top > 0, top, 1)
    return weights / unit, unit


def _product(x: Array, y: Array, *, contract: tuple[int, int]) -> Array:
    axes = (((contract[0],), (contract[1],)), ((), ()))
    # float32 in full: a GPU's default would round it to TF32.
    precision = None if is_narrow(x) else lax.Precision.HIGHEST
    wide = accumulation_dtype(x)
    return lax.dot_general(x, y, axes, precision=precision, preferred_element_type=wide)
