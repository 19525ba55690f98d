import os
import pickle
import tarfile
import threading

import fsspec
import numpy as np
import pytest
from tar_samples import numbered, special, tar_bytes, write_old

from datarax.sources import watch
from datarax.sources.limits import Limits
from datarax.sources.paths import INDEX_SUFFIX
from datarax.sources.record import Fault, RecordError
from datarax.sources.tar import TarShard, TarSource
from datarax.sources.tar_bytes import MOST_KEPT_OPEN, REMOTE_BLOCK, LocalBytes, open_bytes

FIELDS = {
    "name": {"from": "txt", "decode": "text", "length": 8},
    "score": {"from": "json.score", "decode": "number", "missing": "mask"},
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DATARAX_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def shard(folder, members, **options):
    return TarShard(write_old(folder / "a.tar", tar_bytes(members)), **options)


def contents(shard):
    return [(record.key, dict(record.parts)) for record in map(shard.read, range(len(shard)))]


def by_tarfile(path):
    """Records as a plain loop over the standard library finds them."""
    records = {}
    with tarfile.open(path) as tar:
        for member in tar:
            folder, _, base = member.name.rpartition("/")
            stem, _, suffix = base.partition(".")
            parts = records.setdefault(f"{folder}/{stem}" if folder else stem, {})
            parts[suffix.lower()] = tar.extractfile(member).read()
    return list(records.items())


NAMES = {
    "one after the other": ["1.txt", "1.json", "2.json", "3.txt", "3.json"],
    "directories belong to the key": ["a/1.txt", "b/1.txt", "a/b/1.txt", "1.txt"],
    "all after the first dot is the suffix": ["1.seg.png", "1.png", "1.tar.gz", "a.b/1.txt"],
    "suffixes are in lower case": ["1.PNG", "1.Seg.Png", "K.TXT"],
    "members of a key lie apart": ["1.txt", "2.txt", "3.txt", "2.json", "1.json", "4.txt"],
    "names are long": ["d/" * 40 + "1.txt", "x" * 200 + ".txt", "x" * 200 + ".json"],
    "names are not of ASCII": ["ä.txt", "日本/本.txt", "ä.json"],
}


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_records_are_those_that_tarfile_finds(tmp_path, names, format):
    members = [(name, f"{name}#{place}".encode()) for place, name in enumerate(names)]
    path = write_old(tmp_path / "a.tar", tar_bytes(members, format=format))
    made, kept = TarShard(path), TarShard(path)
    assert contents(made) == contents(kept) == by_tarfile(path)
    assert made.faults == kept.faults == ()
    assert (made.name, len(made)) == (str(path), len(by_tarfile(path)))


def test_parts_are_in_the_order_of_the_tar(tmp_path):
    names = [f"{n}.{part}" for n in range(40) for part in "abcd"]
    names = np.random.default_rng(0).permutation(names).tolist()
    made = shard(tmp_path, [(name, b"") for name in names])
    parts = [f"{key}.{part}" for key, parts in contents(made) for part in parts]
    keys = list(dict.fromkeys(name.split(".")[0] for name in names))
    assert parts == sorted(names, key=lambda name: keys.index(name.split(".")[0]))


def test_a_step_of_one_dot_and_doubled_slashes_are_no_part_of_a_key(tmp_path):
    names = ["./1.txt", "1.json", ".//a/./2.txt", "a/2.json"]
    made = shard(tmp_path, [(name, name.encode()) for name in names])
    assert [key for key, _ in contents(made)] == ["1", "a/2"]
    assert contents(made)[1][1] == {"txt": b".//a/./2.txt", "json": b"a/2.json"}


def test_directories_and_hidden_members_are_passed_over(tmp_path):
    members = [special("a", tarfile.DIRTYPE), special(".", tarfile.DIRTYPE), ("a/1.txt", b"1")]
    members += [(name, b"hidden") for name in ("a/._1.txt", ".git/1.txt", ".1.txt", "a/...")]
    made = shard(tmp_path, members)
    assert contents(made) == [("a/1", {"txt": b"1"})]
    assert made.faults == ()


def test_names_that_are_refused_are_faults_and_in_no_record(tmp_path):
    names = ["/1.txt", "../1.txt", "a/../1.txt", "README", "1.", "/", "a/.."]
    made = shard(tmp_path, [("1.json", b"1"), *((name, b"bad") for name in names)])
    assert contents(made) == [("1", {"json": b"1"})]
    assert [(fault.key, fault.reason.split(":")[0]) for fault in made.faults] == [
        ("/1.txt", "its name is absolute"),
        ("../1.txt", "its name has `..`"),
        ("a/../1.txt", "its name has `..`"),
        ("README", "its name has no suffix"),
        ("1.", "its name has no suffix"),
        ("/", "its name is absolute"),
        ("a/..", "its name has `..`"),
    ]
    assert {fault.shard for fault in made.faults} == {made.name}


def test_a_thousand_faults_are_listed_and_the_others_counted(tmp_path):
    made = shard(tmp_path, [(f"/{n}.txt", b"") for n in range(1003)])
    assert len(made) == 0
    assert len(made.faults) == 1001
    assert made.faults[-1].reason == "3 more members are in no record"


BAD = {
    "a symbolic link": special("2.png", tarfile.SYMTYPE, linkname="1.png"),
    "a hard link": special("2.png", tarfile.LNKTYPE, linkname="1.png"),
    "a character device": special("2.png", tarfile.CHRTYPE),
    "a block device": special("2.png", tarfile.BLKTYPE),
    "a named pipe": special("2.png", tarfile.FIFOTYPE),
    "of an unknown type": special("2.png", b"V"),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_member_that_is_no_file_is_an_error_of_its_record(tmp_path, reason):
    made = shard(tmp_path, [("1.png", b"1"), ("2.txt", b"2"), BAD[reason], ("3.png", b"3")])
    fault = Fault(made.name, "2", 1, "png", f"the member is {reason}, which is not read")
    with pytest.raises(RecordError, match=reason) as error:
        made.read(1)
    assert error.value.fault == fault
    assert [made.read(row).parts["png"] for row in (0, 2)] == [b"1", b"3"]
    assert made.faults == ()


@pytest.mark.parametrize("names", [["2.png", "2.png"], ["2.png", "2.PNG"], ["2.png", "./2.png"]])
@pytest.mark.parametrize("apart", [True, False])
def test_a_suffix_that_is_there_twice_is_an_error_of_its_record(tmp_path, names, apart):
    between = [("3.png", b"3")] if apart else []
    members = [("1.png", b"1"), (names[0], b"a"), *between, (names[1], b"b")]
    made = shard(tmp_path, members)
    with pytest.raises(RecordError, match="record '2', png: the member is there twice"):
        made.read(1)
    assert made.read(0).parts == {"png": b"1"}
    assert len(made) == 2 + apart


def test_a_member_beyond_the_limit_is_an_error_of_its_record(tmp_path):
    members = [("1.txt", bytes(10)), ("2.txt", bytes(11)), ("2.json", b""), ("3.txt", b"")]
    made = shard(tmp_path, members, limits=Limits(member_bytes=10))
    message = r"record '2', txt: the member has 11 bytes, at most 10 \(Limits\.member_bytes\)"
    with pytest.raises(RecordError, match=message):
        made.read(1)
    assert [len(made.read(row).parts["txt"]) for row in (0, 2)] == [10, 0]


def test_a_member_that_declares_more_than_there_is_costs_no_memory(tmp_path):
    info = tarfile.TarInfo("2.txt")
    info.size = 10**13
    data = tar_bytes([("1.txt", b"1")])[:1024] + info.tobuf(tarfile.GNU_FORMAT) + bytes(5120)
    made = TarShard(write_old(tmp_path / "a.tar", data))
    assert contents(made) == [("1", {"txt": b"1"})]
    assert [(fault.key, fault.reason) for fault in made.faults] == [
        ("2", f"the tar is cut at byte {len(data)}")
    ]


def test_names_that_are_not_utf8_pair_by_their_bytes(tmp_path):
    names = [b"\xff.txt", b"\xfe.txt", b"\xff.json", b"\\xff.json"]
    members = [(name.decode("utf-8", "surrogateescape"), name) for name in names]
    made = shard(tmp_path, members)
    assert contents(made) == [
        (r"\xff", {"txt": b"\xff.txt", "json": b"\xff.json"}),
        (r"\xfe", {"txt": b"\xfe.txt"}),
        (r"\xff", {"json": rb"\xff.json"}),
    ]


@pytest.mark.parametrize(
    ("data", "faults"),
    [
        (b"", ["the file is empty"]),
        (bytes(1024), []),
        (b"x" * 600, ["no header of a tar at byte 0"]),
    ],
)
def test_files_without_records(tmp_path, data, faults):
    path = write_old(tmp_path / "a.tar", data)
    made = TarShard(path)
    assert len(made) == 0
    assert [fault.reason.split(":")[0] for fault in made.faults] == faults
    with pytest.raises(IndexError, match="record 0 of 0"):
        made.read(0)
    with pytest.raises(ValueError, match="there are no records in"):
        TarSource(path, fields=FIELDS)


def test_only_rows_that_there_are(tmp_path):
    made = shard(tmp_path, numbered(3))
    for row in (-1, 3, 10**12):
        with pytest.raises(IndexError, match=f"record {row} of 3"):
            made.read(row)


def test_a_file_that_changes_under_the_reader_stops_it(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "SECONDS_BETWEEN", 0.0)
    made, path = shard(tmp_path, numbered(100)), tmp_path / "a.tar"
    content = LocalBytes(str(path))
    with pytest.raises(OSError, match=f"has become shorter than {content.size + 1} bytes"):
        content.read(content.size - 5, 6)
    again = pickle.dumps(made)
    for change in (lambda: os.utime(path, ns=(1, 1)), lambda: os.truncate(path, 2048)):
        change()
        with pytest.raises(OSError, match="has changed since it was opened first"):
            made.read(50)
    with pytest.raises(OSError, match="has changed since it was opened first"):
        pickle.loads(again)
    with pytest.raises(FileNotFoundError):
        TarShard(tmp_path / "none.tar")


def test_a_shard_goes_to_another_process_and_on_being_read(tmp_path):
    made = shard(tmp_path, numbered(5))
    assert contents(pickle.loads(pickle.dumps(made))) == contents(made)


def test_more_files_than_a_process_may_hold_open(tmp_path):
    path = write_old(tmp_path / "a.tar", tar_bytes(numbered(2)))
    before = len(os.listdir("/proc/self/fd"))
    shards = [TarShard(path) for _ in range(MOST_KEPT_OPEN + 20)]
    assert len(os.listdir("/proc/self/fd")) <= before + MOST_KEPT_OPEN
    assert contents(shards[-1]) == contents(shards[0]) == by_tarfile(path)
    path.write_bytes(tar_bytes(numbered(3)))
    with pytest.raises(OSError, match="has changed"):
        shards[-1].read(0)
    del shards
    assert len(os.listdir("/proc/self/fd")) == before


def test_many_threads_read_what_one_reads(tmp_path):
    made = shard(tmp_path, numbered(50))
    expected, wrong = contents(made), []

    def read(seed):
        for row in np.random.default_rng(seed).integers(50, size=300).tolist():
            record = made.read(row)
            if (record.key, record.parts) != expected[row]:
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_records_that_do_not_fit_one_read(tmp_path):
    rng = np.random.default_rng(0)
    members = [(f"{n}.{part}", rng.bytes(2**19)) for n in range(2) for part in ("a", "b", "c")]
    assert contents(shard(tmp_path, members)) == by_tarfile(tmp_path / "a.tar")


def test_a_url_is_read_as_a_file_is(tmp_path, cache):
    files = fsspec.filesystem("memory")
    data = tar_bytes(numbered(7))
    files.pipe("memory://tars/a.tar", data)
    path = write_old(tmp_path / "a.tar", data)
    for _ in range(2):
        made = TarShard("memory://tars/a.tar")
        assert contents(made) == by_tarfile(path)
        assert made.name == "memory://tars/a.tar"
    assert [name.name.startswith("a.tar-") for name in (cache / "tar").iterdir()] == [True]
    before = made.identity()
    files.pipe("memory://tars/a.tar", tar_bytes(numbered(8)))
    assert len(TarShard("memory://tars/a.tar")) == 8
    assert TarShard("memory://tars/a.tar").identity() != before
    files.pipe("memory://tars/a.tar", b"short")
    with pytest.raises(OSError, match="gives"):
        made.read(6)
    files.rm("/tars", recursive=True)


def test_a_url_is_gone_through_in_blocks():
    files = fsspec.filesystem("memory")
    data = np.random.default_rng(0).bytes(2 * REMOTE_BLOCK + 1000)
    files.pipe("memory://large", data)
    read = open_bytes("memory://large").reader()
    half = REMOTE_BLOCK // 2
    for offset, size in [(0, 512), (512, 9), (half, half), (half, half + 1), (3, 2), (7, 0),
                         (2 * REMOTE_BLOCK, 1000), (5, REMOTE_BLOCK + 99)]:  # fmt: skip
        assert read(offset, size) == data[offset : offset + size]
    files.rm("/large")


@pytest.mark.parametrize("name", ["._1.txt", "README"])
def test_a_cut_in_a_member_of_no_record_leaves_the_last_record_in_doubt(tmp_path, name):
    data = tar_bytes([("0.txt", b"0"), ("1.txt", b"1"), (name, bytes(600)), ("1.json", b"1")])
    made = TarShard(write_old(tmp_path / "a.tar", data[: 5 * 512 + 100]))
    assert [key for key, _ in contents(made)] == ["0"]
    assert [(fault.key, fault.reason) for fault in made.faults] == [
        ("1", "the tar is cut at byte 2660")
    ]


def test_the_identity_is_of_name_and_headers_and_not_of_the_place(tmp_path):
    made = shard(tmp_path, numbered(3))
    (tmp_path / "b").mkdir()
    os.utime(write_old(tmp_path / "b" / "a.tar", tar_bytes(numbered(3))), ns=(5, 5))
    assert TarShard(tmp_path / "b" / "a.tar").identity() == made.identity()
    assert TarShard(tmp_path / "a.tar").identity() == made.identity()  # from the kept index
    later = tarfile.TarInfo("0000.txt")
    later.mtime = 1
    others = [numbered(4), numbered(3)[::-1], [(later, b"0000 txt"), *numbered(3)[1:]]]
    identities = {shard(tmp_path / "b", members).identity() for members in others}
    write_old(tmp_path / "b.tar", tar_bytes(numbered(3)))
    identities |= {made.identity(), TarShard(tmp_path / "b.tar").identity()}
    assert len(identities) == 5


def test_a_source_reads_fields_of_all_its_shards(tmp_path):
    for name, start in (("a", 0), ("b", 3)):
        members = []
        for n in range(start, start + 3):
            members.append((f"{n}.txt", f"#{n}".encode()))
            members += [(f"{n}.json", b'{"score": %d}' % n)] if n != 4 else []
        write_old(tmp_path / f"{name}.tar", tar_bytes(members))
    for paths in (tmp_path, str(tmp_path / "*.tar"), str(tmp_path / "{a,b}.tar"),
                  [tmp_path / "a.tar", tmp_path / "b.tar"]):  # fmt: skip
        source = TarSource(paths, fields=FIELDS)
        assert len(source) == 6
        for n in range(6):
            record = source[n]
            assert bytes(record.data["name"][record.data["name_mask"]]) == f"#{n}".encode()
            assert record.data.get("score", n) == n
            assert ("score" in record.data) == (n != 4)
            assert record.metadata["key"] == str(n)
    inferred = TarSource(tmp_path)
    assert {"txt"} <= {part for field in inferred.fields.fields.values() for part in field.parts}


def test_the_limits_of_the_fields_are_those_of_the_shards(tmp_path):
    write_old(tmp_path / "a.tar", tar_bytes([("1.txt", b"12345"), ("2.txt", b"1")]))
    source = TarSource(tmp_path, fields={"t": {"from": "txt", "decode": "text", "length": 9}})
    few = Limits(member_bytes=4)
    for limited in (
        TarSource(tmp_path, fields=source.fields, limits=few),
        TarSource(tmp_path, fields=type(source.fields)(source.fields.fields, few)),
    ):
        with pytest.raises(RecordError, match="at most 4"):
            limited.shards.read(0)
        assert limited[1].data["t_mask"].sum() == 1
    assert source[0].data["t_mask"].sum() == 5


def test_reading_leaves_nothing_but_the_index(tmp_path, cache):
    shard(tmp_path, numbered(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", f"a.tar{INDEX_SUFFIX}"]
    assert not cache.exists()
