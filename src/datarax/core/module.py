"""What every datarax module has: configuration, statistics, copies, and a state to checkpoint."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import flax.errors
import jax
import numpy as np
from flax import nnx

from datarax.core import checkpoint
from datarax.core.config import DataraxModuleConfig
from datarax.core.fields import Path, flatten, nest
from datarax.core.statistics import ORIGINS, Statistic, is_array, pack, unpack

_STATISTICS = "_statistics"  # the key of a module's statistics in its state


class DataraxModule(nnx.Module):
    """Base of operators and sources.

    Statistics come from one of four places, in this order: the `stats` argument of a call,
    `set_statistics` (until reset), `config.batch_stats_fn`, `config.precomputed_stats`. Arrays
    among them are Variables of the module: they are checkpointed and pass through `nnx.jit`.
    A call traced by JAX refreshes computed statistics only where their structure is known already,
    so that the module may be a carry.

    Args:
      config: the configuration.
      rngs: random number generators, kept as `self.rngs`.
      name: a name for messages and reports.
    """

    built_from: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        config: DataraxModuleConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        self.config = config
        self.rngs = rngs
        self.name = nnx.static(name)
        self._adopt_statistics(config)

    def compute_statistics(self, data: Any) -> dict[str, Any] | None:
        """Run `batch_stats_fn` on batched data and keep the result.

        Returns:
          The statistics, or `None` without a `batch_stats_fn`.

        Raises:
          ValueError: if `batch_stats_fn` returns no dict.
        """
        if self.batch_stats_fn is None:
            return None
        stats = self.batch_stats_fn(data)
        if not isinstance(stats, Mapping):
            raise ValueError(f"batch_stats_fn must return a dict, got {type(stats).__name__}")
        self._keep_statistics(dict(stats), "computed")
        return dict(stats)

    def get_statistics(self) -> dict[str, Any] | None:
        """Statistics set or computed last, else precomputed ones unless reset, else `None`."""
        return unpack(self._statistic.get_raw_value())

    def set_statistics(self, stats: dict[str, Any]) -> None:
        """Set statistics by hand; they hold until `reset_statistics`.

        Raises:
          ValueError: if `stats` is no dict.
        """
        if not isinstance(stats, dict):
            raise ValueError(f"statistics must be a dict, got {type(stats).__name__}")
        self._keep_statistics(stats, "set")

    def reset_statistics(self) -> None:
        """Forget all statistics, the precomputed ones too, until new ones are set or computed."""
        self._keep_statistics(None, "none")

    @property
    def _computed_stats(self) -> dict[str, Any] | None:
        """The statistics computed or set last; `None` if there are none."""
        return self.get_statistics() if self.statistics_origin in ("computed", "set") else None

    @property
    def statistics_origin(self) -> str:
        """Where the statistics held now come from: none, precomputed, computed or set."""
        return self._statistic.get_raw_value().origin

    def _adopt_statistics(self, config: DataraxModuleConfig) -> None:
        fn = config.batch_stats_fn  # a Module is lifted: it trains with this one
        self.batch_stats_fn = nnx.data(fn) if isinstance(fn, nnx.Pytree) else nnx.static(fn)
        origin = "none" if config.precomputed_stats is None else "precomputed"
        self._statistic = Statistic(pack(config.precomputed_stats, origin))

    def _keep_statistics(self, stats: dict[str, Any] | None, origin: str) -> None:
        new = pack(stats, origin)
        held = self._statistic.get_raw_value()
        traced = any(isinstance(x, jax.core.Tracer) for x in new.arrays)
        if origin == "computed" and traced and jax.tree.structure(new) != jax.tree.structure(held):
            return  # a carry of nnx.scan must keep its structure
        with contextlib.suppress(flax.errors.TraceContextError):  # nothing outlives a jax.jit
            self._statistic.set_raw_value(new)

    def reset_cache(self) -> None:
        """Empty the cache of results, if `config.cacheable`."""

    def copy(
        self,
        *,
        config: DataraxModuleConfig | None = None,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> "DataraxModule":
        """A copy with parameters, state and (unless `rngs` is given) RNG state copied.

        `__init__` is not run again: what it derived from the old config stays as it is. A class
        names in `built_from` the fields of its config that must not change for that reason.

        Args:
          config: replaces the config. Statistics are kept, unless it brings others.
          rngs: replaces the generators.
          name: replaces the name.

        Raises:
          TypeError: if `config` lacks what this class's own config has.
          ValueError: if it changes a field of `built_from`.
        """
        new = self.clone()
        if config is not None:
            old = self.config
            expected = type(old)
            lacking = sorted(_field_names(expected) - _field_names(type(config)))
            if lacking or (self.built_from and type(config) is not expected):
                raise TypeError(
                    f"copy of {type(self).__name__} needs a {expected.__name__}, "
                    f"got {type(config).__name__} without {lacking}"
                )
            new_values, old_values = vars(config), vars(old)
            fixed = [n for n in self.built_from if new_values.get(n) != old_values.get(n)]
            if fixed:
                raise ValueError(
                    f"copy cannot change {fixed}, which the parts of {type(self).__name__} were "
                    "built from: build a new one"
                )
            new.config = config
            if (
                config.batch_stats_fn is not old.batch_stats_fn
                or config.precomputed_stats is not old.precomputed_stats
            ):
                new._adopt_statistics(config)
        if rngs is not None:
            new.rngs = nnx.data(rngs)
        if name is not None:
            new.name = nnx.static(name)
        new._config_changed(rngs_given=rngs is not None)
        return new

    def _config_changed(self, *, rngs_given: bool) -> None:
        """Bring what is derived from config and rngs up to date, after a copy."""

    def clone(self) -> "DataraxModule":
        """A deep copy: no state is shared with this module."""
        return nnx.clone(self)

    def get_state(self) -> dict[str, Any]:
        """All state as nested plain dicts with string keys: parameters, counters, statistics, RNGs.

        The leaves are arrays (typed PRNG keys as their data), so that Orbax saves and restores the
        result untargeted. Precomputed statistics that are neither arrays nor numbers are left out:
        they are in the config.

        Raises:
          ValueError: for other statistics that are neither.
        """
        slots = checkpoint.slots(self, Statistic)
        flat = {path: checkpoint.export(value) for path, (value, _) in slots.items()}
        for path, part in _parts(self).items():
            flat |= {(*path, _STATISTICS, *key): x for key, x in part._saved_statistics().items()}
        return nest(flat)

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` gave. A state that is refused changes nothing.

        The statistics may be others than those held now: they are replaced whole. Lists and tuples
        among them come back as dicts, unless the ones held now have the same structure.

        Raises:
          TypeError: if `state` is no dict.
          ValueError: naming every missing key, extra key, shape and dtype that differs.
        """
        if not isinstance(state, dict):
            raise TypeError(f"state must be a dict, got {type(state).__name__}")
        parts = _parts(self)
        given = flatten(state)
        statistics: dict[Path, dict[Path, Any]] = {p: {} for p in parts}
        for path in list(given):
            owner = path[: path.index(_STATISTICS)] if _STATISTICS in path else None
            if owner in statistics:
                statistics[owner][path[len(owner) + 1 :]] = given.pop(path)
        slots = checkpoint.slots(self, Statistic)
        rows = checkpoint.differences({path: value for path, (value, _) in slots.items()}, given)
        for path, saved in statistics.items():
            rows += _statistics_differences(".".join((*path, _STATISTICS)), saved)
        if rows:
            raise ValueError(f"state does not fit {type(self).__name__}: " + "; ".join(rows))
        for path, (current, put) in slots.items():
            put(checkpoint.restored(given[path], current))
        for path, part in parts.items():
            part._restore_statistics(statistics[path])

    def _saved_statistics(self) -> dict[Path, Any]:
        origin = ORIGINS.index(self.statistics_origin)
        saved: dict[Path, Any] = {("origin",): np.asarray(origin, np.int32)}
        leaves, _ = jax.tree_util.tree_flatten_with_path(self.get_statistics())
        for path, leaf in leaves:
            key = checkpoint.key_path(path)
            if is_array(leaf):
                saved["values", *key] = checkpoint.export(leaf)
            elif self.statistics_origin != "precomputed":  # those are in the config
                raise ValueError(f"statistic {'.'.join(key)} is no number or array: {leaf!r}")
        return saved

    def _restore_statistics(self, saved: dict[Path, Any]) -> None:
        origin = ORIGINS[int(saved[("origin",)])]
        values = {path[1:]: _number(x) for path, x in saved.items() if path[0] == "values"}
        like = self.config.precomputed_stats if origin == "precomputed" else self.get_statistics()
        leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
        held = {checkpoint.key_path(path): leaf for path, leaf in leaves}
        if origin == "none":
            stats = None
        elif values.keys() == {path for path, leaf in held.items() if is_array(leaf)}:
            # what cannot be saved stays as it is
            stats = jax.tree.unflatten(treedef, [values.get(p, x) for p, x in held.items()])
        else:
            stats = nest(values)
        self._keep_statistics(stats, origin)

    def requires_rng_streams(self) -> list[str] | None:
        """The RNG streams that this module and its datarax parts draw from, or `None`."""
        names = [name for part in _parts(self).values() for name in part._own_streams()]
        return list(dict.fromkeys(names)) or None

    def _own_streams(self) -> list[str]:
        return []

    def ensure_rng_streams(self, stream_names: list[str]) -> None:
        """Check that the streams this module requires are among those available.

        Raises:
          ValueError: naming what is missing and what there is.
        """
        missing = [s for s in self.requires_rng_streams() or [] if s not in stream_names]
        if missing:
            raise ValueError(
                f"{type(self).__name__} needs RNG streams {missing}; there are {list(stream_names)}"
            )


