r"""Colour of pictures `[..., h, w, c]`: float in [0, 1] or uint8 in [0, 255].

The result has the dtype of the picture and stays in its range (float is clipped to [0, 1], uint8
is rounded); the arithmetic is at least float32, in [0, 1]. Grey is the luma
$Y = 0.299 R + 0.587 G + 0.114 B$ (ITU-R BT.601), or the one channel that there is.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from datarax.functional.checks import accumulation_dtype

ScalarLike = Float[Array, ""] | float | int
LUMA = (0.299, 0.587, 0.114)


def adjust_brightness(image: Num[Array, "..."], factor: ScalarLike) -> Num[Array, "..."]:
    r"""$\mathrm{clip}(f x)$: black for 0, the picture itself for 1.

    Args:
      image: float in [0, 1] or uint8.
      factor: not negative.

    Returns:
      The shape and dtype of `image`.

    Raises:
      ValueError: unless the picture has an axis of 1 or 3 channels.
      TypeError: unless it is floating point or uint8.

    Reference: torchvision, `transforms.functional.adjust_brightness`; it cuts uint8 off instead of
    rounding, here and below.

    Example:
      >>> adjust_brightness(jnp.full((1, 1, 1), 0.4), 2.0)
      Array([[[0.8]]], dtype=float32)
    """
    unit = _unit_range(image)
    return _restored(unit * _scalar(factor, unit), image)


def adjust_contrast(image: Num[Array, "..."], factor: ScalarLike) -> Num[Array, "..."]:
    r"""$\mathrm{clip}(f x + (1 - f)\,\bar Y)$ with the mean grey of the picture, $\bar Y$.

    Args:
      image: float in [0, 1] or uint8.
      factor: not negative; 0 gives an even grey, 1 the picture itself.

    Returns:
      The shape and dtype of `image`.

    Raises:
      ValueError: unless the picture has an axis of 1 or 3 channels.
      TypeError: unless it is floating point or uint8.

    Reference: torchvision, `transforms.functional.adjust_contrast` (its tensors; with Pillow the
    mean grey is rounded to a whole number).

    Example:
      >>> adjust_contrast(jnp.array([[[0.25], [0.75]]]), 2.0).ravel().tolist()
      [0.0, 1.0]
    """
    unit = _unit_range(image)
    mean = jnp.mean(_grey(unit), axis=(-3, -2, -1), keepdims=True)
    return _restored(_blend(unit, mean, factor), image)


def adjust_saturation(image: Num[Array, "..."], factor: ScalarLike) -> Num[Array, "..."]:
    r"""$\mathrm{clip}(f x + (1 - f)\,Y)$ with the grey of each pixel, $Y$.

    Args:
      image: float in [0, 1] or uint8, three channels.
      factor: not negative; 0 gives a grey picture, 1 the picture itself.

    Returns:
      The shape and dtype of `image`.

    Raises:
      ValueError: unless the picture has three channels.
      TypeError: unless it is floating point or uint8.

    Reference: torchvision, `transforms.functional.adjust_saturation`.

    Example:
      >>> adjust_saturation(jnp.array([[[255, 0, 0]]], jnp.uint8), 0.0).ravel().tolist()
      [76, 76, 76]
    """
    _check_colored(image)
    unit = _unit_range(image)
    return _restored(_blend(unit, _grey(unit), factor), image)


def adjust_hue(image: Num[Array, "..."], shift: ScalarLike) -> Num[Array, "..."]:
    r"""Turn the hue by `shift` of a full circle: $H \leftarrow (H + s) \bmod 1$ in HSV.

    Args:
      image: float in [0, 1] (clipped to it before) or uint8, three channels.
      shift: in turns; 0 and 1 give the picture itself, 1/3 makes red green.

    Returns:
      The shape and dtype of `image`. A grey pixel has no hue and stays; its gradient is finite.

    Raises:
      ValueError: unless the picture has three channels.
      TypeError: unless it is floating point or uint8.

    Reference: Smith, "Color gamut transform pairs", SIGGRAPH 1978; the formulas of `colorsys`.

    Example:
      >>> adjust_hue(jnp.array([[[1.0, 0.0, 0.0]]]), 0.5).round(3).ravel().tolist()
      [0.0, 1.0, 1.0]
    """
    _check_colored(image)
    unit = jnp.clip(_unit_range(image), 0, 1)
    hue, chroma, value = _hue_chroma_value(unit)
    turned = (hue + _scalar(shift, hue)) * 6
    # Each channel falls from value by chroma times a trapezoid in the hue, a third of a turn apart.
    channels = []
    for place in (5, 3, 1):
        sector = (turned + place) % 6
        channels.append(value - chroma * jnp.clip(jnp.minimum(sector, 4 - sector), 0, 1))
    return _restored(jnp.stack(channels, axis=-1), image)


def adjust_color(
    image: Num[Array, "..."],
    *,
    brightness: ScalarLike | None = None,
    contrast: ScalarLike | None = None,
    saturation: ScalarLike | None = None,
    hue: ScalarLike | None = None,
) -> Num[Array, "..."]:
    """`adjust_brightness`, `_contrast`, `_saturation` and `_hue`, in this order; uint8 rounds once.

    Args:
      image: float in [0, 1] or uint8.
      brightness, contrast, saturation: factors; `None` leaves the step out.
      hue: the shift in turns, or `None`.

    Returns:
      The shape and dtype of `image`.

    Raises:
      ValueError: unless the picture has 1 or 3 channels, 3 for `saturation` and `hue`.
      TypeError: unless it is floating point or uint8.

    Reference: torchvision, `transforms.ColorJitter`, which draws the order of the steps too.

    Example:
      >>> adjust_color(jnp.full((1, 1, 3), 100, jnp.uint8), brightness=1.5, hue=0.1).ravel()
      Array([150, 150, 150], dtype=uint8)
    """
    adjusted = _unit_range(image)
    steps = [
        (adjust_brightness, brightness),
        (adjust_contrast, contrast),
        (adjust_saturation, saturation),
        (adjust_hue, hue),
    ]
    for adjust, amount in steps:
        if amount is not None:
            adjusted = adjust(adjusted, amount)
    return _restored(adjusted, image)


def _hue_chroma_value(unit: Array) -> tuple[Array, Array, Array]:
    """Hue in turns [0, 1) up to a whole turn (0 for grey), max - min, and max."""
    red, green, blue = (unit[..., channel] for channel in range(3))
    # XLA may compute the channels twice and round them differently, so nothing asks which channel
    # equals the maximum: not jnp.max, whose derivative divides by the number of those that do, nor
    # value == red.
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    grey = chroma == 0
    divisor = jnp.where(grey, 1, chroma)
    sixth = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) / divisor,
        jnp.where(green >= blue, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    return jnp.where(grey, 0, sixth / 6), chroma, value


def _blend(unit: Array, other: Array, factor: ScalarLike) -> Array:
    factor = _scalar(factor, unit)
    return unit * factor + jnp.broadcast_to(other, unit.shape) * (1 - factor)


def _grey(unit: Array) -> Array:
    if unit.shape[-1] == 1:
        return unit
    weighted = unit * jnp.broadcast_to(jnp.asarray(LUMA, unit.dtype), unit.shape)
    return jnp.sum(weighted, axis=-1, keepdims=True)


def _scalar(number: ScalarLike, unit: Array) -> Array:
    return jnp.broadcast_to(jnp.asarray(number, unit.dtype), (1,) * unit.ndim)


def _unit_range(image: Array) -> Array:
    if image.ndim < 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"image must be [..., h, w, c] with 1 or 3 channels, got {image.shape}")
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 255
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise TypeError(f"image must be floating point in [0, 1] or uint8, got {image.dtype}")
    return image.astype(accumulation_dtype(image))


def _restored(unit: Array, image: Array) -> Array:
    clipped = jnp.clip(unit, 0, 1)
    if image.dtype == jnp.uint8:
        return jnp.round(clipped * 255).astype(jnp.uint8)
    return clipped.astype(image.dtype)


def _check_colored(image: Array) -> None:
    if image.ndim < 3 or image.shape[-1] != 3:
        raise ValueError(f"image must be [..., h, w, 3], got {image.shape}: grey has no colour")
