"""What a compiled program does on each device: its collectives, in bytes, and its matmuls.

Counted in HLO text, times the lengths of the loops around, and never timed: the virtual devices of
a CPU share its cores.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_STEP = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b(pred|bf16|f16|f32|f64|[su]\d+)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:to_apply|calls|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")


@dataclass(frozen=True)
class Collective:
    """One collective instruction.

    Attributes:
      kind: as HLO calls it.
      shape: of its (first) result.
      received: bytes that a device receives in all its executions, by a ring.
      times: how often it runs: the trip counts of the loops around it.
      place: the branch of a conditional it is in, `""` outside.
    """

    kind: str
    shape: tuple[int, ...]
    received: float
    times: int
    place: str = ""


@dataclass(frozen=True)
class _Step:
    """One instruction, and how often it runs."""

    kind: str
    result: str
    rest: str
    times: int
    place: str
    shapes: dict[str, str]


def collectives(text: str, *, devices: int) -> list[Collective]:
    """Every collective of a compiled program, `compiled.as_text()`, on that many devices.

    Raises:
      ValueError: if one is in a loop of unknown length.
    """
    found = []
    for step in _steps(text):
        kind = step.kind.removesuffix("-start")
        if kind in KINDS:
            if step.times < 0:
                raise ValueError(f"a loop of unknown length runs {kind}: {step.rest[:200]}")
            found.append(_collective(kind, step, devices=devices))
    return found


def matmul_flops(text: str) -> float:
    """FLOPs of the matmuls that a device runs, the dearest branch of each conditional counted.

    Raises:
      ValueError: if one is in a loop of unknown length.
    """
    totals: dict[str, float] = {}
    for step in _steps(text):
        if step.kind == "dot":
            if step.times < 0:
                raise ValueError(f"a loop of unknown length runs a matmul: {step.rest[:200]}")
            operand = re.search(r"%([\w.\-]+)", step.rest)
            left = _lengths(step.shapes[operand.group(1)]) if operand else ()
            contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", step.rest)
            axes = contracted.group(1).split(",") if contracted else []
            flops = 2.0 * step.times * math.prod(_lengths(step.result))
            flops *= math.prod(left[int(axis)] for axis in axes if axis)
            totals[step.place] = totals.get(step.place, 0.0) + flops
    outside = totals.pop("", 0.0)
    return outside + sum(_dearest(totals).values())


def volume(found: Sequence[Collective], *, least: int = 0) -> float:
    """Bytes received by a device, the dearest branch of each conditional counted.

    Args:
      found: the collectives of a program.
      least: those of fewer elements are left out.
    """
    totals: dict[str, float] = {}
    for one in found:
        if math.prod(one.shape) >= least:
            totals[one.place] = totals.get(one.place, 0.0) + one.received
    outside = totals.pop("", 0.0)
    return outside + sum(_dearest(totals).values())


def _dearest(totals: dict[str, float]) -> dict[str, float]:
    """Of each conditional the branch that receives most."""
    found: dict[str, float] = {}
    for place, received in totals.items():
        conditional = place.rsplit(":", 1)[0]
        found[conditional] = max(found.get(conditional, 0.0), received)
    return found


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation, and the name of the first to run."""
    found: dict[str, list[str]] = {}
    name, entry = "", ""
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            name = head.group(2)
            found[name] = []
            entry = name if head.group(1) else entry
        elif name and line.strip() != "}":
            found[name].append(line)
    return found, entry


def _steps(text: str) -> list[_Step]:
    computations, entry = _computations(text)
    return list(_walk(computations, entry, times=1, place=""))


def _walk(
    computations: dict[str, list[str]], name: str, *, times: int, place: str
) -> Iterator[_Step]:
    steps = [m.groups() for m in map(_STEP.match, computations.get(name, [])) if m]
    shapes = {own: result for own, result, _, _ in steps}
    for own, result, kind, rest in steps:
        yield _Step(kind, result, rest, times, place, shapes)
        branches = [x.strip(" %") for m in _BRANCHES.finditer(rest) for x in _names(m)]
        for number, branch in enumerate(branches):
            where = f"{place}/{own}:{number}"
            yield from _walk(computations, branch, times=times, place=where)
        inner = times
        if kind == "while":
            trips = _TRIPS.search(rest)
            inner = times * int(trips.group(1)) if trips else -1
        if kind.removesuffix("-start") not in KINDS:
            for called in _CALLED.findall(rest):
                yield from _walk(computations, called, times=inner, place=place)


def _names(found: re.Match[str]) -> list[str]:
    return (found.group(1) or found.group(2)).split(",")


def _collective(kind: str, step: _Step, *, devices: int) -> Collective:
    """Bytes by a ring: what is gathered or scattered once, what is reduced twice."""
    shapes = _SHAPE.findall(step.result)
    if step.kind in ("all-gather-start", "collective-permute-start"):
        shapes = shapes[1:2]  # operand, result, context
    sizes = [_bytes(dtype, axes) for dtype, axes in shapes]
    members = _members(step.rest, devices)
    share = (members - 1) / members
    received = {
        "all-gather": share * sum(sizes),
        "all-reduce": 2 * share * sum(sizes),
        "reduce-scatter": (members - 1) * sum(sizes),
        "collective-permute": float(sum(sizes)),
        "all-to-all": share * sum(sizes),
    }[kind]
    return Collective(kind, _lengths(step.result), step.times * received, step.times, step.place)


def _lengths(text: str) -> tuple[int, ...]:
    """The first shape that the text spells."""
    found = _SHAPE.search(text)
    return tuple(int(x) for x in found.group(2).split(",") if x) if found else ()


def _bytes(dtype: str, axes: str) -> int:
    bits = BITS[dtype] if dtype in BITS else int(dtype[1:])
    return bits * math.prod(int(x) for x in axes.split(",") if x) // 8


def _members(rest: str, devices: int) -> int:
    """Devices in a group of the collective: all of them where it names none."""
    iota = re.search(r"replica_groups=\[\d+,(\d+)\]", rest)
    if iota:
        return int(iota.group(1))
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", rest)
    return len(listed.group(1).split(",")) if listed else devices
