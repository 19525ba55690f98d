"""What decides the batches of a pipeline, and whether a state is of the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from datarax.core.data_source import DataSourceModule
from datarax.sources.mixture import MixtureSource
from datarax.sources.traits import described_fields, source_fingerprint

PLACE = ("epoch", "step", "hosts")  # may differ


def pipeline_settings(
    source: DataSourceModule,
    *,
    optional: Sequence[str],
    batch_size: int,
    seed: int,
    shuffle: bool,
    remainder: str,
) -> dict[str, Any]:
    """The fingerprint of a pipeline in readable parts: plain values for JSON."""
    mixture = source.shares_by_name() if isinstance(source, MixtureSource) else {}
    return {
        "source": source_fingerprint(source),
        "records": len(source),
        "fields": described_fields(source),
        "optional": list(optional),
        "mixture": mixture,
        "batch_size": batch_size,
        "seed": seed,
        "shuffle": shuffle,
        "remainder": remainder,
    }


def check_state(state: Any, *, settings: dict[str, Any], steps: int) -> None:
    """Refuse a state of another pipeline, or of no place in this one.

    Args:
      state: what is to be restored.
      settings: of the pipeline.
      steps: in an epoch.

    Raises:
      ValueError: with a line for every difference.

    Example:
      >>> check_state({"epoch": 0, "step": 9, "seed": 1}, settings={"seed": 2}, steps=5)
      Traceback (most recent call last):
      ValueError: the state does not fit this pipeline:
        seed: the state has 1, the pipeline 2
        step: the state has 9, expected a whole number in [0, 5)
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"the state must be a dict, got {type(state).__name__}")
    theirs = _flat({name: value for name, value in state.items() if name not in PLACE})
    mine = _flat(settings)
    lines = [
        f"{name}: the state has {_shown(theirs, name)}, the pipeline {_shown(mine, name)}"
        for name in sorted(theirs | mine)
        if (name in theirs, theirs.get(name)) != (name in mine, mine.get(name))
    ]
    for name, end in (("epoch", 2**32), ("step", steps)):
        value = state.get(name)
        if type(value) is not int or not 0 <= value < end:
            lines.append(f"{name}: the state has {value!r}, expected a whole number in [0, {end})")
    if lines:
        raise ValueError("the state does not fit this pipeline:\n  " + "\n  ".join(lines))


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": x for inner, x in value.items()}
        else:
            flat[name] = value
    return flat


def _shown(flat: Mapping[str, Any], name: str) -> str:
    return repr(flat[name]) if name in flat else "nothing"
