"""Records from memory and from shards, mixtures of them, and the built-in data set."""

from datarax.sources.fields import Field, Fields
from datarax.sources.glyphs import GlyphsSource
from datarax.sources.limits import Limits
from datarax.sources.memory import MemorySource
from datarax.sources.mixture import MixtureSource
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

__all__ = [
    "DecodeError",
    "Fault",
    "Field",
    "FieldError",
    "Fields",
    "GlyphsSource",
    "Limits",
    "MemorySource",
    "MixtureSource",
    "RawRecord",
    "RecordError",
    "RecordSkipped",
    "Shard",
    "ShardedSource",
]
