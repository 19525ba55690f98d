"""Folders: files of one stem are one record, and nothing outside of them is read."""

import os

import pytest

from datarax.sources import FolderSource, Limits, RecordError
from datarax.sources.folder import FolderShard


def fill(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def records(shard):
    return {shard.read(row).key: dict(shard.read(row).parts) for row in range(len(shard))}


def test_files_are_paired_by_their_name_up_to_the_first_dot(tmp_path):
    fill(tmp_path, b_txt="two", a_PNG="one", a_seg_png="mask", a_txt="uno", deep__er__a_txt="far")
    fill(tmp_path, README="no suffix", _hidden_txt="hidden")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text("hidden too")
    shard = FolderShard(tmp_path)
    assert list(records(shard)) == ["a", "b", "deep/er/a"]
    assert records(shard) == {
        "a": {"png": b"one", "seg.png": b"mask", "txt": b"uno"},
        "b": {"txt": b"two"},
        "deep/er/a": {"txt": b"far"},
    }
    assert shard.faults == ()


def test_a_file_that_is_dropped_or_added_moves_no_pair(tmp_path):
    fill(tmp_path, a_txt="A", a_png="A", b_txt="B", b_png="B", c_txt="C", c_png="C")
    (tmp_path / "a.png").unlink()
    fill(tmp_path, b0_png="B0")
    found = records(FolderShard(tmp_path))
    assert found["b0"] == {"png": b"B0"}
    for key in "abc":
        assert set(found[key].values()) == {key.upper().encode()}


def test_links_that_lead_out_are_faults_and_never_read(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    folder = fill(tmp_path / "data", a_txt="A", b_txt="B")
    (folder / "a.png").symlink_to(tmp_path / "secret.txt")
    (folder / "c.png").symlink_to(folder / "none")
    (folder / "b.png").symlink_to(folder / "a.txt")
    (folder / "out").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(folder / "d.pipe")
    shard = FolderShard(folder)
    assert records(shard) == {"a": {"txt": b"A"}, "b": {"txt": b"B", "png": b"A"}}
    assert [(fault.key, fault.reason) for fault in shard.faults] == [
        ("a.png", "is a link that leads out of the folder"),
        ("c.png", "is no file"),
        ("d.pipe", "is no file"),
    ]


def test_a_link_that_is_turned_later_is_not_followed(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    folder = fill(tmp_path / "data", a_txt="A")
    (folder / "b.png").symlink_to(folder / "a.txt")
    shard = FolderShard(folder)
    assert shard.read(1).parts == {"png": b"A"}
    (folder / "b.png").unlink()
    (folder / "b.png").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(RecordError, match="leads out of the folder"):
        shard.read(1)


def test_a_name_that_is_no_utf_8_is_a_name(tmp_path):
    fill(tmp_path, a_txt="A")
    (tmp_path / os.fsdecode(b"\xff.txt")).write_bytes(b"odd")
    shard = FolderShard(tmp_path)
    assert [shard.read(row).parts["txt"] for row in range(len(shard))] == [b"A", b"odd"]
    assert shard.identity()


def test_bad_records_leave_the_others(tmp_path):
    fill(tmp_path, a_txt="A", b_txt="B" * 50, c_txt="C", d_txt="D")
    (tmp_path / "a.TXT").write_text("again")
    shard = FolderShard(tmp_path, limits=Limits(member_bytes=40))
    (tmp_path / "c.txt").unlink()
    for row, reason in enumerate(["is there twice", "has 50 bytes, at most 40", "is gone"]):
        with pytest.raises(RecordError, match=reason) as caught:
            shard.read(row)
        assert (caught.value.fault.key, caught.value.fault.field) == ("abc"[row], "txt")
    assert shard.read(3).parts == {"txt": b"D"}


def test_the_identity_changes_with_names_and_sizes(tmp_path):
    one = FolderShard(fill(tmp_path / "x" / "data", a_txt="A")).identity()
    assert FolderShard(fill(tmp_path / "y" / "data", a_txt="B")).identity() == one
    assert FolderShard(fill(tmp_path / "z" / "data", a_txt="BB")).identity() != one
    assert FolderShard(fill(tmp_path / "w" / "data", b_txt="A")).identity() != one


def test_what_is_no_folder_is_refused(tmp_path):
    fill(tmp_path, a_txt="A")
    with pytest.raises(ValueError, match=r"expected folders, got \[.*a\.txt"):
        FolderSource(tmp_path / "a.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="there are no records in"):
        FolderSource(tmp_path / "empty")
