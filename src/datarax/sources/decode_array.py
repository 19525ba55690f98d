"""Numbers, arrays of a set shape, and lists of tokens."""

import dataclasses
import math
import re
from typing import Any, Literal, get_args

import jax
import numpy as np

from datarax.sources.decode_json import parse_json
from datarax.sources.decode_npy import MAGIC, parse_npy
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError

Dtype = Literal["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32"]
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrayDecoder:
    """Arrays of one shape, from `npy` files or nested lists.

    Attributes:
      shape: which all have.
      dtype: of the field. Integers that do not fit in it, and floats that are not finite in it,
        are refused; floats lose digits as they must.
    """

    shape: tuple[int, ...]
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        if not isinstance(self.shape, tuple) or not all(map(_is_size, self.shape)):
            raise ValueError(f"shape must be a list of positive integers, got {self.shape!r}")
        check_dtype(self.dtype)

    def decode(self, part: Any, *, limits: Limits) -> tuple[np.ndarray, ...]:
        """The array.

        Raises:
          DecodeError: if there is none, or one of another shape, or with values that do not fit.
        """
        values = as_numbers(part, limits=limits)
        if values.shape != self.shape:
            raise DecodeError(f"expected shape {list(self.shape)}, got {list(values.shape)}")
        return (cast(values, self.dtype),)

    def default(self, value: Any) -> tuple[np.ndarray, ...]:
        """A list as it is decoded; a number everywhere."""
        if isinstance(value, list | tuple):
            return self.decode(list(value), limits=Limits())
        return (np.full(self.shape, cast(as_numbers(value, limits=Limits()), self.dtype)),)

    def spec(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shape and dtype."""
        return (jax.ShapeDtypeStruct(self.shape, np.dtype(self.dtype)),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumberDecoder:
    """Scalars, from numbers or their decimal text.

    Attributes:
      dtype: of the field; a number that does not fit in it is refused.
    """

    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_dtype(self.dtype)

    def decode(self, part: Any, *, limits: Limits) -> tuple[np.ndarray, ...]:
        """The scalar, as an array without axes.

        Raises:
          DecodeError: if it is no number, or does not fit.
        """
        if isinstance(part, bytes) and not part.startswith(MAGIC):
            part = part.decode("utf-8", "replace")
        value = _number(part) if isinstance(part, str) else as_numbers(part, limits=limits)
        if value.shape:
            raise DecodeError(f"expected one number, got an array of shape {list(value.shape)}")
        return (cast(value, self.dtype),)

    def default(self, value: Any) -> tuple[np.ndarray, ...]:
        """A number as it is decoded."""
        return self.decode(value, limits=Limits())

    def spec(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shape and dtype."""
        return (jax.ShapeDtypeStruct((), np.dtype(self.dtype)),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokensDecoder:
    """Lists of integers as int32, padded with zeros or cut to a length, with a mask.

    Attributes:
      length: of the field; or several, of which a batch has the shortest that holds its rows.
    """

    length: int | tuple[int, ...] = 256

    def __post_init__(self) -> None:
        check_lengths("length", self.length)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Those that a batch may have; a record has the last."""
        return as_tuple(self.length)

    def decode(self, part: Any, *, limits: Limits) -> tuple[np.ndarray, ...]:
        """Tokens int32 `[length]`, and bool `[length]`: which are there.

        Raises:
          DecodeError: if it is no list of integers that fit in int32.
        """
        if isinstance(part, bytes | str) and not (
            isinstance(part, bytes) and part.startswith(MAGIC)
        ):
            part = parse_json(part, depth=limits.json_depth)
        values = as_numbers(part, limits=limits)
        if values.ndim != 1:
            raise DecodeError(f"expected a list of tokens, got shape {list(values.shape)}")
        if values.size and values.dtype.kind not in "iu":
            raise DecodeError(f"expected a list of integers, got {values.dtype}")
        return pad(cast(values, "int32"), self.lengths[-1])

    def default(self, value: Any) -> tuple[np.ndarray, ...]:
        """A list as it is decoded."""
        return self.decode(list(value), limits=Limits())

    def spec(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shape and dtype of the tokens and of their mask."""
        shape = self.lengths[-1:]
        return (jax.ShapeDtypeStruct(shape, np.int32), jax.ShapeDtypeStruct(shape, np.bool_))


def pad(values: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Values `[length]`, cut or with zeros behind, and bool `[length]`: which are there.

    Example:
      >>> pad(np.array([4, 5]), 3)
      (array([4, 5, 0]), array([ True,  True, False]))
    """
    kept = values[:length]
    padded = np.zeros(length, values.dtype)
    padded[: len(kept)] = kept
    return padded, np.arange(length) < len(kept)


def as_tuple(value: Any) -> tuple[Any, ...]:
    """One value, or the several that there are."""
    return value if isinstance(value, tuple) else (value,)


def check_lengths(name: str, value: Any) -> None:
    """Refuse what is neither a positive integer nor several that increase.

    Raises:
      ValueError: naming the option.
    """
    lengths = as_tuple(value)
    rising = all(map(_is_size, lengths)) and list(lengths) == sorted(set(lengths))
    if not lengths or not rising:
        hint = ": give them as a tuple" if isinstance(value, list) else ""
        raise ValueError(
            f"{name} must be a positive integer, or several that rise, got {value!r}{hint}"
        )


def as_numbers(part: Any, *, limits: Limits) -> np.ndarray:
    """An array from an `npy` file, a number, or nested lists of numbers.

    Raises:
      DecodeError: if it is none of these.
    """
    if isinstance(part, bytes):
        return parse_npy(part, array_bytes=limits.array_bytes)
    if not isinstance(part, bool | int | float | list | np.ndarray | np.generic):
        raise DecodeError(f"expected numbers, got {type(part).__name__}")
    try:
        values = np.asarray(part)
    except (ValueError, OverflowError) as error:
        raise DecodeError("expected numbers in lists of equal length") from error
    if values.dtype.kind not in "biuf":
        raise DecodeError(f"expected numbers, got values of dtype {values.dtype}")
    return values


def cast(values: np.ndarray, dtype: Dtype) -> np.ndarray:
    """Values in another dtype, where none is lost.

    Raises:
      DecodeError: if an integer dtype cannot hold a value exactly, or one is not finite.
    """
    target = np.dtype(dtype)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DecodeError("a value is not finite")
    if target.kind != "f" and values.size:
        low, high = (0, 1) if target.kind == "b" else _range(target)
        if values.min() < low or values.max() > high:
            raise DecodeError(f"a value of {values.min()} to {values.max()} is beyond {dtype}")
    with np.errstate(over="ignore"):
        made = values.astype(target)
    if target.kind == "f" and not np.isfinite(made).all():
        raise DecodeError(f"a value is beyond {dtype}")
    if target.kind != "f" and values.dtype.kind == "f" and not np.array_equal(made, values):
        raise DecodeError(f"a value is no whole number, as {dtype} needs")
    return made


def check_dtype(dtype: str) -> None:
    """Refuse what a device does not hold as it is.

    Raises:
      ValueError: for any other than the names of `Dtype`.
    """
    if dtype not in get_args(Dtype):
        wide = ": JAX would cut 64 bits to 32" if "64" in str(dtype) else ""
        raise ValueError(f"dtype must be one of {list(get_args(Dtype))}, got {dtype!r}{wide}")


def _range(dtype: np.dtype) -> tuple[int, int]:
    info = np.iinfo(dtype)
    return info.min, info.max


def _number(text: str) -> np.ndarray:
    """Decimal digits alone: Python's `float` would take "nan", "1_0" and other scripts' digits."""
    digits = text.strip()
    if len(digits) > 64 or not NUMBER.fullmatch(digits):
        raise DecodeError(f"expected a number, got {text[:32]!r}")
    value = float(digits)
    if not math.isfinite(value):
        raise DecodeError(f"{digits} is not finite as a float")
    whole = re.fullmatch(r"[+-]?\d{1,18}", digits, re.ASCII)
    return np.asarray(int(digits) if whole else value)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
