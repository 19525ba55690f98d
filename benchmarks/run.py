"""Run the benchmarks, and write their tables.

python benchmarks/run.py [--quick] [--only contrastive attention] [--out docs/benchmarks.md]

Prints as it goes, writes Markdown to `--out` and JSON beside it, and ends with 1 if a limit was
missed. With `--only`, what the JSON has of the other benchmarks stays, with the commit and the load
that it was measured at. `--quick` takes small sizes and few rounds: it shows that everything runs,
not how fast.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from harness import Limit, Spread, environment, markdown, stolen_seconds

NAMES = (
    "dispatch",
    "contrastive",
    "multimodal",
    "attention",
    "transport",
    "retrieval",
    "mesh",
    "loader",
)

MINUTES = 15  # that all benchmarks may take on two cores


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path, default=None, help="a .md file; JSON is put beside it")
    options = parser.parse_args()
    found, missed = {}, []
    for name in options.only:
        print(f"\n# {name}", flush=True)
        about, start, stolen = environment(), time.perf_counter(), stolen_seconds()
        report = import_module(name).report(quick=options.quick)
        about |= {
            "load after": environment()["load"],
            "seconds": round(time.perf_counter() - start),
            "stolen seconds": round(stolen_seconds() - stolen, 1),
        }
        found[name] = {"about": about, **asdict(report)}
        missed += [str(limit) for limit in report.missed]
        if options.out is not None:  # a run that is cut short keeps what it has
            write(options.out, found)
    print("\nall limits hold" if not missed else "\nmissed:\n" + "\n".join(missed))
    return bool(missed) and not options.quick


def write(out: Path, found: dict[str, Any]) -> None:
    """The tables as Markdown, and everything as JSON, over what was there of other benchmarks."""
    data = out.with_suffix(".json")
    kept = json.loads(data.read_text()) if data.exists() else {}
    whole = json.loads(json.dumps({**kept, **found}, default=str))
    out.parent.mkdir(parents=True, exist_ok=True)
    data.write_text(json.dumps(whole, indent=1) + "\n")
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Ratios are medians of paired rounds in one process, with the",
        "tenth and ninetieth percentiles; absolute times mean little on a shared machine.",
    ]
    if whole.keys() >= set(NAMES):
        minutes = sum(report["about"]["seconds"] for report in whole.values()) / 60
        lines += ["", f"- {Limit('minutes of all together', minutes, MINUTES)}"]
    for name in (name for name in NAMES if name in whole):
        lines += section(whole[name])
    out.write_text("\n".join(lines) + "\n")


def section(report: dict[str, Any]) -> list[str]:
    """The lines of one benchmark."""
    about = ", ".join(f"{name} {value}" for name, value in report["about"].items())
    lines = ["", f"## {report['title']}", "", about]
    for title, rows in report["tables"]:
        rows = [{name: _read(value) for name, value in row.items()} for row in rows]
        lines += ["", f"### {title}", "", markdown(rows)]
    if report["limits"]:
        lines += ["", *(f"- {Limit(**limit)}" for limit in report["limits"])]
    return lines + [line for note in report["notes"] for line in ("", note)]


def _read(value: Any) -> Any:
    """A cell, from JSON."""
    return Spread(**value) if isinstance(value, dict) else value


if __name__ == "__main__":
    sys.exit(main())
