"""What the parts of a record become: typed fields of set shapes."""

import dataclasses
import difflib
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np

from datarax.sources.decode_array import ArrayDecoder, NumberDecoder, TokensDecoder
from datarax.sources.decode_audio import AudioDecoder
from datarax.sources.decode_image import HAS_SIMPLEJPEG, ImageDecoder
from datarax.sources.decode_text import TextDecoder
from datarax.sources.decoder import Decoder, DecodesInto
from datarax.sources.find_part import find_part
from datarax.sources.limits import Limits
from datarax.sources.record import (
    DecodeError,
    FieldError,
    FieldSkipped,
    RawRecord,
)
from datarax.sources.shard import Shards

logger = logging.getLogger(__name__)

Missing = Literal["error", "skip", "mask", "default"]


DECODERS: dict[str, type] = {
    "image": ImageDecoder,
    "text": TextDecoder,
    "tokens": TokensDecoder,
    "audio": AudioDecoder,
    "array": ArrayDecoder,
    "number": NumberDecoder,
}
PADDED = (TextDecoder, TokensDecoder, AudioDecoder)
COMMON = ("from", "decode", "missing", "default")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """Which part of a record a field is made of, how, and what happens where it lacks.

    Attributes:
      parts: names of parts; the first that a record has is taken. A dotted name is a part itself
        (`seg.png`), or leads into the JSON or the struct of one (`json.keywords`).
      decoder: what makes arrays of it.
      missing: "error" makes it an error of the record, "skip" leaves the record out, "mask" clears
        the field's presence, "default" fills `fallback` in. A JSON null is missing.
      fallback: for `missing="default"`, as the decoder's `default` takes it.
    """

    parts: tuple[str, ...]
    decoder: Decoder
    missing: Missing = "error"
    fallback: Any = None

    def __post_init__(self) -> None:
        if not self.parts or not all(isinstance(part, str) and part for part in self.parts):
            raise ValueError(f"from must name at least one part, got {list(self.parts)}")
        if self.missing not in get_args(Missing):
            options = list(get_args(Missing))
            raise ValueError(f"missing must be one of {options}, got {self.missing!r}")
        if (self.missing == "default") != (self.fallback is not None):
            raise ValueError(
                f"default = {self.fallback!r} with missing = {self.missing!r}: "
                'give default with missing = "default", and only then'
            )
        if self.fallback is not None:
            try:
                self.decoder.default(self.fallback)
            except DecodeError as error:
                raise ValueError(f"default = {self.fallback!r} cannot be used: {error}") from error

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> "Field":
        """A field from its options, as in a TOML file.

        Raises:
          ValueError: for an option that the decoder does not have, lacks, or cannot be.
        """
        decode = options.get("decode")
        if not isinstance(decode, str) or decode not in DECODERS:
            near = difflib.get_close_matches(str(decode), DECODERS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"decode must be one of {list(DECODERS)}, got {decode!r}{hint}")
        maker = DECODERS[decode]
        known = [option.name for option in dataclasses.fields(maker)]
        for name in options:
            _check_name(name, [*COMMON, *known], f"a field with decode = {decode!r}")
        given = {name: _tuple(options[name]) for name in known if name in options}
        needed = [o.name for o in dataclasses.fields(maker) if o.default is dataclasses.MISSING]
        for name in [n for n in ("from", *needed) if n not in options]:
            raise ValueError(f"a field with decode = {decode!r} needs {name}")
        parts = options["from"]
        if not isinstance(parts, str | list | tuple):
            raise ValueError(f"from must be a name or a list of names, got {parts!r}")
        return cls(
            parts=(parts,) if isinstance(parts, str) else tuple(parts),
            decoder=maker(**given),
            missing=options.get("missing", "error"),
            fallback=options.get("default"),
        )

    def options(self) -> dict[str, Any]:
        """What `from_mapping` makes the same field of."""
        decode = next(name for name, maker in DECODERS.items() if isinstance(self.decoder, maker))
        parts: Any = self.parts[0] if len(self.parts) == 1 else self.parts
        made = {"from": parts, "decode": decode, **dataclasses.asdict(self.decoder)}
        if self.missing != "error":
            made["missing"] = self.missing
        if self.fallback is not None:
            made["default"] = self.fallback
        return made


