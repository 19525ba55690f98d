import dataclasses
import io
import json
import pickle
import tomllib
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from PIL import Image

from datarax.sources.fields import Field, Fields
from datarax.sources.find_part import find_part
from datarax.sources.limits import Limits
from datarax.sources.record import FieldError, FieldSkipped, RawRecord

TOML = """
image = {from = ["png", "jpg"], decode = "image", size = [4, 6], mode = "L"}
caption = {from = "txt", decode = "text", length = 8, missing = "mask"}
tokens = {from = "json.tokens", decode = "tokens", length = 3, missing = "skip"}
score = {from = "json.a.score", decode = "number", missing = "default", default = 2.5}
emb = {from = "npy", decode = "array", shape = [2], dtype = "float32", missing = "mask"}
"""


def png(value):
    file = io.BytesIO()
    Image.new("L", (6, 4), value).save(file, "PNG")
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def record(**changes):
    parts = {
        "png": png(7),
        "txt": b"hello",
        "json": json.dumps({"tokens": [1, 2], "a": {"score": 0.5}}).encode(),
        "npy": npy(np.array([3.0, 4.0])),
    }
    return RawRecord("k", parts | changes)


def fields(**changes):
    return Fields.from_mapping(tomllib.loads(TOML) | changes)


def test_a_whole_record_is_read_as_its_spec_says():
    made = fields().read(record())
    spec = fields().spec()
    assert list(made) == list(spec)
    for name, array in made.items():
        assert (array.shape, array.dtype) == (spec[name].shape, spec[name].dtype)
    assert (made["image"] == 7).all()
    assert bytes(made["caption"][made["caption_mask"]]) == b"hello"
    assert made["tokens"].tolist() == [1, 2, 0]
    assert made["tokens_mask"].tolist() == [True, True, False]
    assert made["score"] == 0.5
    assert made["emb"].tolist() == [3, 4]


def test_the_first_part_that_is_there_is_taken():
    assert (fields().read(record(jpg=png(9)))["image"] == 7).all()
    assert (fields().read(record(png=None, jpg=png(9)))["image"] == 9).all()


def test_a_masked_field_that_lacks_is_not_there():
    assert fields().optional == ("caption", "caption_mask", "emb")
    made = fields().read(record(txt=None, npy=None))
    assert set(fields().spec()) - set(made) == {"caption", "caption_mask", "emb"}


def test_a_field_that_lacks_is_an_error_a_skip_or_a_default():
    with pytest.raises(FieldError, match=r"image: the record lacks png and jpg; it has \['json'"):
        fields().read(record(png=None))
    with pytest.raises(FieldSkipped, match=r"tokens: the record lacks json\.tokens"):
        fields().read(record(json=b'{"tokens": null}'))
    made = fields().read(record(json=b'{"tokens": []}'))
    assert made["score"] == 2.5
    assert not made["tokens_mask"].any()


def test_what_cannot_be_read_is_an_error_whatever_the_policy_of_absence():
    for part, data, field in [
        ("png", b"no", "image"), ("txt", b"\xff", "caption"), ("json", b"{", "tokens"),
        ("json", b'{"tokens": [1], "a": {"score": "x"}}', "score"), ("npy", b"", "emb"),
        ("json", b'{"tokens": [1], "a": [2]}', "score"),
    ]:  # fmt: skip
        with pytest.raises(FieldError) as caught:
            fields().read(record(**{part: data}))
        assert not isinstance(caught.value, FieldSkipped)
        assert caught.value.field == field
        assert "\n" not in caught.value.reason


def test_parts_are_exact_names_before_paths():
    caption = {"from": "a.b", "decode": "text", "length": 4}
    reads = Fields.from_mapping({"x": caption}).read
    for parts in (
        {"a.b": b"hit", "a": b'{"b": "miss"}'},
        {"a": b'{"b": "hit"}'},
        {"a": {"b": "hit"}},
        {"a.b": bytearray(b"hit")},
        {"a.b": memoryview(b"hit")},
    ):
        made = reads(RawRecord("k", parts))
        assert bytes(made["x"][made["x_mask"]]) == b"hit"


def test_json_of_a_record_is_parsed_once():
    parsed = {"json": {"a": 5}}
    assert find_part({"json": b"{"}, ["json.a"], parsed=parsed, limits=Limits()) == 5
    parsed = {}
    find_part({"json": b'{"a": 6}'}, ["json.a"], parsed=parsed, limits=Limits())
    assert parsed == {"json": {"a": 6}}


def test_bytes_are_limited_before_they_are_decoded():
    small = Fields(fields().fields, Limits(member_bytes=20))
    with pytest.raises(FieldError, match=r"image: png has \d+ bytes, at most 20 \(Limits"):
        small.read(record())
    tokens = Fields.from_mapping(
        {"t": {"from": "json.tokens", "decode": "tokens"}}, limits=Limits(member_bytes=20)
    )
    with pytest.raises(FieldError, match=r"t: json has \d+ bytes, at most 20"):
        tokens.read(record())


