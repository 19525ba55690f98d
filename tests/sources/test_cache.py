from pathlib import Path

import pytest

from datarax.sources.cache import cache_directory, write_atomically


def test_a_failed_write_leaves_nothing(tmp_path):
    path = tmp_path / "new" / "file"

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert list(path.parent.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def interrupt(file):
        file.write(b"new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, interrupt)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_where_the_cache_is(monkeypatch):
    monkeypatch.delenv("DATARAX_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_directory() == Path("/home/someone/.cache/datarax")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_directory() == Path("/xdg/datarax")
    monkeypatch.setenv("DATARAX_CACHE_DIR", "/own")
    assert cache_directory() == Path("/own")
