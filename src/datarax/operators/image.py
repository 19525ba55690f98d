"""Operators on one field that holds a picture, or any array: its shape and its values."""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.operators.checks import check_choice, check_count, check_number, check_positive

ResizeMethod = Literal["nearest", "linear", "cubic", "lanczos3", "lanczos5"]
Numbers = float | tuple[float, ...]


@dataclass(frozen=True)
class _FieldConfig(CrossModalOperatorConfig):
    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("input_fields", self.input_fields, [1])
        check_count("output_fields", self.output_fields, [1])


@dataclass(frozen=True)
class ResizeConfig(_FieldConfig):
    """The size to resize to.

    Attributes:
      size: (height, width).
      method: of interpolation; `jax.image.resize` names them.

    Raises:
      ValueError: unless there is one field in, one out, a size and a known method.
    """

    operation: str = field(default="resize", kw_only=True)
    size: tuple[int, int] = field(kw_only=True)
    method: ResizeMethod = field(default="linear", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_size("size", self.size)
        check_choice("method", self.method, ResizeMethod)


@dataclass(frozen=True)
class CropConfig(_FieldConfig):
    """The window to cut out.

    Attributes:
      size: (height, width).
      offset: (top, left); `None` is the centre.

    Raises:
      ValueError: unless there is one field in, one out, and sizes that can be.
    """

    operation: str = field(default="crop", kw_only=True)
    size: tuple[int, int] = field(kw_only=True)
    offset: tuple[int, int] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_size("size", self.size)
        pair = isinstance(self.offset, tuple) and len(self.offset) == 2
        if self.offset is not None and not (pair and min(self.offset) >= 0):
            raise ValueError(f"offset must be (top, left), not negative, got {self.offset!r}")


@dataclass(frozen=True)
class ReshapeConfig(_FieldConfig):
    """The shape of a record's field.

    Attributes:
      shape: without the batch axis; one entry may be -1.

    Raises:
      ValueError: unless there is one field in, one out, and a shape that can be.
    """

    operation: str = field(default="reshape", kw_only=True)
    shape: tuple[int, ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        sizes = isinstance(self.shape, tuple) and all(isinstance(n, int) for n in self.shape)
        if not sizes or any(n < -1 for n in self.shape) or sum(n == -1 for n in self.shape) > 1:
            raise ValueError(f"shape must be sizes, one of which may be -1, got {self.shape!r}")


@dataclass(frozen=True)
class NormalizeConfig(_FieldConfig):
    """What to subtract and to divide by.

    Attributes:
      mean, std: a number, or one for each channel (last axis); `None` takes `"mean"` and `"std"`
        from the statistics of the call (`batch_stats_fn`, `precomputed_stats`).
      scale: factor before that; 1/255 for uint8 pictures.

    Raises:
      ValueError: unless there is one field in, one out, both or none of `mean` and `std`, and
        positive `std` and `scale`.
    """

    operation: str = field(default="normalize", kw_only=True)
    mean: Numbers | None = field(default=None, kw_only=True)
    std: Numbers | None = field(default=None, kw_only=True)
    scale: float = field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("scale", self.scale, low=0, high=1e9, open_low=True)
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"give both mean and std or none, got {self.mean!r} and {self.std!r}")
        if self.mean is None or self.std is None:
            return
        for number in self.mean if isinstance(self.mean, tuple) else (self.mean,):
            check_number("mean", number, low=-1e9, high=1e9)
        for number in self.std if isinstance(self.std, tuple) else (self.std,):
            check_number("std", number, low=0, high=1e9, open_low=True)


class _FieldOperator(CrossModalOperator):
    """One field in, one out."""

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Transform the field of one record."""
        (x,) = self._extract_inputs(data)
        return self._store_outputs(data, [self.transform(x, stats)]), state, metadata

    def transform(self, x: Array, stats: dict[str, Any] | None) -> Array:
        """The new value of the field."""
        raise NotImplementedError(f"{type(self).__name__} must implement transform")


class Resize(_FieldOperator):
    """Resize a picture `[h, w]` or `[h, w, c]`, antialiased; an integer dtype rounds and stays."""

    config: ResizeConfig

    def transform(self, x: Array, stats: dict[str, Any] | None) -> Array:
        """The picture in its new size."""
        _check_picture(x)
        whole = jnp.issubdtype(x.dtype, jnp.integer)
        wide = x.astype(jnp.float32) if whole else x
        method = self.config.method
        y = jax.image.resize(wide, (*self.config.size, *x.shape[2:]), method, antialias=True)
        if not whole:
            return y
        info = jnp.iinfo(x.dtype)
        return jnp.clip(jnp.round(y), info.min, info.max).astype(x.dtype)


class Crop(_FieldOperator):
    """Cut a window out of a picture `[h, w]` or `[h, w, c]`."""

    config: CropConfig

    def transform(self, x: Array, stats: dict[str, Any] | None) -> Array:
        """The window."""
        _check_picture(x)
        height, width = self.config.size
        if self.config.offset is None:
            top, left = (x.shape[0] - height) // 2, (x.shape[1] - width) // 2
        else:
            top, left = self.config.offset
        if min(top, left) < 0 or top + height > x.shape[0] or left + width > x.shape[1]:
            raise ValueError(
                f"a window of {self.config.size} at {(top, left)} is not inside {x.shape[:2]}"
            )
        return x[top : top + height, left : left + width]


class Reshape(_FieldOperator):
    """Give a record's field another shape."""

    config: ReshapeConfig

    def transform(self, x: Array, stats: dict[str, Any] | None) -> Array:
        """The same numbers in the new shape."""
        return jnp.reshape(x, self.config.shape)


class Normalize(_FieldOperator):
    r"""$(s x - \mu) / \sigma$, in at least float32 for integers and in the field's dtype else."""

    config: NormalizeConfig

    def transform(self, x: Array, stats: dict[str, Any] | None) -> Array:
        """The normalised field.

        Raises:
          ValueError: if neither the config nor the statistics have `mean` and `std`.
        """
        mean, std = self.config.mean, self.config.std
        if mean is None or std is None:
            if not stats or not {"mean", "std"} <= set(stats):
                raise ValueError(
                    "Normalize needs mean and std in its config or in statistics, "
                    f"got statistics {sorted(stats) if stats else None}"
                )
            mean, std = stats["mean"], stats["std"]
        y = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
        centre, width = (jnp.asarray(n, y.dtype) for n in (mean, std))
        scaled = y * jnp.asarray(self.config.scale, y.dtype)
        return (scaled - jnp.broadcast_to(centre, y.shape)) / jnp.broadcast_to(width, y.shape)


def _check_picture(x: Array) -> None:
    if x.ndim not in (2, 3):
        raise ValueError(f"a picture is [h, w] or [h, w, c], got shape {x.shape}")


def _check_size(name: str, size: Any) -> None:
    if not isinstance(size, tuple) or len(size) != 2:
        raise ValueError(f"{name} must be (height, width), got {size!r}")
    for number in size:
        check_positive(name, number)