@dataclasses.dataclass(frozen=True)
class Fields:
    """A record's fields by name. Text, tokens and audio bring a mask, `<name>_mask`.

    Attributes:
      fields: by name, in order.
      limits: on what the parts may ask for.

    Raises:
      ValueError: for no fields, a name that is empty or has a dot, or is another field's mask.

    Example:
      >>> fields = Fields.from_mapping({"n": {"from": "json.a", "decode": "number"}})
      >>> fields.read(RawRecord("0", {"json": b'{"a": 3}'}))
      {'n': array(3., dtype=float32)}
      >>> print(fields)
      n = {from = "json.a", decode = "number", dtype = "float32"}
    """

    fields: Mapping[str, Field]
    limits: Limits = dataclasses.field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.fields:
            raise ValueError("a record needs at least one field")
        for name in self.fields:
            if not name or "." in name:
                raise ValueError(f"a field's name must not be empty or have dots, got {name!r}")
        masks = {f"{name}_mask" for name, field in self.fields.items() if _is_masked(field)}
        if taken := sorted(masks & self.fields.keys()):
            raise ValueError(f"{taken} are the masks of other fields: choose other names")

    @classmethod
    def from_mapping(
        cls, mapping: Mapping[str, Mapping[str, Any]], *, limits: Limits | None = None
    ) -> "Fields":
        """Fields from their options, as in a TOML file.

        Raises:
          ValueError: for a field or option that cannot be, naming the field.
        """
        made = {}
        for name, options in mapping.items():
            if not isinstance(options, Mapping):
                raise ValueError(f"field {name!r}: expected a table of options, got {options!r}")
            try:
                made[name] = Field.from_mapping(options)
            except ValueError as error:
                raise ValueError(f"field {name!r}: {error}") from error
        return cls(made, limits or Limits())

    @classmethod
    def infer(cls, shards: Shards, *, limits: Limits | None = None) -> "Fields":
        """What a sample of the records suggests; see `field_inference.infer_options`. It is logged.

        Raises:
          ValueError: if they suggest nothing.
        """
        from datarax.sources.field_inference import infer_options

        chosen = limits or Limits()
        made = cls.from_mapping(infer_options(shards, limits=chosen), limits=chosen)
        logger.info("fields, inferred from a sample of the records:\n%s", made)
        return made

    def read(self, raw: RawRecord) -> dict[str, np.ndarray]:
        """A record's fields. One that lacks, with `missing="mask"`, is not in the dict.

        Raises:
          FieldError: if one lacks that must be there, or cannot be read.
          FieldSkipped: if one lacks without which the record is to be left out.
        """
        made: dict[str, np.ndarray] = {}
        parsed: dict[str, Any] = {}
        for name in self.fields:
            arrays = self._arrays(name, self.fields[name], raw, parsed)
            made |= zip((name, f"{name}_mask"), arrays, strict=False)
        return made

    def writer(self, columns: Mapping[str, np.ndarray]) -> Callable[[int, RawRecord], list[str]]:
        """A function that writes a record into a row of arrays by field, whatever these hold.

        Args:
          columns: for each field and mask of `spec`.

        Returns:
          A function of the row and the record, which gives the fields and masks that the record
          lacks. It raises FieldError as `read` does, and ValueError if a decoder makes something
          else than its spec says; what the row holds then is anything.
        """
        limits, most = self.limits, self.limits.member_bytes
        targets = []
        for field, keys, specs, writer in self._targets:
            own = [columns[key] for key in keys]
            into = None
            if writer is not None and all(map(_fits, own, specs)):
                into = writer(own, limits=limits)
            targets.append((field, field.parts, keys, own, into))

        def write(row: int, raw: RawRecord) -> list[str]:
            parts = raw.parts
            parsed: dict[str, Any] = {}
            lacking: list[str] = []
            for field, names, keys, own, into in targets:
                try:
                    part: Any = parts.get(names[0])
                    if type(part) not in (bytes, str) or len(part) > most:
                        part = find_part(parts, names, parsed=parsed, limits=limits)
                    if part is not None and into is not None:
                        into(row, part)
                    elif part is None and field.missing == "mask":
                        lacking.extend(keys)
                    else:
                        arrays = self._decoded(keys[0], field, raw, part)
                        _write(arrays, own, row, f"record {raw.key!r}: field {keys[0]!r}")
                except DecodeError as error:
                    raise FieldError(keys[0], str(error)) from error
            return lacking

        return write

    @functools.cached_property
    def _targets(self) -> list["_Target"]:
        return [
            _Target(
                field,
                (name, f"{name}_mask") if _is_masked(field) else (name,),
                field.decoder.spec(),
                field.decoder.row_writer if isinstance(field.decoder, DecodesInto) else None,
            )
            for name, field in self.fields.items()
        ]

    def _arrays(
        self, name: str, field: Field, raw: RawRecord, parsed: dict[str, Any]
    ) -> tuple[np.ndarray, ...]:
        """A field, and its mask if it has one; nothing if it lacks and may."""
        try:
            part = find_part(raw.parts, field.parts, parsed=parsed, limits=self.limits)
            if part is None and field.missing == "mask":
                return ()
            return self._decoded(name, field, raw, part)
        except DecodeError as error:
            raise FieldError(name, str(error)) from error

    def _decoded(
        self, name: str, field: Field, raw: RawRecord, part: Any
    ) -> tuple[np.ndarray, ...]:
        """Of a part, or of what stands for one that is `None`."""
        if part is not None:
            return field.decoder.decode(part, limits=self.limits)
        if field.missing == "default":
            return field.decoder.default(field.fallback)
        raise _lacking(name, field, raw)

    def spec(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shape and dtype of every field and mask, the optional ones included."""
        return {
            key: shape
            for name, field in self.fields.items()
            for key, shape in zip((name, f"{name}_mask"), field.decoder.spec(), strict=False)
        }

    @property
    def padded_lengths(self) -> dict[str, tuple[int, ...]]:
        """The lengths that a batch may have, of the fields that are padded to one of several."""
        return {
            name: field.decoder.lengths
            for name, field in self.fields.items()
            if isinstance(field.decoder, PADDED) and len(field.decoder.lengths) > 1
        }

    @property
    def optional(self) -> tuple[str, ...]:
        """The fields, and their masks, that a record may lack."""
        return tuple(
            key
            for name, field in self.fields.items()
            if field.missing == "mask"
            for key in ((name, f"{name}_mask") if _is_masked(field) else (name,))
        )

    def fingerprint(self) -> str:
        """16 hex digits that change with whatever changes a record's arrays.

        The decoder of JPEG is of these: simplejpeg and Pillow differ by a unit here and there.
        """
        images = any(isinstance(field.decoder, ImageDecoder) for field in self.fields.values())
        text = f"{self}\n{self.limits}\n{images and HAS_SIMPLEJPEG}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def __str__(self) -> str:
        """As TOML that `from_mapping` reads."""
        return "\n".join(
            f"{_toml_key(name)} = {_toml(field.options())}" for name, field in self.fields.items()
        )


class _Target(NamedTuple):
    """A field, the names and specs of its arrays, and what makes a function that writes them."""

    field: Field
    keys: tuple[str, ...]
    specs: tuple[jax.ShapeDtypeStruct, ...]
    writer: Callable[..., Callable[[int, Any], None]] | None


def _fits(column: np.ndarray, spec: jax.ShapeDtypeStruct) -> bool:
    return (
        column.flags.c_contiguous and column.shape[1:] == spec.shape and column.dtype == spec.dtype
    )


def _write(
    arrays: Sequence[np.ndarray], columns: Sequence[np.ndarray], row: int, what: str
) -> None:
    for column, array in zip(columns, arrays, strict=True):
        shape, dtype = column.shape[1:], column.dtype
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"{what} is {array.dtype}{list(array.shape)}, its decoder's spec says "
                f"{dtype}{list(shape)}"
            )
        column[row] = array


def _is_masked(field: Field) -> bool:
    return len(field.decoder.spec()) == 2


def _lacking(name: str, field: Field, raw: RawRecord) -> FieldError:
    there = sorted(part for part, value in raw.parts.items() if value is not None)
    kind = FieldSkipped if field.missing == "skip" else FieldError
    return kind(name, f"the record lacks {' and '.join(field.parts)}; it has {there}")


def _check_name(name: str, known: Sequence[str], where: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{where} has no option {name!r}{hint} It has {list(known)}")


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _toml_key(name: str) -> str:
    plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if plain else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml_key(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # what JSON escapes in a text is escaped so in TOML, which refuses pairs of surrogates
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
