"""JSON lines: what a line is, what it may name, and that a bad one moves no other."""

import json

import pytest

from datarax.sources import Limits, RecordError
from datarax.sources import json_lines as module
from datarax.sources.json_lines import JsonLinesShard


def shard(folder, content, **options):
    path = folder / "a.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return JsonLinesShard(path, **options)


def numbers(made):
    return [made.read(row).parts["n"] for row in range(len(made))]


@pytest.mark.parametrize(
    "content",
    [
        b'{"n": 1}\n{"n": 2}\n',
        b'{"n": 1}\n{"n": 2}',
        b'\xef\xbb\xbf{"n": 1}\r\n{"n": 2}\r\n',
        b'\n\n  \t\n{"n": 1}\n\r\n\n{"n": 2}\n   \n',
        b'\xef\xbb\xbf\n{"n": 1}\n {"n": 2} ',
    ],
    ids=["plain", "no end", "mark and CRLF", "blank lines", "a mark alone"],
)
def test_lines_in_every_dress(tmp_path, content):
    made = shard(tmp_path, content)
    assert numbers(made) == [1, 2]
    assert [made.read(row).key for row in range(2)] == ["0", "1"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 4096])
def test_lines_across_blocks(tmp_path, monkeypatch, size):
    monkeypatch.setattr(module, "BLOCK", size)
    lines = [json.dumps({"n": n, "pad": "x" * (n % 9)}) for n in range(40)]
    made = shard(tmp_path, "\n".join(lines[:20]) + "\n\n  \n" + "\n".join(lines[20:]))
    assert numbers(made) == list(range(40))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"n": 1', "JSON"),
        (b"[1]", "expected a JSON object, got list"),
        (b'"n"', "expected a JSON object, got str"),
        (b'{"n": "\xff"}', "UTF-8"),
        (b'{"n": ' + b"[" * 40 + b"]" * 40 + b"}", "deep"),
        (b'{"n": "' + b"x" * 200 + b'"}', r"the line has \d+ bytes, at most 150"),
        (b'{"n_path": "none.png"}', "there is no file 'none.png'"),
        (b'{"n_path": "../outside.txt"}', "leads out of the folder"),
        (b'{"n_path": "/etc/passwd"}', "leads out of the folder"),
        (b'{"n": {"path": "https://x/y.png"}}', "is a URL"),
        (b'{"n_path": "\\ud800.png"}', "is no path"),
        (b'{"__key__": {"a": 1}, "n": 1}', "is a dict, and no key"),
        (b'{"n": {"path": "large.bin"}}', r"has 151 bytes, at most 150"),
        (b'{"n": 1, "n_path": "small.bin"}', "n: is there twice"),
    ],
)
def test_a_bad_line_is_a_bad_record_and_moves_no_other(tmp_path, line, reason):
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "outside.txt").write_text("secret")
    (folder / "large.bin").write_bytes(bytes(151))
    (folder / "small.bin").write_bytes(bytes(1))
    limits = Limits(member_bytes=150)
    made = shard(folder, b'{"n": 0}\n' + line + b'\n{"n": 2}', limits=limits)
    with pytest.raises(RecordError, match=reason) as caught:
        made.read(1)
    assert (caught.value.fault.row, caught.value.fault.shard) == (1, made.name)
    assert [made.read(row).parts["n"] for row in (0, 2)] == [0, 2]


def test_a_fault_names_the_key_and_the_part(tmp_path):
    lines = ['{"n_path": "none.png", "__key__": "seven"}', '{"__key__": [1], "n": 1}', '{"n": 1']
    made = shard(tmp_path, "\n".join(lines))
    found = []
    for row in range(3):
        with pytest.raises(RecordError) as caught:
            made.read(row)
        found.append((caught.value.fault.key, caught.value.fault.field))
    assert found == [("seven", "n"), ("1", ""), ("2", "")]


def test_files_that_a_line_names(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "7.png").write_bytes(b"a picture")
    line = {
        "__key__": "seven",
        "image_path": "images/7.png",
        "file_name": "images/7.png",
        "sound": {"path": "images/7.png"},
        "both": {"path": "images/7.png", "bytes": None},
        "other": {"path": 3},
        "more": {"path": "images/7.png", "size": 2},
        "_path": "images/7.png",
        "words": "images/7.png",
    }
    raw = shard(tmp_path, json.dumps(line)).read(0)
    assert raw.key == "seven"
    assert raw.parts == {
        "image": b"a picture",
        "file": b"a picture",
        "sound": b"a picture",
        "both": b"a picture",
        "other": {"path": 3},
        "more": {"path": "images/7.png", "size": 2},
        "_path": "images/7.png",
        "words": "images/7.png",
    }


def test_a_link_that_leads_out_is_not_followed(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (folder / "a.png").symlink_to(tmp_path / "secret.png")
    (folder / "in.png").write_bytes(b"inside")
    (folder / "b.png").symlink_to(folder / "in.png")
    made = shard(folder, '{"x_path": "a.png"}\n{"x_path": "b.png"}')
    with pytest.raises(RecordError, match="leads out of the folder"):
        made.read(0)
    assert made.read(1).parts == {"x": b"inside"}


def test_no_lines_are_no_records(tmp_path):
    for content in (b"", b"\n \n", b"\xef\xbb\xbf"):
        made = shard(tmp_path, content)
        assert len(made) == 0
        assert [fault.reason for fault in made.faults] == ["no lines"]


def test_the_identity_is_of_the_content(tmp_path):
    one = shard(tmp_path, '{"n": 1}').identity()
    assert shard(tmp_path, '{"n": 2}').identity() != one
    assert shard(tmp_path, '{"n": 1}').identity() == one
