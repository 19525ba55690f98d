"""What the sources of every format share: from paths to shards."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from datarax.sources.fields import Fields
from datarax.sources.limits import Limits
from datarax.sources.paths import expand_paths
from datarax.sources.shard import Shard
from datarax.sources.sharded import ShardedSource, fields_of


class FilesSource(ShardedSource):
    """The records of files of one format, as `fields` reads them.

    Args:
      paths: files, directories of them, globs, brace ranges, URLs: see `expand_paths`.
      fields: what a record's parts become, or the mapping of it that a TOML file has; `None` infers
        it from a sample of the records.
      limits: on what the parts may ask for; `None` leaves those of `fields`, or the usual ones.

    Raises:
      ValueError: if no file is found, there is no record at all, or no field can be inferred.
      OSError: if a file cannot be read.
      ImportError: if an extra is not installed that the format, or a URL, needs.
    """

    open_shard: ClassVar[Callable[..., Shard]]
    suffixes: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        paths: str | Path | Iterable[str | Path],
        *,
        fields: Fields | Mapping[str, Any] | None = None,
        limits: Limits | None = None,
    ) -> None:
        made = fields_of(fields)
        for_shards = made.limits if limits is None and made is not None else limits
        names = self.expand(paths)
        shards = [type(self).open_shard(name, limits=for_shards) for name in names]
        super().__init__(shards, fields=made, limits=limits)

    @classmethod
    def expand(cls, paths: str | Path | Iterable[str | Path]) -> list[str]:
        """The files that paths mean.

        Raises:
          ValueError: if no file is found.
        """
        return expand_paths(paths, suffixes=cls.suffixes)
