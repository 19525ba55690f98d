"""Run the benchmarks, and write their tables.

python benchmarks/run.py [--quick] [--only contrastive attention] [--out docs/benchmarks.md]

Prints as it goes, writes Markdown to `--out` and JSON beside it, and ends with 1 if a limit was
missed. `--quick` takes small sizes and few rounds: it shows that everything runs, not how fast.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from harness import Report, environment, markdown

NAMES = ("dispatch", "contrastive", "multimodal", "attention", "transport", "retrieval", "mesh")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--out", type=Path, default=None, help="a .md file; JSON is put beside it")
    options = parser.parse_args()
    reports, seconds = [], {}
    before = environment()
    for name in options.only:
        print(f"\n# {name}", flush=True)
        start = time.perf_counter()
        reports.append(import_module(name).report(quick=options.quick))
        seconds[name] = round(time.perf_counter() - start)
    if options.out is not None:
        write(options.out, reports, {**before, "load after": environment()["load"]}, seconds)
    missed = [str(limit) for report in reports for limit in report.missed]
    print("\nall limits hold" if not missed else "\nmissed:\n" + "\n".join(missed))
    return bool(missed) and not options.quick


def write(out: Path, reports: list[Report], about: dict[str, Any], seconds: dict) -> None:
    """The tables as Markdown, and everything as JSON."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Ratios are medians of paired rounds in one process, with the",
        "tenth and ninetieth percentiles; absolute times mean little on a shared machine.",
        "",
        ", ".join(f"{name} {value}" for name, value in about.items()),
    ]
    for report in reports:
        lines += ["", f"## {report.title}"]
        for title, rows in report.tables:
            lines += ["", f"### {title}", "", markdown(rows)]
        if report.limits:
            lines += ["", *(f"- {limit}" for limit in report.limits)]
        lines += [line for note in report.notes for line in ("", note)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n")
    body = {"about": about, "seconds": seconds, "reports": [asdict(x) for x in reports]}
    out.with_suffix(".json").write_text(json.dumps(body, indent=1, default=str) + "\n")


if __name__ == "__main__":
    sys.exit(main())
