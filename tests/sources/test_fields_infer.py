import io
import json
import logging

import numpy as np
import pytest
from PIL import Image

from datarax.sources.field_inference import sampled
from datarax.sources.fields import Fields
from datarax.sources.record import Fault, RawRecord, RecordError
from datarax.sources.shard import Shards


class Listed:
    """Records from their parts; `None` is one that cannot be read."""

    name, faults = "here", ()

    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records)

    def read(self, row):
        if self.records[row] is None:
            raise RecordError(Fault("here", str(row), row, reason="cut"))
        return RawRecord(str(row), self.records[row])

    def identity(self):
        return "here"


def infer(*records):
    made = Fields.infer(Shards([Listed(records)]))
    return {name: field.options() for name, field in made.fields.items()}, made


def image(mode="RGB", size=(6, 4), kind="PNG"):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def sound(seconds, rate):
    soundfile = pytest.importorskip("soundfile")
    pytest.importorskip("soxr")
    file = io.BytesIO()
    soundfile.write(file, np.zeros(round(seconds * rate), "f4"), rate, format="WAV")
    return file.getvalue()


def test_parts_of_a_tar_become_fields_that_read_them():
    label = json.dumps({"score": 0.5, "keywords": ["a", "b"], "ids": [1, 2, 3], "deep": {"n": 4}})
    parts = {"png": image(), "txt": b"x" * 40, "seg.png": image("L"), "json": label.encode()}
    parts |= {"npy": npy(np.zeros((2, 3))), "cls": b"7\n"}
    options, fields = infer(parts, parts)
    assert options == {
        "image": {
            "from": "png", "decode": "image", "size": (4, 6), "mode": "RGB", "resample": "bicubic",
        },
        "caption": {"from": "txt", "decode": "text", "length": 64},
        "seg": {
            "from": "seg.png", "decode": "image", "size": (4, 6), "mode": "L",
            "resample": "bicubic",
        },
        "score": {"from": "json.score", "decode": "number", "dtype": "float32"},
        "keywords": {"from": "json.keywords", "decode": "text", "length": 32},
        "ids": {"from": "json.ids", "decode": "tokens", "length": 8},
        "n": {"from": "json.deep.n", "decode": "number", "dtype": "int32"},
        "npy": {"from": "npy", "decode": "array", "shape": (2, 3), "dtype": "float32"},
        "cls": {"from": "cls", "decode": "number", "dtype": "int32"},
    }  # fmt: skip
    assert set(fields.read(RawRecord("k", parts))) == set(fields.spec())


def test_columns_of_a_table_keep_their_names():
    row = {"image": image(), "text": "hi", "label": 3, "big": 2**40, "good": True, "x": 0.5}
    row |= {"emb": [0.5, 1.5], "array": np.zeros((2, 2)), "nested": {"a": 1}, "when": object()}
    options, fields = infer(row)
    kinds = {name: (o["from"], o["decode"], o.get("dtype")) for name, o in options.items()}
    assert kinds == {
        "image": ("image", "image", None),
        "text": ("text", "text", None),
        "label": ("label", "number", "int32"),
        "big": ("big", "number", "float32"),
        "good": ("good", "number", "bool"),
        "x": ("x", "number", "float32"),
        "emb": ("emb", "array", "float32"),
        "array": ("array", "array", "float32"),
        "nested_a": ("nested.a", "number", "int32"),
    }
    assert set(fields.read(RawRecord("k", row))) == set(fields.spec())


def test_suffixes_of_one_kind_are_one_field_unless_a_record_has_two():
    options, _ = infer({"png": image()}, {"jpg": image(kind="JPEG")}, {"txt": b"a"})
    assert options["image"]["from"] == ("png", "jpg")
    assert options["image"]["missing"] == options["caption"]["missing"] == "mask"
    options, _ = infer({"png": image(), "jpg": image(kind="JPEG")}, {"png": image()})
    assert [(o["from"], o.get("missing")) for o in options.values()] == [
        ("png", None),
        ("jpg", "mask"),
    ]


def test_sizes_that_differ_or_are_large_become_the_usual_one():
    options, _ = infer({"png": image(size=(300, 2))})
    assert options["image"]["size"] == (224, 224)
    options, _ = infer({"png": image(size=(5, 5))}, {"png": image(size=(5, 6))})
    assert options["image"]["size"] == (224, 224)


