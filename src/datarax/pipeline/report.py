"""What a pipeline will do, said before it does."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.pipeline.assembly import Assembler, Rows
from datarax.sources.mixture import MixtureSource
from datarax.sources.traits import Fingerprinted

Operator = OperatorModule | Callable[[Batch], Batch]


def describe_pipeline(
    assembler: Assembler,
    *,
    operators: Sequence[Operator],
    settings: dict[str, Any],
    steps: int,
    hosts: int,
    sample: int,
) -> str:
    """Lines of text: records and steps, fields, guarantees.

    Raises:
      ValueError: if `sample` is less than 1.
    """
    if sample < 1:
        raise ValueError(f"sample must be at least 1, got {sample}")
    records, size = settings["records"], settings["batch_size"]
    last = records - (steps - 1) * size
    ends = {
        True: "every batch is full",
        "pad": f"the last batch has {last} and {size - last} rows of padding",
        "drop": f"{records - steps * size} are left out of each epoch, "
        + ("others in each" if settings["shuffle"] else "the same in each"),
    }
    order = "shuffled anew each epoch" if settings["shuffle"] else "in the source's order"
    mixture = [assembler.source.table()] if isinstance(assembler.source, MixtureSource) else []
    return "\n".join(
        [
            f"{records} records, {order}; {ends[records == steps * size or settings['remainder']]}",
            f"{steps} steps an epoch of {size} records"
            + (f", {size // hosts} on each of {hosts} hosts" if hosts > 1 else ""),
            *mixture,
            *_field_lines(assembler, settings["fields"], min(sample, records)),
            *guarantees(assembler, operators=operators),
        ]
    )


def guarantees(assembler: Assembler, *, operators: Sequence[Operator]) -> list[str]:
    """Whether the pipeline resumes exactly, on any hosts, in lockstep: yes, or no and why."""
    draws = [_name(operator) for operator in operators if _draws_by_batch(operator)]
    relates = [_name(operator) for operator in operators if _relates_rows(operator)]
    plain = [_name(operator) for operator in operators if not isinstance(operator, OperatorModule)]
    kind = type(assembler.source).__name__
    known = isinstance(assembler.source, Fingerprinted)
    unknown = "" if known else f", if {kind} gives the same records: it has no fingerprint"
    exact = [f"{name} draws from a stream once a batch" for name in draws]
    exact += [f"{name} is a function that may keep a state" for name in plain]
    topology = [f"{name} relates the rows of one host" for name in relates]
    topology += [f"{name} is a function that may" for name in plain]
    return [
        "exact on resume: " + (f"no: {'; '.join(exact)}" if exact else f"yes{unknown}"),
        "independent of topology: " + (f"no: {'; '.join(topology)}" if topology else "yes"),
        "in lockstep: yes",
    ]


def _field_lines(assembler: Assembler, fields: dict[str, str], sample: int) -> list[str]:
    size = len(assembler.source)
    rows = assembler.empty(np.arange(sample, dtype=np.int64) * size // sample, sample)
    assembler.fill(rows, 0, sample)
    width = max(map(len, fields))
    kinds = max(map(len, fields.values()))
    fitted = {".".join(path): lengths for path, lengths in assembler.lengths.items()}
    lines = [
        f"  {name:{width}}  {kind:{kinds}}  {_presence(rows, name)}{_padded(fitted.get(name))}"
        for name, kind in fields.items()
    ]
    valid = int(rows.valid.sum())
    read = f"{valid} of {sample} could be read" if valid < sample else f"{sample} were read"
    skipped = f", {len(rows.skipped)} are left out" if rows.skipped else ""
    return [f"fields (presence from a sample: {read}{skipped}):", *lines]


def _presence(rows: Rows, name: str) -> str:
    if name not in rows.presence:
        return "always"
    valid = int(rows.valid.sum())
    return f"{100 * int(rows.presence[name].sum()) / valid:.0f} %" if valid else "unknown"


def _padded(lengths: Sequence[int] | None) -> str:
    if lengths is None:
        return ""
    return f", padded to {', '.join(map(str, lengths[:-1]))} or {lengths[-1]}"


def _name(operator: Operator) -> str:
    return type(operator).__name__


def _relates_rows(operator: Operator) -> bool:
    return isinstance(operator, OperatorModule) and operator.overrides_apply_batch


def _draws_by_batch(operator: Operator) -> bool:
    return _relates_rows(operator) and bool(operator.config.stochastic)  # type: ignore[union-attr]
