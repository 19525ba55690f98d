"""What a pipeline will do, said before it does."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flax import nnx

from datarax.core.counter import BaseKey, Counter
from datarax.core.element_batch import Batch
from datarax.core.operator import OperatorModule
from datarax.core.statistics import Statistic
from datarax.pipeline.assembly import Assembler, Rows
from datarax.sources.mixture import MixtureSource
from datarax.sources.traits import Fingerprinted, padded_lengths

Operator = OperatorModule | Callable[[Batch], Batch]

# What a call does not change, or what no later result depends on. Generators are told by how an
# operator draws from them.
_NO_STATE = (nnx.Param, Counter, BaseKey, Statistic, nnx.RngState)


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
            *guarantees(assembler, operators=operators, hosts=hosts),
        ]
    )


def guarantees(assembler: Assembler, *, operators: Sequence[Operator], hosts: int) -> list[str]:
    """Whether the pipeline resumes exactly, on any hosts, in lockstep: yes, or no and why."""
    kind = type(assembler.source).__name__
    known = isinstance(assembler.source, Fingerprinted)
    unknown = "" if known else f", if {kind} gives the same records: it has no fingerprint"
    exact = _inexact(operators)
    topology = _depends_on_hosts(assembler, operators, hosts)
    # Steps are counted from the size of source and batch, and a record that cannot be read is a
    # row that is not valid: nothing that a host reads changes how many it takes, but its stopping.
    alone = (
        ', unless a host stops alone: with on_error="raise", or beyond error_caps, which each '
        "counts for itself"
    )
    return [
        "exact on resume: " + (f"no: {'; '.join(exact)}" if exact else f"yes{unknown}"),
        "independent of topology: " + (f"no: {'; '.join(topology)}" if topology else "yes"),
        f"in lockstep: yes{alone if hosts > 1 else ''}",
    ]


def _inexact(operators: Sequence[Operator]) -> list[str]:
    draws = [_name(operator) for operator in operators if _draws_by_batch(operator)]
    kept = [(_name(operator), _state_kinds(operator)) for operator in operators]
    return [
        *(f"{name} draws from a stream once a batch" for name in draws),
        *(
            f"{name} has a state of its own ({', '.join(kinds)}) that the pipeline's does not "
            "hold: restore it too"
            for name, kinds in kept
            if kinds
        ),
        *(f"{name} is a function that may keep a state" for name in _functions(operators)),
    ]


def _depends_on_hosts(assembler: Assembler, operators: Sequence[Operator], hosts: int) -> list[str]:
    relates = [_name(operator) for operator in operators if _relates_rows(operator)]
    # Several hosts never fit lengths; that one of the same settings would not is not known here.
    fitted = {".".join(path): lengths for path, lengths in assembler.lengths.items()}
    several = fitted if hosts == 1 else padded_lengths(assembler.source)
    names = [name for name, lengths in several.items() if len(lengths) > 1]
    unless = "" if hosts == 1 else ", but for fit_lengths=False"
    fits = f"one host fits the length of {', '.join(names)} to the batch, several do not{unless}"
    return [
        *([fits] if names else []),
        *(f"{name} relates the rows of one host" for name in relates),
        *(f"{name} is a function that may" for name in _functions(operators)),
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


def _functions(operators: Sequence[Operator]) -> list[str]:
    return [_name(operator) for operator in operators if not isinstance(operator, OperatorModule)]


def _relates_rows(operator: Operator) -> bool:
    return isinstance(operator, OperatorModule) and operator.overrides_apply_batch


def _draws_by_batch(operator: Operator) -> bool:
    return _relates_rows(operator) and bool(operator.config.stochastic)  # type: ignore[union-attr]


def _state_kinds(operator: Operator) -> list[str]:
    """Of the Variables that calls may change: a queue, statistics of batches."""
    if not isinstance(operator, OperatorModule):
        return []
    kinds = {
        type(node).__name__
        for _, node in nnx.iter_graph(operator)
        if isinstance(node, nnx.Variable) and not isinstance(node, _NO_STATE)
    }
    return sorted(kinds)
