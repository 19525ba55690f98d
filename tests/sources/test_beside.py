"""Files that records name; where they may lie is a table in test_arrow_cells.py."""

import os
import socket
from pathlib import Path

import pytest

from datarax.sources.beside import read_beside, read_file
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError


@pytest.mark.parametrize("content", [b"", b"x" * 40])
def test_a_file_is_read_whole_and_up_to_the_limit(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert read_file(str(tmp_path / "a"), limits=Limits(member_bytes=40)) == content
    assert read_beside("a", folder=str(tmp_path), limits=Limits()) == content
    (tmp_path / "a").write_bytes(b"x" * 41)
    with pytest.raises(DecodeError, match=r"has 41 bytes, at most 40 \(Limits.member_bytes\)"):
        read_file(str(tmp_path / "a"), limits=Limits(member_bytes=40))


@pytest.mark.timeout(20)
def test_what_became_a_pipe_or_a_folder_since_holds_nothing_up(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DecodeError, match="is no plain file"):
        read_file(str(tmp_path / "pipe"), limits=Limits())
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        with pytest.raises(DecodeError, match="is no plain file"):
            read_file(str(tmp_path / "socket"), limits=Limits())
    before = os.listdir("/dev/fd")
    with pytest.raises(DecodeError, match="is no plain file"):
        read_file(str(tmp_path), limits=Limits())
    assert os.listdir("/dev/fd") == before
    with pytest.raises(FileNotFoundError):
        read_file(str(tmp_path / "lacks"), limits=Limits())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_file_that_holds_more_than_it_says_is_refused():
    with pytest.raises(DecodeError, match="has more bytes than the 0 that its folder says"):
        read_file("/proc/self/status", limits=Limits())
