"""Fields that are padded to one of several lengths: each batch has the shortest that holds it."""

import json

import jax
import numpy as np
import pytest
from pipeline_sources import Marked, pipeline

from datarax.pipeline.pipeline import Pipeline
from datarax.sources import Fields, MixtureSource, SubsetSource
from datarax.sources.record import RawRecord
from datarax.sources.sharded import ShardedSource

TEXTS = ["abc", "a", "abcd", "ab", "abcde", "", "x" * 9, "y" * 30, "ab", "a", "é" * 4, "abc"]
FIELDS = {
    "caption": {"from": "txt", "decode": "text", "length": [4, 8, 24], "missing": "mask"},
    "tokens": {"from": "json.tokens", "decode": "tokens", "length": [2, 6]},
    "note": {"from": "note", "decode": "text", "length": 5, "missing": "mask"},
}


class Texts:
    """Record `i` has the `i`-th text, and a token for each of its bytes; one has no caption."""

    name, faults = "texts", ()

    def __len__(self):
        return len(TEXTS)

    def read(self, row):
        tokens = json.dumps({"tokens": list(range(1, 1 + len(TEXTS[row]) % 7))}).encode()
        parts = {"json": tokens if row != 2 else b"{}"}
        return RawRecord(str(row), parts | ({"txt": TEXTS[row]} if row != 6 else {}))

    def identity(self):
        return "texts"


def texts(**changes):
    named = {name: dict(field) for name, field in FIELDS.items()}
    for name, length in changes.items():
        named[name]["length"] = length
    return ShardedSource([Texts()], fields=Fields.from_mapping(named))


def batches(source=None, **options):
    given = {"batch_size": 2, "seed": 0, "shuffle": False, "threads": 0, **options}
    return [*Pipeline(source or texts(), **given)]


def shapes(found, name="caption"):
    return [batch[name].shape[1] for batch in found]


def test_a_batch_has_the_shortest_length_that_holds_it():
    found = batches(threads=2)
    assert shapes(found) == [4, 4, 8, 24, 4, 8]
    assert shapes(found, "tokens") == [6, 2, 6, 2, 2, 6]
    assert shapes(found, "note") == [5] * 6  # of one length, and in no record
    for fitted, whole in zip(found, batches(fit_lengths=False), strict=True):
        assert shapes([whole]) == [24]
        assert shapes([whole], "tokens") == [6]
        for name in ("caption", "caption_mask", "tokens", "tokens_mask"):
            values = fitted[name]
            assert values.flags["C_CONTIGUOUS"]
            assert np.array_equal(values, whole[name][:, : values.shape[1]])
            assert not whole[name][:, values.shape[1] :].any()
        assert np.array_equal(fitted.valid_mask, whole.valid_mask)


def test_rows_that_are_not_there_need_no_length():
    # row 2 is bad and row 6 has no caption: beside an empty text, the shortest is enough
    assert shapes(batches(SubsetSource(texts(), [2, 6, 5]), batch_size=3)) == [4]
    assert shapes(batches(SubsetSource(texts(), [2]), batch_size=1)) == [4]
    assert shapes(batches(SubsetSource(texts(), [7, 1]))) == [24]  # cut, as a record is


def test_with_several_hosts_the_longest_is_taken():
    parts = [batches(host=host, hosts=2, batch_size=4) for host in (0, 1)]
    assert shapes(parts[0]) == shapes(parts[1]) == [24, 24, 24]
    one = Pipeline(texts(), batch_size=4, seed=0).describe()
    assert "caption       uint8[24]  91 %, padded to 4, 8 or 24" in one
    assert "tokens        int32[6]   always, padded to 2 or 6" in one
    assert "padded" not in Pipeline(texts(), batch_size=4, seed=0, hosts=2, host=0).describe()


def test_a_restored_pipeline_gives_the_same_shapes_and_refuses_other_lengths():
    options = {"batch_size": 2, "seed": 1, "threads": 0}
    whole = Pipeline(texts(), **options)
    next(whole)
    state = json.loads(json.dumps(whole.state()))
    rest = [*whole]
    again = Pipeline(texts(), **options)
    again.restore(state)
    restored = [*again]
    assert len({batch["caption"].shape for batch in restored}) > 1
    jax.tree.map(np.testing.assert_array_equal, restored, rest)
    with pytest.raises(ValueError, match="does not fit"):
        Pipeline(texts(caption=[4, 24]), **options).restore(state)


def test_a_mixture_has_the_lengths_that_all_its_sources_have():
    fewer = texts(caption=[8, 24], tokens=6)
    mixture = MixtureSource({"a": texts(), "b": fewer}, {"a": 1, "b": 1})
    assert mixture.padded_lengths == {"caption": (8, 24)}
    alone = MixtureSource({"a": texts(), "other": Marked(3, prefix="m_")}, {"a": 1, "other": 1})
    assert alone.padded_lengths == {"caption": (4, 8, 24), "tokens": (2, 6)}
    found = batches(alone)
    assert {4, 8, 24} >= set(shapes(found)) > {24}


def test_sounds_have_seconds():
    pytest.importorskip("soundfile")
    field = {"from": "wav", "decode": "audio", "rate": 100, "seconds": [0.5, 2]}
    fields = Fields.from_mapping({"sound": field})
    assert fields.padded_lengths == {"sound": (50, 200)}
    assert fields.spec()["sound"].shape == (200,)
    assert "seconds = [0.5, 2]" in str(fields)
    for seconds in ([], [2, 1], [1, 1.001], [0, 1], ["1"]):
        with pytest.raises(ValueError, match="or several that rise"):
            Fields.from_mapping({"sound": {**field, "seconds": seconds}})


@pytest.mark.parametrize("length", [[], [4, 4], [8, 4], [0, 4], [True, 4], ["4"], [4, 5.0]])
@pytest.mark.parametrize("decode", ["text", "tokens"])
def test_lengths_must_rise(decode, length):
    with pytest.raises(ValueError, match="length must be a positive integer, or several that rise"):
        Fields.from_mapping({"a": {"from": "a", "decode": decode, "length": length}})


class Claims(Marked):
    """A source of lengths that its fields do not have."""

    def __init__(self, lengths):
        super().__init__(4)
        self.padded_lengths = lengths

    def element_spec(self):
        mask = jax.ShapeDtypeStruct((4,), np.bool_)
        wide = jax.ShapeDtypeStruct((4, 3), np.bool_)
        masks = {"caption_mask": mask, "wide": wide, "wide_mask": wide}
        return super().element_spec() | masks


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"caption": (2, 5)}, "must have the length of the last"),
        ({"wide": (2, 4)}, "the mask no other axis"),
        ({"image": (1, 2)}, "'image' and its mask must have"),
        ({"lost": (1, 2)}, "'lost' and its mask must have"),
        ({"id": ()}, "'id' must rise from 1"),
        ({"caption": (0, 4)}, "'caption' must rise from 1"),
        ({"caption": (3, 2, 4)}, "'caption' must rise from 1"),
    ],
)
def test_lengths_that_a_field_cannot_have_are_refused(lengths, message):
    with pytest.raises(ValueError, match=message):
        pipeline(Claims(lengths))
    assert pipeline(Claims(lengths), fit_lengths=False)
