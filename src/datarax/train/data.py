"""The records of a run: the built-in data set, or shards."""

import dataclasses
import json
from collections.abc import Sequence

from datarax.core.data_source import DataSourceModule
from datarax.sources.glyphs import GlyphsSource, Split
from datarax.sources.open import open_source
from datarax.sources.sharded import ShardedSource
from datarax.sources.subset import SplitRows, SubsetSource
from datarax.train.config import GLYPHS, TrainConfig
from datarax.train.ledger_rows import listed_rows
from datarax.train.settings import suggestion
from datarax.train.towers import fields_of, fit_towers, limits_of


def with_fields(config: TrainConfig) -> TrainConfig:
    """The configuration with fields and towers written out, as its records suggest them.

    A configuration of glyphs, or one that has both, is given back as it is.

    Raises:
      ValueError: if the shards have no records or fewer than two fields to embed, or a tower is no
        field.
      OSError: if a shard cannot be read.
    """
    if config.data == GLYPHS:
        return config
    fields = fields_of(config)
    if fields is None:
        fields = open_source(config.data, limits=limits_of(config)).fields
    towers = config.towers or fit_towers(fields)
    for tower in towers:
        if tower not in fields.fields:
            hint = suggestion(tower, fields.fields)
            raise ValueError(f"towers: there is no field {tower!r}; {hint}")
        if tower not in fit_towers(fields):
            raise ValueError(f"towers: {tower!r} is a number, which has no encoder")
    if len(towers) < 2:
        raise ValueError(
            f"{config.place} has {list(towers)} to embed, two fields are needed: name their parts "
            f"in [fields]\n{fields}"
        )
    options = {name: field.options() for name, field in fields.fields.items()}
    plain = json.loads(json.dumps(options))  # lists for tuples, as TOML gives them
    return dataclasses.replace(config, fields=plain, towers=towers)


def open_split(config: TrainConfig, split: Split) -> DataSourceModule:
    """The records of a split of a configuration's data; "all" of them.

    Raises:
      ValueError: if there are none, or the data cannot be opened.
      OSError: if a file cannot be read.
    """
    if config.data == GLYPHS:
        return GlyphsSource(split, limit=config.limit)
    own = {"validation": config.validation, "test": config.test}.get(split)
    source = open_source(own or config.data, fields=fields_of(config), limits=limits_of(config))
    rows: Sequence[int] = range(len(source)) if own else _own_rows(config, source, split)
    if len(rows) == 0:
        raise ValueError(
            f"{config.place} has {len(source)} records, too few for a {split} split of one in "
            f"{config.held_out}: set held_out lower, or give `validation` and `test`"
        )
    most = config.limit if split in ("train", "all") else config.eval_records
    most = most if config.limit is None or most is None else min(most, config.limit)
    if most is not None and most < len(rows):  # spread evenly
        rows = [rows[place * len(rows) // most] for place in range(most)]
    return SubsetSource(source, rows)


def _own_rows(config: TrainConfig, source: ShardedSource, split: Split) -> Sequence[int]:
    if split == "train" and config.ledger is not None:
        return listed_rows(source, config.ledger)
    if split == "train" and config.validation and config.test:
        return range(len(source))
    if split == "all":
        return range(len(source))
    return SplitRows(len(source), every=config.held_out, split=split)
