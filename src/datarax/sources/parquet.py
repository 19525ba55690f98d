"""Records of Parquet files, at random access by row group."""

import bisect
import hashlib
import itertools
import os
import weakref
from pathlib import Path
from typing import Any

from datarax.sources.arrow_blocks import Block, block_of
from datarax.sources.arrow_cells import is_damage, require_pyarrow, row_parts
from datarax.sources.block_cache import BlockCache
from datarax.sources.files import FilesSource
from datarax.sources.limits import Limits
from datarax.sources.paths import file_version, is_url, open_binary
from datarax.sources.record import DecodeError, Fault, RawRecord, RecordError

SHARED = BlockCache()


class ParquetShard:
    """The rows of one Parquet file; a part is a column, by name.

    Text, bytes, numbers, truth values, lists, structs and maps arrive as such (lists of numbers as
    arrays), the large and view types and dictionaries likewise; decimals and dates as text, spans
    of time as seconds. A struct `{bytes, path}`, as Hugging Face writes images and sounds, arrives
    as its bytes, read from `path` where these are null: a file in the shard's folder or below, and
    nowhere else. A column `__key__` is the record's key; else the row number is.

    A row group is decoded whole, and the last used ones stay in memory (`block_cache`): for random
    order write small ones (`datarax convert` does).

    What is not as it should be:

    - A file without a footer that can be read (empty, cut, another format): no records and a fault.
    - No rows: no records.
    - A row group that cannot be decoded, does not have the rows that the footer says, or takes more
      than `limits.unpacked_bytes`: each of its rows raises. Checksums of pages are verified where
      the writer left them (`write_page_checksum`); without, a changed byte of data may go unseen.
    - A cell beyond `limits.member_bytes`, or of a type that is not read: its row raises.

    Args:
      path: a file or a URL.
      limits: on cells; `None` is the usual ones.
      cache: where decoded row groups are kept; `None` is one of 512 MiB for all shards.

    Raises:
      OSError: if the file cannot be read.
      ImportError: without `datarax[parquet]`, or for a URL without fsspec.
    """

    def __init__(
        self, path: str | Path, *, limits: Limits | None = None, cache: BlockCache | None = None
    ) -> None:
        require_pyarrow()
        self.name = os.fspath(path)
        self.limits = Limits() if limits is None else limits
        self.faults: tuple[Fault, ...] = ()
        self._cache = SHARED if cache is None else cache
        self._size, self._version = file_version(self.name)
        self._metadata = self._read_footer()
        groups = range(0 if self._metadata is None else self._metadata.num_row_groups)
        counts = [self._metadata.row_group(group).num_rows for group in groups]
        if any(count < 0 for count in counts):
            counts = self._lose("the footer counts rows below 0")
        self._ends = list(itertools.accumulate(counts))
        self._owner = object()
        weakref.finalize(self, self._cache.drop, self._owner)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, row: int) -> RawRecord:
        """Record `row`: the cells of its row by column.

        Raises:
          IndexError: if there is no such record.
          RecordError: if it cannot be decoded, or a cell is refused.
          OSError: if the file cannot be read, or has changed.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"record {row} of {len(self)} in {self.name}")
        group = bisect.bisect_right(self._ends, row)
        try:
            block = self._cache.get((self._owner, group), lambda: self._read_group(group))
            batch, inside = block.locate(row - (self._ends[group - 1] if group else 0))
            key, parts = row_parts(
                batch,
                inside,
                schema=block.schema,
                folder=os.path.dirname(self.name),
                limits=self.limits,
            )
        except DecodeError as error:
            raise RecordError(Fault(self.name, str(row), row, reason=str(error))) from error
        return RawRecord(str(row) if key is None else key, parts)

    def identity(self) -> str:
        """Of the file's name without its folder, its size, and the footer."""
        digest = hashlib.blake2b(digest_size=8)
        for group in range(len(self._ends)):
            columns = self._metadata.row_group(group)
            for place in range(columns.num_columns):
                column = columns.column(place)
                digest.update(f"{column.path_in_schema} {column.file_offset} ".encode())
                digest.update(f"{column.total_compressed_size} {column.num_values};".encode())
        return f"{os.path.basename(self.name)} {self._size} {digest.hexdigest()}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.name, self.limits)

    def _lose(self, reason: str) -> list[int]:
        self.faults = (*self.faults, Fault(self.name, reason=reason))
        return []

    def _read_footer(self) -> Any:
        from pyarrow import parquet

        with open_binary(self.name) as file:
            try:
                return parquet.read_metadata(file)
            except Exception as error:
                if not is_damage(error):
                    raise
                self._lose(f"no Parquet footer can be read: {_short(error)}")
                return None

    def _read_group(self, group: int) -> tuple[Block, int]:
        from pyarrow import parquet

        if file_version(self.name) != (self._size, self._version):
            raise OSError(f"{self.name} has changed since it was opened first")
        size = self._metadata.row_group(group).total_byte_size
        if not 0 <= size <= self.limits.unpacked_bytes:
            most = f"at most {self.limits.unpacked_bytes} (Limits.unpacked_bytes)"
            raise DecodeError(f"row group {group} takes {size} bytes, {most}")
        try:
            table = self._decode(parquet, group)
            block = block_of(table.schema, table.to_batches())
        except DecodeError:
            raise
        except Exception as error:
            if not is_damage(error):
                raise
            raise DecodeError(f"row group {group} cannot be decoded: {_short(error)}") from error
        expected = self._metadata.row_group(group).num_rows
        if len(block) != expected:
            raise DecodeError(f"row group {group} has {len(block)} rows, {expected} in the footer")
        return block, block.size

    def _decode(self, parquet: Any, group: int) -> Any:
        options = {"page_checksum_verification": True, "pre_buffer": False}
        if not is_url(self.name):
            with parquet.ParquetFile(self.name, metadata=self._metadata, **options) as opened:
                return opened.read_row_group(group, use_threads=False)
        with (
            open_binary(self.name) as file,
            parquet.ParquetFile(file, metadata=self._metadata, **options) as opened,
        ):
            return opened.read_row_group(group, use_threads=False)


class ParquetSource(FilesSource):
    """The records of Parquet files, as `fields` reads them; see `ParquetShard` for the parts.

    The arguments and errors are those of `FilesSource`.

    Example:
      >>> import tempfile, pyarrow as pa, pyarrow.parquet
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     table = pa.table({"text": ["a", "b"], "score": [0.5, None]})
      ...     pa.parquet.write_table(table, f"{folder}/0.parquet")
      ...     source = ParquetSource(folder)
      ...     print(source.fields)
      ...     float(source[0].data["score"]), sorted(source[1].data)
      text = {from = "text", decode = "text", length = 32}
      score = {from = "score", decode = "number", dtype = "float32", missing = "mask"}
      (0.5, ['text', 'text_mask'])
    """

    open_shard = ParquetShard
    suffixes = (".parquet",)


def _reopened(name: str, limits: Limits) -> ParquetShard:
    return ParquetShard(name, limits=limits)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
