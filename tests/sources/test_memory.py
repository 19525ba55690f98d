import jax
import numpy as np
import pytest

from datarax.core.element_batch import Element
from datarax.sources import MemorySource


def records():
    return [
        Element(
            {"a": np.arange(3.0) + i} | ({"b": np.int32(i)} if i % 2 else {}), metadata={"i": i}
        )
        for i in range(4)
    ]


def test_records_come_back_as_given():
    source = MemorySource(records())
    assert len(source) == 4
    for i, record in enumerate(source):
        assert record.data.keys() == records()[i].data.keys()
        np.testing.assert_array_equal(record.data["a"], records()[i].data["a"])
        assert record.metadata == {"i": i}
    with pytest.raises(IndexError, match="record 4 of a source of 4"):
        source[4]


def test_spec_is_the_union_of_fields():
    spec = MemorySource(records()).element_spec()
    assert spec["b"] == jax.ShapeDtypeStruct((), np.int32)
    assert spec["a"].shape == (3,)


def test_take_pairs_fields_of_one_record_and_keeps_the_structure():
    source = MemorySource(records())
    batch = source.take(np.array([2, 1, 1]))
    assert batch["a"][:, 0].tolist() == [2, 1, 1]
    assert batch.presence["b"].tolist() == [False, True, True]
    assert batch.metadata == [{"i": 2}, {"i": 1}, {"i": 1}]
    all_present = source.take(np.array([1, 3]))
    assert set(all_present.presence) == {"b"}


def test_arrays_and_records_are_the_same_source():
    arrays = MemorySource(
        {"a": np.arange(3.0) + np.arange(4)[:, None], "b": np.array([0, 1, 0, 3], np.int32)},
        presence={"b": np.arange(4) % 2 == 1},
    )
    made = MemorySource(records())
    for one, other in zip(arrays, made, strict=True):
        assert jax.tree.map(np.array_equal, one.data, other.data)
        assert one.data.keys() == other.data.keys()


def test_fingerprint_sees_every_value():
    x = np.arange(6.0).reshape(3, 2)
    changed = x.copy()
    changed[2, 1] = 7
    one, same, other = (MemorySource({"x": v}).fingerprint() for v in (x, x.copy(), changed))
    assert one == same != other
    hidden = MemorySource({"x": x}, presence={"x": np.array([True, True, False])})
    assert hidden.fingerprint() != one


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"records": {"a": np.zeros(3), "b": np.zeros(2)}}, "one length"),
        ({"records": {"a": np.zeros((0, 2))}}, "at least 1"),
        ({"records": {}}, "at least 1"),
        ({"records": {"a": np.zeros(3)}, "presence": {"b": np.ones(3, bool)}}, "names no field"),
        ({"records": {"a": np.zeros(3)}, "presence": {"a": np.ones(2, bool)}}, "one length"),
        ({"records": {"a": np.zeros(3)}, "metadata": [{}]}, "one length"),
        ({"records": [Element({"a": np.zeros(1)})], "presence": {}}, "go with a dict"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        MemorySource(**arguments)


def test_elements_are_kept_as_they_are():
    source = MemorySource([Element({"x": np.array([2**40 + 7])}), Element({"x": np.array([1])})])
    assert source[0].data["x"].tolist() == [2**40 + 7]
    with pytest.raises(ValueError, match="holds no states"):
        MemorySource([Element({"x": np.ones(1)}, {"s": np.ones(1)})])
    with pytest.raises(ValueError, match=r"nested \['a'\]"):
        MemorySource([Element({"a": {"b": np.ones(1)}})])
