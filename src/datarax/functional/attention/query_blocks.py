"""Attention over blocks of queries, so that no matrix of all weights is ever held."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from datarax.functional.checks import accumulation_dtype

# Of one record and head; below it a block is a matrix that the dense form holds as well.
DENSE_LOGITS = 2**18
# Bytes of a block's logits, all heads and records that the shapes show.
_BLOCK_BYTES = {"cpu": 16 * 2**20, "gpu": 512 * 2**20, "tpu": 256 * 2**20}
_LEAST_QUERIES = 32
_WITH_ROWS, _WITH_COLUMNS = "...kna,...kba->...knb", "...kna,...kab->...knb"


class Queries(NamedTuple):
    """What has a row a query; an axis of `keep` and `bias` is 1 where they do not vary.

    query: [..., k, g, t, d], the g query heads of each of k key heads.
    keep: bool [..., k, g, t, s], which keys may be seen, or `None` for all.
    bias: [..., k, g, t, s], added to the logits, or `None`.
    places: int32 [t, 1], the place of each query in the sequence.
    """

    query: Array
    keep: Array | None
    bias: Array | None
    places: Array


class Context(NamedTuple):
    """What all queries share: key [..., k, s, d], value [..., k, s, e], and a key for dropout."""

    key: Array
    value: Array
    rng_key: Array | None


@dataclass(frozen=True)
class Weighing:
    """The factor of the products, and the probability that a weight is dropped."""

    scale: float
    dropout: float = 0.0


def choose_chunk(shape: tuple[int, ...], *, itemsize: int = 4, budget: int | None = None) -> int:
    """How many queries at once, for logits [..., h, t, s].

    Args:
      shape: of the logits, [..., h, t, s].
      itemsize: bytes of one logit.
      budget: bytes of a block of logits; `None` takes what suits the default backend.

    Returns:
      t for few logits, else the largest power of two that keeps a block within the budget, but
      not below 32 for its sake. Without leading axes a quarter of the budget: what is one record
      here is most often one of a batch that `vmap` hides.

    Example:
      >>> choose_chunk((2, 8, 1024, 2048), budget=2**24), choose_chunk((8, 32, 2048))
      (128, 32)
    """
    *records, heads, t, s = shape
    if t * s <= DENSE_LOGITS:
        return t
    if budget is None:
        budget = _BLOCK_BYTES.get(jax.default_backend(), _BLOCK_BYTES["cpu"])
    row = itemsize * s * heads * (math.prod(records) if records else 4)
    fitting = max(budget // max(row, 1), 1)
    return min(t, max(_LEAST_QUERIES, 2 ** (fitting.bit_length() - 1)))


def attend(queries: Queries, context: Context, weighing: Weighing) -> tuple[Array, Array]:
    r"""What all queries see, and the weights as they are before dropout.

    $o_t = \sum_s e_{ts} v_s / \sum_s e_{ts}$ with $e_{ts} = \exp(l_{ts} - \max_s l_{ts})$: the
    division comes after the product, which has fewer numbers than the weights.

    Returns:
      [..., k, g, t, e] and [..., k, g, t, s], in at least float32; 0 for a query that sees nothing.
    """
    exponentials, _ = _exponentials(_logits(queries, context, weighing), queries.keep)
    output, total = _mean_value(exponentials, queries, context, weighing=weighing)
    return output, exponentials / total


def attend_in_blocks(
    queries: Queries, context: Context, weighing: Weighing, *, chunk: int
) -> Array:
    r"""What `attend` gives first, from blocks of at most `chunk` queries, forward and backward.

    The forward pass keeps the logarithm $r_t$ of each query's total beside the output. The backward
    pass computes a block's logits again, $w_{ts} = \exp(l_{ts} - r_t)$, and with the cotangent
    $\dot o$ of the output $\dot l_{ts} = w_{ts} (\dot o_t \cdot v_s - \dot o_t \cdot o_t)$: two
    products forward and five backward. It has no forward mode.

    Reference: Rabe and Staats, 2021, arXiv:2112.05682; Dao et al., 2022, arXiv:2205.14135,
      algorithms 1 and 4.
    """

    @jax.custom_vjp
    def run(queries: Queries, context: Context) -> Array:
        return forward(queries, context)[0]

    def forward(queries: Queries, context: Context) -> Any:
        def step(carry: None, block: Queries) -> tuple[None, tuple[Array, Array]]:
            exponentials, peak = _exponentials(_logits(block, context, weighing), block.keep)
            output, total = _mean_value(exponentials, block, context, weighing=weighing)
            return carry, (output, peak + jnp.log(total))

        _, (output, log_total) = _scan_queries(step, None, queries, chunk=chunk)
        return output, (queries, context, output, log_total)

    def backward(residuals: Any, cotangent: Array) -> Any:
        queries, context, output, log_total = residuals
        aligned = jnp.sum(cotangent * output, axis=-1, keepdims=True)
        bias = queries.bias
        shared = bias is not None and bias.shape[-2] == 1

        def step(carry: list[Array], block: tuple[Queries, _Known]) -> Any:
            of_query, of_bias, *sums = _block_gradients(*block, context, weighing=weighing)
            sums += [of_bias] if shared else []
            sums = [x + y for x, y in zip(carry, sums, strict=True)]
            return sums, (of_query, None if shared else of_bias)

        start = [jnp.zeros_like(x, dtype=log_total.dtype) for x in context[:2]]
        start += [jnp.zeros_like(bias, dtype=log_total.dtype)] if shared else []
        blocks = (queries, _Known(cotangent, log_total, aligned, jnp.ones_like(log_total, bool)))
        sums, (of_query, of_bias) = _scan_queries(step, start, blocks, chunk=chunk)
        of_bias = sums[2] if shared else of_bias
        of_bias = None if bias is None else of_bias.astype(bias.dtype)
        of_key, of_value = (x.astype(y.dtype) for x, y in zip(sums, context[:2], strict=False))
        of_queries = Queries(of_query.astype(queries.query.dtype), None, of_bias, None)
        return of_queries, Context(of_key, of_value, None)

    run.defvjp(forward, backward)
    return run(queries, context)


class _Known(NamedTuple):
    """Of each query: the output's cotangent, the logarithm of the total, cotangent times output.

    there: False in what fills the last block.
    """

    cotangent: Array
    log_total: Array
    aligned: Array
    there: Array


def _block_gradients(
    queries: Queries, known: _Known, context: Context, *, weighing: Weighing
) -> tuple[Array, Array | None, Array, Array]:
    """Of the block's queries and bias, and what it adds to key and value; at least float32."""
    query, (key, value, _) = queries.query, context
    logits = _logits(queries, context, weighing)
    logits = logits if queries.keep is None else jnp.where(queries.keep, logits, -jnp.inf)
    # The bias may overflow exp in what fills the last block, whose log_total is none.
    weights = jnp.exp(logits - jnp.where(known.there, known.log_total, jnp.inf))
    wide = weights.dtype
    # Exact: the output had the dtype of the values.
    cotangent = known.cotangent.astype(value.dtype)
    of_used = _product(cotangent, value, formula=_WITH_ROWS, dtype=wide)
    factors = _factors(queries, context, weights, weighing=weighing)
    used = weights if factors is None else weights * factors
    of_used = of_used if factors is None else of_used * factors
    of_value = _sum_of_products(used, cotangent, dtype=wide)
    of_logits = weights * (of_used - known.aligned)
    of_query = _product(of_logits, key, formula=_WITH_COLUMNS, dtype=wide)
    of_key = _sum_of_products(of_logits, query, dtype=wide)
    of_bias = None if queries.bias is None else _summed_to(of_logits, queries.bias.shape)
    return of_query * weighing.scale, of_bias, of_key * weighing.scale, of_value