def test_numbers_of_which_some_are_whole_are_floats():
    options, _ = infer({"x": 1}, {"x": 0.5}, {"x": 2})
    assert options["x"] == {"from": "x", "decode": "number", "dtype": "float32"}


def test_sounds_take_their_rate_and_the_longest_in_seconds():
    options, _ = infer({"wav": sound(1.2, 8000)}, {"wav": sound(0.5, 8000)})
    assert options == {"audio": {"from": "wav", "decode": "audio", "seconds": 2, "rate": 8000}}
    options, _ = infer({"wav": sound(12, 8000)}, {"wav": sound(0.5, 4000)})
    assert (options["audio"]["seconds"], options["audio"]["rate"]) == (10, 16_000)


def test_bad_records_among_the_first_do_not_count(caplog):
    good = {"png": image(), "json": b'{"n": 1}'}
    with caplog.at_level(logging.INFO):
        options, _ = infer(None, good, {"png": b"\xff\xfe", "json": b"{"}, good)
    assert list(options) == ["image", "n"]
    assert "not looked at: here, record '0': cut" in caplog.text
    assert "not looked at: json of record '2': not JSON" in caplog.text


def test_what_is_inferred_is_logged(caplog):
    with caplog.at_level(logging.INFO):
        _, fields = infer({"n": 1, "other": object()})
    assert str(fields) in caplog.text
    assert "no field is made of ['other']" in caplog.text


def test_names_do_not_collide():
    row = {"json": b'{"a": {"n": 1}, "b": {"n": 2}, "n": 3, "png": "t", "c.d": 4}', "png": image()}
    row |= {"a": "text", "a_mask": 5}
    _, fields = infer(row)
    made = fields.read(RawRecord("k", row))
    numbers = sorted(int(x) for x in made.values() if x.shape == ())
    assert numbers == [1, 2, 3, 4, 5]
    _, fields = infer({"b_mask": 5, "b": "text"})
    assert list(fields.fields) == ["b_mask", "b_1"]


@pytest.mark.parametrize("records", [[None], [{}], [{"x": object()}], [{"x": None}]])
def test_nothing_known_is_refused(records):
    with pytest.raises(
        ValueError, match=r"no fields can be inferred from \d records with .*: give"
    ):
        infer(*records)


def shards_of(*sizes, part=lambda number: {"n": 1}):
    """Shards whose records are numbered through."""
    first, made = 0, []
    for size in sizes:
        made.append(Listed([part(first + row) for row in range(size)]))
        first += size
    return Shards(made)


@pytest.mark.parametrize("completeness", ["early", "late"])
def test_data_sorted_by_what_they_have_are_seen_whole(completeness, caplog):
    def part(number):
        has = (number < 900) == (completeness == "early")
        return {"n": 1} | ({"txt": b"a" * 40} if has else {})

    with caplog.at_level(logging.INFO):
        made = Fields.infer(shards_of(400, 0, 600, part=part))
    assert made.fields["caption"].options() == {
        "from": "txt", "decode": "text", "length": 64, "missing": "mask",
    }  # fmt: skip
    assert "looked at for fields: 64 of 1000 records, spread over 3 shards" in caplog.text


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((5,), [0, 1, 2, 3, 4]),
        ((64,), range(64)),
        ((40, 24), range(64)),
        ((127,), range(0, 127, 2)),
        ((), []),
        ((0, 3, 0), [0, 1, 2]),
        ((1,) * 64, range(64)),
        ((1,) * 127, range(0, 127, 2)),
        ((64,) * 64, range(0, 4096, 64)),
    ],
)
def test_what_is_looked_at(sizes, expected):
    assert sampled(shards_of(*sizes)) == list(expected)


@pytest.mark.parametrize("sizes", [(1000, 1000), (3, 10**4, 0, 70), (7,) * 30, (10**3,) * 100])
def test_what_is_looked_at_is_spread_over_shards_and_rows(sizes):
    shards = shards_of(*sizes)
    found = sampled(shards)
    assert len(set(found)) == len(found) == 64
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, len(shards) - 1)
    by_shard = [
        sum(end - size <= x < end for x in found)
        for end, size in zip(shards.ends, sizes, strict=True)
    ]
    assert sum(count > 0 for count in by_shard) == min(64, sum(size > 0 for size in sizes))
    assert max(by_shard) - min(by_shard) <= 1 or min(sizes) < 7
