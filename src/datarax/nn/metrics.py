"""Metrics that take batches one at a time; their values are those of all rows together.

Each is an `nnx.Metric`: `update` with a batch, `compute` for the value, `reset` to begin again.
They have static shapes and work in eager calls and in `nnx.jit`; inside a plain `jax.jit` closure
no module can be changed, and `update` raises.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Num

from datarax.functional.alignment.moments import row_mask
from datarax.functional.checks import check_floating, check_rank, check_same_shape
from datarax.functional.masking import safe_l2_norm
from datarax.functional.retrieval.ranking import retrieval_metrics
from datarax.functional.retrieval.ranks import (
    Contest,
    Ties,
    contests,
    expected_reciprocal_rank,
    hit_probability,
    rank_of,
)
from datarax.functional.similarity import pairwise_squared_distance


class MetricValue(nnx.Variable):
    """What a metric has gathered: no parameter, so that no optimizer touches it."""


class RetrievalBuffer(nnx.Metric):
    """Retrieval among all rows seen: keeps their embeddings, in batches of any size.

    Args:
      capacity: how many rows are kept; later ones are dropped and counted.
      features: width of the embeddings.
      ks, ties: as in `functional.retrieval_metrics`.

    Raises:
      ValueError: if a size is not positive.

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
        self.ks, self.ties = tuple(ks), ties
        self._queries = MetricValue(jnp.zeros((capacity, features), jnp.float32))
        self._targets = MetricValue(jnp.zeros((capacity, features), jnp.float32))
        self._ids = MetricValue(jnp.zeros((2, capacity), jnp.int32))
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
          TypeError: if embeddings are not floating point or masks not boolean.
          ValueError: if shapes do not fit, or `target_ids` come without `query_ids`.
        """
        check_floating(queries=queries, targets=targets)
        check_same_shape(queries=queries, targets=targets)
        n = len(queries)
        if queries.shape != (n, self.features):
            raise ValueError(f"queries must have shape [n, {self.features}], got {queries.shape}")
        if query_ids is None and target_ids is not None:
            raise ValueError("target_ids need query_ids, got None")
        seen = self._seen[...]
        slots = seen + jnp.arange(n, dtype=jnp.int32)
        first = slots if query_ids is None else query_ids.astype(jnp.int32)
        second = first if target_ids is None else target_ids.astype(jnp.int32)
        there = jnp.stack([row_mask(mask, rows=n) for mask in (query_presence, target_presence)])
        for buffer, rows, mask in zip(
            (self._queries, self._targets), (queries, targets), there, strict=True
        ):
            kept = jnp.where(mask[:, None], rows, 0).astype(jnp.float32)
            buffer[...] = buffer[...].at[slots].set(kept, mode="drop")
        self._ids[...] = self._ids[...].at[:, slots].set(jnp.stack([first, second]), mode="drop")
        self._present[...] = self._present[...].at[:, slots].set(there, mode="drop")
        self._seen[...] = seen + n

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

    Args:
      ks: how many results are looked at, each at least 1.
      ties: as in `functional.rank_of`; with `"expected"` recall and reciprocal are exact means over
        all orders of equal scores.

    Example:
      >>> metric = GalleryRetrieval(ks=[1])
      >>> metric.update(jnp.eye(3), jnp.eye(3), positives=jnp.array([0, 1, 0]))
      >>> round(float(metric.compute()["recall_at_1"]), 4)
      0.6667
    """

    def __init__(self, *, ks: Sequence[int] = (1, 5, 10), ties: Ties = "expected") -> None:
        self.ks, self.ties = tuple(ks), ties
        self._sums = MetricValue(jnp.zeros(len(self.ks) + 2, jnp.float32))
        self._count = MetricValue(jnp.zeros((), jnp.int32))

    def reset(self) -> None:
        """Forget all queries."""
        self._sums[...] = jnp.zeros_like(self._sums[...])
        self._count[...] = jnp.zeros((), jnp.int32)

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
        self._sums[...] = self._sums[...] + self._judged(found).astype(jnp.float32)
        self._count[...] = self._count[...] + jnp.sum(found.counted, dtype=jnp.int32)

    def compute(self) -> dict[str, Float[Array, ""]]:
        """`recall_at_k` for each of `ks`, `mrr` and `mean_rank` (from 1); 0 without queries."""
        count = jnp.maximum(self._count[...], 1).astype(jnp.float32)
        names = [*(f"recall_at_{k}" for k in self.ks), "mrr", "mean_rank"]
        return dict(zip(names, self._sums[...] / count, strict=True))

    def _judged(self, found: Contest) -> Array:
        """The sums over the queries that count."""
        ranks = rank_of(found, ties=self.ties)
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
        self._centres = MetricValue(jnp.zeros((2, features), jnp.float32))
        self._squares = MetricValue(jnp.zeros((), jnp.float32))
        self._potentials = MetricValue(jnp.zeros(2, jnp.float32))
        self._pairs = MetricValue(jnp.zeros((), jnp.float32))
        self._count = MetricValue(jnp.zeros((), jnp.int32))

    def reset(self) -> None:
        """Forget all rows."""
        for sums in (self._centres, self._squares, self._potentials, self._pairs, self._count):
            sums[...] = jnp.zeros_like(sums[...])

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
        both = jnp.where(keep[None, :, None], jnp.stack([a, b]), 0).astype(jnp.float32)
        apart = keep[:, None] & keep[None, :] & ~jnp.eye(len(a), dtype=bool)
        self._centres[...] = self._centres[...] + jnp.sum(both, axis=1)
        self._squares[...] = self._squares[...] + jnp.sum((both[0] - both[1]) ** 2)
        self._potentials[...] = self._potentials[...] + jnp.stack(
            [jnp.sum(jnp.exp(-self.t * pairwise_squared_distance(x, x)), where=apart) for x in both]
        )
        self._pairs[...] = self._pairs[...] + jnp.sum(apart, dtype=jnp.float32)
        self._count[...] = self._count[...] + jnp.sum(keep, dtype=jnp.int32)

    def compute(self) -> dict[str, Float[Array, ""]]:
        """`alignment` (mean squared distance of the pairs), `uniformity` (the mean of both
        modalities), `modality_gap` and `distribution_gap`; 0 without rows.
        """
        count = jnp.maximum(self._count[...], 1).astype(jnp.float32)
        alignment = self._squares[...] / count
        gap = safe_l2_norm((self._centres[...][0] - self._centres[...][1]) / count)
        some = self._pairs[...] > 0
        mean = jnp.where(some, self._potentials[...] / jnp.maximum(self._pairs[...], 1), 1)
        return {
            "alignment": alignment,
            "uniformity": jnp.mean(jnp.log(jnp.maximum(mean, jnp.finfo(jnp.float32).tiny))),
            "modality_gap": gap,
            "distribution_gap": jnp.sqrt(jnp.maximum(alignment - gap**2, 0)),
        }
