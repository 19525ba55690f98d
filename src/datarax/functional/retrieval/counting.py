r"""Contests by counting: one product of blocks, and how many scores exceed each positive's.

A ranking is not needed to know a rank: with $t_i$ the score of query i's best positive, it is
$\#\{j : S_{ij} > t_i\}$. Of a block of full rows $t_i$ is read from the block itself. The other
direction needs the $t_j$ of all columns before the first block; they are computed in advance by
small products, of 64 pairs each, of which the diagonal is kept. Two products of other shapes may
round differently, and a positive that is off by one unit of rounding would lose its own ties or win
them all. So every such score is compared with the one of the pass, and if a single one differs the
columns are counted anew in a pass of their own: the fast way is exact or is not taken.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from datarax.functional.checks import accumulation_dtype
from datarax.functional.retrieval.relevance import (
    Matching,
    Positives,
    block_rows,
    positives_of,
)
from datarax.functional.similarity import pairwise_dot_product

# Products of fewer rows take another kernel on a CPU, which sums in another order.
_PAIRS = 64
# Two counts share an int32: of at most this many scores at a time.
_COUNTED = 2**15 - 1
# Rows whose comparisons, which XLA writes out before it adds them up, stay in a cache.
_FEW = 8
_NOWHERE = 2**31 - 1


class Contest(NamedTuple):
    """What stands between each query and its best positive.

    Attributes:
      above: how many other targets score higher than the best positive.
      wrong, right: how many others, and how many positives, have exactly its score.
      before: how many of `wrong` have a lower index than the first of `right`.
      counted: which queries there are that have a positive; of others all is 0.
    """

    above: Int[Array, " n"]
    wrong: Int[Array, " n"]
    right: Int[Array, " n"]
    before: Int[Array, " n"]
    counted: Bool[Array, " n"]


class _Block(NamedTuple):
    """Rows of a pass: queries, where their positives stand, their indices, which are counted."""

    queries: Array
    first: Array
    count: Array
    index: Array
    live: Array


class _Best(NamedTuple):
    """The score of each best positive, how many have it, and the index of the first of these."""

    score: Array
    right: Array
    at: Array


class _Columns(NamedTuple):
    """What a pass gathers of the columns: counts, and what it saw of their positives."""

    above: Array
    level: Array
    before: Array
    seen: _Best


Body = Callable[[Any, _Block], tuple[Any, Contest]]


def count_rows(pairs: Matching, *, block_size: int | None) -> Contest:
    """The contest of each query among the targets, in one pass over blocks of queries.

    Raises:
      ValueError: if `block_size` is not positive.

    Example:
      >>> pairs = Matching(jnp.eye(3), jnp.ones((3, 3)), *[jnp.arange(3)] * 2, None, None)
      >>> count_rows(pairs, block_size=2).wrong.tolist()
      [2, 2, 2]
    """
    n, m = len(pairs.queries), len(pairs.targets)
    size = block_rows(n, m, block_size=block_size)
    if n == 0 or m == 0:
        return _nothing(n)
    pairs = _constant(pairs)
    own = positives_of(pairs)

    def body(carry: None, part: _Block) -> tuple[None, Contest]:
        scores = pairwise_dot_product(part.queries, pairs.targets)
        best = _best_of_rows(scores, own, part)
        counts, _ = _block_counts(scores, best.score, None, where=pairs.there)
        return carry, _rows(scores, best, counts, part=part, there=pairs.there)

    return _over_blocks(body, None, pairs, own, size=size)[1]


def count_both(pairs: Matching, *, block_size: int | None) -> tuple[Contest, Contest]:
    """The contests of the queries among the targets and of the targets among the queries.

    Raises:
      ValueError: if `block_size` is not positive.

    Example:
      >>> targets, ids = jnp.array([[1.0, 1.0], [0.0, 1.0]]), jnp.arange(2)
      >>> pairs = Matching(jnp.eye(2), targets, ids, ids, None, None)
      >>> [found.wrong.tolist() for found in count_both(pairs, block_size=2)]
      [[0, 1], [1, 0]]
    """
    n, m = len(pairs.queries), len(pairs.targets)
    size = block_rows(n, m, block_size=block_size)
    if n == 0 or m == 0:
        return _nothing(n), _nothing(m)
    pairs = _constant(pairs)
    mirrored = Matching(
        pairs.targets, pairs.queries, pairs.target_ids, pairs.query_ids, pairs.there, pairs.asked
    )
    own, theirs = positives_of(pairs), positives_of(mirrored)
    best = _best_in_advance(mirrored, theirs)

    def body(columns: _Columns, part: _Block) -> tuple[_Columns, Contest]:
        queries = jnp.where(part.live[:, None], part.queries, jnp.nan)  # NaN is counted nowhere
        scores = pairwise_dot_product(queries, pairs.targets)
        mine = _best_of_rows(scores, own, part)
        of_rows, of_columns = _block_counts(scores, mine.score, best.score, where=pairs.there)
        columns = _add_block(columns, scores, of_columns, best=best, part=part)
        seen = _seen(columns.seen, scores, own, part, best=best)
        found = _rows(scores, mine, of_rows, part=part, there=pairs.there)
        return columns._replace(seen=seen), found

    zero = jnp.zeros(m, jnp.int32)
    unseen = _Best(jnp.full(m, -jnp.inf, best.score.dtype), zero, zero + _NOWHERE)
    start = _Columns(zero, zero, zero, unseen)
    columns, rows = _over_blocks(body, start, pairs, own, size=size)
    same = (columns.seen.score == best.score) & (columns.seen.at == best.at)
    counted = theirs.count > 0
    return rows, lax.cond(
        jnp.all(same | ~counted),
        lambda: _closed(
            columns.above,
            columns.level,
            right=columns.seen.right,
            before=columns.before,
            counted=counted,
        ),
        lambda: count_rows(mirrored, block_size=block_size),
    )


def _constant(pairs: Matching) -> Matching:
    """Counts have no derivative, and the loops below none in reverse."""
    queries, targets = (lax.stop_gradient(x) for x in (pairs.queries, pairs.targets))
    return pairs._replace(queries=queries, targets=targets)


def _nothing(n: int) -> Contest:
    zero = jnp.zeros(n, jnp.int32)
    return Contest(zero, zero, zero, zero, jnp.zeros(n, bool))


def _closed(above: Array, level: Array, *, right: Array, before: Array, counted: Array) -> Contest:
    above, level, right, before = (jnp.where(counted, x, 0) for x in (above, level, right, before))
    return Contest(above, level - right, right, before, counted)


def _over_blocks(
    body: Body, carry: Any, pairs: Matching, own: Positives, *, size: int
) -> tuple[Any, Contest]:
    """`body(carry, block)` over blocks of one shape, its results joined along rows.

    The last block begins earlier where the rows do not divide evenly; its first rows, which are
    those of the block before, are not live.
    """
    n = len(pairs.queries)
    number = -(-n // size)

    def step(carry: Any, i: Array) -> tuple[Any, Contest]:
        begin = jnp.minimum(i * size, n - size)
        index = begin + jnp.arange(size, dtype=jnp.int32)
        live = index >= i * size
        if pairs.asked is not None:
            live = live & lax.dynamic_slice_in_dim(pairs.asked, begin, size)
        queries, first, count = (
            lax.dynamic_slice_in_dim(x, begin, size) for x in (pairs.queries, own.first, own.count)
        )
        return body(carry, _Block(queries, first, jnp.where(live, count, 0), index, live))

    carry, found = lax.scan(step, carry, jnp.arange(number, dtype=jnp.int32))
    return carry, jax.tree.map(lambda x: _joined(x, n), found)


def _joined(blocks: Array, n: int) -> Array:
    """The rows of blocks of which the last one overlaps the one before."""
    left = n - (blocks.shape[0] - 1) * blocks.shape[1]
    return jnp.concatenate([blocks[:-1].reshape(-1), blocks[-1, blocks.shape[1] - left :]])


def _best_of_rows(scores: Array, own: Positives, part: _Block) -> _Best:
    """The best positive of each row of a block."""

    def look(k: Array, best: _Best) -> _Best:
        column = own.order[jnp.minimum(part.first + k, own.order.shape[0] - 1)]
        return _better(best, _read(scores, column), at=column, there=k < part.count)

    return _look_at_all(look, part.count, scores.dtype)


def _block_counts(
    scores: Array, of_rows: Array, of_columns: Array | None, *, where: Array | None
) -> tuple[tuple[Array, Array], Any]:
    """`_counts` of the rows and the columns of a block beside a threshold for each."""
    present = None if where is None else where[None, :]
    start = None if of_columns is None else (jnp.zeros(scores.shape[1], jnp.int32),) * 2

    def step(total: Any, strip: tuple[Array, Array]) -> tuple[Any, tuple[Array, Array]]:
        part, limit = strip
        if of_columns is not None:
            total = jax.tree.map(jnp.add, total, _counts(part, of_columns[None, :], axis=0))
        return total, _counts(part, limit[:, None], axis=1, where=present)

    columns, rows = _over_strips(step, start, (scores, of_rows))
    return rows, columns


def _over_strips(step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, arrays: Any) -> Any:
    """`lax.scan` over strips of a few rows: of a whole block, what XLA writes out is as large."""
    size = jax.tree.leaves(arrays)[0].shape[0]
    few = _FEW if size % _FEW == 0 else size

    def at(carry: Any, begin: Array) -> tuple[Any, Any]:
        strip = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, begin, few), arrays)
        return step(carry, strip)

    carry, found = lax.scan(at, carry, jnp.arange(0, size, few, dtype=jnp.int32))
    return carry, jax.tree.map(jnp.ravel, found)


def _rows(
    scores: Array, best: _Best, counts: tuple[Array, Array], *, part: _Block, there: Array | None
) -> Contest:
    """The contests of the rows of a block."""
    present = None if there is None else there[None, :]
    above, level = counts
    competing = jnp.int32(scores.shape[1]) if there is None else jnp.sum(there, dtype=jnp.int32)
    level = jnp.where(jnp.isneginf(best.score), competing - above, level)
    counted = part.count > 0

    def earlier() -> Array:
        index = jnp.arange(scores.shape[1], dtype=jnp.int32)[None, :]

        def step(_: None, strip: tuple) -> tuple[None, Array]:
            part, score, at = strip
            ahead = _is_level(part, score[:, None]) & (index < at[:, None])
            ahead = ahead if present is None else ahead & present
            return None, jnp.sum(ahead, axis=1, dtype=jnp.int32)

        return _over_strips(step, None, (scores, best.score, best.at))[1]

    tied = jnp.any(counted & (level > best.right))
    before = lax.cond(tied, earlier, lambda: jnp.zeros_like(above))
    return _closed(above, level, right=best.right, before=before, counted=counted)


def _add_block(
    columns: _Columns, scores: Array, counts: tuple[Array, Array], *, best: _Best, part: _Block
) -> _Columns:
    """The counts of the columns with those of a block, in which dead rows are NaN."""
    above, level = counts
    low = jnp.isneginf(best.score)
    level = jnp.where(low, jnp.sum(part.live, dtype=jnp.int32) - above, level)
    inside = (best.at >= part.index[0]) & (best.at <= part.index[-1])
    # Nothing but the first positive itself: a block without ties, as most are.
    tied = jnp.any((level > inside.astype(jnp.int32)) & (best.at > part.index[0]))

    def earlier() -> Array:
        def step(total: Array, strip: tuple) -> tuple[Array, None]:
            scores, index, live = strip
            ahead = _is_level(scores, best.score[None, :]) & (index[:, None] < best.at[None, :])
            return total + jnp.sum(ahead & live[:, None], axis=0, dtype=jnp.int32), None

        return _over_strips(step, jnp.zeros_like(above), (scores, part.index, part.live))[0]

    before = lax.cond(tied, earlier, lambda: jnp.zeros_like(above))
    return columns._replace(
        above=columns.above + above, level=columns.level + level, before=columns.before + before
    )


def _counts(
    scores: Array, threshold: Array, *, axis: int, where: Array | None = None
) -> tuple[Array, Array]:
    """How many scores are above the threshold and how many level, along an axis; NaN is neither."""
    above, total, size = [], [], scores.shape[axis]
    width = -(-size // -(-size // _COUNTED))
    for begin in range(0, size, width):
        end = min(begin + width, size)
        part = lax.slice_in_dim(scores, begin, end, axis=axis)
        larger = (part > threshold).astype(jnp.int32) * (_COUNTED + 1)
        marks = larger + (part >= threshold).astype(jnp.int32)
        if where is not None:
            marks = jnp.where(lax.slice_in_dim(where, begin, end, axis=axis), marks, 0)
        both = jnp.sum(marks, axis=axis, dtype=jnp.int32)
        above.append(both // (_COUNTED + 1))
        total.append(both % (_COUNTED + 1))
    more = sum(above[1:], above[0])
    return more, sum(total[1:], total[0]) - more


def _is_level(scores: Array, threshold: Array) -> Array:
    return jnp.where(jnp.isnan(scores), -jnp.inf, scores) == threshold


def _best_in_advance(mirrored: Matching, theirs: Positives) -> _Best:
    """The best positive of each column, from products of a few pairs of which the rest is lost."""
    columns, rows = mirrored.queries, mirrored.targets
    m = columns.shape[0]
    size = min(_PAIRS, m)
    wide = accumulation_dtype(rows, columns)

    def chunk(i: Array) -> _Best:
        begin = jnp.minimum(i * size, m - size)
        mine, first, count = (
            lax.dynamic_slice_in_dim(x, begin, size) for x in (columns, theirs.first, theirs.count)
        )

        def look(k: Array, best: _Best) -> _Best:
            row = theirs.order[jnp.minimum(first + k, theirs.order.shape[0] - 1)]
            score = jnp.diagonal(pairwise_dot_product(rows[row], mine))
            return _better(best, score, at=row, there=k < count)

        return _look_at_all(look, count, wide)

    found = lax.map(chunk, jnp.arange(-(-m // size), dtype=jnp.int32))
    return jax.tree.map(lambda x: _joined(x, m), found)


def _look_at_all(look: Callable[[Array, _Best], _Best], count: Array, dtype: Any) -> _Best:
    zero = jnp.zeros(count.shape, jnp.int32)
    start = _Best(jnp.full(count.shape, -jnp.inf, dtype), zero, zero + _NOWHERE)
    return lax.fori_loop(jnp.int32(0), jnp.max(count), look, start)


def _better(best: _Best, score: Array, *, at: Array, there: Array) -> _Best:
    """`best` after one more positive, whose index is above those before."""
    score = jnp.where(jnp.isnan(score), -jnp.inf, score)
    ahead = there & ((score > best.score) | (best.right == 0))
    level = there & ~ahead & (score == best.score)
    return _Best(
        jnp.where(ahead, score, best.score),
        jnp.where(ahead, 1, best.right + level.astype(jnp.int32)),
        jnp.where(ahead, at, best.at),
    )


def _seen(seen: _Best, scores: Array, own: Positives, part: _Block, *, best: _Best) -> _Best:
    """The positives of the columns as the blocks so far have them, beside what is expected."""

    def look(k: Array, seen: _Best) -> _Best:
        column = own.order[jnp.minimum(part.first + k, own.order.shape[0] - 1)]
        score = _read(scores, column)
        score = jnp.where((k >= part.count) | jnp.isnan(score), -jnp.inf, score)
        level = (k < part.count) & (score == best.score[column])
        return _Best(
            seen.score.at[column].max(score),
            seen.right.at[column].add(level.astype(jnp.int32)),
            seen.at.at[column].min(jnp.where(level, part.index, _NOWHERE)),
        )

    return lax.fori_loop(jnp.int32(0), jnp.max(part.count), look, seen)


def _read(scores: Array, column: Array) -> Array:
    return jnp.take_along_axis(scores, column[:, None], axis=1)[:, 0]
