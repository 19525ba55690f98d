"""One JSON object a line, so that a reader can follow and a resumed run can go on."""

import json
from pathlib import Path
from typing import Any

from datarax.train.files import write_file


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add one line to a file; floats are written with 6 significant digits."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({k: _rounded(v) for k, v in record.items()}) + "\n")


def cut_after(path: Path, step: int) -> None:
    """Drop the lines of later steps, and a last line that was not finished.

    What a run wrote after the checkpoint that it goes on from would be written twice otherwise.
    """
    kept = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if record["step"] <= step and line.endswith(b"\n"):
            kept.append(line)
    write_file(path, b"".join(kept))


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
