"""Batches of a source's records, in an order that can be left and taken up anywhere."""

from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

import jax
import numpy as np

from datarax.core.data_source import DataSourceModule
from datarax.core.element_batch import Batch, split_index
from datarax.pipeline.order import epoch_order


@runtime_checkable
class ColumnarSource(Protocol):
    """A source that hands out many records at once."""

    def take(self, rows: np.ndarray) -> Batch:
        """Records by number, as a batch whose structure does not depend on the rows."""

    def fingerprint(self) -> str:
        """Changes with the content."""


class Loader:
    """An endless iterator over the batches of a source, epoch after epoch.

    Every batch has `batch_size` rows, `record_index`, `epoch` and `valid_mask`. The last batch of
    an epoch is padded with repeats of its own first record, masked as not valid.

    Args:
      source: where the records are.
      batch_size: rows a batch, at least 1.
      seed: of the order, in [0, 2^32).
      shuffle: a new order each epoch; without it 0 to n-1.
      drop_remainder: leave out the last batch of an epoch if it is not full.
      optional: fields that some records may lack, for a source that is not a `ColumnarSource`.

    Raises:
      ValueError: if there is not one batch in an epoch, or a number is out of range.

    Example:
      >>> from datarax.sources import MemorySource
      >>> loader = Loader(MemorySource({"x": np.arange(3)}), batch_size=2, seed=0, shuffle=False)
      >>> [next(loader)["x"].tolist() for _ in range(3)]
      [[0, 1], [2, 2], [0, 1]]
      >>> loader.state()["epoch"], loader.state()["batch"]
      (1, 1)
    """

    def __init__(
        self,
        source: DataSourceModule,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        drop_remainder: bool = False,
        optional: Sequence[str] = (),
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {seed}")
        full, rest = divmod(len(source), batch_size)
        self.batches_per_epoch = full + (rest > 0 and not drop_remainder)
        if self.batches_per_epoch == 0:
            raise ValueError(
                f"{len(source)} records give no full batch: batch_size {batch_size} is too large"
            )
        self.source = source
        self.optional = tuple(optional)
        self.settings: dict[str, Any] = {
            "source": _identity(source),
            "records": len(source),
            "batch_size": batch_size,
            "seed": seed,
            "shuffle": shuffle,
            "drop_remainder": drop_remainder,
        }
        self.epoch = 0
        self.batch = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        batch = self.read(self.epoch, self.batch)
        self.batch += 1
        if self.batch == self.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0
        return batch

    def read(self, epoch: int, batch: int) -> Batch:
        """Batch number `batch` of an epoch, wherever the loader stands."""
        if epoch < 0 or not 0 <= batch < self.batches_per_epoch:
            raise ValueError(
                f"expected epoch >= 0 and batch in [0, {self.batches_per_epoch}), "
                f"got {epoch} and {batch}"
            )
        records, size = self.settings["records"], self.settings["batch_size"]
        rows = epoch_order(
            records,
            epoch=epoch,
            seed=self.settings["seed"],
            shuffle=self.settings["shuffle"],
            start=batch * size,
            stop=min((batch + 1) * size, records),
        )
        valid = np.arange(size) < len(rows)
        rows = np.concatenate([rows, np.repeat(rows[:1], size - len(rows))])
        wide = records > 2**32
        return self._take(rows).replace(
            valid_mask=valid,
            record_index=split_index(rows) if wide else rows.astype(np.uint32),
            epoch=np.uint32(epoch),
        )

    def state(self) -> dict[str, Any]:
        """Where the next batch is, and all that decides what it holds: plain values for JSON."""
        return {"epoch": self.epoch, "batch": self.batch, **self.settings}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken. A state that is refused changes nothing.

        Raises:
          ValueError: listing every setting in which the state differs from this loader.
        """
        if not isinstance(state, dict):
            raise ValueError(f"the state must be a dict, got {type(state).__name__}")
        mine = self.state()
        differences = [
            f"{name}: the state has {state.get(name)!r}, the loader {mine.get(name)!r}"
            for name in sorted({*state, *mine} - {"epoch", "batch"})
            if state.get(name) != mine.get(name)
        ]
        differences += [
            f"{name}: the state has {state.get(name)!r}, expected a number in [0, {end})"
            for name, end in (("epoch", 2**32), ("batch", self.batches_per_epoch))
            if not isinstance(state.get(name), int) or not 0 <= state[name] < end
        ]
        if differences:
            raise ValueError(f"the state is not of this loader: {'; '.join(differences)}")
        self.epoch, self.batch = state["epoch"], state["batch"]

    def _take(self, rows: np.ndarray) -> Batch:
        if isinstance(self.source, ColumnarSource):
            return self.source.take(rows)
        elements = [self.source[int(row)] for row in rows]
        spec = self.source.element_spec()
        return Batch.from_elements(elements, spec=spec, optional=self.optional)


def _identity(source: DataSourceModule) -> str:
    if isinstance(source, ColumnarSource):
        return source.fingerprint()
    spec = jax.tree_util.tree_flatten_with_path(source.element_spec())[0]
    fields = ", ".join(f"{jax.tree_util.keystr(path)} {s.shape} {s.dtype}" for path, s in spec)
    return f"{type(source).__name__}({fields})"
