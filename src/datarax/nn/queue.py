"""A queue of past embeddings: more negatives than a batch holds."""

import contextlib
from collections.abc import Sequence

import flax.errors
import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Num

from datarax.functional.checks import check_floating, check_mask
from datarax.functional.masking import safe_l2_normalize


class QueueState(nnx.Variable):
    """What a queue holds: no parameter, so that no optimizer touches it; checkpointed with it."""


class EmbeddingQueue(nnx.Module):
    """Ring buffers of the last embeddings, one a modality, slot `k` of each the same record.

    A new queue is empty: its slots are marked as not valid, so that nothing is ever contrasted with
    its initial content (lightly's bank starts with random vectors). Embeddings are stored as unit
    vectors in float32, without a gradient. First in, first out: a batch that runs over the end goes
    on at the start (lightly drops its tail), and of a batch with more rows than there are slots the
    last ones stay.

    Whether a batch is contrasted with the queue before or after it enters is the order of the
    calls. Before it enters (MoCo, ALBEF) the queue holds older rows only. After (XBM) each row
    meets itself in the queue: give `ids`, by which a loss tells a row's own copy from a negative.

    Inside a plain `jax.jit`, `vmap` or `grad` closure a module cannot be changed: there `enqueue`
    does nothing. In `nnx.jit`, `nnx.grad` and eager calls it does.

    Args:
      capacity: the number of slots.
      features: width of the embeddings.
      modalities: the number of buffers.
      with_ids: whether records come with ids.

    Reference: He et al., 2020, arXiv:1911.05722 (MoCo); Wang et al., 2020, arXiv:1912.06798 (XBM);
    Li et al., 2021, arXiv:2107.07651 (ALBEF, a queue a modality).

    Example:
      >>> queue = EmbeddingQueue(3, 2, modalities=1)
      >>> queue.enqueue([jnp.array([[3.0, 4.0]])])
      >>> queue.embeddings(0)[0].tolist(), queue.valid(0).tolist()
      ([0.6000000238418579, 0.800000011920929], [True, False, False])
    """

    def __init__(
        self, capacity: int, features: int, *, modalities: int = 2, with_ids: bool = False
    ) -> None:
        sizes = {"capacity": capacity, "features": features, "modalities": modalities}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.capacity, self.features, self.modalities = capacity, features, modalities
        self._embeddings = QueueState(jnp.zeros((modalities, capacity, features), jnp.float32))
        self._valid = QueueState(jnp.zeros((modalities, capacity), bool))
        self._ids = QueueState(jnp.zeros(capacity, jnp.int32)) if with_ids else None
        self._next = QueueState(jnp.zeros((), jnp.int32))

    def embeddings(self, modality: int) -> Float[Array, "k d"]:
        """The unit vectors of a modality, by slot; zeros where `valid` is False."""
        return jax.lax.stop_gradient(self._embeddings[...][modality])

    def valid(self, modality: int) -> Bool[Array, " k"]:
        """Which slots hold an embedding of a modality."""
        return self._valid[...][modality]

    @property
    def ids(self) -> Int[Array, " k"] | None:
        """The ids of the slots, int32; `None` for a queue without ids."""
        return None if self._ids is None else self._ids[...]

    @property
    def size(self) -> Int[Array, ""]:
        """The number of slots that hold a record, int32."""
        return jnp.sum(jnp.any(self._valid[...], axis=0), dtype=jnp.int32)

    @property
    def next_slot(self) -> Int[Array, ""]:
        """The slot that the next row takes: of a full queue, that of the oldest record."""
        return self._next[...]

    def enqueue(
        self,
        embeddings: Sequence[Num[Array, "n d"]],
        *,
        where: Sequence[Array] | None = None,
        ids: Array | None = None,
    ) -> None:
        """Put the rows of a batch in; each takes the slot of the oldest one.

        Args:
          embeddings: an array [n, d] a modality; row `i` of each is the same record. Normalised
            here.
          where: a mask bool [n] a modality, True where the row has it; `None`: all have all. A row
            that has none takes no slot, and what it holds (NaN included) is not kept.
          ids: integers [n] of at most 32 bits, for a queue with ids.

        Raises:
          TypeError: if embeddings are not floating point, masks not boolean, or ids no integers of
            at most 32 bits.
          ValueError: if shapes or numbers of arrays do not fit, or ids are given to a queue without
            or lack in a queue with.
        """
        masks = self._check(embeddings, where=where, ids=ids)
        present = jnp.stack(masks)
        vectors = jnp.where(present[:, :, None], jnp.stack(_units(embeddings, masks)), 0)
        slots, following = _slots(
            jnp.any(present, axis=0), start=self._next[...], capacity=self.capacity
        )
        stored = self._embeddings[...].at[:, slots].set(vectors, mode="drop")
        new = [
            (self._embeddings, stored),
            (self._valid, self._valid[...].at[:, slots].set(present, mode="drop")),
            (self._next, following),
        ]
        if self._ids is not None and ids is not None:
            held = self._ids[...].at[slots].set(ids.astype(jnp.int32), mode="drop")
            new.append((self._ids, held))
        with contextlib.suppress(flax.errors.TraceContextError):  # a plain jax transform
            for variable, value in new:
                variable.set_raw_value(value)

    def clear(self) -> None:
        """Empty the queue, for example where the embeddings change their meaning."""
        self._valid.set_raw_value(jnp.zeros_like(self._valid[...]))
        self._embeddings.set_raw_value(jnp.zeros_like(self._embeddings[...]))
        self._next.set_raw_value(jnp.zeros_like(self._next[...]))

    def _check(
        self, embeddings: Sequence[Array], *, where: Sequence[Array] | None, ids: Array | None
    ) -> list[Array]:
        """The masks, after all that came fits."""
        if len(embeddings) != self.modalities:
            raise ValueError(f"expected {self.modalities} embeddings, got {len(embeddings)}")
        for m, x in enumerate(embeddings):
            check_floating(**{f"embeddings[{m}]": x})
            rows = embeddings[0].shape[0] if embeddings[0].ndim else 0
            if x.shape != (rows, self.features):
                raise ValueError(
                    f"embeddings[{m}] must have shape {(rows, self.features)}, got {x.shape}"
                )
        if (ids is None) != (self._ids is None):
            needs = "without ids takes none" if self._ids is None else "with ids needs them"
            raise ValueError(f"a queue {needs}, got {None if ids is None else ids.shape}")
        if ids is not None:
            if not jnp.issubdtype(ids.dtype, jnp.integer) or ids.dtype.itemsize > 4:
                raise TypeError(f"ids must be integers of at most 32 bits, got {ids.dtype}")
            if ids.shape != (rows,):
                raise ValueError(f"ids must have shape {(rows,)}, got {ids.shape}")
        if where is None:
            return [jnp.ones(rows, bool)] * self.modalities
        if len(where) != self.modalities:
            raise ValueError(f"where must hold {self.modalities} masks, got {len(where)}")
        for m, mask in enumerate(where):
            check_mask(mask, shape=(rows,), name=f"where[{m}]")
        return list(where)


def _units(embeddings: Sequence[Array], masks: Sequence[Array]) -> list[Array]:
    return [
        safe_l2_normalize(jax.lax.stop_gradient(jnp.where(mask[:, None], x, 0)).astype(jnp.float32))
        for x, mask in zip(embeddings, masks, strict=True)
    ]


def _slots(keep: Array, *, start: Array, capacity: int) -> tuple[Array, Array]:
    """The slot of each row, `capacity` (out of range) for those not kept, and the next slot."""
    rank = jnp.cumsum(keep, dtype=jnp.int32) - 1
    total = jnp.sum(keep, dtype=jnp.int32)
    # No slot twice, as a larger batch than the ring would: which write stays is undefined on a GPU.
    written = keep & (rank >= total - capacity)
    slots = jnp.where(written, (start + rank) % capacity, capacity)
    return slots, (start + total) % capacity