def _logits(queries: Queries, context: Context, weighing: Weighing) -> Array:
    wide = accumulation_dtype(queries.query, context.value)
    logits = _product(queries.query, context.key, formula=_WITH_ROWS, dtype=wide)
    logits = logits if weighing.scale == 1 else logits * weighing.scale
    return logits if queries.bias is None else logits + queries.bias.astype(wide)


def _exponentials(logits: Array, keep: Array | None) -> tuple[Array, Array]:
    """exp(l - peak), 0 where nothing may be seen, and the peak [..., 1] (0 where there is none)."""
    logits = logits if keep is None else jnp.where(keep, logits, -jnp.inf)
    peak = jnp.max(logits, axis=-1, keepdims=True, initial=-jnp.inf)
    peak = lax.stop_gradient(jnp.where(jnp.isneginf(peak), 0, peak))
    return jnp.exp(logits - peak), peak


def _mean_value(
    exponentials: Array, queries: Queries, context: Context, *, weighing: Weighing
) -> tuple[Array, Array]:
    """The mean of the values that is weighted by the exponentials, and their total (1 for 0)."""
    total = jnp.sum(exponentials, axis=-1, keepdims=True)
    total = jnp.where(total == 0, 1, total)
    factors = _factors(queries, context, exponentials, weighing=weighing)
    used = exponentials if factors is None else exponentials * factors
    value = _product(used, context.value, formula=_WITH_COLUMNS, dtype=used.dtype)
    return value / total, total


