"""Which fields can be embedded, and the encoder of each."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from flax import nnx

from datarax.nn.encoders import (
    ImageEncoder,
    PointEncoder,
    SequenceEncoder,
    SoundEncoder,
    TextEncoder,
    TokenEncoder,
    VectorEncoder,
)
from datarax.sources.decode_array import ArrayDecoder, TokensDecoder
from datarax.sources.decode_audio import AudioDecoder
from datarax.sources.decode_image import CHANNELS, ImageDecoder
from datarax.sources.decode_text import TextDecoder
from datarax.sources.fields import Fields
from datarax.sources.limits import Limits
from datarax.train.config import GLYPHS, TrainConfig
from datarax.train.settings import suggestion

FEATURES = 256
SMALLEST_SIDE = 7  # of the last map of a picture's encoder
MOST_WORDS = 64
GLYPH_ENCODERS = {"image": ImageEncoder, "outline": PointEncoder, "name": TextEncoder}
ENCODED = (ImageDecoder, TextDecoder, TokensDecoder, AudioDecoder, ArrayDecoder)


def fields_of(config: TrainConfig) -> Fields | None:
    """The fields that a configuration sets; `None` where they are to be inferred.

    Raises:
      ValueError: if they cannot be, naming the field.
    """
    if config.fields is None:
        return None
    return Fields.from_mapping(config.fields, limits=limits_of(config))


def limits_of(config: TrainConfig) -> Limits:
    """The limits of a configuration.

    Raises:
      ValueError: for one that there is not, or that is out of range.
    """
    given: Mapping[str, Any] = config.limits or {}
    known = {field.name for field in dataclasses.fields(Limits)}
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"limits: there is no limit {name!r}; {suggestion(name, known)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"limits: {name} must be a number, got {value!r}")
    return Limits(**given)


def fields_of_config(config: TrainConfig) -> Fields:
    """The fields of a configuration of shards, which must have them.

    Raises:
      ValueError: if they cannot be, naming the field.
    """
    fields = fields_of(config)
    if fields is None:
        raise ValueError("fields: the configuration of these shards has none")
    return fields


def fit_towers(fields: Fields) -> tuple[str, ...]:
    """The fields that have an encoder: all but numbers."""
    named = fields.fields.items()
    return tuple(name for name, field in named if isinstance(field.decoder, ENCODED))


def text_towers(config: TrainConfig) -> tuple[str, ...]:
    """The towers that read text or tokens."""
    return _towers_of(config, (TextDecoder, TokensDecoder), glyphs=("name",))


def image_towers(config: TrainConfig) -> tuple[str, ...]:
    """The towers that read pictures."""
    return _towers_of(config, (ImageDecoder,), glyphs=("image",))


def masked_towers(config: TrainConfig) -> tuple[str, ...]:
    """The towers that are given a field's mask beside it: tokens and sounds."""
    return _towers_of(config, (TokensDecoder, AudioDecoder), glyphs=())


def _towers_of(
    config: TrainConfig, kinds: tuple[type, ...], *, glyphs: tuple[str, ...]
) -> tuple[str, ...]:
    if config.data == GLYPHS:
        return tuple(name for name in config.towers if name in glyphs)
    fields = fields_of_config(config).fields
    return tuple(name for name in config.towers if isinstance(fields[name].decoder, kinds))


def columns_of(towers: Iterable[str], masked: Iterable[str]) -> tuple[str, ...]:
    """The towers' fields and the masks that they read."""
    masks = set(masked)
    return tuple(
        column
        for name in towers
        for column in ((name, f"{name}_mask") if name in masks else (name,))
    )


def given(values: Any, tower: str) -> dict[str, Any]:
    """The inputs of a tower by field: an array is the tower's own field."""
    return dict(values) if isinstance(values, Mapping) else {tower: values}


def make_encoder(name: str, config: TrainConfig, *, rngs: nnx.Rngs) -> Any:
    """The encoder of a tower, to vectors [n, 256].

    Raises:
      ValueError: if there is none for the field.
    """
    options: dict[str, Any] = {"out_features": FEATURES, "dropout": config.dropout, "rngs": rngs}
    if config.data == GLYPHS:
        return GLYPH_ENCODERS[name](**options)
    decoder: Any = fields_of_config(config).fields[name].decoder
    match decoder:
        case ImageDecoder():
            halvings = max(1, math.ceil(math.log2(max(decoder.size) / SMALLEST_SIDE)))
            widths = [32, 64, *[128] * halvings][:halvings]
            channels = CHANNELS.get(decoder.mode)
            return ImageEncoder(size=decoder.size, channels=channels, widths=widths, **options)
        case TextDecoder():
            words = min(MOST_WORDS, max(4, decoder.lengths[-1] // 4))
            return TextEncoder(max_words=words, **options)
        case TokensDecoder():
            return TokenEncoder(length=decoder.lengths[-1], **options)
        case AudioDecoder():
            return SoundEncoder(samples=decoder.samples, rate=decoder.rate, **options)
        case ArrayDecoder(shape=(length, width)):
            return SequenceEncoder(length=length, in_features=width, **options)
        case ArrayDecoder():
            return VectorEncoder(in_features=math.prod(decoder.shape), **options)
    raise ValueError(f"towers: {name!r} is a {type(decoder).__name__} field, which has no encoder")
