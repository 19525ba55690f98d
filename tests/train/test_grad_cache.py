"""Micro-batches of an encoder give the gradients of the whole batch, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from datarax import Batch, FusionOperator, FusionOperatorConfig
from datarax.functional import info_nce
from datarax.pipeline import Pipeline
from datarax.sources import GlyphsSource
from datarax.train import TrainConfig, loop
from datarax.train.grad_cache import grad_cache
from datarax.train.model import build

RNG = np.random.default_rng(0)
ROWS = 10


class Tower(nnx.Module):
    def __init__(self, *, norm=None, rate=0.0):
        rngs = nnx.Rngs(0, dropout=1)
        self.wide = nnx.Linear(3, 8, rngs=rngs)
        self.norm = norm(8, rngs=rngs) if norm else None
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.narrow = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x, key=None):
        x = jnp.tanh(self.wide(x))
        x = x if self.norm is None else self.norm(x)
        return self.narrow(self.dropout(x, rngs=key))


def call(model, *inputs):
    return model(*inputs)


def rows(*shape, dtype=np.float32):
    return RNG.normal(size=(ROWS, *shape)).astype(dtype)


def close(a, b, tolerance):
    for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * max(1e-3, np.abs(y).max()))


def two_towers(params, x, encode):
    """A loss of all rows, of two towers, one of which has two inputs and two results."""
    picture = encode(lambda p, x, gain: {"z": jnp.tanh(x["u"] @ p) * x["v"] * gain})
    text = encode(lambda p, x: (jnp.sin(x @ p["w"]), x[:, 0] * p["b"]))
    a = picture(params["picture"], x["picture"], x["gain"])["z"]
    b, shift = text(params["text"], x["text"])
    weight = jnp.arange(ROWS, dtype=a.dtype)  # so that the order of rows counts
    return jnp.mean(info_nce(a, b, logit_scale=5.0) * (weight + shift**2))


@pytest.mark.parametrize(
    ("micro_batch", "dtype", "tolerance"),
    [(1, np.float32, 1e-5), (5, np.float32, 1e-5), (99, np.float32, 1e-5), (3, np.float64, 1e-10)],
)
def test_value_and_gradients_are_those_of_the_whole_batch(micro_batch, dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        x = {
            "picture": {"u": rows(3, dtype=dtype), "v": rows(1, dtype=dtype)},
            "text": rows(5, dtype=dtype),
            "gain": np.array(1.5, dtype),
        }
        w = rows(4, dtype=dtype)
        params = {"picture": w[:3], "text": {"w": w[5:], "b": np.array(0.5, dtype)}}

        def grads(encode):
            return jax.jit(jax.value_and_grad(lambda p, x: two_towers(p, x, encode), (0, 1)))

        plain = grads(lambda f: f)(params, x)
        close(grads(lambda f: grad_cache(f, micro_batch=micro_batch))(params, x), plain, tolerance)


def test_memory_falls_with_the_number_of_micro_batches():
    weights = [RNG.normal(size=(64, 64)).astype(np.float32) / 8 for _ in range(8)]
    x = RNG.normal(size=(4096, 64)).astype(np.float32)

    def encode(weights, x):
        for w in weights:
            x = jnp.sin(x @ w)
        return x[:, :2]

    def temporary(micro_batch):
        cached = grad_cache(encode, micro_batch=micro_batch)
        grad = jax.jit(jax.grad(lambda w, x: jnp.mean(cached(w, x) ** 2)))
        return grad.lower(weights, x).compile().memory_analysis().temp_size_in_bytes

    whole, four, sixteen = map(temporary, (4096, 1024, 256))
    inputs = x.nbytes  # a copy of them, by micro-batch
    assert four - inputs < (whole - inputs) / 3
    assert sixteen - inputs < (four - inputs) / 2


def test_own_streams_draw_as_in_calls_one_after_another():
    model, x = Tower(rate=0.5), rows(3)

    def one_after_another(model, x):
        parts = [model(x[i::3][:3]) for i in range(3)]  # of micro-batches of 3: rows i, i + 3, ...
        return jnp.concatenate([jnp.stack(parts, axis=1).reshape(9, -1), model(x[9:])])

    def loss(encode):
        return nnx.jit(nnx.value_and_grad(lambda model, x: jnp.mean(encode(model, x) ** 2)))

    other = nnx.clone(model)
    found = loss(grad_cache(call, micro_batch=3))(model, x)
    close(found, loss(one_after_another)(other, x), 1e-5)
    assert int(model.dropout.rngs.count[...]) == int(other.dropout.rngs.count[...]) == 4
    again = loss(grad_cache(call, micro_batch=3))(model, x)
    assert again[0] != found[0]


def test_a_key_for_each_row_draws_as_without_micro_batches():
    model, x = Tower(rate=0.5), rows(3)
    keys = jax.random.split(jax.random.key(1), ROWS)

    def by_row(model, x, keys):
        return jax.vmap(lambda x, key: model(x[None], key)[0])(x, keys)

    def loss(encode):
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def run(params):
            merged = nnx.merge(graph, params, rest)
            return jnp.mean(encode(merged, x, keys) ** 2)

        return jax.jit(jax.value_and_grad(run))(params)

    close(loss(grad_cache(by_row, micro_batch=3)), loss(by_row), 1e-5)


def test_a_single_key_is_another_in_every_micro_batch():
    draw = grad_cache(lambda _, x, key: x * jax.random.uniform(key), micro_batch=2)
    drawn = jax.jit(draw)((), jnp.ones(6), jax.random.key(0))
    assert len(set(np.asarray(drawn[:3]).tolist())) == 3
    np.testing.assert_array_equal(drawn[:3], drawn[3:])


def test_batch_norm_is_refused_in_training_and_works_in_evaluation():
    model, x = Tower(norm=nnx.BatchNorm), rows(3)
    encode = grad_cache(call, micro_batch=4)
    with pytest.raises(ValueError, match=r"changes norm\.mean \(BatchStat\), norm\.var .*eval"):
        encode(model, x)
    towers = {"image": Tower(), "text": model}
    with pytest.raises(ValueError, match=r"changes text\.norm\.mean"):
        grad_cache(lambda towers, x: towers["text"](x), micro_batch=4)(towers, x)
    model.eval()
    losses = [
        nnx.jit(nnx.value_and_grad(lambda model, f=f: jnp.mean(f(model, x) ** 2)))(model)
        for f in (encode, call)
    ]
    close(*losses, 1e-5)


def test_an_operator_with_masks_and_presence():
    fields = ["a", "b"]
    config = FusionOperatorConfig(
        input_fields=fields,
        output_fields=["joint"],
        method="gated",
        features={"a": 3, "b": 2},
        out_features=4,
    )
    graph, params, rest = nnx.split(FusionOperator(config, rngs=nnx.Rngs(0)), nnx.Param, ...)
    data = {"a": rows(3), "b": rows(2)}
    valid, there = np.arange(ROWS) != 7, np.arange(ROWS) % 3 > 0
    data["a"][~there], data["b"][7] = np.nan, np.inf
    batch = Batch.from_parts(data, valid_mask=valid, presence={"a": there}, epoch=3)

    def fused(op, batch):
        out = op(batch)
        return out["joint"], out.where("joint")

    def loss(encode):
        def run(params, data):
            op = nnx.merge(graph, params, rest)
            joint, where = encode(op, batch.replace(data=data))
            assert joint.shape == (ROWS, 4)
            return jnp.mean(info_nce(joint, jnp.sin(joint), logit_scale=3.0, where=where))

        return jax.jit(jax.value_and_grad(run, (0, 1)))(params, data)

    found, plain = loss(grad_cache(fused, micro_batch=4)), loss(fused)
    close(found, plain, 1e-5)
    gradient = found[1][1]
    assert np.all(np.asarray(gradient["a"])[~there] == 0)
    assert np.all(np.asarray(gradient["b"])[7] == 0)


def test_errors_and_no_rows():
    with pytest.raises(ValueError, match="micro_batch must be at least 1, got 0"):
        grad_cache(call, micro_batch=0)
    for wrong in (2.5, 2.0, "2", None, True):
        with pytest.raises(TypeError, match=f"micro_batch must be a whole number.*got {wrong!r}"):
            grad_cache(call, micro_batch=wrong)
    assert grad_cache(lambda p, x: x * p, micro_batch=np.int64(3))(1.0, np.ones(4)).shape == (4,)
    encode = grad_cache(lambda p, x, y: x[:1] * p, micro_batch=2)
    with pytest.raises(ValueError, match=r"share one number of rows.*\[0\].*4.*\[1\].*3"):
        encode(1.0, np.ones(4), np.ones(3))
    with pytest.raises(ValueError, match=r"the 2 rows of a micro-batch on axis 0, got shape \(1,"):
        encode(1.0, np.ones(4), np.ones(4))
    assert encode(1.0, np.ones(0), np.ones(0)).shape == (0,)


def step(**settings):
    """Loss and gradients of the first step of a run."""
    towers = ("name", "outline")
    config = TrainConfig(limit=12, batch_size=12, epochs=1, towers=towers, **settings)
    trainer = loop.Trainer(config, "unused")
    optimizer = optax.sgd(1.0)
    params = jax.tree.map(np.asarray, trainer.state.params)
    state, metrics = loop.train_step(
        loop.TrainState(trainer.state.params, optimizer.init(params)),
        trainer.rest,
        next(trainer.pipeline).replace(metadata=None),
        rng_key=jax.random.key(0),
        graph=trainer.graph,
        optimizer=optimizer,
    )
    return metrics["loss"], jax.tree.map(lambda a, b: np.asarray(a) - b, state.params, params)


def test_the_setting_of_a_run_reaches_the_encoders():
    batch = next(Pipeline(GlyphsSource("train", limit=12), batch_size=12, seed=0))

    def program(**settings):
        graph, state = nnx.split(nnx.eval_shape(lambda: build(TrainConfig(**settings))))

        def run(state):
            model = nnx.merge(graph, state)
            return model(batch.replace(metadata=None), rng_key=jax.random.key(0))["loss"]

        return str(jax.make_jaxpr(run)(state))

    settings = {"towers": ("name", "outline"), "batch_size": 12}
    assert "remat" not in program(**settings)
    assert program(**settings, micro_batch=4).count("remat") == 2
    with pytest.raises(ValueError, match="micro_batch: expected at most batch_size 12, got 13"):
        TrainConfig(**settings, micro_batch=13)


@pytest.mark.slow
def test_a_step_of_a_run_is_that_without_micro_batches():
    close(step(dropout=0.0, micro_batch=5), step(dropout=0.0), 1e-4)


@pytest.mark.slow
def test_the_size_of_micro_batches_does_not_change_the_draws_of_a_run():
    close(step(dropout=0.3, micro_batch=5), step(dropout=0.3, micro_batch=12), 1e-4)
