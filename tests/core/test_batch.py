"""B11: the record, the batch, and what a call keeps of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import Batch, CrossModalOperator, Element, split_index

from .examples import FusionOperator, Identity, Noisy, arrays, config, records, stochastic

ROWS = [
    Element({"a": np.ones(2, np.float32), "b": np.full(3, 5, np.uint8)}, metadata={"key": "x"}),
    Element({"a": np.zeros(2, np.float32)}),
    Element({"a": np.ones(2, np.float32), "b": np.zeros(3, np.uint8)}),
]


def test_from_elements_stacks():
    batch = Batch.from_elements([ROWS[0], ROWS[2]])
    assert batch["a"].tolist() == [[1, 1], [1, 1]]
    assert batch["b"].dtype == jnp.uint8
    assert (batch.batch_size, batch.presence, batch.valid_mask) == (2, {}, None)
    assert isinstance(batch["a"], jax.Array)


def test_a_field_that_a_record_lacks():
    batch = Batch.from_elements(ROWS)
    assert batch["b"].tolist() == [[5, 5, 5], [0, 0, 0], [0, 0, 0]]
    assert {n: m.tolist() for n, m in batch.presence.items()} == {"b": [True, False, True]}
    assert batch.metadata == [{"key": "x"}, {}, {}]
    assert Batch.from_elements(ROWS[1:]).metadata is None


def test_optional_fields_always_have_an_entry():
    batch = Batch.from_elements([ROWS[0]], optional=["b"])
    assert batch.presence["b"].tolist() == [True]
    with pytest.raises(ValueError, match=r"optional names no field: \['c'\]; give spec"):
        Batch.from_elements(ROWS, optional=["c"])


def test_a_spec_gives_the_shape_of_what_no_record_has():
    spec = {"a": jax.ShapeDtypeStruct((2,), np.float32), "c": jax.ShapeDtypeStruct((4,), np.int32)}
    batch = Batch.from_elements(ROWS[1:2], spec=spec)
    assert batch["c"].shape == (1, 4)
    assert batch["c"].dtype == jnp.int32
    assert batch.presence["c"].tolist() == [False]
    assert list(batch) == ["a", "c"]


def test_nested_fields_that_are_missing():
    rows = [
        Element({"audio": {"a": np.ones(2), "b": np.ones(1)}}),
        Element({"audio": {"a": np.ones(2)}}),
    ]
    batch = Batch.from_elements(rows)
    assert batch["audio.b"].shape == (2, 1)
    assert list(batch.presence) == ["audio.b"]


def test_states_are_stacked():
    rows = [Element({"a": np.ones(1)}, {"n": np.int32(i)}) for i in range(3)]
    assert Batch.from_elements(rows).states["n"].tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="records carry different states"):
        Batch.from_elements([rows[0], Element({"a": np.ones(1)}, {"m": np.int32(0)})])


@pytest.mark.parametrize(
    ("other", "told"),
    [(np.ones(3, np.float32), r"row 1 \(3,\) float32"), (np.ones(2, np.int32), r"\(2,\) int32")],
)
@pytest.mark.parametrize("more", [{}, {"b": np.ones(1)}])
def test_records_that_differ(other, told, more):
    with pytest.raises(ValueError, match=rf"field 'a' differs.*row 0 \(2,\) float32, .*{told}"):
        Batch.from_elements([ROWS[1], Element({"a": other, **more})])


def test_no_records():
    with pytest.raises(ValueError, match="at least one element"):
        Batch.from_elements([])


def test_a_list_of_elements_is_no_batch():
    with pytest.raises(TypeError, match=r"use Batch\.from_elements"):
        Batch(ROWS)


DATA = {"a": np.zeros((4, 2), np.float32)}
WRONG = [
    ({"data": {"a": [1, 2]}}, TypeError, "got int 1: stack records with Batch.from_elements"),
    ({"data": {"a": ["x"]}}, TypeError, "got str 'x'"),
    ({"data": {**DATA, "b": np.zeros(3)}}, ValueError, r"a \[4, 2\], b \[3\]"),
    ({"data": {"a": np.float32(1)}}, (TypeError, ValueError), "batch on axis 0"),
    ({"data": {"a": np.zeros(())}}, ValueError, "share the batch on axis 0"),
    ({"states": {"n": np.zeros(2)}}, ValueError, r"a \[4, 2\], n \[2\]"),
    ({"valid_mask": np.ones(4)}, TypeError, "valid_mask must be a bool array, got float64"),
    ({"valid_mask": [True] * 4}, TypeError, "valid_mask must be a bool array, got list"),
    ({"valid_mask": np.ones(3, bool)}, ValueError, r"valid_mask must have shape \[4\], got \[3\]"),
    ({"valid_mask": np.ones((4, 1), bool)}, ValueError, r"must have shape \[4\], got \[4, 1\]"),
    ({"presence": {"z": np.ones(4, bool)}}, ValueError, r"no field: 'z'; the batch has \['a'\]"),
    ({"presence": {"a": np.ones(4)}}, TypeError, "presence of 'a' must be a bool array"),
    ({"record_index": np.arange(4)}, TypeError, "record_index must be uint32, got int64.*split_i"),
    ({"record_index": np.arange(3, dtype=np.uint32)}, ValueError, r"\[4\] or \[4, 2\], got \[3\]"),
    ({"epoch": np.int64(1)}, TypeError, "epoch must be uint32, got int64"),
    ({"epoch": True}, TypeError, "epoch must be uint32, got bool"),
    ({"epoch": np.zeros(2, np.uint32)}, ValueError, r"epoch must be a scalar, got shape \(2,\)"),
    ({"metadata": [{}]}, ValueError, "metadata has 1 rows, the batch 4"),
]


@pytest.mark.parametrize(("parts", "error", "told"), WRONG, ids=[repr(w[0])[:40] for w in WRONG])
def test_from_parts_refuses(parts, error, told):
    parts = dict(parts)
    data = parts.pop("data", DATA)
    with pytest.raises(error, match=told):
        Batch.from_parts(data, **parts)
    Batch.from_parts(data, **parts, validate=False)


def test_from_parts_copies_nothing():
    data, presence = {"a": jnp.zeros((2, 1))}, {"a": jnp.ones(2, bool)}
    batch = Batch.from_parts(data, presence=presence, epoch=3)
    assert batch["a"] is data["a"]
    presence.clear()
    assert list(batch.presence) == ["a"]
    assert batch.epoch == np.uint32(3)
    assert batch.epoch.dtype == np.uint32


def test_record_numbers():
    index = np.array([5, 2**32 + 5, 3 * 2**32], np.int64)
    assert split_index(index).tolist() == [[0, 5], [1, 5], [3, 0]]
    assert split_index(index).dtype == np.uint32
    for good in (np.arange(6, dtype=np.uint32), split_index(np.arange(6))):
        assert records(record_index=good).record_index is good


def test_fields():
    batch = Batch.from_parts({"x": np.zeros(2), "t": {"u": np.ones(2)}, "t.v": np.zeros(2)})
    assert list(batch) == ["x", "t", "t.v"]
    assert "t.u" in batch
    assert "t.v" in batch
    assert "t.w" not in batch
    assert 3 not in batch
    assert batch["t.u"].sum() == 2
    with pytest.raises(KeyError, match=r"\['y'\].*\['t.u', 't.v', 'x'\]"):
        batch["y"]
    exact = Batch.from_parts({"t": {"v": np.ones(2)}, "t.v": np.zeros(2)})
    assert exact["t.v"].sum() == 0


def test_replace():
    batch = records()
    assert batch.replace(epoch=np.uint32(1)).epoch == 1
    assert batch.epoch is None
    with pytest.raises(TypeError):
        batch.replace(unknown=1)


def test_get_element():
    batch = records(
        valid_mask=np.arange(6) < 5,
        presence={"text": np.arange(6) > 0},
        record_index=np.arange(6, dtype=np.uint32),
        metadata=[{"key": i} for i in range(6)],
    )
    element = batch.get_element(5)
    np.testing.assert_array_equal(element.data["image"], batch["image"][5])
    assert element.metadata == {
        "key": 5,
        "valid": False,
        "presence": {"text": True},
        "record_index": 5,
    }
    assert batch.get_element(-1).metadata["key"] == 5
    assert records().get_element(0).metadata is None
    for index in (6, -7):
        with pytest.raises(IndexError, match=rf"row {index} of a batch of 6"):
            batch.get_element(index)


def test_mean():
    values = jnp.asarray([1.0, 2.0, 4.0, np.nan])
    batch = Batch.from_parts({"x": values}, valid_mask=jnp.arange(4) < 3)
    assert batch.mean("x") == pytest.approx(7 / 3)
    batch = batch.replace(presence={"x": jnp.asarray([True, False, True, True])})
    assert batch.mean("x") == pytest.approx(2.5)
    gradient = jax.grad(lambda x: batch.replace(data={"x": x}).mean("x"))(values)
    assert gradient.tolist() == [0.5, 0, 0.5, 0]
    assert Batch.from_parts({"x": jnp.asarray([1.0, 3.0])}).mean("x") == 2


def test_mean_of_other_shapes_and_dtypes():
    batch = records(valid_mask=jnp.arange(6) < 2)
    np.testing.assert_allclose(batch.mean("image"), batch["image"][:2].mean(0), rtol=1e-6)
    half = Batch.from_parts({"x": jnp.ones(4, jnp.bfloat16), "n": jnp.arange(4)})
    assert half.mean("x").dtype == jnp.float32
    assert half.mean("n") == 1.5
    none = records(valid_mask=jnp.zeros(6, bool))
    assert none.mean("image").tolist() == [0, 0, 0]
    assert records(0).mean("image").tolist() == [0, 0, 0]


def test_mean_sees_the_presence_of_the_tree():
    data = {"t": {"u": jnp.asarray([1.0, np.nan])}}
    batch = Batch.from_parts(data, presence={"t": jnp.asarray([True, False])})
    assert batch.mean("t.u") == 1


def test_a_batch_is_a_pytree():
    batch = records(valid_mask=np.ones(6, bool), metadata=[{}] * 6)
    leaves, treedef = jax.tree.flatten(batch)
    assert len(leaves) == 3
    back = jax.tree.unflatten(treedef, leaves)
    assert isinstance(back, Batch)
    assert back.metadata is None
    assert not isinstance(batch, nnx.Module | nnx.Pytree)
    other = records(valid_mask=np.ones(6, bool), metadata=[{"a": 1}] * 6)
    assert jax.tree.structure(other) == treedef
    element = Element({"a": jnp.ones(2)}, {}, {"key": 1})
    assert jax.tree.map(lambda x: x, element).metadata is None


def test_the_annotation():
    def f(batch: Batch[Element]) -> Batch[Element]:
        return batch

    assert f.__annotations__["batch"].__args__ == (Element,)


def test_metadata_is_carried_eagerly_and_dropped_at_jit():
    op, traced = FusionOperator(config()), []
    step = jax.jit(lambda b: traced.append(1) or op(b))
    for key in "ab":
        batch = records(metadata=[{"key": key}] * 6)
        assert op(batch).metadata is batch.metadata
        assert step(batch).metadata is None
    assert len(traced) == 1


KEPT = ("valid_mask", "record_index", "epoch", "metadata")


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_a_call_keeps_the_batch(strategy):
    batch = records(
        states={"n": jnp.arange(6)},
        valid_mask=jnp.arange(6) < 5,
        presence={"text": jnp.arange(6) > 0},
        record_index=jnp.arange(6, dtype=jnp.uint32),
        epoch=jnp.uint32(3),
        batch_state={"t": jnp.ones(())},
        metadata=[{"key": i} for i in range(6)],
    )
    op = FusionOperator(config(batch_strategy=strategy))
    for out in (op(batch), op.apply_batch(batch)):
        assert all(getattr(out, name) is getattr(batch, name) for name in KEPT)
        assert out.presence["text"] is batch.presence["text"]
        assert out.states["n"] is batch.states["n"]
        assert out.batch_state["t"] is batch.batch_state["t"]
    jitted = nnx.jit(lambda op, b: op(b))(op, batch)
    for name in KEPT[:3]:
        np.testing.assert_array_equal(getattr(jitted, name), getattr(batch, name))


EMPTY = {
    "eager": lambda op, b: op(b),
    "apply_batch": lambda op, b: op.apply_batch(b),
    "nnx.jit": nnx.jit(lambda op, b: op(b)),
}


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
@pytest.mark.parametrize("call", EMPTY.values(), ids=EMPTY)
def test_an_empty_batch(call, strategy):
    parts = {
        "valid_mask": jnp.zeros(0, bool),
        "record_index": jnp.zeros(0, jnp.uint32),
        "epoch": jnp.uint32(1),
    }
    op = FusionOperator(config(batch_strategy=strategy))
    out = call(op, records(0, **parts))
    assert out["joint"].shape == (0, 3)
    assert out.presence["joint"].shape == (0,)
    assert (out.batch_size, out.record_index.shape, out.epoch) == (0, (0,), 1)
    noisy = Noisy(stochastic(batch_strategy=strategy), rngs=nnx.Rngs(0, noise=1))
    for batch in (records(0), records(0, **parts)):
        assert call(noisy, batch)["joint"].shape == (0,)


def test_an_empty_batch_with_statistics():
    def never(data):
        assert data["image"].shape[0] > 0
        return {"mean": data["image"].mean()}

    out = Identity(config(batch_stats_fn=never))(records(0))
    assert set(out) == {"image", "text"}


def test_nested_fields_are_read_and_written():
    op = FusionOperator(config("audio.a", "text", out=["audio.joint", "new.deep.joint"][:1]))
    data = {"audio": {"a": jnp.ones((2, 3)), "b": jnp.zeros((2, 1))}, "text": jnp.ones((2, 3))}
    out = op(Batch.from_parts(data))
    assert out["audio.joint"].tolist() == [[2] * 3] * 2
    assert set(out["audio"]) == {"a", "b", "joint"}
    assert out["audio.a"] is data["audio"]["a"]
    exact = FusionOperator(config("x.y", out=["x.y"]))
    got = exact(Batch.from_parts({"x.y": jnp.ones((2, 1))}))
    assert list(got) == ["x.y"]


def test_writing_through_an_array():
    op = FusionOperator(config(out=["image.joint"]))
    with pytest.raises(ValueError, match="cannot write field 'joint' into a"):
        op(records())


def test_the_names_of_the_page_are_there():
    for name in ("_extract_inputs", "_store_outputs", "_vmap_apply"):
        assert callable(getattr(CrossModalOperator, name))
    assert FusionOperator(config())._computed_stats is None
    op, batch = FusionOperator(config()), records()
    mapped = op._vmap_apply(batch, None, None)
    np.testing.assert_allclose(mapped["joint"], op(batch)["joint"], rtol=1e-6)
    assert arrays()["image"].shape == (6, 3)


def test_states_that_are_arrays_are_stacked():
    rows = [Element({"x": np.ones(2)}, np.full(2, i, np.float32)) for i in range(3)]
    assert Batch.from_elements(rows).states.tolist() == [[0, 0], [1, 1], [2, 2]]
    rows = [Element({"x": np.ones(2)}, np.float32(0)) for _ in range(3)]
    assert Batch.from_elements(rows).states.shape == (3,)
    with pytest.raises(TypeError, match="must be a dict of fields"):
        Batch.from_elements([Element((np.ones(2),))])
