"""Records from memory, and the built-in data set."""

from datarax.sources.glyphs import GlyphsSource
from datarax.sources.memory import MemorySource

__all__ = ["GlyphsSource", "MemorySource"]
