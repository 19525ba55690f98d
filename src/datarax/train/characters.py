"""The records of a run as stacked arrays, for search and reports."""

import dataclasses
import unicodedata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from flax import nnx

from datarax.core.data_source import DataSourceModule
from datarax.train.config import TrainConfig
from datarax.train.evaluation import Table, raw_table


class TrainedRun(Protocol):
    """What search and reports need of a run."""

    @property
    def path(self) -> Path: ...  # noqa: D102

    @property
    def config(self) -> TrainConfig: ...  # noqa: D102

    @property
    def model(self) -> nnx.Module: ...  # noqa: D102

    def embed(self, field: str, arrays: Any) -> np.ndarray:
        """L2-normalised float32 [n, d]; `"fused"` takes a dict of its parts."""

    def source(self, split: Any) -> DataSourceModule:
        """The records of a split, or of `"all"`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Characters:
    """Records: `names` text [n], `images` uint8 [n, 32, 32], and the raw `table` they are of."""

    names: tuple[str, ...]
    images: np.ndarray
    table: Table

    @property
    def scripts(self) -> tuple[str, ...]:
        """The first word of each name: the script, for characters."""
        return tuple(name.split(" ", 1)[0] for name in self.names)


def characters(run: TrainedRun, split: str) -> Characters:
    """The records of `split` that have a name, an image and whatever the run embeds."""
    table = raw_table(run.source(split), sorted({"name", "image", *run.config.towers}))
    return Characters(
        names=tuple(decode_name(name) for name in table.columns["name"]),
        images=table.columns["image"],
        table=table,
    )


def decode_name(encoded: np.ndarray) -> str:
    """The text of zero-padded UTF-8 bytes.

    Example:
      >>> decode_name(np.frombuffer(b"comma" + bytes(3), np.uint8))
      'comma'
    """
    return encoded.tobytes().rstrip(b"\0").decode("utf-8", errors="replace")


def character_of(name: str) -> str | None:
    """The character of a Unicode name, if it is one.

    Example:
      >>> character_of("greek small letter alpha with tonos")
      'ά'
    """
    try:
        found = unicodedata.lookup(name.upper())
    except KeyError:
        return None
    return found if len(found) == 1 else None  # the lookup also knows names of sequences
