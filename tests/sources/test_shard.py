import json

import pytest

from datarax.sources.limits import Limits
from datarax.sources.record import Fault, FieldError, FieldSkipped, RawRecord, RecordError
from datarax.sources.shard import Shards


class Listed:
    """Records that are listed in memory."""

    def __init__(self, name, keys, *, faults=()):
        self.name, self.keys, self.faults = name, keys, faults

    def __len__(self):
        return len(self.keys)

    def read(self, row):
        return RawRecord(self.keys[row], {"txt": self.keys[row]})

    def identity(self):
        return f"{self.name} {''.join(self.keys)}"


A, NONE, B = Listed("a", "pqr"), Listed("none", ""), Listed("b", "st")


@pytest.mark.parametrize("order", [(A, B), (NONE, A, NONE, NONE, B, NONE), (B, NONE, A), (A,)])
def test_every_record_is_found_in_its_shard_and_row(order):
    shards = Shards(order)
    places = [(shard, row) for shard in order for row in range(len(shard))]
    assert len(shards) == len(places)
    for index, (shard, row) in enumerate(places):
        assert shards.locate(index) == (shard, row)
        assert shards.read(index).key == shard.keys[row]


@pytest.mark.parametrize("index", [-1, 5, 10**12])
def test_there_are_no_records_beyond_the_last(index):
    with pytest.raises(IndexError, match=f"record {index} of a source of 5"):
        Shards([A, NONE, B]).locate(index)


def test_no_shards_have_no_records():
    assert len(Shards([])) == 0
    with pytest.raises(IndexError, match="record 0 of a source of 0"):
        Shards([]).locate(0)


def test_the_fingerprint_changes_with_order_content_and_length():
    kinds = [
        [A, B],
        [B, A],
        [A],
        [A, NONE, B],
        [Listed("a", "pqx"), B],
        [Listed("a", ["pq", "r"]), B],
    ]
    prints = [Shards(kind).fingerprint() for kind in kinds]
    assert len(set(prints)) == len(prints)
    assert Shards([A, B]).fingerprint() == prints[0]


def test_faults_are_those_of_all_shards_in_order():
    one, two = Fault("a", reason="cut"), Fault("b", reason="empty")
    assert Shards([Listed("a", "", faults=(one,)), NONE, Listed("b", "", faults=[two])]).faults == [
        one,
        two,
    ]


def test_a_fault_is_one_line_of_ascii():
    fault = Fault("ä.tar", key="k\n1", row=3, field="image", reason="two\nlines")
    assert "\n" not in fault.line()
    assert fault.line().isascii()
    assert json.loads(fault.line()) == {
        "shard": "ä.tar", "key": "k\n1", "row": 3, "field": "image", "reason": "two\nlines",
    }  # fmt: skip
    assert str(Fault("a.tar", key="7", field="image", reason="bad")) == (
        "a.tar, record '7', image: bad"
    )
    assert str(Fault("a.tar", reason="cut")) == "a.tar: cut"


def test_errors_say_what_and_where():
    error = RecordError(Fault("a.tar", key="7", reason="bad"))
    assert str(error) == "a.tar, record '7': bad"
    assert error.fault.key == "7"
    skipped = FieldSkipped("image", "lacks")
    assert isinstance(skipped, FieldError)
    assert (str(skipped), skipped.field, skipped.reason) == ("image: lacks", "image", "lacks")


@pytest.mark.parametrize(
    "name", ["pixels", "audio_seconds", "member_bytes", "array_bytes", "json_depth"]
)
def test_limits_are_at_least_one(name):
    assert Limits(**{name: 1})
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        Limits(**{name: 0})
