"""The records of a run as stacked arrays, for search and reports."""

import dataclasses
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from flax import nnx

from datarax.train.config import TrainConfig
from datarax.train.retrieval import content_groups, relevant_targets


class TrainedRun(Protocol):
    """What search and reports need of a run."""

    @property
    def path(self) -> Path: ...  # noqa: D102

    @property
    def config(self) -> TrainConfig: ...  # noqa: D102

    @property
    def model(self) -> nnx.Module: ...  # noqa: D102

    def embed(self, field: str, arrays: Any) -> np.ndarray:
        """L2-normalised float32 [n, d]."""

    def source(self, split: Any) -> Iterable[Any]:
        """The records of a split, or of `"all"`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Characters:
    """Records: `names` text [n], `images` uint8 [n, 32, 32], and the raw `fields` [n, ...]."""

    names: tuple[str, ...]
    images: np.ndarray
    fields: Mapping[str, np.ndarray]

    @property
    def scripts(self) -> tuple[str, ...]:
        """The first word of each name: the script, for characters."""
        return tuple(name.split(" ", 1)[0] for name in self.names)

    def is_right(self, query: str, target: str) -> np.ndarray:
        """Which record's `target` answers which one's `query`, as evaluated: bool [n, n]."""
        groups = (content_groups(self.fields[name]) for name in (query, target))
        return relevant_targets(*groups)


def characters(run: TrainedRun, split: str) -> Characters:
    """The records of `split` that have a name, an image and whatever the run embeds."""
    wanted = {"name", "image", *run.config.towers}
    rows = [record.data for record in run.source(split)]
    rows = [row for row in rows if wanted <= set(row)]
    fields = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in sorted(wanted)}
    return Characters(
        names=tuple(decode_name(name) for name in fields["name"]),
        images=fields["image"],
        fields=fields,
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
