import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from datarax.sources.paths import (
    INDEX_SUFFIX,
    expand_braces,
    expand_paths,
    file_version,
    is_url,
    open_binary,
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("b.tar", "a.TAR", "c.txt", ".hidden.tar", f"b.tar{INDEX_SUFFIX}", "in/d.tar"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store():
    files = fsspec.filesystem("memory")
    for name in ("s/b.tar", "s/a.tar", "s/c.txt", "s/in/d.tar"):
        files.pipe(f"memory://{name}", name.encode())
    yield files
    files.rm("/s", recursive=True)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("b.tar", ["b.tar"]),
        (Path("b.tar"), ["b.tar"]),
        (["c.txt", "b.tar"], ["c.txt", "b.tar"]),
        (".", ["./a.TAR", "./b.tar"]),
        ("./", ["./a.TAR", "./b.tar"]),
        ("in", ["in/d.tar"]),
        ("*", ["a.TAR", "b.tar", "c.txt"]),
        ("?.tar", ["b.tar"]),
        ("**/*.tar", ["b.tar", "in/d.tar"]),
        (["in/*", "b*"], ["in/d.tar", "b.tar"]),
        ("{c.txt,b.tar}", ["c.txt", "b.tar"]),
        ("{in/,}?.tar", ["in/d.tar", "b.tar"]),
    ],
)
def test_what_is_found(folder, given, found):
    assert expand_paths(given, suffixes=(".tar",)) == found


def test_without_suffixes_a_directory_is_all_its_visible_files(folder):
    assert expand_paths(folder) == [str(folder / name) for name in ("a.TAR", "b.tar", "c.txt")]


def test_suffixes_are_of_any_case(folder):
    assert expand_paths(".", suffixes=(".TAR", ".Txt")) == ["./a.TAR", "./b.tar", "./c.txt"]


def test_a_file_of_that_very_name_comes_first(folder):
    for name in ("x[1].tar", "x{1,2}.tar", "x{1..2}.tar"):
        Path(name).touch()
        assert expand_paths(name) == [name]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("none.tar", r"none\.tar finds no file"),
        ("z*.tar", r"z\*\.tar finds no file"),
        ("{b,e}.tar", r"e\.tar \(of \{b,e\}\.tar\) finds no file"),
        ("b{0..1}.tar", r"b0\.tar \(of b\{0\.\.1\}\.tar\) finds no file"),
        ("empty", r"empty has no files with suffix \('\.tar',\)"),
        ([], "no path is given"),
        ("", " finds no file"),
        ("b.tar\0", "finds no file|null"),
        (["b.tar", "./b.tar"], r"the same file is given twice: b\.tar and \./b\.tar"),
        (["b.tar", "link.tar"], r"given twice: b\.tar and link\.tar"),
        (["*.tar", "b.tar"], "given twice"),
    ],
)
def test_what_is_refused(folder, pattern, message):
    Path("empty").mkdir()
    os.symlink("b.tar", "link.tar") if "link.tar" in pattern else None
    with pytest.raises(ValueError, match=message):
        expand_paths(pattern, suffixes=(".tar",))


@pytest.mark.parametrize(
    "pattern",
    [
        "data-{000000..000012}.tar",
        "{8..12}",
        "{08..12}",
        "{3..1}",
        "{0..0}",
        "{a,b}{1..2}",
        "{,a}",
        "a{b}c",
        "a{b",
        "a}b",
        "x",
        "{1..2}-{7..9}",
        "{003..1}",
    ],
)
def test_braces_are_those_of_bash(pattern):
    shell = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' x{pattern}"], capture_output=True, text=True, check=True
    )
    assert [f"x{path}" for path in expand_braces(pattern)] == shell.stdout.splitlines()


@pytest.mark.parametrize(
    "pattern", ["{0..999999999999999999}", "{0..99999}{0..99999}", "{0..1048576}"]
)
def test_a_huge_range_is_refused_at_once(pattern):
    with pytest.raises(ValueError, match=r"means \d+ paths, at most 1048576"):
        expand_paths(pattern)
    assert expand_braces("{0..99999999999999999999}") == ["{0..99999999999999999999}"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("memory://s/b.tar", ["memory://s/b.tar"]),
        ("memory://s", ["memory:///s/a.tar", "memory:///s/b.tar"]),
        ("memory://s/*.tar", ["memory:///s/a.tar", "memory:///s/b.tar"]),
        ("memory://s/*", ["memory:///s/a.tar", "memory:///s/b.tar", "memory:///s/c.txt"]),
        ("memory://s/**/d.tar", ["memory:///s/in/d.tar"]),
        ("memory://s/{b,a}.tar", ["memory://s/b.tar", "memory://s/a.tar"]),
    ],
)
def test_urls(store, given, found):
    assert expand_paths(given, suffixes=(".tar",)) == found
    for url in found:
        assert is_url(url)
        with open_binary(url) as file:
            file.seek(2)
            content = file.read()
        assert f"s/{content.decode()}" == url.split("://")[1].lstrip("/")


def test_without_suffixes_a_directory_behind_a_url_is_all_its_files(store):
    assert expand_paths("memory://s") == [
        f"memory:///s/{name}" for name in ("a.tar", "b.tar", "c.txt")
    ]


@pytest.mark.parametrize("url", ["memory://s/z.tar", "memory://s/z*", "memory://none"])
def test_urls_that_find_nothing(store, url):
    with pytest.raises(ValueError, match="finds no file"):
        expand_paths(url)


def test_the_same_url_twice_and_globs_in_chains_are_refused(store):
    with pytest.raises(ValueError, match="given twice"):
        expand_paths(["memory://s/a.tar", "memory://s/a.tar"])
    with pytest.raises(ValueError, match="list the files themselves"):
        expand_paths("simplecache::memory://s/*.tar")


def test_without_fsspec_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    for read in (expand_paths, open_binary, file_version):
        with pytest.raises(ImportError, match=r"pip install 'datarax\[remote\]'"):
            read("s3://bucket/a.tar")


def test_versions_change_with_size_and_time(folder, store):
    size, first = file_version("b.tar")
    assert (size, file_version("b.tar")) == (5, (size, first))
    os.utime("b.tar", ns=(1, 2))
    assert file_version("b.tar") == (5, "2") != (5, first)
    size, first = file_version("memory://s/a.tar")
    assert (size, file_version("memory://s/a.tar")) == (7, (7, first))
    store.pipe("memory://s/a.tar", b"changed")
    assert file_version("memory://s/a.tar")[1] != first


def test_only_files_are_opened(folder):
    os.mkfifo("pipe")
    for path in ("pipe", "in"):
        for read in (open_binary, file_version):
            with pytest.raises(OSError, match=f"{path} is not a file"):
                read(path)
    with pytest.raises(FileNotFoundError):
        open_binary("none.tar")
    with open_binary(Path("b.tar")) as file:
        assert file.read() == b"b.tar"
