"""Every format against every contract: values, order, threads, faults, never a wrong pairing."""

import concurrent.futures
import copy
import pickle
import random

import numpy as np
import pytest
from format_files import FIELDS, FILES, FORMATS, has_vector, identity, npy, text, write

from datarax.pipeline import ErrorCaps, Pipeline
from datarax.sources import Fields, Limits, RecordError, watch
from datarax.sources.open import format_of, open_shards, open_source
from datarax.sources.sharded import ShardedSource

every = pytest.mark.parametrize("kind", FORMATS)
files = pytest.mark.parametrize("kind", FILES)
TYPED = (RecordError, ValueError)  # ValueError: no record at all


def shard_of(kind, path, **options):
    return FORMATS[kind][2](path, **options)


def source_of(path):
    return open_source(path, fields=FIELDS)


def can_be_flipped(kind):
    """Whether the format says when a byte of data has changed."""
    return kind in ("parquet", "arrayrecord")


@every
def test_the_parts_are_those_that_were_written(kind, tmp_path):
    shard = shard_of(kind, write(kind, tmp_path))
    assert len(shard) == 10
    assert shard.faults == () or list(shard.faults) == []
    for row in range(10):
        raw = shard.read(row)
        assert raw.key == f"k{row:03}"
        found = raw.parts["txt"]
        assert (found.decode() if isinstance(found, bytes) else found) == text(row)
        assert raw.parts.get("npy") == (npy(row) if has_vector(row) else None)
    for row in (-1, 10):
        with pytest.raises(IndexError, match=f"record {row} of 10 in"):
            shard.read(row)


@every
def test_the_source_reads_fields_and_masks(kind, tmp_path):
    source = source_of(write(kind, tmp_path))
    assert [identity(element) for element in source] == list(range(10))
    assert [("vector" in element.data) for element in source] == [has_vector(n) for n in range(10)]
    assert source.optional == ("vector",)
    assert source[-1].metadata["row"] == 9


@every
def test_fields_are_inferred(kind, tmp_path):
    source = open_source(write(kind, tmp_path))
    assert {"n", "npy"} <= set(source.fields.fields)
    assert source.fields.fields["npy"].missing == "mask"
    assert int(source[7].data["n"]) == 7


@every
def test_many_threads_read_what_one_does(kind, tmp_path):
    source = source_of(write(kind, tmp_path, count=40))
    order = [row for row in range(40) for _ in range(5)]
    random.Random(0).shuffle(order)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda row: identity(source[row]), order)) == order


@every
def test_fingerprints_tell_content_from_content_and_not_place_from_place(kind, tmp_path):
    for name in ("one", "same", "other"):
        (tmp_path / name).mkdir()
    one = write(kind, tmp_path / "one")
    same = write(kind, tmp_path / "same")
    other = write(kind, tmp_path / "other", count=11)
    prints = [source_of(path).fingerprint() for path in (one, same, other)]
    assert prints[0] == prints[1] != prints[2]


@every
def test_a_source_goes_into_another_process(kind, tmp_path):
    source = source_of(write(kind, tmp_path))
    identity(source[3])
    for again in (pickle.loads(pickle.dumps(source)), copy.deepcopy(source)):
        assert [identity(element) for element in again] == list(range(10))
        assert again.fingerprint() == source.fingerprint()


@every
def test_parts_beyond_the_limit_are_refused_before_they_are_decoded(kind, tmp_path):
    limits = Limits(member_bytes=100)  # an npy file has 140 bytes
    source = ShardedSource(
        [shard_of(kind, write(kind, tmp_path), limits=limits)], fields=Fields.from_mapping(FIELDS)
    )
    for row in range(10):
        if has_vector(row):
            with pytest.raises(RecordError, match=r"has \d+ bytes, at most 100"):
                source[row]
        elif kind != "jsonl":
            assert identity(source[row]) == row


@files
def test_cut_at_any_byte_there_are_whole_records_and_a_fault(kind, tmp_path):
    whole = write(kind, tmp_path, count=9)
    content = whole.read_bytes()
    chance = random.Random(1)
    cuts = {0, 1, 7, 8, len(content) - 1, *(chance.randrange(len(content)) for _ in range(25))}
    for cut in sorted(cuts):
        whole.write_bytes(content[:cut])
        shard = shard_of(kind, whole)
        assert len(shard) <= 9
        bad = read_all(shard, count=9)
        at_line = kind == "jsonl" and content[cut - 1 : cut] in (b"\n", b"}")  # has no end mark
        whole_still = len(shard) == 9 and not bad  # the end of a tar's padding
        assert at_line or whole_still or shard.faults or bad, (
            f"cut at {cut} of {len(content)}: nothing is said"
        )


@files
def test_a_changed_byte_gives_no_wrong_pairing(kind, tmp_path):
    whole = write(kind, tmp_path, count=9)
    content = bytearray(whole.read_bytes())
    chance = random.Random(2)
    for place in sorted(chance.randrange(len(content)) for _ in range(25)):
        content[place] ^= chance.randrange(1, 256)
        whole.write_bytes(content)
        try:
            shard = shard_of(kind, whole)
            read_all(shard, count=9, strict=can_be_flipped(kind))
        except ImportError:  # the bytes of a compressed file
            pass
        content = bytearray(rewritten(kind, tmp_path))


def rewritten(kind, folder):
    return write(kind, folder, count=9).read_bytes()