def _parts(module: DataraxModule) -> dict[Path, DataraxModule]:
    """The datarax modules in a module, itself included, by their paths; outermost first."""
    found = {
        tuple(map(str, path)): part
        for path, part in nnx.iter_graph(module)
        if isinstance(part, DataraxModule)
    }
    return dict(sorted(found.items(), key=lambda item: len(item[0])))


def _number(x: Any) -> Any:
    """A Python number as it was before it was saved as an array; anything else as it is."""
    wide = isinstance(x, np.ndarray) and x.dtype in (np.float64, np.int64, np.bool_)
    return x.item() if wide and x.ndim == 0 else x


def _field_names(config_type: type) -> set[str]:
    return {field.name for field in dataclasses.fields(config_type)}


def _statistics_differences(name: str, saved: Mapping[Path, Any]) -> list[str]:
    """What keeps `saved` from being the statistics of a module: one line for each key."""
    origin: Any = saved.get(("origin",))
    known = is_array(origin) and origin.shape == () and origin in range(len(ORIGINS))
    rows = [] if known else [f"missing key {name}.origin (0 to {len(ORIGINS) - 1})"]
    for path, value in saved.items():
        key = ".".join((name, *path))
        if path != ("origin",) and (path[0] != "values" or len(path) == 1):
            rows.append(f"extra key {key}")
        elif path != ("origin",) and not is_array(value):
            rows.append(f"{key} is a {type(value).__name__}, expected an array")
    return rows