def _product(x: Array, y: Array, *, formula: str, dtype: Any) -> Array:
    """Each row of `x` [..., k, g, t, a], rounded to the dtype of `y`, times the matrix `y`."""
    result = jnp.einsum(formula, _joined(x.astype(y.dtype)), y, preferred_element_type=dtype)
    return result.reshape(*x.shape[:-1], result.shape[-1])


def _sum_of_products(x: Array, y: Array, *, dtype: Any) -> Array:
    """Over all queries, the row of `x`, rounded to the dtype of `y`, times that of `y`."""
    operands = [_joined(z) for z in (x.astype(y.dtype), y)]
    return jnp.einsum("...kna,...knb->...kab", *operands, preferred_element_type=dtype)


def _joined(x: Array) -> Array:
    """[..., k, g, t, a] as [..., k, n, a]: for a sum over two axes XLA copies the weights."""
    return x.reshape(*x.shape[:-3], x.shape[-3] * x.shape[-2], x.shape[-1])


def _summed_to(x: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of what was broadcast from `shape`."""
    axes = [i for i, size in enumerate(shape) if size == 1]
    return jnp.sum(x, axis=axes, keepdims=True)


def _factors(
    queries: Queries, context: Context, weights: Array, *, weighing: Weighing
) -> Array | None:
    """0 for a dropped weight, else what makes up for it; drawn query by query, by its place."""
    rng_key = context.rng_key
    if rng_key is None or weighing.dropout == 0:
        return None
    keep = 1 - weighing.dropout
    *heads, _, s = weights.shape

    def draw(place: Array) -> Array:
        return jax.random.bernoulli(jax.random.fold_in(rng_key, place), keep, (*heads, s))

    kept = jax.vmap(draw, out_axes=-2)(queries.places[:, 0])
    return jnp.where(kept, jnp.asarray(1 / keep, weights.dtype), 0)


def _scan_queries(
    step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, arrays: Any, *, chunk: int
) -> tuple[Any, Any]:
    """`lax.scan` over blocks of axis -2; arrays with 1 there are given whole to every block.

    The blocks have one size, at most `chunk`; zeros fill the last one, and what comes out for them
    is cut off.
    """
    leaves, tree = jax.tree.flatten(arrays)
    t = max(x.shape[-2] for x in leaves)
    count = -(-t // chunk)
    size = -(-t // count)
    rows = [x.shape[-2] == t for x in leaves]

    def split(x: Array) -> Array:
        widths = [(0, 0)] * x.ndim
        widths[-2] = (0, count * size - t)
        x = jnp.pad(x, widths)
        return jnp.moveaxis(x.reshape(*x.shape[:-2], count, size, x.shape[-1]), -3, 0)

    def body(carry: Any, blocks: list[Array]) -> tuple[Any, Any]:
        taken = iter(blocks)
        given = [next(taken) if varies else x for x, varies in zip(leaves, rows, strict=True)]
        return step(carry, jax.tree.unflatten(tree, given))

    blocks = [split(x) for x, varies in zip(leaves, rows, strict=True) if varies]
    carry, stacked = lax.scan(body, carry, blocks)

    def join(x: Array) -> Array:
        x = jnp.moveaxis(x, 0, -3)
        return x.reshape(*x.shape[:-3], count * size, x.shape[-1])[..., :t, :]

    return carry, jax.tree.map(join, stacked)
