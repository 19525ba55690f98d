"""What configurations of operators, and the fields they read, have in common to reject."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import jax.numpy as jnp
from jaxtyping import Array


def check_choice(name: str, value: Any, choices: Any) -> None:
    """Raise unless `value` is one of a `Literal`.

    Raises:
      ValueError: listing the choices.
    """
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {list(get_args(choices))}, got {value!r}")


def check_count(name: str, fields: Sequence[str], allowed: Sequence[int]) -> None:
    """Raise unless a field list has one of the allowed lengths.

    Raises:
      ValueError: with the lengths and the fields that came.
    """
    if len(fields) not in allowed:
        wanted = " or ".join(map(str, allowed))
        raise ValueError(f"{name} must hold {wanted} fields, got {len(fields)}: {list(fields)}")


def check_features(features: Any, fields: Sequence[str]) -> None:
    """Raise unless `features` gives every field a width, and no other.

    Raises:
      ValueError: naming the fields without a width, the widths without a field, or a bad width.
    """
    if not isinstance(features, Mapping):
        raise ValueError(f"features must map each input field to its width, got {features!r}")
    if set(features) != set(fields):
        raise ValueError(
            f"features must give the width of each of {sorted(set(fields))}, "
            f"got {sorted(map(str, features))}"
        )
    for name, width in features.items():
        check_positive(f"features[{name!r}]", width)


def check_positive(name: str, value: Any) -> None:
    """Raise unless `value` is a positive integer.

    Raises:
      ValueError: with the value.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def check_number(
    name: str, value: Any, *, low: int | float, high: int | float, open_low: bool = False
) -> None:
    """Raise unless `value` is a number from `low` (exclusive if `open_low`) to `high`.

    Raises:
      ValueError: with the range and the value.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (low < value if open_low else low <= value) or not value <= high:
        bracket = "(" if open_low else "["
        raise ValueError(f"{name} must be a number in {bracket}{low}, {high}], got {value!r}")


def check_options(config: Any, choice: str, options: Mapping[str, Sequence[str]]) -> None:
    """Raise if an option is set that the chosen method does not read.

    Args:
      config: a dataclass.
      choice: the method in force.
      options: for each method the names of the fields that it alone, or with others, reads. A
        field that no method lists is read by all of them.

    Raises:
      ValueError: naming the field, its value and the methods that read it.
    """
    optional = {name for names in options.values() for name in names}
    defaults = {f.name: f.default for f in dataclasses.fields(config)}
    for name in sorted(optional - set(options.get(choice, ()))):
        value = getattr(config, name)
        if value != defaults[name]:
            readers = [method for method, names in options.items() if name in names]
            raise ValueError(f"{name}={value!r} is read by {readers} only, got {choice!r}")


def check_integer(name: str, value: Any, *, low: int) -> None:
    """Raise unless `value` is an integer of at least `low`.

    Raises:
      ValueError: with the value.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name} must be an integer of at least {low}, got {value!r}")


def check_field_name(name: str, value: Any) -> None:
    """Raise unless `value` names a field; `None` passes.

    Raises:
      ValueError: with the value.
    """
    if value is not None and not (isinstance(value, str) and value):
        raise ValueError(f"{name} must be the name of a field, got {value!r}")


def check_axes(name: str, x: Array, axes: Sequence[int | str], *, why: str) -> None:
    """Raise unless a field is floating point and its last axis, and their number, are as expected.

    Args:
      name: the field.
      x: its value.
      axes: names of axes, the width last; with `"..."` any number of them.
      why: the options that say so.

    Raises:
      TypeError: if it is not floating point.
      ValueError: for other axes.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"field {name!r} must be floating point, got {x.dtype}")
    ranks = x.ndim >= len(axes) - 1 if "..." in axes else x.ndim == len(axes)
    if not ranks or x.shape[-1] != axes[-1]:
        expected = ", ".join(map(str, axes))
        raise ValueError(
            f"field {name!r} must have shape [{expected}] by {why}, got {list(x.shape)}"
        )
