"""What the fields of some records might be, from a sample of them."""

import collections
import io
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from datarax.sources.decode_audio import require_audio
from datarax.sources.decode_image import FORMATS
from datarax.sources.decode_json import parse_json
from datarax.sources.decode_npy import MAGIC, parse_npy
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError, RecordError
from datarax.sources.shard import Shards

logger = logging.getLogger(__name__)

LOOKED_AT = 64  # records
DEPTH = 3  # of objects in a part whose values become fields
IMAGES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm")
SOUNDS = ("wav", "flac", "mp3", "ogg", "opus")
# parts that are named for their format, and the fields that they are alternatives of
FAMILIES = {"image": IMAGES, "audio": SOUNDS, "caption": ("txt",)}
USUAL_SIZE = (224, 224)
SAME_SIZE_UP_TO = 256

Options = dict[str, dict[str, Any]]


def infer_options(shards: Shards, *, limits: Limits) -> Options:
    """Options of `Fields.from_mapping` that fit 64 records, those of `sampled`.

    Images, sounds and `npy` files are known by their first bytes; JSON objects and structs become
    a field for each of their values. Suffixes of one kind that no record has two of are one field.
    A part that one of these records lacks is a field with `missing = "mask"`. A length is the next
    power of two; images that differ in size become 224 x 224.

    Raises:
      ValueError: if none of these records can be read, or no part is of a known kind.
    """
    records = list(_read(shards, limits))
    columns: dict[str, list[Any]] = {}
    for name in dict.fromkeys(name for record in records for name in record):
        columns[name] = [record[name] for record in records if name in record]
    guesses = {name: _guess(values, limits) for name, values in columns.items()}
    if unknown := [name for name, guess in guesses.items() if guess is None]:
        logger.info("no field is made of %s: their kind is not known", unknown)
    made: Options = {}
    for parts in _alternatives([name for name, guess in guesses.items() if guess], records):
        values = [value for part in parts for value in columns[part]]
        options = _guess(values, limits)
        if options is None:
            continue
        options = {"from": list(parts) if len(parts) > 1 else parts[0], **options}
        if len(values) < len(records):
            options["missing"] = "mask"
        made[_name(parts, made)] = options
    if not made:
        raise ValueError(
            f"no fields can be inferred from {len(records)} records with {sorted(columns)}: "
            "give fields"
        )
    return made