@pytest.mark.parametrize("name", ["weird name", "é", 'quo"te', "back\\slash", "tab\t", "del\x7f"])
def test_str_is_toml_of_the_same_fields(name):
    caption = {"from": [name, "b"], "decode": "text", "missing": "default", "default": 'a "b"\n😀'}
    made = fields(**{name: caption})
    again = Fields.from_mapping(tomllib.loads(str(made)))
    assert again == made
    assert again.fingerprint() == made.fingerprint()


CHANGES = [
    {"score": {"from": "json.score", "decode": "number"}},
    {"caption": {"from": "txt", "decode": "text", "length": 8}},
    {"caption": {"from": "txt", "decode": "text", "length": 9, "missing": "mask"}},
    {"image": {"from": ["jpg", "png"], "decode": "image", "size": [4, 6], "mode": "L"}},
    {"image": {"from": ["png", "jpg"], "decode": "image", "size": [6, 4], "mode": "L"}},
]


def test_the_fingerprint_changes_with_every_option_and_limit():
    all_fields = [fields(), *(fields(**change) for change in CHANGES)]
    all_fields.append(Fields(fields().fields, Limits(pixels=5)))
    prints = [f.fingerprint() for f in all_fields]
    assert len(set(prints)) == len(prints)
    assert fields().fingerprint() == prints[0]
    assert all(len(p) == 16 for p in prints)


def test_the_fingerprint_tells_the_decoders_of_jpeg_apart(monkeypatch):
    monkeypatch.setattr("datarax.sources.fields.HAS_SIMPLEJPEG", True)
    images, text = fields(), Fields.from_mapping({"a": TEXT})
    with_simplejpeg = images.fingerprint(), text.fingerprint()
    monkeypatch.setattr("datarax.sources.fields.HAS_SIMPLEJPEG", False)
    assert images.fingerprint() != with_simplejpeg[0]
    assert text.fingerprint() == with_simplejpeg[1]


def test_fields_travel_to_other_processes():
    again = pickle.loads(pickle.dumps(fields()))
    assert again == fields()
    assert again.read(record())["score"] == 0.5


def test_many_threads_read_what_one_does():
    records = [record(png=png(i), txt=f"#{i}".encode()) for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(fields().read, records))
    for i, made in enumerate(together):
        assert (made["image"] == i).all()
        assert bytes(made["caption"][made["caption_mask"]]) == f"#{i}".encode()


TEXT = {"from": "txt", "decode": "text"}


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        ({}, "at least one field"),
        ({"a": "txt"}, "field 'a': expected a table of options, got 'txt'"),
        ({"a": {"from": "txt"}}, r"decode must be one of \['image', .*, got None"),
        ({"a": TEXT | {"decode": "txt"}}, "got 'txt'"),
        ({"a": TEXT | {"decode": ["text"]}}, r"got \['text'\]"),
        ({"a": TEXT | {"from": ["a", 3]}}, "at least one part, got"),
        ({"a": TEXT | {"lenght": 3}}, "field 'a': .* no option 'lenght'; did you mean 'length'"),
        ({"a": TEXT | {"size": [1, 1]}}, "decode = 'text' has no option 'size'"),
        ({"a": {"decode": "text"}}, "needs from"),
        ({"a": {"from": "png", "decode": "image"}}, "needs size"),
        ({"a": {"from": "npy", "decode": "array"}}, "needs shape"),
        ({"a": TEXT | {"from": []}}, "at least one part, got"),
        ({"a": TEXT | {"from": [""]}}, "at least one part, got"),
        ({"a": TEXT | {"from": 3}}, "from must be a name or a list of names, got 3"),
        ({"a": TEXT | {"missing": "drop"}}, "missing must be one of .*, got 'drop'"),
        ({"a": TEXT | {"missing": "default"}}, "give default with missing"),
        ({"a": TEXT | {"default": "x"}}, "give default with missing"),
        ({"a": TEXT | {"missing": "default", "default": 3}}, "default = 3 cannot be used"),
        ({"a": TEXT | {"length": 0}}, "length must be"),
        ({"a.b": TEXT}, "must not be empty or have dots, got 'a.b'"),
        ({"": TEXT}, "must not be empty"),
        ({"a": TEXT, "a_mask": TEXT}, r"\['a_mask'\] are the masks of other fields"),
    ],
)
def test_options_are_refused_with_the_field_and_the_choices(mapping, reason):
    with pytest.raises(ValueError, match=reason):
        Fields.from_mapping(mapping)


@dataclasses.dataclass(frozen=True)
class Loose:
    """A decoder that makes something else than its spec says."""

    made: np.ndarray

    def decode(self, part, *, limits):
        return (self.made,)

    def default(self, value):
        return (self.made,)

    def spec(self):
        return (jax.ShapeDtypeStruct((3,), np.float32),)


@pytest.mark.parametrize("made", [np.float32(2), np.zeros(3), np.ones(1, np.float32)])
def test_what_does_not_fit_the_spec_is_refused_not_cast(made):
    fields = Fields({"f": Field(parts=("x",), decoder=Loose(np.asarray(made)))})
    with pytest.raises(ValueError, match=r"record 'k': field 'f' is float.*says float32\[3\]"):
        fields.writer({"f": np.zeros((1, 3), np.float32)})(0, RawRecord("k", {"x": 1}))
