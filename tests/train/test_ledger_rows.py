"""A ledger's shards are found again however their paths are typed, or both names are told."""

from pathlib import Path

import pytest

from datarax.pipeline import Ledger
from datarax.sources.open import open_source
from datarax.sources.record import Fault
from datarax.train.ledger_rows import listed_rows

FIELDS = {"n": {"from": "n", "decode": "number"}}


def write(path, *keys):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f'{{"__key__": "{key}", "n": 1}}\n' for key in keys))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two folders with shards of the same names, and the working directory above them."""
    for folder in ("train", "test"):
        for number in range(2):
            write(tmp_path / "d" / folder / f"{number}.jsonl", *(f"{folder} {k}" for k in "abc"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(paths, *faults):
    Path("ledger.jsonl").unlink(missing_ok=True)
    ledger = Ledger("ledger.jsonl")
    ledger.add(Fault(shard, key, row, "n", "bad") for shard, key, row in faults)
    return listed_rows(open_source(paths, fields=FIELDS), "ledger.jsonl")


NAMES = [
    "d/train/{}",
    "{}",
    "train/{}",
    "../elsewhere/d/train/{}",
    "/moved/to/train/{}",
    "./d/train/{}",
]


@pytest.mark.parametrize("name", [*NAMES, "HERE/d/train/{}"])
@pytest.mark.parametrize("given", ["d/train", "HERE/d/train"])
def test_however_the_path_was_typed(place, name, given):
    first, second = (name.replace("HERE", str(place)).format(f"{n}.jsonl") for n in range(2))
    faults = (first, "train b", 1), (second, "train a", 0), (second, "", None)
    assert rows(given.replace("HERE", str(place)), *faults) == [1, 3]


def test_through_a_link(place):
    (place / "link").symlink_to(place / "d" / "train")
    assert rows("link", ("d/train/1.jsonl", "train c", 2)) == [5]


def test_other_shards_of_the_same_name_are_left_out(place, monkeypatch):
    faults = ("d/train/0.jsonl", "train b", 1), ("d/test/0.jsonl", "test a", 0)
    assert rows("d/train", *faults) == [1]
    assert rows(f"{place}/d/train", *faults) == [1]
    assert rows("d/*/0.jsonl", *faults) == [0, 4]
    faults = ("d/train/0.jsonl", "train b", 1), ("d/test/1.jsonl", "train a", 0)  # the same key
    assert rows("d/train", *faults) == [1]
    (place / "e").mkdir()
    monkeypatch.chdir(place / "e")
    assert rows("../d/train", *faults) == [1]


def test_other_shards_alone_are_refused(place):
    said = r"record 'test a' in row 0 of /x/test/0.jsonl, and d/train/0.jsonl has 'train a'"
    with pytest.raises(ValueError, match=said):
        rows("d/train", ("/x/test/0.jsonl", "test a", 0))
    with pytest.raises(ValueError, match=r"and d/train/0.jsonl has no such row"):
        rows("d/train", ("/x/test/0.jsonl", "test z", 9))


def test_what_stays_open_is_refused_with_both_names(place):
    with pytest.raises(ValueError, match=r"lists 0.jsonl, which may be d/test/0.jsonl, d/train/0"):
        rows("d/*/0.jsonl", ("0.jsonl", "train a", 0))
    two = ("/x/0.jsonl", "train a", 0), ("/y/0.jsonl", "train b", 1)
    with pytest.raises(ValueError, match=r"lists /x/0.jsonl, /y/0.jsonl, which may be d/train/0"):
        rows("d/train", *two)


def test_none_is_refused_with_both_names(place):
    said = r"lists no record of d/train/0.jsonl, d/train/1.jsonl, but records of e/7.jsonl"
    with pytest.raises(ValueError, match=said):
        rows("d/train", ("e/7.jsonl", "a", 0))
    (place / "ledger.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"lists no record of d/train/0.jsonl, but no records"):
        listed_rows(open_source("d/train/0.jsonl", fields=FIELDS), "ledger.jsonl")