def sampled(shards: Shards) -> list[int]:
    """Up to 64 record numbers, rising: of each shard as many, evenly from its first to its last.

    A shard with fewer gives what it has, and others more. Of more than 64 shards that have records,
    64 evenly from the first to the last give one each, the first its first record, the last its
    last.

    Example:
      >>> class Listed(list):
      ...     pass
      >>> sampled(Shards([Listed(range(2)), Listed(range(1000))]))[:5]
      [0, 1, 2, 18, 34]
    """
    starts = [end - len(shard) for end, shard in zip(shards.ends, shards.shards, strict=True)]
    spans = [(start, len(each)) for start, each in zip(starts, shards.shards, strict=True)]
    spans = [(start, size) for start, size in spans if size]
    if len(spans) > LOOKED_AT:
        chosen = [spans[place] for place in _evenly(len(spans), LOOKED_AT)]
        return [
            start + place * (size - 1) // (LOOKED_AT - 1)
            for place, (start, size) in enumerate(chosen)
        ]
    found, left = [], LOOKED_AT
    for done, (start, size) in enumerate(sorted(spans, key=lambda span: span[1])):
        count = min(size, left // (len(spans) - done))
        found += [start + row for row in _evenly(size, count)]
        left -= count
    return sorted(found)


def _evenly(size: int, count: int) -> Sequence[int]:
    """`count` of the numbers below `size`, the first and the last among them."""
    return [place * (size - 1) // max(1, count - 1) for place in range(count)]


def _read(shards: Shards, limits: Limits) -> Iterator[dict[str, Any]]:
    """The parts of sampled records that can be read, objects laid flat, without nulls."""
    numbers = sampled(shards)
    logger.info(
        "looked at for fields: %d of %d records, spread over %d shards",
        len(numbers),
        len(shards),
        len(shards.shards),
    )
    for index in numbers:
        try:
            raw = shards.read(index)
        except RecordError as error:
            logger.info("not looked at: %s", error)
            continue
        flat: dict[str, Any] = {}
        for name, value in raw.parts.items():
            if isinstance(value, bytes) and name.split(".")[-1].lower() == "json":
                try:
                    value = parse_json(value, depth=limits.json_depth)
                except DecodeError as error:
                    logger.info("not looked at: %s of record %r: %s", name, raw.key, error)
                    continue
            _flatten(name, value, flat, depth=DEPTH)
        yield flat


def _flatten(name: str, value: Any, flat: dict[str, Any], *, depth: int) -> None:
    if isinstance(value, dict) and depth:
        for key, inner in value.items():
            _flatten(f"{name}.{key}", inner, flat, depth=depth - 1)
    elif value is not None:
        flat[name] = value


def _alternatives(names: list[str], records: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Names that are suffixes of one family, together if no record has two; others alone."""
    for name in names:
        family = next((f for f in FAMILIES.values() if name.lower() in f), (name,))
        group = tuple(other for other in names if other == name or other.lower() in family)
        alone = any(sum(part in record for part in group) > 1 for record in records)
        if alone:
            yield (name,)
        elif name == group[0]:
            yield group


def _name(parts: tuple[str, ...], taken: Options) -> str:
    """A field's name: of the family, of the last key, or the whole, whichever is free.

    Neither a mask of another, nor with a mask that is another.
    """
    whole = parts[0].replace(".", "_")
    family = next((name for name, f in FAMILIES.items() if parts[0].lower() in f), whole)
    steps = parts[0].split(".")
    last = steps[-1] if steps[0].lower() == "json" else whole
    if len(steps) > 1 and any(steps[-1].lower() in f for f in FAMILIES.values()):
        last = "_".join(steps[:-1])  # seg.png
    masks = {f"{name}_mask" for name in taken} | {name.removesuffix("_mask") for name in taken}
    choices = [*([family] if len(steps) == 1 else []), last, whole]
    free = [name for name in choices if name and name not in taken and name not in masks]
    return free[0] if free else f"{whole}_{len(taken)}"


def _guess(values: list[Any], limits: Limits) -> dict[str, Any] | None:
    """Options for values of which most are of one kind; `None` if that is not known."""
    kinds = [_kind(value) for value in values]
    if set(kinds) == {"int", "float"}:
        kinds = ["float"] * len(kinds)
    kind, _ = collections.Counter(kinds).most_common(1)[0]
    alike = [value for value, k in zip(values, kinds, strict=True) if k == kind]
    if kind == "image":
        return _guess_image(alike)
    if kind == "audio":
        return _guess_audio(alike)
    if kind in ("npy", "floats"):
        return _guess_array(alike, limits)
    if kind == "text":
        sizes = [len(v if isinstance(v, bytes) else v.encode("utf-8", "replace")) for v in alike]
        return {"decode": "text", "length": _power(sizes, 32, 512)}
    if kind == "texts":
        return {"decode": "text", "length": _power([len(", ".join(v)) for v in alike], 32, 512)}
    if kind == "tokens":
        return {"decode": "tokens", "length": _power(list(map(len, alike)), 8, 1024)}
    if kind == "bool":
        return {"decode": "number", "dtype": "bool"}
    if kind == "int":
        small = all(-(2**31) <= int(value) < 2**31 for value in alike)
        return {"decode": "number", "dtype": "int32" if small else "float32"}
    return {"decode": "number", "dtype": "float32"} if kind == "float" else None


def _kind(value: Any) -> str | None:
    if isinstance(value, bool | np.bool_):
        return "bool"
    if isinstance(value, int | np.integer):
        return "int"
    if isinstance(value, float | np.floating):
        return "float"
    if isinstance(value, str):
        return "text"
    if isinstance(value, bytes):
        return _kind_of_bytes(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list) and value:
        if all(isinstance(x, str) for x in value):
            return "texts"
        if all(isinstance(x, int) and not isinstance(x, bool) for x in value):
            return "tokens"
        if all(isinstance(x, int | float | list) and not isinstance(x, bool) for x in value):
            return "floats"
    return None


def _kind_of_bytes(data: bytes) -> str | None:
    if data.startswith(MAGIC):
        return "npy"
    wave = data[:4] == b"RIFF" and data[8:12] == b"WAVE"
    if wave or data.startswith((b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3")):
        return "audio"
    if _image_header(data) is not None:
        return "image"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    digits = text.strip()
    if digits.isascii() and digits.isdigit() and len(digits) < 10:
        return "int"
    return None if "\0" in text else "text"


def _image_header(data: bytes) -> tuple[tuple[int, int], str] | None:
    """Height and width, and Pillow's mode."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return (image.height, image.width), image.mode
    except MemoryError:
        raise
    except Exception:  # no image, or one that is damaged in its header
        return None


def _guess_image(values: list[bytes]) -> dict[str, Any]:
    headers = [header for value in values if (header := _image_header(value)) is not None]
    sizes = {size for size, _ in headers}
    size = next(iter(sizes)) if len(sizes) == 1 else USUAL_SIZE
    size = size if max(size) <= SAME_SIZE_UP_TO else USUAL_SIZE
    grey = all(mode in ("1", "L", "I;16", "I;16B") for _, mode in headers)
    return {"decode": "image", "size": list(size), "mode": "L" if grey else "RGB"}


def _guess_audio(values: list[bytes]) -> dict[str, Any] | None:
    require_audio()
    import soundfile

    rates, seconds = [], []
    for value in values:
        try:
            with soundfile.SoundFile(io.BytesIO(value)) as file:
                rates.append(file.samplerate)
                seconds.append(file.frames / file.samplerate)
        except soundfile.SoundFileError:
            continue
    if not rates:
        return None
    rate = rates[0] if len(set(rates)) == 1 else 16_000
    return {"decode": "audio", "rate": rate, "seconds": min(max(1, int(-(-max(seconds) // 1))), 10)}


def _guess_array(values: list[Any], limits: Limits) -> dict[str, Any] | None:
    """The commonest shape, and a dtype of 32 bits."""
    arrays = []
    for value in values:
        try:
            is_npy = isinstance(value, bytes)
            arrays.append(
                parse_npy(value, array_bytes=limits.array_bytes) if is_npy else np.asarray(value)
            )
        except (DecodeError, ValueError):
            continue
    shapes = collections.Counter((array.shape, array.dtype) for array in arrays)
    if not shapes:
        return None
    (shape, dtype), _ = shapes.most_common(1)[0]
    if not all(shape) or dtype.kind not in "biuf":
        return None
    narrow = {"float64": "float32", "int64": "int32", "uint64": "uint32"}
    name = dtype.newbyteorder("=").name
    return {"decode": "array", "shape": list(shape), "dtype": narrow.get(name, name)}


def _power(lengths: list[int], low: int, high: int) -> int:
    """The next power of two, within bounds."""
    return min(max(low, 1 << max(0, max(lengths, default=0) - 1).bit_length()), high)
