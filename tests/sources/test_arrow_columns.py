"""Columns read from their buffers give what their cells do."""

import numpy as np
import pytest

from datarax.sources.arrow_cells import as_binary, cell_reader
from datarax.sources.arrow_columns import column_reader
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError

pa = pytest.importorskip("pyarrow")

FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
LARGE = pa.struct([("path", pa.string()), ("bytes", pa.large_binary())])
CONTENT = [b"", b"abc", None, b"\xff", b"de" * 40]
TEXT = ["", "abc", None, "é", "de" * 40]
FILES = [{"bytes": b, "path": None} for b in CONTENT] + [None, {"bytes": b"x", "path": "y"}]

COLUMNS = {
    "bytes": pa.array(CONTENT, pa.binary()),
    "large bytes": pa.array(CONTENT, pa.large_binary()),
    "views of bytes": pa.array(CONTENT, pa.binary_view()),
    "fixed bytes": pa.array([b"abc", None, b"def"], pa.binary(3)),
    "text": pa.array(TEXT, pa.string()),
    "large text": pa.array(TEXT, pa.large_string()),
    "dictionary": pa.array(["a", None, "b", "a"]).dictionary_encode(),
    "files": pa.array(FILES, FILE),
    "large files": pa.array(FILES, LARGE),
    "no nulls": pa.array([b"a", b"bc"], pa.binary()),
    "only nulls": pa.array([None, None], pa.binary()),
    "numbers": pa.array([1, None, 3]),
}


def cut(column):
    """The column, and parts of it that begin in the middle of its buffers."""
    return [column, column.slice(1), column.slice(1, 1), column.slice(len(column))]


@pytest.mark.parametrize("name", COLUMNS)
def test_rows_are_what_their_cells_are(name):
    kind = COLUMNS[name].type
    bind = column_reader(kind, folder="", limits=Limits())
    read = cell_reader(kind, folder="", limits=Limits())
    for whole in cut(COLUMNS[name]):
        column = as_binary(whole)
        part_of = bind(column)
        assert [part_of(row) for row in range(len(column))] == [read(cell) for cell in column]


def test_a_slice_of_a_batch_is_read_from_its_own_rows():
    batch = pa.record_batch({"f": COLUMNS["files"], "t": pa.array(list("abcdefg"))}).slice(3, 2)
    files, texts = (as_binary(column) for column in batch.columns)
    assert [column_reader(FILE, folder="", limits=Limits())(files)(row) for row in (0, 1)] == [
        b"\xff",
        b"de" * 40,
    ]
    assert column_reader(pa.string(), folder="", limits=Limits())(texts)(1) == "e"


def test_text_that_is_no_utf8_is_left_as_bytes():
    column = pa.array([b"a\xff", b"b"], pa.binary())
    text_of = column_reader(pa.string(), folder="", limits=Limits())(column)
    assert [text_of(0), text_of(1)] == [b"a\xff", "b"]


def test_a_file_that_is_named_alone_is_read_beside(tmp_path):
    (tmp_path / "y").write_bytes(b"there")
    column = pa.array([{"bytes": None, "path": "y"}, {"bytes": b"", "path": "y"}], FILE)
    part_of = column_reader(FILE, folder=str(tmp_path), limits=Limits())(column)
    assert [part_of(0), part_of(1)] == [b"there", b""]


@pytest.mark.parametrize("name", ["bytes", "large text", "files", "views of bytes"])
def test_a_cell_beyond_the_limit_raises(name):
    limits = Limits(member_bytes=79)
    column = as_binary(COLUMNS[name])
    part_of = column_reader(COLUMNS[name].type, folder="", limits=limits)(column)
    assert part_of(1) is not None
    with pytest.raises(DecodeError, match=r"has 80 bytes, at most 79 \(Limits.member_bytes\)"):
        part_of(4)


def test_lists_stay_arrays():
    column = pa.array([[1, 2], [3]])
    part_of = column_reader(column.type, folder="", limits=Limits())(column)
    np.testing.assert_array_equal(part_of(1), [3])
