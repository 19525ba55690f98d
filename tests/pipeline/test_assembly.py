"""Rows of a batch: what they hold before they are filled must not matter."""

import numpy as np
import pytest

from datarax.core.fields import flatten
from datarax.pipeline.assembly import Assembler
from datarax.sources import MemorySource, MixtureSource, ShardedSource
from datarax.sources.record import Fault, RawRecord, RecordError
from datarax.sources.sharded import fields_of

FIELDS = {
    "n": {"from": "n", "decode": "number"},
    "text": {"from": "txt", "decode": "text", "length": 4, "missing": "mask"},
    "more": {"from": "more", "decode": "text", "length": 3, "missing": "default", "default": "-"},
}
PARTS = [
    {"n": 1, "txt": "ab", "more": "c"},
    {"n": "?", "txt": "ab"},  # is no number
    {"n": 3, "more": "long"},
    {"txt": "ab"},
    {"n": 5, "txt": b"\xff"},
    None,  # cannot be read at all
]


class Listed:
    name, faults = "listed", ()

    def __len__(self):
        return len(PARTS)

    def read(self, row):
        if PARTS[row] is None:
            raise RecordError(Fault(self.name, str(row), row, reason="cut"))
        return RawRecord(str(row), PARTS[row])

    def identity(self):
        return self.name


class OneByOne(ShardedSource):
    """Changes `source[i]` alone, so that its records are read one after another."""

    def __getitem__(self, index):
        return super().__getitem__(index)


def mixture():
    shards = ShardedSource([Listed()], fields=fields_of(FIELDS))
    other = {"n": FIELDS["n"], "other": {"from": "n", "decode": "number"}}
    return MixtureSource(
        {"a": shards, "b": ShardedSource([Listed()], fields=fields_of(other))}, {"a": 1, "b": 1}
    )


SOURCES = {
    "many at once": lambda: ShardedSource([Listed()], fields=fields_of(FIELDS)),
    "one by one": lambda: OneByOne([Listed()], fields=fields_of(FIELDS)),
    "a mixture": mixture,
    "columns": lambda: MemorySource({"n": np.arange(6), "x": np.ones((6, 2))}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_rows_hold_zeros_or_values_whatever_they_held(name):
    source = SOURCES[name]()
    assembler = Assembler(source, optional=None)
    records = np.arange(len(source))
    rows = assembler.empty(records, len(source) + 2)
    for array in rows.data.values():
        assert not array[len(source) :].any()
        array[: len(source)] = 85
    assembler.fill(rows, 0, 4)
    assembler.fill(rows, 4, len(source))
    read = 0
    for row in records.tolist():
        try:
            data = flatten(source[row].data)
        except RecordError:
            data = {}
        read += bool(data)
        assert rows.valid[row] == bool(data)
        for path, array in rows.data.items():
            np.testing.assert_array_equal(array[row], data.get(path, 0))
            presence = rows.presence.get(".".join(path), rows.valid)
            assert presence[row] == (path in data)
    assert not rows.valid[len(source) :].any()
    assert read == {"columns": 6, "a mixture": 5}.get(name, 2)
