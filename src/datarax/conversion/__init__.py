"""From shards of one format to shards of another."""

from datarax.conversion.convert import FORMATS as FORMATS
from datarax.conversion.convert import convert_shards as convert_shards
