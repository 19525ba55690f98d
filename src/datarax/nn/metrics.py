"""Metrics that take batches one at a time; their values are those of all rows together.

Each is an `nnx.Metric`: `update` with a batch, `compute` for the value, `reset` to begin again.
They have static shapes and work in eager calls and in `nnx.jit`; inside a plain `jax.jit` closure
no module can be changed, and `update` raises.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from datarax.functional.alignment.moments import row_mask
from datarax.functional.checks import check_floating, check_rank, check_same_shape
from datarax.functional.masking import masked_logsumexp, safe_l2_norm
from datarax.functional.retrieval.counting import Contest
from datarax.functional.retrieval.ranking import retrieval_metrics
from datarax.functional.retrieval.ranks import (
    Ties,
    check_ties,
    contests,
    expected_reciprocal_rank,
    hit_probability,
    rank_of,
)
from datarax.functional.retrieval.relevance import matching
from datarax.functional.similarity import pairwise_squared_distance

MOST_RANKS = 2**14


class MetricValue(nnx.Variable):
    """What a metric has gathered: no parameter, so that no optimizer touches it."""


class RetrievalBuffer(nnx.Metric):
    """Retrieval among all rows seen: keeps their embeddings, in batches of any size.

    Args:
      capacity: how many rows are kept; later ones are dropped and counted.
      features: width of the embeddings.
      ks, ties: as in `functional.retrieval_metrics`.

    Raises:
      ValueError: if a size or one of `ks` is not positive, or `ties` is unknown.

    Example:
      >>> metric = RetrievalBuffer(4, 2, ks=[1])
      >>> metric.update(jnp.eye(2), jnp.eye(2))
      >>> float(metric.compute()["recall_at_1"]), int(metric.dropped)
      (1.0, 0)
    """

    def __init__(
        self,
        capacity: int,
        features: int,
        *,
        ks: Sequence[int] = (1, 5, 10),
        ties: Ties = "expected",
    ) -> None:
        for name, value in (("capacity", capacity), ("features", features)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.capacity, self.features = capacity, features
        self.ks, self.ties = _checked(ks, ties), ties
        self._queries = MetricValue(jnp.zeros((capacity, features), jnp.float32))
        self._targets = MetricValue(jnp.zeros((capacity, features), jnp.float32))
        widest = jax.dtypes.canonicalize_dtype(int)  # int64 ids under jax.enable_x64
        self._ids = MetricValue(jnp.zeros((2, capacity), widest))
        self._present = MetricValue(jnp.zeros((2, capacity), bool))
        self._seen = MetricValue(jnp.zeros((), jnp.int32))

    @property
    def dropped(self) -> Int[Array, ""]:
        """How many rows came after the buffer was full and take no part."""
        return jnp.maximum(self._seen[...] - self.capacity, 0)

    def reset(self) -> None:
        """Forget all rows."""
        self._present[...] = jnp.zeros_like(self._present[...])
        self._seen[...] = jnp.zeros((), jnp.int32)

    def update(
        self,
        queries: Num[Array, "n d"],
        targets: Num[Array, "n d"],
        *,
        query_ids: Array | None = None,
        target_ids: Array | None = None,
        query_presence: Array | None = None,
        target_presence: Array | None = None,
    ) -> None:
        """Keep the rows of a batch.

        Args:
          queries, targets: [n, features], row `i` of both the same record. Kept in float32.
          query_ids, target_ids: integers [n]; a target answers the queries that share its id.
            `target_ids` defaults to `query_ids`, and without both row `i` of all that was seen
            answers row `i`: give ids in every batch or in none.
          query_presence, target_presence: bool [n]; absent rows may hold NaN.

        Raises:
          TypeError: if embeddings are not floating point, ids not integers or masks not boolean.
          ValueError: if shapes do not fit, or `target_ids` come without `query_ids`.
        """
        check_same_shape(queries=queries, targets=targets)
        if queries.ndim != 2 or queries.shape[1] != self.features:
            raise ValueError(f"queries must have shape [n, {self.features}], got {queries.shape}")
        pairs = matching(
            queries,
            targets,
            positives=None,
            query_ids=query_ids,
            target_ids=target_ids,
            query_presence=query_presence,
            target_presence=target_presence,
        )
        seen = self._seen[...]
        slots = seen + jnp.arange(len(queries), dtype=jnp.int32)
        both = (slots, slots) if query_ids is None else (pairs.query_ids, pairs.target_ids)
        ids = jnp.stack([x.astype(self._ids.dtype) for x in both])
        there = jnp.stack([row_mask(x, rows=len(queries)) for x in (pairs.asked, pairs.there)])
        for buffer, rows in ((self._queries, pairs.queries), (self._targets, pairs.targets)):
            buffer[...] = buffer[...].at[slots].set(rows.astype(jnp.float32), mode="drop")
        self._ids[...] = self._ids[...].at[:, slots].set(ids, mode="drop")
        self._present[...] = self._present[...].at[:, slots].set(there, mode="drop")
        self._seen[...] = seen + len(queries)

    def compute(self) -> dict[str, Float[Array, ""]]:
        """`functional.retrieval_metrics` of the rows that are kept; all 0 without any."""
        return retrieval_metrics(
            self._queries[...],
            self._targets[...],
            query_ids=self._ids[...][0],
            target_ids=self._ids[...][1],
            query_presence=self._present[...][0],
            target_presence=self._present[...][1],
            ks=self.ks,
            ties=self.ties,
        )


class GalleryRetrieval(nnx.Metric):
    """Retrieval from a gallery that is given: keeps sums alone, so any number of queries will do.

    For the median it keeps how many queries have each rank, to the nearest half, up to 2^14.

    Args:
      ks: how many results are looked at, each at least 1.
      ties: as in `functional.rank_of`; with `"expected"` recall and reciprocal are exact means over
        all orders of equal scores.

    Raises:
      ValueError: if one of `ks` is not positive, or `ties` is unknown.

    Example:
      >>> metric = GalleryRetrieval(ks=[1])
      >>> metric.update(jnp.eye(3), jnp.eye(3), positives=jnp.array([0, 1, 0]))
      >>> round(float(metric.compute()["recall_at_1"]), 4)
      0.6667
    """

    def __init__(self, *, ks: Sequence[int] = (1, 5, 10), ties: Ties = "expected") -> None:
        self.ks, self.ties = _checked(ks, ties), ties
        self._sums = MetricValue(jnp.zeros(len(self.ks) + 2, jnp.float32))
        self._count = MetricValue(jnp.zeros((), jnp.int32))
        self._halves = MetricValue(jnp.zeros(2 * MOST_RANKS, jnp.int32))

    def reset(self) -> None:
        """Forget all queries."""
        self._sums[...] = jnp.zeros_like(self._sums[...])
        self._count[...] = jnp.zeros((), jnp.int32)
        self._halves[...] = jnp.zeros_like(self._halves[...])

    def update(
        self,
        queries: Num[Array, "n d"],
        gallery: Num[Array, "m d"],
        *,
        positives: Array | None = None,
        query_ids: Array | None = None,
        gallery_ids: Array | None = None,
        query_presence: Array | None = None,
        gallery_presence: Array | None = None,
    ) -> None:
        """Rank the gallery for the queries of a batch; see `functional.ranks` for the arguments.

        Raises:
          TypeError: as `functional.ranks`.
          ValueError: as `functional.ranks`.
        """
        found = contests(
            queries,
            gallery,
            positives=positives,
            query_ids=query_ids,
            target_ids=gallery_ids,
            query_presence=query_presence,
            target_presence=gallery_presence,
        )
        ranks = rank_of(found, ties=self.ties)
        self._sums[...] = self._sums[...] + self._judged(found, ranks).astype(jnp.float32)
        last = self._halves.shape[0] - 1
        place = jnp.minimum(jnp.round(2 * ranks), last).astype(jnp.int32)
        counted = found.counted.astype(jnp.int32)
        self._halves[...] = self._halves[...].at[place].add(counted)
        self._count[...] = self._count[...] + jnp.sum(found.counted, dtype=jnp.int32)

    def compute(self) -> dict[str, Float[Array, ""]]:
        """`recall_at_k` for each of `ks`, `mrr`, `mean_rank` and `median_rank` (from 1).

        0 without queries; a median rank beyond 2^14 is infinite.
        """
        count = jnp.maximum(self._count[...], 1).astype(jnp.float32)
        names = [*(f"recall_at_{k}" for k in self.ks), "mrr", "mean_rank"]
        means = dict(zip(names, self._sums[...] / count, strict=True))
        return {**means, "median_rank": self._median()}

    def _median(self) -> Float[Array, ""]:
        """The mean of the two ranks in the middle."""
        ends = jnp.cumsum(self._halves[...])
        middle = jnp.stack([(self._count[...] - 1) // 2, self._count[...] // 2])
        halves = jnp.searchsorted(ends, middle, side="right")
        known = halves < ends.shape[0] - 1  # the last holds all ranks beyond it
        rank = jnp.mean(jnp.where(known, 1 + halves.astype(jnp.float32) / 2, jnp.inf))
        return jnp.where(self._count[...] > 0, rank, 0)

    def _judged(self, found: Contest, ranks: Array) -> Array:
        """The sums over the queries that count."""
        if self.ties == "expected":
            values = [hit_probability(found, k=k) for k in self.ks]
            values.append(expected_reciprocal_rank(found))
        else:
            values = [(ranks < k).astype(ranks.dtype) for k in self.ks] + [1 / (ranks + 1)]
        values.append(ranks + 1)
        return jnp.sum(jnp.stack(values), axis=1, where=found.counted[None, :])


class EmbeddingGeometry(nnx.Metric):
    r"""Alignment, uniformity, modality gap and distribution gap of two modalities, from sums.

    All are exact over the rows of all batches, save for uniformity: it is the logarithm of the mean
    potential over the pairs of rows within each batch.

    Args:
      features: width of the embeddings.
      t: factor in the exponent of uniformity, positive.

    Raises:
      ValueError: if `features` or `t` is not positive.

    Reference: Wang and Isola, 2020, arXiv:2005.10242; Liang et al., 2022, arXiv:2203.02053.

    Example:
      >>> metric = EmbeddingGeometry(2)
      >>> metric.update(jnp.eye(2), jnp.eye(2)[::-1])
      >>> {name: round(float(x), 4) for name, x in metric.compute().items()}["alignment"]
      2.0
    """

    def __init__(self, features: int, *, t: float | int = 2.0) -> None:
        for name, value in (("features", features), ("t", t)):
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        self.features, self.t = features, t
        self._shift = MetricValue(jnp.zeros(features, jnp.float32))
        self._scatter = MetricValue(jnp.zeros((), jnp.float32))
        self._potentials = MetricValue(jnp.full(2, -jnp.inf, jnp.float32))
        self._pairs = MetricValue(jnp.zeros((), jnp.float32))
        self._count = MetricValue(jnp.zeros((), jnp.int32))

    def reset(self) -> None:
        """Forget all rows."""
        for sums in (self._shift, self._scatter, self._pairs, self._count):
            sums[...] = jnp.zeros_like(sums[...])
        self._potentials[...] = jnp.full(2, -jnp.inf, jnp.float32)

    def update(
        self, a: Num[Array, "n d"], b: Num[Array, "n d"], *, where: Array | None = None
    ) -> None:
        """Add the rows of a batch.

        Args:
          a, b: [n, features], usually unit vectors; row `i` of both is one record.
          where: bool [n], the rows that count; others may hold NaN.

        Raises:
          TypeError: if an input is not floating point or `where` not boolean.
          ValueError: if shapes do not fit.
        """
        check_floating(a=a, b=b)
        check_rank(2, axes="[n, d]", a=a, b=b)
        check_same_shape(a=a, b=b)
        if a.shape[1] != self.features:
            raise ValueError(f"a must have shape [n, {self.features}], got {a.shape}")
        keep = row_mask(where, rows=len(a))
        a, b = (jnp.where(keep[:, None], x, 0).astype(jnp.float32) for x in (a, b))
        self._add_differences(a - b, keep)
        apart = keep[:, None] & keep[None, :] & ~jnp.eye(len(a), dtype=bool)
        sums = [_log_potential(x, apart, t=self.t) for x in (a, b)]
        self._potentials[...] = jnp.logaddexp(self._potentials[...], jnp.stack(sums))
        self._pairs[...] = self._pairs[...] + jnp.sum(apart, dtype=jnp.float32)

    def compute(self) -> dict[str, Float[Array, ""]]:
        """`alignment` (mean squared distance of the pairs), `uniformity` (the mean of both
        modalities), `modality_gap` and `distribution_gap`; 0 without rows.
        """
        scatter = self._scatter[...] / jnp.maximum(self._count[...], 1).astype(jnp.float32)
        pairs = self._pairs[...]
        spread = jnp.mean(self._potentials[...]) - jnp.log(jnp.maximum(pairs, 1))
        return {
            "alignment": scatter + jnp.sum(self._shift[...] ** 2),
            "uniformity": jnp.where(pairs > 0, spread, 0),
            "modality_gap": safe_l2_norm(self._shift[...]),
            "distribution_gap": jnp.sqrt(scatter),
        }

    def _add_differences(self, apart: Array, keep: Array) -> None:
        """Their mean and their squares about it, by Chan et al., 1979: no difference of sums."""
        count = jnp.sum(keep, dtype=jnp.float32)
        mean = jnp.sum(apart, axis=0) / jnp.maximum(count, 1)
        scatter = jnp.sum(jnp.where(keep[:, None], apart - mean[None, :], 0) ** 2)
        before = self._count[...].astype(jnp.float32)
        share = count / jnp.maximum(before + count, 1)
        moved = mean - self._shift[...]
        self._shift[...] = self._shift[...] + moved * share
        self._scatter[...] = self._scatter[...] + scatter + jnp.sum(moved**2) * before * share
        self._count[...] = self._count[...] + jnp.sum(keep, dtype=jnp.int32)


def _log_potential(x: Array, apart: Array, *, t: float | int) -> Array:
    """Logarithm of the sum of potentials over pairs of rows, which itself may underflow."""
    exponents = -t * pairwise_squared_distance(x, x)
    total = masked_logsumexp(exponents.ravel(), where=apart.ravel())
    return jnp.where(jnp.any(apart), total, -jnp.inf)


def _checked(ks: Sequence[int], ties: Ties) -> tuple[int, ...]:
    check_ties(ties)
    for k in ks:
        if k < 1:
            raise ValueError(f"ks must be at least 1 each, got {k}")
    return tuple(ks)
