"""Rows of the operators on single fields, and of compositions."""

from flax import nnx
from operator_row import Row

from datarax.operators import (
    ColorJitter,
    ColorJitterConfig,
    Crop,
    CropConfig,
    FieldChoice,
    FieldChoiceConfig,
    Identity,
    LogMel,
    LogMelConfig,
    ModalityDropout,
    ModalityDropoutConfig,
    Normalize,
    NormalizeConfig,
    OneOf,
    RandomCrop,
    RandomCropConfig,
    RandomFlip,
    RandomFlipConfig,
    RandomResizedCrop,
    RandomResizedCropConfig,
    Reshape,
    ReshapeConfig,
    Resize,
    ResizeConfig,
    Sequential,
    SpecAugment,
    SpecAugmentConfig,
    TokenDropout,
    TokenDropoutConfig,
    TokenMasking,
    TokenMaskingConfig,
)

RANDOM = {"stochastic": True, "stream_name": "noise"}


def _made(kind, config, inputs, outputs, **options):
    return lambda: kind(
        config(input_fields=inputs, output_fields=outputs, **options),
        rngs=nnx.Rngs(0, noise=1),
    )


def _field(kind, config, **options):
    return _made(kind, config, ["image"], ["image"], **options)


def _sequence():
    return Sequential(
        [
            _field(Crop, CropConfig, size=(4, 4))(),
            _field(Normalize, NormalizeConfig, mean=0.5, std=2.0)(),
        ]
    )


def _choice():
    parts = [
        _field(Normalize, NormalizeConfig, mean=0.5, std=2.0)(),
        _field(RandomFlip, RandomFlipConfig, **RANDOM)(),
        Identity(),
    ]
    return OneOf(parts, stream_name="noise", rngs=nnx.Rngs(0, noise=1))


IMAGE = {"image": (6, 8, 3)}
TOKENS = {"tokens": (7,), "mask": (7,)}
TOKEN_KINDS = {"tokens": "ids", "mask": "mask"}
ROWS = {
    "resize": Row(
        _field(Resize, ResizeConfig, size=(3, 4)),
        IMAGE,
        ("image", (3, 4, 3)),
        changes={"size": (3, 5), "method": "cubic"},
    ),
    "crop": Row(
        _field(Crop, CropConfig, size=(4, 4)),
        IMAGE,
        ("image", (4, 4, 3)),
        changes={"size": (4, 5), "offset": (0, 1)},
    ),
    "reshape": Row(
        _field(Reshape, ReshapeConfig, shape=(48, -1)),
        IMAGE,
        ("image", (48, 3)),
        changes={"shape": (3, 48)},
    ),
    "normalize": Row(
        _field(Normalize, NormalizeConfig, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)),
        IMAGE,
        ("image", (6, 8, 3)),
        changes={"mean": 0.1, "std": (1.0, 2.0, 4.0), "scale": 0.5},
    ),
    "random_crop": Row(
        _field(RandomCrop, RandomCropConfig, size=(4, 5), padding=2, **RANDOM),
        IMAGE,
        ("image", (4, 5, 3)),
        changes={"size": (5, 5), "padding": 1, "padding_mode": "reflect"},
    ),
    "random_resized_crop": Row(
        _field(RandomResizedCrop, RandomResizedCropConfig, size=(4, 4), **RANDOM),
        IMAGE,
        ("image", (4, 4, 3)),
        changes={"size": (4, 5), "scale": (0.5, 0.5), "ratio": (1.0, 1.0), "method": "cubic"},
    ),
    "random_flip": Row(
        _field(RandomFlip, RandomFlipConfig, **RANDOM),
        IMAGE,
        ("image", (6, 8, 3)),
        changes={"horizontal": 1.0, "vertical": 1.0},
    ),
    "color_jitter": Row(
        _field(ColorJitter, ColorJitterConfig, **RANDOM),
        {"image": (3, 4, 3)},
        ("image", (3, 4, 3)),
        kinds={"image": "unit"},
        changes={"brightness": 0.1, "contrast": 0.1, "saturation": 0.0, "hue": 0.0, "rate": 0.1},
    ),
    "token_dropout": Row(
        _made(
            TokenDropout,
            TokenDropoutConfig,
            ["tokens", "mask"],
            ["tokens", "mask"],
            rate=0.5,
            **RANDOM,
        ),
        TOKENS,
        ("tokens", (7,)),
        kinds=TOKEN_KINDS,
        changes={"rate": 0.1, "pad_id": 9, "special_ids": (1, 2, 3, 4)},
    ),
    "token_masking": Row(
        _made(
            TokenMasking,
            TokenMaskingConfig,
            ["tokens", "mask"],
            ["tokens", "labels"],
            mask_id=9,
            vocabulary_size=10,
            rate=0.6,
            mask_share=0.4,
            random_share=0.4,
            **RANDOM,
        ),
        TOKENS,
        ("tokens", (7,)),
        kinds=TOKEN_KINDS,
        changes={
            "mask_id": 8,
            "vocabulary_size": 100,
            "rate": 0.2,
            "mask_share": 0.0,
            "random_share": 0.0,
            "special_ids": (1, 2, 3, 4),
            "ignore_index": -1,
        },
    ),
    "log_mel": Row(
        _made(
            LogMel,
            LogMelConfig,
            ["wave", "keep"],
            ["mel", "frames"],
            sample_rate=4000,
            fft_length=8,
            hop_length=4,
            n_mels=3,
        ),
        {"wave": (24,), "keep": (24,)},
        ("mel", (7, 3)),
        kinds={"keep": "mask"},
        changes={
            "sample_rate": 8000,
            "fft_length": 6,
            "hop_length": 3,
            "n_mels": 2,
            "f_min": 100.0,
            "f_max": 1500.0,
            "mel_scale": "htk",
            "norm": "none",
            "power": 1.0,
            "floor": 0.1,
            "center": False,
        },
    ),
    "spec_augment": Row(
        _made(
            SpecAugment,
            SpecAugmentConfig,
            ["mel", "frames"],
            ["mel"],
            max_time=4,
            max_frequency=3,
            **RANDOM,
        ),
        {"mel": (9, 6), "frames": (9,)},
        ("mel", (9, 6)),
        kinds={"frames": "mask"},
        changes={
            "time_masks": 0,
            "max_time": 1,
            "time_share": 0.2,
            "frequency_masks": 1,
            "max_frequency": 1,
            "fill": 1.0,
        },
    ),
    "field_choice": Row(
        _made(FieldChoice, FieldChoiceConfig, ["a", "b"], ["a"], rate=0.5, **RANDOM),
        {"a": (4,), "b": (4,)},
        ("a", (4,)),
        changes={"rate": 1.0},
    ),
    "sequential": Row(_sequence, IMAGE, ("image", (4, 4, 3))),
    "one_of": Row(_choice, IMAGE, ("image", (6, 8, 3))),
}
# These hand values through, masked slots too, and speak of presence alone: test_presence.py holds
# their contracts, and only their configs are tested by the table.
CONFIG_ROWS = {
    "modality_dropout": Row(
        _made(ModalityDropout, ModalityDropoutConfig, ["a", "b"], ["a", "b"], rate=0.5, **RANDOM),
        {"a": (4,), "b": (4,)},
        ("a", (4,)),
        changes={"rate": 0.0},
    ),
}
