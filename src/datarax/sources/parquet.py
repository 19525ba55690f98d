"""Records of Parquet files, at random access by row group."""

import bisect
import functools
import hashlib
import itertools
import os
import struct
import weakref
from pathlib import Path
from typing import Any

from datarax.sources.arrow_blocks import Block, TableRows, one_line
from datarax.sources.arrow_cells import is_damage, require_pyarrow
from datarax.sources.block_cache import SHARED, BlockCache
from datarax.sources.files import FilesSource
from datarax.sources.limits import Limits
from datarax.sources.paths import file_version, is_url, open_binary
from datarax.sources.record import DecodeError, Fault, RawRecord, RecordError

BATCH_ROWS = 1024


class ParquetShard:
    """The rows of one Parquet file; a part is a column, by name.

    Text, bytes, numbers, truth values, lists, structs and maps arrive as such (lists of numbers as
    arrays), the large and view types and dictionaries likewise; decimals and points in time as text
    (ISO 8601, in UTC where there is a time zone), spans of time as seconds. A struct
    `{bytes, path}`, as Hugging Face writes images and sounds, arrives as its bytes, read from
    `path` where these are null: a file in the shard's folder or below, and nowhere else. A column
    `__key__` is the record's key; else the row number is.

    A row group is decoded whole, and the last used ones stay in memory (`BlockCache`): for random
    order write small ones (`datarax convert` does).

    What is not as it should be:

    - A file without a footer that can be read (empty, cut, another format), whose footer
      contradicts itself, or with two columns of one name: no records and a fault.
    - No rows: no records.
    - A row group that cannot be decoded, does not have the rows that the footer says, or takes more
      than `limits.unpacked_bytes`: each of its rows raises. Checksums of pages are verified where
      the writer left them (`write_page_checksum`); without, a changed byte of data may go unseen.
      Footers and the headers of pages have none: a changed name of a column is another column, and
      a changed header of a page of version 2 may give a row the value of another. (pyarrow and
      `datarax convert` write version 1, where that was not seen at any byte.)
    - A cell beyond `limits.member_bytes`: its row raises. A column of a type that is not read: a
      fault, and the records lack it.

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
        self._metadata: Any = None
        self._rows: TableRows | None = None
        self._digest = ""
        counts = self._read_footer()
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
        if not 0 <= row < len(self) or self._rows is None:
            raise IndexError(f"record {row} of {len(self)} in {self.name}")
        group = bisect.bisect_right(self._ends, row)
        try:
            block = self._cache.get((self._owner, group), lambda: self._read_group(group))
        except DecodeError as error:
            raise RecordError(Fault(self.name, str(row), row, reason=str(error))) from error
        inside = row - (self._ends[group - 1] if group else 0)
        return self._rows.record(block, inside, row=row)

    def identity(self) -> str:
        """Of the file's name without its folder, its size, and its footer."""
        return f"{os.path.basename(self.name)} {self._size} {self._digest}"

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), limits=self.limits), (self.name,)

    def _read_footer(self) -> list[int]:
        """The rows of each row group; none, and a fault, if that cannot be known."""
        from pyarrow import parquet

        with open_binary(self.name) as file:
            self._digest = _footer_digest(file, self._size)
            try:
                file.seek(0)
                self._metadata = parquet.read_metadata(file)
                schema = self._metadata.schema.to_arrow_schema()
                folder = os.path.dirname(self.name)
                self._rows = TableRows(self.name, schema, folder=folder, limits=self.limits)
                counts = _group_rows(self._metadata)
            except Exception as error:
                if not is_damage(error):
                    raise
                reason = f"no Parquet footer can be read: {one_line(error)}"
                self.faults = (Fault(self.name, reason=reason),)
                return []
        self.faults = tuple(self._rows.faults)
        return counts

    def _read_group(self, group: int) -> tuple[Block, int]:
        if file_version(self.name) != (self._size, self._version):
            raise OSError(f"{self.name} has changed since it was opened first")
        found = self._metadata.row_group(group)
        self._check_size(group, found.total_byte_size)
        try:
            assert self._rows is not None  # there are rows
            block = self._rows.block(self._decode(group))
        except DecodeError:
            raise
        except Exception as error:
            if not is_damage(error):
                raise
            raise DecodeError(f"row group {group} cannot be decoded: {one_line(error)}") from error
        if len(block) != found.num_rows:
            rows = found.num_rows
            raise DecodeError(f"row group {group} has {len(block)} rows, {rows} in the footer")
        return block, block.size

    def _decode(self, group: int) -> list[Any]:
        """The batches of a row group, read until they take more than the limit."""
        from pyarrow import parquet

        with open_binary(self.name) as file:
            opened = parquet.ParquetFile(
                file if is_url(self.name) else self.name,
                metadata=self._metadata,
                page_checksum_verification=True,
                pre_buffer=False,
            )
            batches, size = [], 0
            with opened:
                for batch in opened.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False):
                    batches.append(batch)
                    size += batch.nbytes
                    self._check_size(group, size)
        return batches

    def _check_size(self, group: int, size: int) -> None:
        most = self.limits.unpacked_bytes
        if not 0 <= size <= most:
            said = f"takes {size} bytes, at most {most} (Limits.unpacked_bytes)"
            raise DecodeError(f"row group {group} {said}")


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


def _footer_digest(file: Any, size: int) -> str:
    """A digest of the footer; of what stands at the end if there is none."""
    file.seek(max(0, size - 8))
    (length,) = struct.unpack("<I", file.read(8)[:4].rjust(4, b"\0"))
    start = size - 8 - length
    file.seek(start if start >= 0 else max(0, size - 2**16))
    return hashlib.blake2b(file.read(), digest_size=8).hexdigest()


def _group_rows(metadata: Any) -> list[int]:
    """The rows of each row group. (pyarrow aborts when asked for a column that the footer lacks.)

    Raises:
      ValueError: if they are not those of the file together.
    """
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if any(count < 0 for count in counts) or sum(counts) != metadata.num_rows:
        raise ValueError(f"row groups of {counts[:8]}... rows are {metadata.num_rows} together")
    return counts
