"""Whatever happens to the bytes of a record: whole fields, or an error that names one."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datarax.sources.decode_json import parse_json
from datarax.sources.fields import Fields
from datarax.sources.limits import Limits
from datarax.sources.record import DecodeError, FieldError, RawRecord

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")


def saved(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
PICTURE = Image.fromarray(NOISE)
TONE = np.sin(np.arange(800) / 5).astype("f4")
PARTS = {
    **{
        kind: saved(lambda file, kind=kind: PICTURE.save(file, kind))
        for kind in ("png", "jpeg", "webp", "gif", "tiff", "bmp")
    },
    **{
        kind: saved(lambda file, kind=kind: soundfile.write(file, TONE, 8000, format=kind))
        for kind in ("wav", "flac", "ogg", "mp3")
    },
    "npy": saved(lambda file: np.save(file, np.arange(12.0))),
    "txt": "a caption: é€😀".encode(),
    "json": b'{"tokens": [1, 2, 3], "score": 0.5, "deep": {"er": ["x", "y"]}}',
}
IMAGE = {"decode": "image", "size": [8, 8]}
AUDIO = {"decode": "audio", "seconds": 0.1, "rate": 8000}
MAPPING = {
    **{kind: IMAGE | {"from": kind} for kind in ("png", "jpeg", "webp", "gif", "tiff", "bmp")},
    **{kind: AUDIO | {"from": kind} for kind in ("wav", "flac", "ogg", "mp3")},
    "npy": {"from": "npy", "decode": "array", "shape": [12]},
    "txt": {"from": "txt", "decode": "text", "length": 12},
    "tokens": {"from": "json.tokens", "decode": "tokens", "length": 4},
    "score": {"from": "json.score", "decode": "number"},
    "words": {"from": "json.deep.er", "decode": "text", "length": 8, "missing": "mask"},
}
FIELDS = {name: Fields.from_mapping({name: options}) for name, options in MAPPING.items()}


def check(name, data):
    """A record with the part is read as the spec says, or refused in one line."""
    fields = FIELDS[name]
    part = MAPPING[name]["from"].split(".")[0]
    try:
        made = fields.read(RawRecord("k", {part: data}))
    except FieldError as error:
        reason = error.reason
        assert "\n" not in reason
        assert " at 0x" not in reason  # else no two runs would agree
        assert len(reason) < 400
        return
    spec = fields.spec()
    assert made.keys() <= spec.keys()
    for key, array in made.items():
        assert (array.shape, array.dtype) == (spec[key].shape, spec[key].dtype)
        assert array.dtype.kind != "f" or np.isfinite(array).all()


def part_of(name):
    return PARTS[MAPPING[name]["from"].split(".")[0]]


names = st.sampled_from(sorted(MAPPING))


def any_change(name, place, value, end):
    data = bytearray(part_of(name))
    data[place % len(data)] = value
    check(name, bytes(data[: len(data) - end % len(data)]))


changes = given(
    names,
    st.integers(0, 10_000),
    st.integers(0, 255),
    st.one_of(st.just(0), st.just(0), st.integers(0, 10_000)),
)


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@changes
def test_a_changed_byte_or_a_cut_gives_whole_fields_or_an_error(name, place, value, end):
    any_change(name, place, value, end)


@pytest.mark.slow
@settings(max_examples=20_000, derandomize=True, deadline=None, database=None)
@changes
def test_any_changed_byte_or_cut_gives_whole_fields_or_an_error(name, place, value, end):
    any_change(name, place, value, end)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(names, st.binary(max_size=200))
def test_any_bytes_give_whole_fields_or_an_error(name, data):
    check(name, data)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(names, st.binary(max_size=100), st.integers(4, 40))
def test_any_bytes_after_a_true_beginning_do_too(name, data, kept):
    check(name, part_of(name)[:kept] + data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(json_values, st.sampled_from(["tokens", "score", "words"]))
def test_values_of_any_kind_do_too(value, name):
    path = MAPPING[name]["from"].split(".")[1:]
    for step in reversed(path):
        value = {step: value}
    check(name, value)


@settings(max_examples=100, derandomize=True, deadline=None, database=None)
@given(st.text(alphabet='[]{}",:\\0a', max_size=40))
def test_text_like_json_is_parsed_or_refused(text):
    with contextlib.suppress(DecodeError):
        parse_json(text, depth=4)


def test_limits_refuse_each_kind_before_it_is_decoded():
    tight = Limits(pixels=255, audio_seconds=1, array_bytes=95, json_depth=1, member_bytes=10**6)
    for name in ("png", "jpeg", "webp", "gif", "tiff", "bmp", "npy", "words"):
        fields = Fields(FIELDS[name].fields, tight)
        part = MAPPING[name]["from"].split(".")[0]
        with pytest.raises(FieldError, match=r"Limits\.(pixels|array_bytes|json_depth)"):
            fields.read(RawRecord("k", {part: part_of(name)}))
