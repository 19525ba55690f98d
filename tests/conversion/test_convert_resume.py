"""Conversions that are stopped, repeated, or pointed at the wrong place."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conversion_samples import SAMPLES, contents, members, tar_file

from datarax.conversion import convert_shards
from datarax.sources.limits import Limits


@pytest.fixture
def source(tmp_path):
    return tar_file(tmp_path / "in" / "a.tar", SAMPLES)


def faulty(path):
    """A tar of 24 records, each third of which is bad: its member is there twice."""
    bad = {"txt": b"1"}
    records = [(f"{n:03}", bad) for n in range(24) for _ in range(1 + (n % 3 == 1))]
    return tar_file(path, records)


def run_until(arguments, reached):
    """Convert in another process, and kill it once `reached()`; whether it was still at work."""
    code = f"from datarax.conversion import convert_shards as c; c({', '.join(arguments)})"
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while child.poll() is None and not reached():
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    assert child.wait(60) in (0, -signal.SIGKILL)
    return child.returncode != 0


def test_killed_and_called_again_the_files_are_those_of_one_call(tmp_path):
    source, out = faulty(tmp_path / "in" / "a.tar"), tmp_path / "out"
    call = [repr(str(source)), repr(str(out)), "format='parquet'", "shard_records=1"]
    assert run_until(call, (out / "data-000003.parquet").exists)
    there = {path.name: path.stat().st_ino for path in out.glob("data-*")}
    assert 4 <= len(there) < 24
    (out / ".data-000023.parquet.x1.part").write_bytes(b"PAR1 half")
    done = convert_shards(source, out, format="parquet", shard_records=1)
    assert f"({len(there)} were there)" in done
    convert_shards(source, tmp_path / "whole", format="parquet", shard_records=1)
    assert contents(out) == contents(tmp_path / "whole")
    assert {name: (out / name).stat().st_ino for name in there} == there


@pytest.mark.parametrize(
    ("format", "stops"),
    [
        ("tar", (2,)),
        *[
            pytest.param(format, (0, 1, 3, 8, 13, 20), marks=pytest.mark.slow)
            for format in ("tar", "parquet", "arrow", "arrayrecord")
        ],
    ],
)
def test_killed_again_and_again_nothing_is_lost_or_listed_twice(tmp_path, format, stops):
    source, out = faulty(tmp_path / "in" / "a.tar"), tmp_path / "out"
    call = [repr(str(source)), repr(str(out)), f"format={format!r}", "shard_records=1"]
    killed = []
    for stop in stops:
        killed.append(
            run_until(call, lambda: len(os.listdir(out) if out.exists() else ()) > stop)  # noqa: B023
        )
    assert any(killed)
    convert_shards(source, out, format=format, shard_records=1)
    lines = (out / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["row"] for line in lines] == list(range(1, 24, 3))
    convert_shards(source, tmp_path / "whole", format=format, shard_records=1)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("format", ["tar", "arrow", "arrayrecord"])
def test_a_shard_that_lacks_is_made_again_the_same(source, tmp_path, format):
    def convert():
        convert_shards(str(source), tmp_path / "out", format=format, shard_records=10)
        return contents(tmp_path / "out")

    whole = convert()
    (tmp_path / "out" / f"data-000001.{format}").unlink()
    (tmp_path / "out" / f".data-000001.{format}.abc.part").write_bytes(b"half")
    assert convert() == whole


def test_records_that_cannot_be_read_are_listed_once_and_left_out(tmp_path):
    records = [*SAMPLES[:3], ("bad", {"txt": b"1"}), ("bad", {"txt": b"2"}), *SAMPLES[3:6]]
    path = tar_file(tmp_path / "in" / "a.tar", [*records, ("cut", {"txt": bytes(9000)})])
    path.write_bytes(path.read_bytes()[:-10240])
    for _ in range(2):
        done = convert_shards(str(path), tmp_path / "out", format="arrow", shard_records=4)
        convert_shards(str(path), tmp_path / "tar", shard_records=4)
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    told = [(fault["key"], fault["row"]) for fault in map(json.loads, lines)]
    assert told == [("cut", None), ("bad", 3)]
    assert (tmp_path / "tar" / "quarantine.jsonl").read_text().splitlines() == lines
    assert "2 bad records" in done
    kept = [m for shard in sorted((tmp_path / "tar").glob("*.tar")) for m in members(shard)]
    good = [(f"{key}.{part}", data) for key, ps in SAMPLES[:6] for part, data in ps.items()]
    assert kept == good


def test_limits_say_which_parts_are_too_large_and_are_part_of_the_conversion(tmp_path):
    records = [("small", {"txt": b"1"}), ("large", {"txt": bytes(999)})]
    path, out = tar_file(tmp_path / "in" / "a.tar", records), tmp_path / "out"
    limits = Limits(member_bytes=998)
    for _ in range(2):
        assert "1 record in 1 shard" in convert_shards(path, out, limits=limits)
    assert [name for name, _ in members(out / "data-000000.tar")] == ["small.txt"]
    with pytest.raises(ValueError, match=r"limits \{'member_bytes': 998\} there, None now"):
        convert_shards(path, out)
    assert "2 records" in convert_shards(path, out, overwrite=True, limits=Limits())
    assert "2 records" in convert_shards(path, out)


def test_another_source_or_option_is_refused_with_what_differs(source, tmp_path):
    out = tmp_path / "out"
    convert_shards(str(source), out, shard_records=10)
    kept = contents(out)
    with pytest.raises(ValueError, match="format 'tar' there, 'arrow' now; shard_records 10 there"):
        convert_shards(str(source), out, format="arrow", shard_records=9)
    tar_file(source, SAMPLES[:5])
    with pytest.raises(
        ValueError, match=r"source shard .*a\.tar', 25, .* there, .*a\.tar', 5, .* now"
    ):
        convert_shards(str(source), out, shard_records=10)
    tar_file(tmp_path / "in" / "b.tar", SAMPLES[5:6])
    with pytest.raises(ValueError, match="1 source shards there, 2 now"):
        convert_shards(str(source.parent), out, shard_records=10)
    assert contents(out) == kept


def test_overwriting_leaves_nothing_of_the_old(source, tmp_path):
    out = tmp_path / "out"
    convert_shards(str(source), out, shard_records=2)
    done = convert_shards(str(source), out, format="arrow", shard_records=20, overwrite=True)
    names = ["columns.schema", "conversion.json", "data-000000.arrow", "data-000001.arrow"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert "were there" not in done


def test_a_damaged_state_asks_to_overwrite(source, tmp_path):
    out = tmp_path / "out"
    convert_shards(str(source), out, format="arrow", shard_records=20)
    for name in ("columns.schema", "conversion.json"):
        (out / "data-000000.arrow").unlink(missing_ok=True)
        (out / name).write_bytes(b"[")
        with pytest.raises(ValueError, match=f"{name}.*--overwrite"):
            convert_shards(str(source), out, format="arrow", shard_records=20)
    convert_shards(str(source), out, format="arrow", shard_records=20, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_no_conversion_wrote_is_never_touched(source, tmp_path, overwrite):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("mine.txt", "data-000000.tar"):
        (out / name).write_text("mine")
        with pytest.raises(ValueError, match="holds what no conversion wrote"):
            convert_shards(str(source), out, overwrite=overwrite)
        assert contents(out) == {name: b"mine"}
        (out / name).unlink()


@pytest.mark.parametrize(
    ("read", "written"),
    [
        *[("in", "in"), ("in", "in/out"), ("in/*.tar", "in"), ("in/a.tar", "in/.")],
        *[("*/*.tar", "out"), ("{also,[io]*}/*.tar", "out"), ("**/*.tar", "in/out/deep")],
    ],
)
def test_the_place_of_the_source_is_refused(source, tmp_path, read, written):
    tar_file(tmp_path / "also" / "b.tar", SAMPLES[:1])
    with pytest.raises(ValueError, match="is where the shards of"):
        convert_shards(str(tmp_path / read), tmp_path / written, overwrite=True)
    assert [path.name for path in source.parent.iterdir() if path.suffix == ".tar"] == ["a.tar"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("read", ["in/*.tar", "i*/a.tar", "in/**/*.tar"])
def test_a_place_that_a_pattern_does_not_find_is_taken(source, tmp_path, read):
    out = tmp_path / ("out" if "**" in read else "in/out")
    for there in ("", " (1 were there)"):
        done = convert_shards([tmp_path / read], out, shard_records=25)
        assert done == f"25 records in 1 shard in {out}{there}"


@pytest.mark.parametrize("content", [b"", b"PAR1"])
def test_a_source_without_records_is_refused_and_nothing_made(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"there are no records in .*a.parquet\n  .*a.parquet: "):
        convert_shards(tmp_path / "a.parquet", tmp_path / "out", format="arrow")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"format": "zip"}, "unknown format 'zip': choose one of tar, parquet, arrow, arrayrecord"),
        ({"shard_records": 0}, "shard_records must be at least 1, got 0"),
    ],
)
def test_options_that_are_none_are_refused(source, tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        convert_shards(str(source), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["tar", "parquet", "arrow", "arrayrecord"])
def test_a_full_disk_leaves_nothing_half_written(source, tmp_path, format):
    import resource

    out, usual = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    convert_shards(str(source), out, format=format, shard_records=20)
    (out / f"data-000001.{format}").unlink()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, usual[1]))
        with pytest.raises(OSError, match=r"File too large|data-000001"):
            convert_shards(str(source), out, format=format, shard_records=20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, previous)
    shards = [name for name in os.listdir(out) if name.startswith((".data", "data"))]
    assert [name for name in shards if "index" not in name] == [f"data-000000.{format}"]