def read_all(shard, *, count, strict=True):
    """Read every record; how many are bad. Where `strict`, the others are what was written."""
    bad = 0
    fields = Fields.from_mapping(FIELDS)
    for row in range(min(len(shard), 2 * count)):
        try:
            raw = shard.read(row)
            data = fields.read(raw)
        except TYPED:
            bad += 1
            continue
        if strict:
            said = {int(data["number"]), int(raw.key.removeprefix("k"))}
            said |= {int(bytes(data["text"]).rstrip(b"\0").decode().split()[1])}
            said |= set(data.get("vector", np.zeros(0)).astype(int).tolist())
            assert len(said) == 1
    return bad


@files
def test_an_empty_file_and_one_of_another_format(kind, tmp_path):
    path = tmp_path / FORMATS[kind][0]
    path.write_bytes(b"")
    shard = shard_of(kind, path)
    assert len(shard) == 0
    assert [fault.shard for fault in shard.faults] == [str(path)]
    with pytest.raises(ValueError, match=r"there are no records in .*\n"):
        source_of(path)
    path.write_bytes(b"\x00\xff" * 4000)
    shard = shard_of(kind, path)
    assert read_all(shard, count=9) == len(shard)
    assert shard.faults or len(shard)


@files
def test_no_rows_are_no_records(kind, tmp_path):
    shard = shard_of(kind, write(kind, tmp_path, count=0))
    assert len(shard) == 0
    with pytest.raises(ValueError, match="there are no records in"):
        source_of(tmp_path / FORMATS[kind][0])


@files
def test_a_file_that_changes_under_the_reader_stops_it(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "SECONDS_BETWEEN", 0.0)
    path = write(kind, tmp_path)
    source = source_of(path)
    identity(source[0])
    write(kind, tmp_path, count=200)
    with pytest.raises((OSError, RecordError), match=r"has changed since|cannot be"):
        source[9]


@every
def test_a_pipeline_over_two_shards_with_one_cut(kind, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    paths = [write(kind, tmp_path / "one", count=9), write(kind, tmp_path / "two", 9, start=9)]
    if kind != "folder":
        content = paths[1].read_bytes()
        paths[1].write_bytes(content[: len(content) * 2 // 3 + 5])
    source = ShardedSource(
        [shard_of(kind, path) for path in paths], fields=Fields.from_mapping(FIELDS)
    )
    caps = ErrorCaps(fraction=1, consecutive=None)
    seen = []
    with Pipeline(source, batch_size=4, seed=0, threads=2, error_caps=caps) as pipeline:
        for batch in pipeline:
            for row in np.flatnonzero(batch.valid_mask):
                said = {int(batch["number"][row]), int(batch.metadata[row]["key"][1:])}
                said |= {int(bytes(batch["text"][row]).rstrip(b"\0").decode().split()[1])}
                if batch.presence["vector"][row]:
                    said |= set(batch["vector"][row].astype(int).tolist())
                assert len(said) == 1
                seen += said
    assert len(set(seen)) == len(seen)
    assert set(range(9)) <= set(seen) <= set(range(18))
    assert (len(seen) < 18) == bool(pipeline.ledger.total)


def test_formats_are_told_by_name_and_not_mixed(tmp_path):
    assert [format_of(name) for name in ("a.tgz", "b.IPC", "c.ndjson")] == ["tar", "arrow", "jsonl"]
    with pytest.raises(ValueError, match=r"a\.zip: the format is not known; known are \.tar, "):
        format_of("a.zip")
    write("parquet", tmp_path)
    (tmp_path / "quarantine.jsonl").write_text("{}\n")  # a ledger is no shard
    assert [type(shard).__name__ for shard in open_shards(tmp_path)] == ["ParquetShard"]
    write("tar", tmp_path)
    with pytest.raises(ValueError, match=r"several formats, \['parquet', 'tar'\]: name those"):
        open_shards(tmp_path)
    both = open_shards([tmp_path / "a.tar", tmp_path / "a.parquet"])
    assert [type(shard).__name__ for shard in both] == ["TarShard", "ParquetShard"]
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "x.txt").write_text("one")
    assert [type(shard).__name__ for shard in open_shards(tmp_path / "plain")] == ["FolderShard"]


def test_a_folder_whose_shards_lie_below_it_is_no_folder_of_records(tmp_path):
    below = tmp_path / "data" / "train"
    write_all = {kind: write(kind, tmp_path) for kind in ("tar", "parquet")}
    below.mkdir(parents=True)
    write_all["tar"].rename(below / "s-000.tar")
    every = str(tmp_path / "data" / "**" / "*.tar")
    with pytest.raises(ValueError, match=r"has its shards in .*train: name these") as caught:
        open_shards(tmp_path / "data")
    assert repr(every) in str(caught.value)
    assert [shard.name for shard in open_shards(every)] == [str(below / "s-000.tar")]
    assert len(open_shards(below)) == 1
    for name in ("deep", "val", "x", ".hidden"):
        (below / name).mkdir()
        (below / name / "y.parquet").touch()
    with pytest.raises(
        ValueError, match=r"train/deep, .*train/val and 1 more: .*\.parquet'"
    ) as caught:
        open_shards(tmp_path / "data")
    assert "hidden" not in str(caught.value)


def test_a_ledger_below_a_folder_of_records_is_no_shard(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "quarantine.jsonl").write_text("{}\n")
    assert [type(shard).__name__ for shard in open_shards(tmp_path)] == ["FolderShard"]
