"""Rows of the operators on single fields, and of compositions."""

from operator_row import Row

from datarax.operators import (
    Crop,
    CropConfig,
    Normalize,
    NormalizeConfig,
    Reshape,
    ReshapeConfig,
    Resize,
    ResizeConfig,
    Sequential,
)


def _field(kind, config, **options):
    return lambda: kind(config(input_fields=["image"], output_fields=["image"], **options))


def _sequence():
    return Sequential(
        [
            _field(Crop, CropConfig, size=(4, 4))(),
            _field(Normalize, NormalizeConfig, mean=0.5, std=2.0)(),
        ]
    )


IMAGE = {"image": (6, 8, 3)}
ROWS = {
    "resize": Row(_field(Resize, ResizeConfig, size=(3, 4)), IMAGE, ("image", (3, 4, 3))),
    "crop": Row(_field(Crop, CropConfig, size=(4, 4)), IMAGE, ("image", (4, 4, 3))),
    "reshape": Row(_field(Reshape, ReshapeConfig, shape=(48, -1)), IMAGE, ("image", (48, 3))),
    "normalize": Row(
        _field(Normalize, NormalizeConfig, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)),
        IMAGE,
        ("image", (6, 8, 3)),
    ),
    "sequential": Row(_sequence, IMAGE, ("image", (4, 4, 3))),
}
