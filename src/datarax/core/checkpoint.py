"""A module's state as plain nested dicts of arrays, and back: strict, and all or nothing."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from datarax.core.fields import Path

Setter = Callable[[Any], None]


def slots(module: nnx.Module, skip: type[nnx.Variable]) -> dict[Path, tuple[Any, Setter]]:
    """Every array of a module by its path, with the function that replaces it."""
    found: dict[Path, tuple[Any, Setter]] = {}
    for raw_path, node in nnx.iter_graph(module):
        path = tuple(map(str, raw_path))
        if isinstance(node, nnx.Variable):
            if not isinstance(node, skip):
                found |= _variable_slots(path, node)
        elif isinstance(node, jax.Array | np.ndarray):
            found[path] = (node, _array_setter(module, raw_path))
    return found


def _variable_slots(path: Path, variable: nnx.Variable) -> dict[Path, tuple[Any, Setter]]:
    leaves, treedef = jax.tree_util.tree_flatten_with_path(variable.get_raw_value())

    def setter(index: int) -> Setter:
        def put(value: Any) -> None:
            values = jax.tree.leaves(variable.get_raw_value())
            values[index] = value
            variable.set_raw_value(jax.tree.unflatten(treedef, values))

        return put

    return {(*path, *key_path(inner)): (leaf, setter(i)) for i, (inner, leaf) in enumerate(leaves)}


def _array_setter(module: nnx.Module, path: tuple[Any, ...]) -> Setter:
    return lambda value: nnx.update(module, nnx.from_flat_state({path: value}))


def key_path(path: tuple[Any, ...]) -> Path:
    """A JAX key path as strings."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def export(value: Any) -> Any:
    """An array as it is saved: typed keys as their data, scalars as arrays."""
    if is_key(value):
        return jax.random.key_data(value)
    return value if isinstance(value, jax.Array) else np.asarray(value)


def restored(value: Any, current: Any) -> Any:
    """A saved array in the form of the one that it replaces."""
    if is_key(current):
        return jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(current))
    if isinstance(current, jax.Array):
        return jax.device_put(value, current.sharding)
    return np.asarray(value)


def is_key(value: Any) -> bool:
    """Whether a value is an array of typed PRNG keys."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def differences(expected: Mapping[Path, Any], given: Mapping[Path, Any]) -> list[str]:
    """What keeps `given` from being a state of `expected`: one line for each key."""
    name = ".".join
    rows = [f"missing key {name(path)}" for path in expected if path not in given]
    rows += [f"extra key {name(path)}" for path in given if path not in expected]
    for path, current in expected.items():
        if path not in given:
            continue
        saved, value = export(current), given[path]
        if not isinstance(value, jax.Array | np.ndarray | np.generic):
            rows.append(f"{name(path)} is a {type(value).__name__}, expected an array")
        elif value.shape != saved.shape:
            rows.append(f"{name(path)} has shape {value.shape}, expected {saved.shape}")
        elif value.dtype != saved.dtype:
            rows.append(f"{name(path)} has dtype {value.dtype}, expected {saved.dtype}")
    return rows
