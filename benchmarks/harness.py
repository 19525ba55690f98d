"""How every benchmark here measures: one process, interleaved, paired ratios, limits beside them.

A benchmark is a file with `def report(quick: bool) -> Report`; `benchmarks/run.py` runs them all.
"""

import functools
import gc
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jaxlib
import numpy as np

# A thread's hand-off would count as the cost of what is called. Read when the backend is made.
jax.config.update("jax_cpu_enable_async_dispatch", False)

Run = Callable[[], Any]


@dataclass(frozen=True)
class Spread:
    """Median of paired ratios, and their tenth and ninetieth percentiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(frozen=True)
class Limit:
    """What a value had to be, and what it was."""

    name: str
    value: float
    bound: float
    sense: Literal["at most", "at least"] = "at most"

    @property
    def holds(self) -> bool:
        """Whether the bound is kept."""
        return self.value <= self.bound if self.sense == "at most" else self.value >= self.bound

    def __str__(self) -> str:
        verdict = "holds" if self.holds else "MISSED"
        return f"{self.name}: {self.value:.3g}, {self.sense} {self.bound:.3g}: {verdict}"


@dataclass
class Report:
    """The tables of one benchmark, the limits it was held to, and what is to be said of it."""

    title: str
    tables: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def table(self, title: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add a table whose rows share their keys, and show it."""
        self.tables.append((title, [dict(row) for row in rows]))
        print(f"\n{title}\n{markdown(self.tables[-1][1])}", flush=True)

    def limit(self, name: str, value: float, **bound: float) -> None:
        """Hold a value to `at_most=` or `at_least=` a bound."""
        ((sense, number),) = bound.items()
        words: Any = sense.replace("_", " ")
        self.limits.append(Limit(name, float(value), float(number), words))
        print(self.limits[-1], flush=True)

    def note(self, text: str) -> None:
        """Say what the numbers do not."""
        self.notes.append(text)

    @property
    def missed(self) -> list[Limit]:
        """The limits that were not kept."""
        return [limit for limit in self.limits if not limit.holds]


def interleaved(
    variants: Mapping[str, Run], *, rounds: int, inner: int = 1
) -> dict[str, np.ndarray]:
    """Seconds a call `[rounds]` of each variant, in turn, the order reversed every other round.

    One untimed call comes before each timed cell (in the first round it compiles), the garbage
    collector is off inside, and all leaves of a result are waited for.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds):
            for name in names if i % 2 else reversed(names):
                run = variants[name]
                jax.block_until_ready(run())
                start = time.perf_counter()
                for _ in range(inner):
                    jax.block_until_ready(run())
                times[name].append((time.perf_counter() - start) / inner)
    finally:
        gc.enable()
    return {name: np.asarray(values) for name, values in times.items()}


def paired(times: Mapping[str, np.ndarray], name: str, base: str) -> Spread:
    """The ratio of two variants, round by round."""
    low, middle, high = np.quantile(times[name] / times[base], [0.1, 0.5, 0.9])
    return Spread(float(middle), float(low), float(high))


def spread(times: np.ndarray) -> float:
    """How far the tenth and the ninetieth percentile of the rounds are apart, of their median."""
    low, middle, high = np.quantile(times, [0.1, 0.5, 0.9])
    return float((high - low) / middle)


def fastest(times: Mapping[str, np.ndarray], names: Iterable[str]) -> str:
    """The variant of the lowest median: a floor is raced over its tile sizes."""
    return min(names, key=lambda name: float(np.median(times[name])))


def temporary_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    """Bytes of temporaries of the compiled program: `memory_analysis`, not a measurement."""
    compiled = jax.jit(function).lower(*arguments).compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


def compile_seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Seconds to trace and compile, once."""
    start = time.perf_counter()
    jax.jit(function).lower(*arguments).compile()
    return time.perf_counter() - start


def peak_resident_bytes(code: str) -> int:
    """The peak resident memory of a fresh process that runs `code`, its imports and all."""
    # Not `ru_maxrss`: that begins with the memory of the process that starts this one.
    script = f"""{code}
with open("/proc/self/status") as status:
    print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the measured process failed: {done.stderr[-2000:]}")
    return int(done.stdout.split()[-1])


def relative_error(found: Any, exact: np.ndarray) -> float:
    """Largest deviation from a float64 result, relative to its largest magnitude."""
    return float(np.max(np.abs(np.asarray(found, np.float64) - exact)) / np.max(np.abs(exact)))


def environment() -> dict[str, Any]:
    """What the numbers depend on: device, versions, commit and load."""
    cpu, flags = "", ""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            cpu = line.split(":")[1].strip() if line.startswith("model name") else cpu
            flags = line if line.startswith("flags") else flags
    return {
        "device": jax.devices()[0].device_kind,
        "cpu": cpu or platform.machine(),
        "cores": os.cpu_count(),
        "amx": "amx_bf16" in flags,
        "load": round(os.getloadavg()[0], 2),
        "numpy GFLOP/s": round(_numpy_rate()),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        **{name: _version(name) for name in ("flax", "optax", "ott-jax")},
        "commit": _commit() or "none",
    }


def stolen_seconds() -> float:
    """Of all cores since the start, what the host gave to others; 0 where that is not known."""
    if not Path("/proc/stat").exists():
        return 0.0
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def _numpy_rate() -> float:
    """GFLOP/s of NumPy's float32 product, the best of five."""
    x = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    best = math.inf
    for _ in range(6):
        start = time.perf_counter()
        x @ x
        best = min(best, time.perf_counter() - start)
    return 2e-9 * len(x) ** 3 / best


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def median_ms(times: np.ndarray) -> float:
    """Median of seconds, in milliseconds."""
    return 1e3 * statistics.median(times.tolist())


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


@functools.cache
def _commit() -> str:
    """That of the start: a run changes the tables, which are files of the repository."""
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return found.stdout.strip()
