"""One line for an error that the user can mend; none for a bug of ours."""

import difflib
import dis
import errno
import os
import traceback
from pathlib import Path
from typing import Any

import typer

from datarax.train.settings import suggestion

# click's UsageError, whether typer brings its own copy or uses the package.
UsageError: Any = typer.BadParameter.__base__

_LONGEST = 240

_ADVICE = {
    errno.ENOSPC: "free some space and run it again",
    errno.EDQUOT: "free some of your quota and run it again",
    errno.EFBIG: "raise the limit on file sizes (`ulimit -f`) and run it again",
    errno.EACCES: "check its permissions, or choose another place",
    errno.EPERM: "check its permissions, or choose another place",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOTDIR: "a part of this path is a file; choose another place",
    errno.EISDIR: "give a file, not a directory",
    errno.ENOENT: "check the path",
}


def user_message(error: BaseException) -> str | None:
    """What was wrong and what would be right, in one line; None where the fault is ours.

    The user's are: a wrong command line, an OSError, and a ValueError, KeyError, ImportError (of an
    extra) or RuntimeError (too many bad records) that our own code raised on purpose (by a `raise`
    statement of this package, not from inside a library).
    """
    if isinstance(error, UsageError):
        return _one_line(_usage_message(error))
    if isinstance(error, OSError):
        return _one_line(_os_message(error))
    wrong = isinstance(error, ValueError | KeyError | ImportError | RuntimeError)
    if wrong and _raised_by_us(error):
        return _one_line(str(error.args[0]))
    return None


def bug_message(error: BaseException) -> str:
    """The line for an error that is not the user's."""
    last = _one_line("".join(traceback.format_exception_only(error)))
    last = last if len(last) <= _LONGEST else f"{last[:_LONGEST]} ..."
    return f"this is a bug in datarax: {last} (--debug shows where)"


def _raised_by_us(error: BaseException) -> bool:
    step = error.__traceback__
    if step is None:
        return False
    while step.tb_next is not None:
        step = step.tb_next
    ours = str(step.tb_frame.f_globals.get("__name__", "")).split(".")[0] == "datarax"
    return ours and step.tb_frame.f_code.co_code[step.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _os_message(error: OSError) -> str:
    if error.errno is None or error.strerror is None:
        return str(error)
    place = f"{error.filename}: " if error.filename is not None else ""
    advice = _ADVICE.get(error.errno, "")
    if error.errno == errno.ENOENT and isinstance(error.filename, str):
        advice = _neighbour(Path(error.filename)) or advice
    return f"{place}{error.strerror.lower()}{advice and '; '}{advice}"


def _neighbour(path: Path) -> str:
    try:
        names = os.listdir(path.parent)
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {str(path.with_name(close[0]))!r}?" if close else ""


def _usage_message(error: Any) -> str:
    context, said = error.ctx, error.format_message().rstrip(".")
    said = f"{said[:1].lower()}{said[1:]}"
    if context is None:
        return f"{said} (see `datarax --help`)"
    if said.startswith("no such command"):
        typed = said.removeprefix("no such command ")[1:-1]
        said = f"no such command {typed!r}: {suggestion(typed, context.command.commands)}"
    elif said.startswith("no such option"):
        word = said.removeprefix("no such option:").split()[0].strip("'\".")
        options = [name for option in context.command.params for name in option.opts]
        options = [name for name in (*options, "--help") if name.startswith("--")]
        said = f"no such option {word!r}: {suggestion(word, options)}"
    return f"{said} (see `{context.command_path} --help`)"


def _one_line(text: str) -> str:
    """Line breaks as spaces; indented lines are the entries of a list, set off by semicolons."""
    said, was_entry = "", False
    for line in text.splitlines():
        is_entry = line.startswith("  ")
        if said and not said.endswith((":", ".")):
            said += ";" if is_entry else "." if was_entry else ""
        said += f" {line.strip()}"
        was_entry = is_entry
    return "".join(c if c.isprintable() else " " for c in " ".join(said.split()))
