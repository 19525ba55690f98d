"""Rows of what is done to pictures; those of colour see a sigmoid, numbers in (0, 1)."""

import image_oracles as oracle
import jax
import jax.numpy as jnp
import numpy as np
from functional_case import Case

from datarax import functional

BOX = (1.0, 2.0, 4.0, 5.0)


def _picture(name, function, reference, *, channels=3):
    return Case(
        name=name,
        run=lambda x, mask, ids: function(x),
        oracle=lambda x, mask, ids: reference(x),
        shapes=((6, 6, 8, channels),),
        kind="pointwise",
    )


def _color(name, function, reference, amount, *, channels=3):
    return _picture(
        name,
        lambda x: function(jax.nn.sigmoid(x), amount),
        lambda x: reference(oracle.sigmoid(x), amount),
        channels=channels,
    )


def _resized(name, size, kernel, **options):
    return _picture(
        name,
        lambda x: functional.resize(x, size=size, **options),
        lambda x: oracle.resampled(x, (0, 0, *x.shape[1:3]), size, kernel),
        channels=1,
    )


CASES = [
    _color("adjust_brightness", functional.adjust_brightness, oracle.brightness, 1.3),
    _color("adjust_contrast", functional.adjust_contrast, oracle.contrast, 0.6),
    _color("adjust_contrast_grey", functional.adjust_contrast, oracle.contrast, 1.5, channels=1),
    _color("adjust_saturation", functional.adjust_saturation, oracle.saturation, 1.4),
    _color("adjust_hue", functional.adjust_hue, oracle.hue, -0.3),
    _resized("resize_smaller", (3, 5), oracle.triangle),
    _resized("resize_larger_cubic", (9, 8), oracle.keys_cubic, method="cubic"),
    _picture(
        "resized_crop",
        lambda x: functional.resized_crop(x, jnp.asarray(BOX, x.dtype), size=(3, 7)),
        lambda x: oracle.resampled(x, BOX, (3, 7)),
    ),
    _picture(
        "crop_of_padded",
        lambda x: functional.crop(functional.pad(x, 2, mode="reflect"), 1, 3, size=(5, 4)),
        lambda x: np.stack([np.pad(p, [(2, 2), (2, 2), (0, 0)], "reflect") for p in x])[
            :, 1:6, 3:7
        ],
    ),
    _picture(
        "flip",
        lambda x: functional.flip(x, horizontal=True, vertical=jnp.asarray(True)),
        lambda x: x[:, ::-1, ::-1],
    ),
    _picture(
        "normalize",
        lambda x: functional.normalize(x, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0), scale=0.5),
        lambda x: (0.5 * x - [0.1, 0.2, 0.3]) / [1, 2, 4],
    ),
]
