"""Which records were bad: a file that grows by a line for each, once."""

import collections
import glob
import json
import logging
import os
import time
from collections.abc import Iterable
from pathlib import Path

from datarax.sources.record import Fault

logger = logging.getLogger(__name__)

LEDGER_FILE = "quarantine.jsonl"
_LOGGED_SINGLY = 10
_SECONDS_BETWEEN = 30.0


class Ledger:
    """Each fault once, over epochs and resumes, on disk before `add` returns.

    Args:
      path: the file, read if it is there, made with the first fault; `None` keeps them in memory. A
        last line that was cut by a kill is repaired.
      is_logged: whether new faults are logged.

    Raises:
      ValueError: if a line of the file is not a fault.
      OSError: if the file cannot be read or written.

    Example:
      >>> ledger = Ledger(None)
      >>> fault = Fault("a.tar", key="7", row=7, reason="cut off")
      >>> ledger.add([fault]), ledger.add([fault]), ledger.total
      (1, 0, 1)
    """

    def __init__(self, path: str | Path | None, *, is_logged: bool = True) -> None:
        self.is_logged = is_logged
        self.path = None if path is None else Path(path)
        known = [] if self.path is None else _repaired(self.path)
        self._known = dict.fromkeys(known)
        self.by_field = collections.Counter(fault.field or "(record)" for fault in known)
        self._told = len(self._known)
        self._told_at = -_SECONDS_BETWEEN

    @property
    def total(self) -> int:
        """The number of different faults."""
        return len(self._known)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All of them, in the order in which they came."""
        return tuple(self._known)

    def add(self, faults: Iterable[Fault]) -> int:
        """Keep those that are not known yet, and log: each of the first ten, then now and then.

        Returns:
          How many were new.

        Raises:
          OSError: if they cannot be written.
        """
        new = [fault for fault in dict.fromkeys(faults) if fault not in self._known]
        if not new:
            return 0
        if self.path is not None:
            _append(self.path, "".join(fault.line() + "\n" for fault in new).encode())
        for fault in new:
            self._known[fault] = None
            self.by_field[fault.field or "(record)"] += 1
            if self.is_logged:
                self._log(fault)
        return len(new)

    def summary(self) -> str:
        """How many, of which fields."""
        fields = ", ".join(f"{field} {count}" for field, count in sorted(self.by_field.items()))
        where = f", listed in {self.path}" if self.path is not None else ""
        records = "1 bad record" if self.total == 1 else f"{self.total} bad records"
        return f"{records}{f' ({fields})' if fields else ''}{where}"

    def _log(self, fault: Fault) -> None:
        if self.total <= _LOGGED_SINGLY:
            logger.warning("bad record: %s", fault)
            self._told = self.total
        elif time.monotonic() >= self._told_at + _SECONDS_BETWEEN:
            more = self.total - self._told
            logger.warning("%d more, the last: %s; %s", more, fault, self.summary())
            self._told, self._told_at = self.total, time.monotonic()


def read_ledger(path: str | Path) -> list[Fault]:
    """The faults of a ledger and of other hosts' beside it, each once.

    A last line that was cut by a kill is left out. Hosts meet the same record in different epochs.

    Raises:
      ValueError: if another line is not a fault.
      OSError: if a file cannot be read, or there is none.
    """
    path = Path(path)
    others = sorted(path.parent.glob(f"{glob.escape(path.stem)}.host*{path.suffix}"))
    files = [*([path] if path.exists() or not others else []), *others]
    return list(dict.fromkeys(f for file in files for f in _parse(file, file.read_bytes())[0]))


def _parse(path: Path, content: bytes) -> tuple[list[Fault], int]:
    """The faults of the whole lines, and how many bytes those are."""
    faults = []
    whole = content.rfind(b"\n") + 1
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            faults.append(Fault(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} is not of a ledger: {line[:80]!r}; mend or move the file"
            ) from error
    return faults, whole


def _repaired(path: Path) -> list[Fault]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    faults, whole = _parse(path, content)
    if whole < len(content):  # the record of the cut line is met again, or was not yet delivered
        with path.open("rb+") as file:
            file.truncate(whole)
            os.fsync(file.fileno())
    return faults


def _append(path: Path, lines: bytes) -> None:
    made = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
    if made and os.name == "posix":  # the name, too, must outlast a crash
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
