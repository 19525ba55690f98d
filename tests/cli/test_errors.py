import errno
import json
import os

import numpy as np
import pytest

from datarax.cli.errors import bug_message, user_message
from datarax.cli.run_directory import check_out
from datarax.train.config import TrainConfig
from datarax.train.results import result_rows


def caught(call):
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("it did not raise")


def os_error(number):
    def fail():
        raise OSError(number, os.strerror(number), "runs/a")

    return caught(fail)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "runs/a: no space left on device; free some space and run it again"),
        (errno.EACCES, "runs/a: permission denied; check its permissions, or choose another place"),
        (errno.EROFS, "runs/a: read-only file system; choose a place that can be written to"),
        (errno.EIO, "runs/a: input/output error"),
    ],
)
def test_system_errors(number, said):
    assert user_message(os_error(number)) == said


def test_an_error_without_number_is_told_as_it_is():
    assert user_message(OSError("the file\nis cut")) == "the file is cut"


def test_the_entries_of_a_list_stay_apart_on_one_line():
    told = OSError("three are bad. The last:\n  a.tar: cut\n  b.tar: cut\nlook at them")
    assert user_message(told) == "three are bad. The last: a.tar: cut; b.tar: cut. look at them"


def test_what_our_code_raises_on_purpose_is_the_users():
    error = caught(lambda: TrainConfig(epochs=0))
    assert user_message(error) == "epochs: expected a whole number at least 1, got 0"


@pytest.mark.parametrize(
    "bug",
    [
        lambda: np.zeros((2, 3)).reshape(7),
        lambda: result_rows({}),
        lambda: json.loads("x"),
        lambda: 1 / 0,
        lambda: check_out("not a Path", resume=True, overwrite=False),
    ],
    ids=["numpy", "our lookup", "their raise", "arithmetic", "attribute"],
)
def test_a_bug_is_not_disguised(bug):
    error = caught(bug)
    assert user_message(error) is None
    assert "this is a bug in datarax: " in bug_message(error)
    assert "--debug" in bug_message(error)
    assert "\n" not in bug_message(error)


def test_a_long_bug_is_cut():
    assert len(bug_message(RuntimeError("x" * 10**5))) < 320


def test_a_new_or_empty_directory_is_free(tmp_path):
    check_out(tmp_path, resume=False, overwrite=False)
    check_out(tmp_path / "a" / "b", resume=False, overwrite=False)
    check_out(tmp_path / "a" / "b", resume=False, overwrite=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_an_unwritable_directory(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        check_out(tmp_path / "run", resume=False, overwrite=False)
