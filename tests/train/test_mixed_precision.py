"""Parameters in float32, activations and products in bfloat16, losses in float32."""

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from datarax import (
    Batch,
    ContrastiveOperator,
    ContrastiveOperatorConfig,
    FusionOperator,
    FusionOperatorConfig,
)
from datarax.operators import Sequential
from datarax.pipeline import Pipeline
from datarax.sources import GlyphsSource
from datarax.train import TrainConfig, loop
from datarax.train.model import build

FIELDS = ["a", "b"]
RNG = np.random.default_rng(0)


def fusion():
    config = FusionOperatorConfig(
        input_fields=FIELDS,
        output_fields=["joint"],
        method="gated",
        features={"a": 16, "b": 16},
        out_features=16,
    )
    return FusionOperator(config, rngs=nnx.Rngs(0))


def contrastive():
    config = ContrastiveOperatorConfig(
        input_fields=FIELDS,
        output_fields=["loss", "u", "v"],
        method="info_nce",
        features={"a": 16, "b": 16},
        projection_features=8,
    )
    return ContrastiveOperator(config, rngs=nnx.Rngs(0))


def records(rows=32):
    base = RNG.normal(size=(rows, 16))
    data = {name: base + 0.3 * RNG.normal(size=base.shape) for name in FIELDS}
    ids = {"ids": np.arange(rows, dtype=np.int32)}
    data = {n: x.astype(np.float32) for n, x in data.items()} | ids
    return Batch.from_parts(jax.tree.map(jnp.asarray, data))


@pytest.mark.parametrize("make", [fusion, contrastive])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_one_setting_of_an_operator(make, dtype):
    op, batch = make(), records()
    expected = op(batch)
    field, vectors = op.config.output_fields[0], op.config.output_fields[-1]
    op.compute_dtype = dtype
    out = op(batch)
    assert out[vectors].dtype == dtype
    assert out[field].dtype == (dtype if make is fusion else np.float32)
    assert all(out[name] is batch[name] for name in batch)
    spec = {n: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for n, x in batch.data.items()}
    told = op.output_spec(spec)
    assert {n: s.dtype for n, s in told.items()} == {n: x.dtype for n, x in out.data.items()}
    close = {"bfloat16": 2**-6, "float16": 2**-9, "float32": 0}[dtype]
    scale = np.abs(np.asarray(expected[field])).max()
    np.testing.assert_allclose(
        out[field].astype(np.float32), expected[field], rtol=0, atol=close * scale
    )


def test_gradients_and_parameters_stay_float32():
    graph, params, rest = nnx.split(contrastive(), nnx.Param, ...)
    batch = records()

    def grad(compute_dtype):
        def loss(params):
            op = nnx.merge(graph, params, rest)
            op.compute_dtype = compute_dtype
            return op(batch).mean("loss")

        return jax.jit(jax.grad(loss))(params)

    half, whole = grad("bfloat16"), grad(None)
    for a, b in zip(*map(jax.tree.leaves, (half, whole)), strict=True):
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=2**-5 * max(np.abs(b).max(), 1e-2))


def test_the_setting_reaches_all_operators_of_a_model_and_is_checked():
    both = Sequential([fusion(), contrastive()])
    both.set_attributes(compute_dtype="bfloat16")
    out = both(records())
    assert (out["joint"].dtype, out["v"].dtype, out["loss"].dtype) == (
        "bfloat16",
        "bfloat16",
        "float32",
    )
    assert both.clone()(records())["joint"].dtype == "bfloat16"
    both.set_attributes(compute_dtype="float64")
    with pytest.raises(ValueError, match=r"compute_dtype must be one of .*'bfloat16'.*'float64'"):
        both(records())


def products(closed):
    """The dtypes of the operands of all matrix products and convolutions."""
    found = []
    for equation in closed.eqns:
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            found.append([x.aval.dtype.name for x in equation.invars])
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            found += products(inner)
    return found


def batch_of_run(rows=12):
    return next(Pipeline(GlyphsSource("train", limit=rows), batch_size=rows, seed=0))


def test_a_run_in_bfloat16_multiplies_in_bfloat16():
    graph, state = nnx.split(nnx.eval_shape(lambda: build(TrainConfig(compute_dtype="bfloat16"))))
    batch = batch_of_run().replace(metadata=None)

    def run(state):
        return nnx.merge(graph, state)(batch, rng_key=jax.random.key(0))

    operands = products(jax.make_jaxpr(run)(state).jaxpr)
    assert len(operands) > 20
    assert all(pair == ["bfloat16", "bfloat16"] for pair in operands)
    out = jax.eval_shape(run, state)
    assert out["loss"].dtype == jnp.float32
    assert out["image_features"].dtype == out["fused_features"].dtype == jnp.bfloat16


@pytest.mark.slow
def test_a_run_in_bfloat16_trains(tmp_path):
    losses = {}
    for dtype in ("float32", "bfloat16"):
        config = TrainConfig(
            limit=96, batch_size=32, epochs=4, warmup_steps=2, compute_dtype=dtype, dropout=0.0
        )
        trainer = loop.Trainer(config, tmp_path)
        losses[dtype] = [float(trainer.take_step()["loss"]) for _ in range(10)]
        assert all(x.dtype == np.float32 for x in jax.tree.leaves(trainer.state.params))
        state = [x for x in jax.tree.leaves(trainer.state.optimizer) if x.ndim]
        assert all(x.dtype == np.float32 for x in state)
    # 8 bits of a cosine, times a scale of 14.
    assert losses["bfloat16"][0] == pytest.approx(losses["float32"][0], abs=14 * 2**-8)
    assert losses["bfloat16"][-1] < losses["bfloat16"][0] - 0.3


def test_the_loss_rounds_products_alone():
    """Not gradients of unit vectors: what is left is little beside the rounding of the fields'."""
    config = ContrastiveOperatorConfig(
        input_fields=FIELDS, output_fields=["loss"], method="info_nce", features={"a": 64, "b": 64}
    )
    graph, state = nnx.split(ContrastiveOperator(config, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    exact = [jnp.asarray(x, jnp.bfloat16) for x in rng.normal(size=(2, 256, 64))]

    def grad(compute_dtype):
        def loss(fields):
            op = nnx.merge(graph, state)
            op.compute_dtype = compute_dtype
            return op(Batch.from_parts(dict(zip(FIELDS, fields, strict=True)))).mean("loss")

        fields = [x.astype(jnp.float32) for x in exact]
        return [np.asarray(x) for x in jax.jit(jax.grad(loss))(fields)]

    for half, whole in zip(grad("bfloat16"), grad("float32"), strict=True):
        rounded = np.asarray(whole, jnp.bfloat16).astype(np.float32)  # by the cast of the field
        assert np.abs(half - whole).mean() < 1.7 * np.abs(rounded - whole).mean()
