"""The records of a run as stacked arrays, labelled and pictured, for search and reports."""

import dataclasses
import unicodedata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from flax import nnx

from datarax.core.data_source import DataSourceModule
from datarax.pipeline.ledger import Ledger
from datarax.sources.decode_image import ImageDecoder
from datarax.sources.decode_text import TextDecoder
from datarax.train.config import GLYPHS, TrainConfig
from datarax.train.evaluation import Table, raw_table
from datarax.train.run_directory import LEDGER_FILE
from datarax.train.towers import fields_of_config, masked_towers


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
    """Records as they are shown.

    Attributes:
      names: what each is called: text [n].
      images: uint8 [n, h, w] or [n, h, w, 3]; `None` where records have no picture.
      table: the raw values that they are of.
      scripts: the first word of each name, for characters; none for other records.
    """

    names: tuple[str, ...]
    images: np.ndarray | None
    table: Table
    scripts: tuple[str, ...] = ()

    def at(self, rows: np.ndarray) -> "Characters":
        """Some of them; the table stays."""
        return dataclasses.replace(
            self,
            names=tuple(self.names[row] for row in rows),
            images=None if self.images is None else self.images[rows],
            scripts=tuple(self.scripts[row] for row in rows) if self.scripts else (),
        )


def characters(run: TrainedRun, split: str) -> Characters:
    """The records of `split` that have a name, an image and whatever the run embeds.

    Of shards: all that can be read, called by their first text, or else by their key.
    """
    if run.config.data != GLYPHS:
        return _labelled(run, split)
    towers = run.config.towers
    fields = sorted({"name", "image", *towers})
    table = raw_table(run.source(split), fields, parts=run.config.fused_towers)
    names = tuple(decode_name(name) for name in table.columns["name"])
    return Characters(
        names=names,
        images=table.columns["image"],
        table=table,
        scripts=tuple(name.split(" ", 1)[0] for name in names),
    )


def _labelled(run: TrainedRun, split: str) -> Characters:
    config = run.config
    fields = fields_of_config(config).fields
    text = next((k for k, f in fields.items() if isinstance(f.decoder, TextDecoder)), None)
    image = next((k for k, f in fields.items() if isinstance(f.decoder, ImageDecoder)), None)
    wanted = dict.fromkeys([*config.towers, *(name for name in (text, image) if name)])
    table = raw_table(
        run.source(split),
        wanted,
        parts=config.fused_towers,
        masked=masked_towers(config),
        ledger=Ledger(run.path / LEDGER_FILE),
    )
    names = list(table.keys)
    if text is not None:
        there = table.presence.get(text, np.ones(table.size, bool))
        for row in np.flatnonzero(there).tolist():
            names[row] = decode_name(table.columns[text][row]) or names[row]
    images = None if image is None else _shown(table.columns[image])
    return Characters(names=tuple(names), images=images, table=table)


def _shown(images: np.ndarray) -> np.ndarray:
    return images if images.ndim == 3 else images[..., :3]


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
