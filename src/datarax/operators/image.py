"""Operators on one field that holds a picture, or any array: its shape and its values."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from datarax.functional.image import ResizeMethod, center_offset, crop, normalize, resize
from datarax.operators.checks import check_choice, check_integer, check_number, check_positive
from datarax.operators.field import FieldConfig, FieldOperator

Numbers = float | tuple[float, ...]


@dataclass(frozen=True)
class ResizeConfig(FieldConfig):
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
        check_size("size", self.size)
        check_choice("method", self.method, ResizeMethod)


@dataclass(frozen=True)
class CropConfig(FieldConfig):
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
        check_size("size", self.size)
        if self.offset is None:
            return
        if not isinstance(self.offset, tuple) or len(self.offset) != 2:
            raise ValueError(f"offset must be (top, left), got {self.offset!r}")
        for number in self.offset:
            check_integer("offset", number, low=0)


@dataclass(frozen=True)
class ReshapeConfig(FieldConfig):
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
class NormalizeConfig(FieldConfig):
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


class Resize(FieldOperator):
    """Resize a picture `[h, w]` or `[h, w, c]` (`functional.resize`), antialiased."""

    config: ResizeConfig
    config_class = ResizeConfig

    def transform(self, x: Array, random_params: Any, stats: dict[str, Any] | None) -> Array:
        """The picture in its new size."""
        return on_picture(
            x, lambda image: resize(image, size=self.config.size, method=self.config.method)
        )


class Crop(FieldOperator):
    """Cut a window out of a picture `[h, w]` or `[h, w, c]` (`functional.crop`)."""

    config: CropConfig
    config_class = CropConfig

    def transform(self, x: Array, random_params: Any, stats: dict[str, Any] | None) -> Array:
        """The window."""
        size, offset = self.config.size, self.config.offset

        def window(image: Array) -> Array:
            top, left = center_offset(image.shape[:2], size) if offset is None else offset
            return crop(image, top, left, size=size)

        return on_picture(x, window)


class Reshape(FieldOperator):
    """Give a record's field another shape."""

    config: ReshapeConfig
    config_class = ReshapeConfig

    def transform(self, x: Array, random_params: Any, stats: dict[str, Any] | None) -> Array:
        """The same numbers in the new shape."""
        return jnp.reshape(x, self.config.shape)


class Normalize(FieldOperator):
    """Subtract a mean and divide by a deviation (`functional.normalize`)."""

    config: NormalizeConfig
    config_class = NormalizeConfig

    def transform(self, x: Array, random_params: Any, stats: dict[str, Any] | None) -> Array:
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
        return normalize(x, mean=mean, std=std, scale=self.config.scale)


def on_picture(x: Array, function: Callable[[Array], Array]) -> Array:
    """A function of `[h, w, c]` on a picture that may lack the axis of channels.

    Raises:
      ValueError: if it is no picture.
    """
    if x.ndim not in (2, 3):
        raise ValueError(f"a picture is [h, w] or [h, w, c], got shape {x.shape}")
    return function(x) if x.ndim == 3 else function(x[..., None])[..., 0]


def check_size(name: str, size: Any) -> None:
    """Raise unless `size` is (height, width).

    Raises:
      ValueError: with the value.
    """
    if not isinstance(size, tuple) or len(size) != 2:
        raise ValueError(f"{name} must be (height, width), got {size!r}")
    for number in size:
        check_positive(name, number)
