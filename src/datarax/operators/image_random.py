"""Operators that change a picture at random, each record by its own numbers; off in `op.eval()`.

Pictures are `[h, w]` or `[h, w, c]`: float in [0, 1], or uint8 in [0, 255]. The dtype stays.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array

from datarax.functional.color import adjust_color
from datarax.functional.image import (
    PaddingMode,
    center_offset,
    central_box,
    crop,
    flip,
    pad,
    resized_crop,
    resized_crop_box,
)
from datarax.operators.checks import check_choice, check_integer, check_number
from datarax.operators.field import FieldConfig, FieldOperator, check_stochastic, draw_rows
from datarax.operators.image import check_size, on_picture

TRIES = 10  # as torchvision
Resampling = Literal["linear", "cubic", "lanczos3", "lanczos5"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class RandomCropConfig(FieldConfig):
    """The window to cut out at a random place.

    Attributes:
      size: (height, width).
      padding: pixels added on each side first.
      padding_mode: what they hold: `"constant"` (zeros), `"edge"` or `"reflect"`.

    Raises:
      ValueError: unless it is stochastic, with one field in, one out, and values in range.
    """

    operation: str = field(default="random_crop", kw_only=True)
    size: tuple[int, int] = field(kw_only=True)
    padding: int = field(default=0, kw_only=True)
    padding_mode: PaddingMode = field(default="constant", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stochastic(self)
        check_size("size", self.size)
        check_integer("padding", self.padding, low=0)
        check_choice("padding_mode", self.padding_mode, PaddingMode)


@dataclass(frozen=True)
class RandomResizedCropConfig(FieldConfig):
    """The size to bring a random box of the picture to; the defaults are torchvision's.

    Attributes:
      size: (height, width) of the result.
      scale: least and greatest share of the picture's area.
      ratio: least and greatest ratio of width to height.
      method: of interpolation.

    Raises:
      ValueError: unless it is stochastic, with one field in, one out, and values in range.
    """

    operation: str = field(default="random_resized_crop", kw_only=True)
    size: tuple[int, int] = field(kw_only=True)
    scale: Interval = field(default=(0.08, 1.0), kw_only=True)
    ratio: Interval = field(default=(3 / 4, 4 / 3), kw_only=True)
    method: Resampling = field(default="linear", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stochastic(self)
        check_size("size", self.size)
        _check_interval("scale", self.scale, high=1)
        _check_interval("ratio", self.ratio, high=1e9)
        check_choice("method", self.method, Resampling)


@dataclass(frozen=True)
class RandomFlipConfig(FieldConfig):
    """How often to mirror a picture.

    Attributes:
      horizontal: probability to swap left and right.
      vertical: probability to swap top and bottom.

    Raises:
      ValueError: unless it is stochastic, with one field in, one out, and values in range.
    """

    operation: str = field(default="random_flip", kw_only=True)
    horizontal: float = field(default=0.5, kw_only=True)
    vertical: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stochastic(self)
        check_number("horizontal", self.horizontal, low=0, high=1)
        check_number("vertical", self.vertical, low=0, high=1)


@dataclass(frozen=True)
class ColorJitterConfig(FieldConfig):
    """How far colours are changed; the defaults are those of BYOL (arXiv:2006.07733, appendix B).

    Attributes:
      brightness, contrast, saturation: a factor is drawn from [max(0, 1 - b), 1 + b]; 0 leaves the
        step out.
      hue: a shift is drawn from [-hue, hue] in turns, hue at most 1/2; 0 leaves the step out.
      rate: probability that a picture is changed at all.

    Raises:
      ValueError: unless it is stochastic, with one field in, one out, and values in range.
    """

    operation: str = field(default="color_jitter", kw_only=True)
    brightness: float = field(default=0.4, kw_only=True)
    contrast: float = field(default=0.4, kw_only=True)
    saturation: float = field(default=0.2, kw_only=True)
    hue: float = field(default=0.1, kw_only=True)
    rate: float = field(default=0.8, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stochastic(self)
        check_number("brightness", self.brightness, low=0, high=1e9)
        check_number("contrast", self.contrast, low=0, high=1e9)
        check_number("saturation", self.saturation, low=0, high=1e9)
        check_number("hue", self.hue, low=0, high=0.5)
        check_number("rate", self.rate, low=0, high=1)


class RandomCrop(FieldOperator):
    """Cut a window out at a random place (`functional.pad`, `functional.crop`).

    Each window inside the padded picture is as likely. In `op.eval()` it is the one in the middle.
    """

    config: RandomCropConfig
    config_class = RandomCropConfig

    def generate_random_params(self, rng: Array, data_shapes: Any) -> Array:
        """(top, left) in the padded picture, int32 `[B, 2]`."""

        def offset(key: Array, shape: tuple[int, ...]) -> Array:
            padding, size = 2 * self.config.padding, self.config.size
            room = [max(shape[i] + padding - size[i], 0) for i in range(2)]
            return jax.random.randint(key, (2,), 0, jnp.asarray(room, jnp.int32) + 1)

        return draw_rows(offset, rng, data_shapes, self.config.input_fields[0])

    def transform(self, x: Array, random_params: Any, stats: dict[str, Any] | None) -> Array:
        """The window."""
        config = self.config

        def window(image: Array) -> Array:
            padded = pad(image, config.padding, mode=config.padding_mode)
            if random_params is None:
                top, left = center_offset(padded.shape[:2], config.size)
            else:
                top, left = random_params
            return crop(padded, top, left, size=config.size)

        return on_picture(x, window)


class RandomResizedCrop(FieldOperator):
    """Bring a random box of a picture to one size (`functional.resized_crop`).

    In `op.eval()` it is the largest box in the middle that has the ratio of the result.
    """

    config: RandomResizedCropConfig
    config_class = RandomResizedCropConfig

    def generate_random_params(self, rng: Array, data_shapes: Any) -> Array:
        """Boxes (top, left, height, width), `[B, 4]`, by `functional.resized_crop_box`."""

        def box(key: Array, shape: tuple[int, ...]) -> Array:
            draws = jax.random.uniform(key, (TRIES, 4))
            scale, ratio = self.config.scale, self.config.ratio
            size = (shape[0], shape[1])
            return resized_crop_box(draws, image_size=size, scale=scale, ratio=ratio)

        return draw_rows(box, rng, data_shapes, self.config.input_fields[0])

    def transform(self, x: Array, random_params: Any, stats: dict[str, Any] | None) -> Array:
        """The box in its new size."""
        size, method = self.config.size, self.config.method
        box = random_params
        if box is None:
            ratio = size[1] / size[0]
            box = jnp.asarray(central_box(x.shape[:2], (ratio, ratio)), jnp.float32)
        return on_picture(x, lambda image: resized_crop(image, box, size=size, method=method))


class RandomFlip(FieldOperator):
    """Mirror a picture at random (`functional.flip`)."""

    config: RandomFlipConfig
    config_class = RandomFlipConfig

    def generate_random_params(self, rng: Array, data_shapes: Any) -> dict[str, Array]:
        """Whether to mirror: bools `[B]`, `horizontal` and `vertical`."""

        def sides(key: Array, shape: tuple[int, ...]) -> dict[str, Array]:
            draws = jax.random.uniform(key, (2,))
            return {
                "horizontal": draws[0] < self.config.horizontal,
                "vertical": draws[1] < self.config.vertical,
            }

        return draw_rows(sides, rng, data_shapes, self.config.input_fields[0])

    def transform(self, x: Array, random_params: Any, stats: dict[str, Any] | None) -> Array:
        """The picture or its mirror image."""
        if random_params is None:
            return x
        return on_picture(x, lambda image: flip(image, **random_params))


class ColorJitter(FieldOperator):
    """Change brightness, contrast, saturation and hue, in this order (`functional.adjust_color`).

    torchvision draws the order too; here it is fixed. Grey pictures need `saturation=0, hue=0`.
    """

    config: ColorJitterConfig
    config_class = ColorJitterConfig

    def generate_random_params(self, rng: Array, data_shapes: Any) -> dict[str, Array]:
        """Factors `[B]` of the steps that are taken, and whether to take them, `apply`."""
        config = self.config
        reach = {
            "brightness": config.brightness,
            "contrast": config.contrast,
            "saturation": config.saturation,
        }
        ranges = {name: (max(0.0, 1 - x), 1.0 + x) for name, x in reach.items() if x}
        if config.hue:
            ranges["hue"] = (-config.hue, config.hue)

        def factors_of(key: Array, shape: tuple[int, ...]) -> dict[str, Array]:
            draws = jax.random.uniform(key, (1 + len(ranges),))
            drawn = {"apply": draws[0] < config.rate}
            for u, (name, (low, high)) in zip(draws[1:], ranges.items(), strict=True):
                drawn[name] = low + u * (high - low)
            return drawn

        return draw_rows(factors_of, rng, data_shapes, config.input_fields[0])

    def transform(self, x: Array, random_params: Any, stats: dict[str, Any] | None) -> Array:
        """The picture in other colours."""
        if random_params is None:
            return x
        amounts = {name: value for name, value in random_params.items() if name != "apply"}
        changed = on_picture(x, lambda image: adjust_color(image, **amounts))
        return jnp.where(random_params["apply"], changed, x)


def _check_interval(name: str, interval: Any, *, high: float) -> None:
    if not isinstance(interval, tuple) or len(interval) != 2:
        raise ValueError(f"{name} must be (least, greatest), got {interval!r}")
    for number in interval:
        check_number(name, number, low=0, high=high, open_low=True)
    if interval[0] > interval[1]:
        raise ValueError(f"{name} must be (least, greatest), got {interval!r}")
