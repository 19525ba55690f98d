"""B10: the shapes of what comes out, without real data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax.core import (
    Batch,
    CrossModalOperator,
    DataraxModuleConfig,
    DataSourceModule,
    Element,
    OperatorConfig,
    OperatorModule,
)

from .examples import (
    FusionOperator,
    Identity,
    Noisy,
    PairLoss,
    Queue,
    Shift,
    arrays,
    config,
    counts,
    indexed,
    stochastic,
)


def of(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


SPEC = {"image": of(3), "text": of(3), "label": of(dtype=np.int32)}
NONE = dict.fromkeys(SPEC)


def mean(data):
    return {"mean": data["image"].mean(axis=0)}


class Scored(CrossModalOperator):
    """The page's override, word for word."""

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return self._store_outputs(data, [jnp.float32(1), jnp.float32(0)]), state, metadata

    def get_output_structure(self, sample_data, sample_state):
        out_data = {
            **jax.tree.map(lambda _: None, sample_data),
            "score": None,
            "alignment": None,
        }
        return out_data, sample_state


CASES = {
    "fusion": (lambda: FusionOperator(config()), {"joint": of(3)}),
    "scan": (lambda: FusionOperator(config(batch_strategy="scan")), {"joint": of(3)}),
    "overwrites": (lambda: Noisy(config(out=["text"])), {"text": of()}),
    "identity": (lambda: Identity(config()), {}),
    "statistics": (lambda: Shift(config(batch_stats_fn=mean)), {"joint": of(3)}),
    "precomputed": (
        lambda: Shift(config(precomputed_stats={"mean": np.zeros(3, np.float32)})),
        {"joint": of(3)},
    ),
    "random": (lambda: Noisy(stochastic(), rngs=nnx.Rngs(0, noise=1)), {"joint": of()}),
    "batch-level": (lambda: PairLoss(config()), {"joint": of()}),
    "queue": (lambda: Queue(config()), {"joint": of()}),
    "nested": (lambda: FusionOperator(config(out=["made.deep.joint"])), {"made": {"deep": {}}}),
}


@pytest.mark.parametrize(("make", "new"), CASES.values(), ids=CASES)
def test_output_spec_and_structure(make, new):
    op = make()
    if "made" in new:
        new = {"made": {"deep": {"joint": of(3)}}}
    before = jax.tree.map(np.asarray, op.get_state())
    assert op.output_spec(SPEC) == {**SPEC, **new}
    sample = {n: np.zeros(s.shape, s.dtype) for n, s in SPEC.items()}
    none = {**NONE, **jax.tree.map(lambda _: None, new)}
    for given in (SPEC, sample):
        assert op.get_output_structure(given, {}) == (none, {})
    after = jax.tree.map(np.asarray, op.get_state())
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert counts(op) == (0, 0)


@pytest.mark.parametrize(("make", "new"), CASES.values(), ids=CASES)
def test_the_spec_is_what_comes_out(make, new):
    op = make()
    batch = indexed(4)
    batch = batch.replace(data={**batch.data, "label": np.zeros(4, np.int32)})
    out = op(batch)
    got = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), out.data)
    assert got == op.output_spec(SPEC)


def test_the_base_class_gives_the_spec_itself():
    assert OperatorModule(OperatorConfig()).output_spec(SPEC) is SPEC
    assert CrossModalOperator(config()).output_spec(SPEC) is SPEC


def test_a_spec_that_the_device_holds_narrower_comes_back_as_it_was():
    spec = {"image": of(3), "text": of(3), "wide": of(2, dtype=np.float64)}
    assert Identity(config()).output_spec(spec) == spec
    assert FusionOperator(config()).output_spec(spec) == {**spec, "joint": of(3)}


def test_nested_inputs():
    op = FusionOperator(config("audio.a", "text"))
    spec = {"audio": {"a": of(3), "b": of(2, 2)}, "text": of(3)}
    assert op.output_spec(spec) == {**spec, "joint": of(3)}


def test_a_missing_field_is_named():
    with pytest.raises(KeyError, match=r"\['image', 'text'\]; it has \['sound'\]"):
        FusionOperator(config()).output_spec({"sound": of(3)})


@pytest.mark.parametrize("strategy", ["vmap", "scan"])
def test_the_override_of_the_page(strategy):
    op = Scored(config(out=["score", "alignment"], batch_strategy=strategy))
    data, state = op.get_output_structure(SPEC, {"n": of()})
    assert data == {**NONE, "score": None, "alignment": None}
    assert state == {"n": of()}
    out = op(Batch.from_parts(arrays(), {"n": jnp.zeros(6)}))
    assert set(out) == {"image", "text", "score", "alignment"}
    assert op.output_spec(SPEC) == {**SPEC, "score": of(), "alignment": of()}


def test_an_override_that_is_not_true():
    op = Scored(config(out=["score", "other"]))
    with pytest.raises(ValueError, match=r"get_output_structure declared data .*alignment.*return"):
        op(Batch.from_parts(arrays()))


def test_an_override_may_ask_the_default():
    class Wider(FusionOperator):
        def get_output_structure(self, sample_data, sample_state):
            data, state = super().get_output_structure(sample_data, sample_state)
            return {**data}, state

    op = Wider(config())
    assert op.get_output_structure(SPEC, {}) == ({**NONE, "joint": None}, {})
    assert op(Batch.from_parts(arrays()))["joint"].shape == (6, 3)


def test_states_in_the_structure():
    class Counting(Identity):
        def apply(self, data, state, metadata, random_params=None, stats=None):
            return data, {"n": state["n"] + 1, "m": state["n"]}, metadata

    got = Counting(config()).get_output_structure(SPEC, {"n": of(dtype=np.int32)})
    assert got == (NONE, {"n": None, "m": None})


def test_specs_chain():
    one, two = FusionOperator(config()), FusionOperator(config("joint", "text", out=["more"]))
    assert two.output_spec(one.output_spec(SPEC)) == {**SPEC, "joint": of(3), "more": of(3)}


class Numbers(DataSourceModule):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return Element({"image": np.full(3, index, np.float32), "text": np.ones(3, np.float32)})

    def element_spec(self):
        return {"image": of(3), "text": of(3)}


def test_a_source_describes_its_records():
    source = Numbers(DataraxModuleConfig())
    assert [float(e.data["image"][0]) for e in source] == [0, 1, 2]
    spec = source.element_spec()
    op = FusionOperator(config())
    assert op.output_spec(spec) == {**spec, "joint": of(3)}
    assert Batch.from_elements(list(source))["image"].shape == (3, *spec["image"].shape)


@pytest.mark.parametrize("call", [len, lambda s: s[0], lambda s: s.element_spec()])
def test_a_source_must_be_implemented(call):
    with pytest.raises(NotImplementedError, match="DataSourceModule must implement"):
        call(DataSourceModule(DataraxModuleConfig()))
