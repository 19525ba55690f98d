"""Geometry and values of pictures `[..., h, w, c]`; an integer dtype is rounded and kept."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Num

from datarax.functional.checks import accumulation_dtype, broadcast_array

ResizeMethod = Literal["nearest", "linear", "cubic", "lanczos3", "lanczos5"]
Interval = tuple[float | int, float | int]
PaddingMode = Literal["constant", "edge", "reflect"]


def resize(
    image: Num[Array, "..."], *, size: tuple[int, int], method: ResizeMethod = "linear"
) -> Num[Array, "..."]:
    """The picture in another size, antialiased when it shrinks.

    Args:
      image: any range; float, or integers, which are rounded and clipped to their dtype.
      size: (height, width).
      method: of interpolation, as `jax.image.resize` names them.

    Returns:
      `[..., *size, c]` in the dtype of `image`.

    Raises:
      ValueError: if `image` has fewer than three axes, a size is not positive, or for another
        method.

    Reference: Keys, 1981 (cubic); Duchon, 1979 (Lanczos).

    Example:
      >>> resize(jnp.array([[[0], [255]], [[255], [254]]], jnp.uint8), size=(1, 1)).ravel()
      Array([191], dtype=uint8)
    """
    _check_image(image)
    _check_target(size, method)
    shape = (*image.shape[:-3], *size, image.shape[-1])
    return _as_dtype(jax.image.resize(_wide(image), shape, method, antialias=True), image.dtype)


def crop(
    image: Num[Array, "..."],
    top: ArrayLike,
    left: ArrayLike,
    *,
    size: tuple[int, int],
) -> Num[Array, "..."]:
    """The window of `size` whose first pixel is `(top, left)`.

    Args:
      image: of any dtype.
      top, left: whole numbers. Python ints must leave the window inside; what is traced is moved to
        the nearest window inside.
      size: (height, width).

    Returns:
      `[..., *size, c]` in the dtype of `image`.

    Raises:
      TypeError: if `top` or `left` is not a whole number.
      ValueError: if the window is not inside.

    Example:
      >>> crop(jnp.arange(6).reshape(2, 3, 1), 1, 1, size=(1, 2)).ravel().tolist()
      [4, 5]
    """
    _check_image(image)
    sides = image.shape[-3:-1]
    for first, length, side in zip((top, left), size, sides, strict=True):
        known = first if isinstance(first, int) else 0
        if known < 0 or known + length > side:
            offset = tuple(x for x in (top, left) if isinstance(x, int))
            place = f" at {offset}" if offset else ""
            raise ValueError(f"a window of {size}{place} is not inside {sides}")
    top = _first(top, sides[0] - size[0], name="top")
    left = _first(left, sides[1] - size[1], name="left")
    rows = jax.lax.dynamic_slice_in_dim(image, top, size[0], axis=-3)
    return jax.lax.dynamic_slice_in_dim(rows, left, size[1], axis=-2)


def center_offset(image_size: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """(top, left) of the window in the middle; half a pixel up and left where that is uneven.

    Example:
      >>> center_offset((5, 6), (2, 2))
      (1, 2)
    """
    return (image_size[0] - size[0]) // 2, (image_size[1] - size[1]) // 2


def pad(
    image: Num[Array, "..."], width: int, *, mode: PaddingMode = "constant"
) -> Num[Array, "..."]:
    """The picture with `width` more pixels on each of its four sides.

    Args:
      image: of any dtype.
      width: not negative.
      mode: `"constant"` (zeros), `"edge"` (the last pixel again) or `"reflect"` (mirrored, the last
        pixel not again; it needs more pixels than `width`).

    Returns:
      `[..., h + 2 width, w + 2 width, c]` in the dtype of `image`.

    Raises:
      ValueError: for another mode, or a picture too small to reflect.

    Example:
      >>> pad(jnp.ones((1, 1, 1)), 1).ravel().tolist()
      [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """
    _check_image(image)
    if mode not in get_args(PaddingMode):
        raise ValueError(f"mode must be one of {list(get_args(PaddingMode))}, got {mode!r}")
    if mode == "reflect" and width >= min(image.shape[-3:-1]):
        raise ValueError(f"width {width} reflects more than there is of {image.shape[-3:-1]}")
    widths = [(0, 0)] * (image.ndim - 3) + [(width, width), (width, width), (0, 0)]
    return jnp.pad(image, widths, mode=mode)


def flip(
    image: Num[Array, "..."],
    *,
    horizontal: Bool[Array, ""] | bool = False,
    vertical: Bool[Array, ""] | bool = False,
) -> Num[Array, "..."]:
    """The picture mirrored left to right where `horizontal`, top to bottom where `vertical`.

    Args:
      image: of any dtype.
      horizontal, vertical: True to mirror; may be traced.

    Returns:
      The shape and dtype of `image`.

    Example:
      >>> flip(jnp.arange(4).reshape(2, 2, 1), horizontal=True).ravel().tolist()
      [1, 0, 3, 2]
    """
    _check_image(image)
    image = jnp.where(jnp.asarray(horizontal), image[..., ::-1, :], image)
    return jnp.where(jnp.asarray(vertical), image[..., ::-1, :, :], image)


def resized_crop(
    image: Num[Array, "..."],
    box: Num[Array, "4"],
    *,
    size: tuple[int, int],
    method: ResizeMethod = "linear",
) -> Num[Array, "..."]:
    """The box of the picture in another size, antialiased when it shrinks.

    The box may be traced: the result's shape does not depend on it. Pixels just outside of it count
    at its edge as far as the kernel reaches, as in Pillow's `resize(box=...)`; torchvision cuts the
    box out first, so that there nothing outside counts.

    Args:
      image: any range; float, or integers, which are rounded and clipped to their dtype.
      box: (top, left, height, width) in pixels, inside the picture.
      size: (height, width) of the result.
      method: of interpolation, without `"nearest"`.

    Returns:
      `[..., *size, c]` in the dtype of `image`.

    Raises:
      ValueError: for `"nearest"` or an unknown method, if `image` has fewer than three axes, `box`
        is not four numbers, or a size is not positive.

    Example:
      >>> picture = jnp.arange(8.0).reshape(2, 4, 1)
      >>> resized_crop(picture, jnp.array([0, 1, 2, 2]), size=(2, 2)).ravel().tolist()
      [1.0, 2.0, 5.0, 6.0]
    """
    _check_image(image)
    if method == "nearest":
        raise ValueError("method 'nearest' cannot follow a traced box: take 'linear'")
    _check_target(size, method)
    if box.shape != (4,):
        raise ValueError(f"box must be (top, left, height, width), got shape {box.shape}")
    wide = _wide(image)
    place = box.astype(wide.dtype)
    scale = jnp.asarray(size, wide.dtype) / place[2:]
    shape = (*image.shape[:-3], *size, image.shape[-1])
    axes = (image.ndim - 3, image.ndim - 2)
    out = jax.image.scale_and_translate(
        wide, shape, axes, scale, -place[:2] * scale, method, antialias=True
    )
    return _as_dtype(out, image.dtype)


def resized_crop_box(
    draws: Float[Array, "tries 4"],
    *,
    image_size: tuple[int, int],
    scale: Interval = (0.08, 1.0),
    ratio: Interval = (3 / 4, 4 / 3),
) -> Float[Array, "4"]:
    r"""The box of a random resized crop: the first of the tries that fits into the picture.

    A try with the uniform numbers $u_1 .. u_4$ has the area $a = (s_0 + u_1 (s_1 - s_0)) H W$ and
    the ratio of width to height $r = r_0 (r_1 / r_0)^{u_2}$; its width is $\sqrt{a r}$ and its
    height $\sqrt{a / r}$, rounded, and it lies with $u_3, u_4$ at any place alike.

    Args:
      draws: uniform in [0, 1), a row a try.
      image_size: (height, width).
      scale: the least and greatest share of the area.
      ratio: the least and greatest ratio of width to height.

    Returns:
      (top, left, height, width), whole numbers in the dtype of `draws`. Where no try fits, the
      largest box in the middle whose ratio is in range.

    Reference: Szegedy et al., 2015, arXiv:1409.4842, section 6; torchvision, `RandomResizedCrop`.

    Example:
      >>> resized_crop_box(jnp.full((1, 4), 0.5), image_size=(8, 8), scale=(0.25, 0.25)).tolist()
      [2.0, 2.0, 4.0, 4.0]
    """
    height, width = image_size
    area = (scale[0] + draws[:, 0] * (scale[1] - scale[0])) * (height * width)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    root = jnp.exp((low + draws[:, 1] * (high - low)) / 2)
    tall, broad = jnp.round(jnp.sqrt(area) / root), jnp.round(jnp.sqrt(area) * root)
    fits = (tall >= 1) & (tall <= height) & (broad >= 1) & (broad <= width)
    first = jnp.argmax(fits)
    tall, broad = tall[first], broad[first]
    top = jnp.floor(draws[first, 2] * (height - tall + 1))
    left = jnp.floor(draws[first, 3] * (width - broad + 1))
    box = jnp.stack([top, left, tall, broad])
    return jnp.where(jnp.any(fits), box, jnp.asarray(central_box(image_size, ratio), box.dtype))


def central_box(image_size: tuple[int, int], ratio: Interval) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest box in the middle whose ratio is in range.

    Args:
      image_size: (height, width).
      ratio: the least and greatest ratio of width to height.

    Returns:
      Whole numbers; at least one pixel, in a picture too narrow for the ratio.

    Example:
      >>> central_box((4, 8), (1.0, 1.0))
      (0, 2, 4, 4)
    """
    height, width = image_size
    if width / height < ratio[0]:
        tall, broad = min(height, round(width / ratio[0])), width
    elif width / height > ratio[1]:
        tall, broad = height, min(width, round(height * ratio[1]))
    else:
        tall, broad = height, width
    tall, broad = max(tall, 1), max(broad, 1)
    return (*center_offset(image_size, (tall, broad)), tall, broad)


def normalize(
    x: Num[Array, "..."],
    *,
    mean: ArrayLike | Sequence[float],
    std: ArrayLike | Sequence[float],
    scale: float | int = 1.0,
) -> Float[Array, "..."]:
    r"""$(s x - \mu) / \sigma$.

    Args:
      x: of any shape; integers are computed as float32.
      mean, std: broadcastable to `x`: a number, or one a channel (last axis). `std` not 0.
      scale: the factor `s`; 1/255 for uint8 pictures.

    Returns:
      The shape of `x`, in its dtype if that is floating point, else float32.

    Raises:
      ValueError: if `mean` or `std` does not broadcast to `x`.

    Example:
      >>> normalize(jnp.array([0, 255], jnp.uint8), mean=0.5, std=0.5, scale=1 / 255)
      Array([-1.,  1.], dtype=float32)
    """
    y = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)
    centre = broadcast_array(jnp.asarray(mean, y.dtype), shape=y.shape, name="mean")
    width = broadcast_array(jnp.asarray(std, y.dtype), shape=y.shape, name="std")
    return (y * jnp.asarray(scale, y.dtype) - centre) / width


def _check_image(image: Array) -> None:
    if image.ndim < 3:
        raise ValueError(f"image must be [..., h, w, c], got shape {image.shape}")


def _check_target(size: tuple[int, int], method: str) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be (height, width), both positive, got {size}")
    if method not in get_args(ResizeMethod):
        raise ValueError(f"method must be one of {list(get_args(ResizeMethod))}, got {method!r}")


def _first(place: ArrayLike, most: int, *, name: str) -> Array:
    """The place or the nearest in [0, most]: `dynamic_slice` counts negative ones from the end."""
    place = jnp.asarray(place)
    if not jnp.issubdtype(place.dtype, jnp.integer):
        raise TypeError(f"{name} must be a whole number, got {place.dtype}")
    return jnp.clip(place.astype(jnp.int32), 0, most)


def _wide(image: Array) -> Array:
    return image.astype(accumulation_dtype(image))


def _as_dtype(y: Array, dtype: jnp.dtype) -> Array:
    if not jnp.issubdtype(dtype, jnp.integer):
        return y.astype(dtype)
    info = jnp.iinfo(dtype)
    return jnp.clip(jnp.round(y), info.min, info.max).astype(dtype)
