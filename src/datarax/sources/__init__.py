"""Records from memory and from shards, mixtures of them, and the built-in data set."""

from datarax.sources.array_record import ArrayRecordSource
from datarax.sources.arrow import ArrowSource
from datarax.sources.fields import Field, Fields
from datarax.sources.folder import FolderSource
from datarax.sources.glyphs import GlyphsSource
from datarax.sources.json_lines import JsonLinesSource
from datarax.sources.limits import Limits
from datarax.sources.memory import MemorySource
from datarax.sources.mixture import MixtureSource
from datarax.sources.open import open_source
from datarax.sources.parquet import ParquetSource
from datarax.sources.record import (
    DecodeError,
    Fault,
    FieldError,
    RawRecord,
    RecordError,
    RecordSkipped,
)
from datarax.sources.shard import Shard
from datarax.sources.sharded import ShardedSource
from datarax.sources.subset import SubsetSource
from datarax.sources.tar import TarSource

__all__ = [
    "ArrayRecordSource",
    "ArrowSource",
    "DecodeError",
    "Fault",
    "Field",
    "FieldError",
    "Fields",
    "FolderSource",
    "GlyphsSource",
    "JsonLinesSource",
    "Limits",
    "MemorySource",
    "MixtureSource",
    "ParquetSource",
    "RawRecord",
    "RecordError",
    "RecordSkipped",
    "Shard",
    "ShardedSource",
    "SubsetSource",
    "TarSource",
    "open_source",
]
