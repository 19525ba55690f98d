"""Cross-attention whose projections are absorbed against the projected form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from nn_numbers import normal

from datarax import nn
from datarax.functional.attention.absorbed import absorbs
from datarax.operators import build_operator

MASK = np.array([True, False, True, True])
HEADS = np.random.default_rng(1).random((4, 3, 4)) < 0.6
HEADS[1, 2], HEADS[3, 2] = False, True


def shaken(**options):
    module = nn.CrossAttention(6, 5, num_heads=4, head_dim=3, rngs=nnx.Rngs(0), **options)
    state = nnx.state(module, nnx.Param)
    leaves, tree = jax.tree.flatten(state)
    moved = [x + jnp.asarray(normal(*x.shape, seed=i) * 0.3, x.dtype) for i, x in enumerate(leaves)]
    nnx.update(module, jax.tree.unflatten(tree, moved))
    return module


def results(module, absorb, **options):
    """Output, weights, and the gradients of parameters, query and context."""
    graph, state = nnx.split(module)
    options = jax.tree.map(jnp.asarray, options)

    def objective(state, query, context):
        out, weights = nnx.merge(graph, state)(
            query, context, absorb=absorb, return_weights=True, **options
        )
        numbers = jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
        return jnp.sum(out * numbers), (out, weights)

    inputs = (jnp.asarray(normal(2, 3, 6)), jnp.asarray(normal(2, 4, 5, seed=1)))
    return jax.jit(jax.grad(objective, (0, 1, 2), has_aux=True))(state, *inputs)


CASES = {
    "plain": ({}, {}),
    "tokens that are masked": ({"num_kv_heads": 2}, {"context_mask": np.tile(MASK, (2, 1))}),
    "heads that see nothing, and a gate": (
        {"num_kv_heads": 1, "gate": "tanh_per_head"},
        {"mask": HEADS, "bias": normal(3, 4, seed=2)},
    ),
    "no biases, a bias that masks": (
        {"use_bias": False},
        {"bias": np.where(HEADS, normal(4, 3, 4, seed=2), -np.inf)},
    ),
    "dropout": ({"dropout": 0.4}, {"rng_key": jax.random.key(1), "mask": HEADS}),
}


@pytest.mark.parametrize("name", CASES)
def test_absorbed_is_projected(name):
    make, options = CASES[name]
    with jax.enable_x64(True):
        module = shaken(**make)
        absorbed, projected = (results(module, absorb, **options) for absorb in (True, False))
        # Parameters are float32, and so are their gradients: the key's bias has 0 instead of it.
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5),
            absorbed[0][0],
            projected[0][0],
        )
        close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-10)  # noqa: E731
        jax.tree.map(close, (absorbed[0][1:], absorbed[1]), (projected[0][1:], projected[1]))


def test_masked_garbage_reaches_nothing():
    module = shaken()
    run = nnx.jit(
        lambda m, x, mask: m(jnp.ones((3, 6)), x, context_mask=mask, absorb=True), graph=True
    )
    x, mask = jnp.asarray(normal(4, 5), jnp.float32), jnp.asarray(MASK)
    dirty = jnp.where(mask[:, None], x, jnp.nan)
    np.testing.assert_array_equal(run(module, dirty, mask), run(module, x, mask))
    assert not run(module, jnp.full_like(x, jnp.nan), jnp.zeros(4, bool)).any()


def test_bfloat16_is_near_the_projected_form():
    module = shaken()
    inputs = [jnp.asarray(normal(*shape), jnp.bfloat16) for shape in ((3, 6), (4, 5))]
    run = nnx.jit(lambda m, *x: m(*x, absorb=True).astype(jnp.float32))
    wide = nnx.jit(lambda m, *x: m(*(y.astype(jnp.float32) for y in x), absorb=False))
    np.testing.assert_allclose(run(module, *inputs), wide(module, *inputs), rtol=0.05, atol=0.05)


def products(function, *arguments):
    """The shapes of all intermediates."""
    return str(jax.make_jaxpr(function)(*arguments))


def test_few_queries_absorb_and_many_project():
    sizes = {"num_heads": 8, "num_kv_heads": 8, "head_dim": 64, "context_features": 512}
    assert [absorbs(t, 2048, **sizes) for t in (1, 32, 64, 128, 2048)] == [True] * 3 + [False] * 2
    assert not absorbs(4, 1, **sizes)
    assert not absorbs(32, 2048, **sizes | {"num_kv_heads": 1})
    module = nn.CrossAttention(6, 16, num_heads=2, head_dim=4, rngs=nnx.Rngs(0))
    # The keys of 100 tokens are there only where they are projected.
    for t, absorbed in ((2, True), (90, False)):
        shapes = products(module, jnp.ones((t, 6)), jnp.ones((100, 16)))
        assert ("f32[100,2,4]" not in shapes) == absorbed


@pytest.mark.parametrize("options", [{"qk_norm": "rms"}, {}])
def test_refuses_keys_that_are_not_linear(options):
    module = nn.CrossAttention(6, 5, num_heads=2, head_dim=4, rngs=nnx.Rngs(0), **options)
    places = {} if options else {"query_positions": jnp.ones(3), "context_positions": jnp.ones(4)}
    with pytest.raises(ValueError, match="absorb=True needs keys that are linear in the context"):
        module(jnp.ones((3, 6)), jnp.ones((4, 5)), absorb=True, **places)


def operator(outputs):
    table = {
        "operation": "cross_attention",
        "input_fields": ["query", "context"],
        "output_fields": outputs,
        "features": {"query": 8, "context": 8},
        "num_heads": 2,
    }
    return build_operator(table, rngs=nnx.Rngs(0))


def test_an_operator_without_weights_as_output_never_holds_them():
    data = {"query": jnp.ones((1500, 8)), "context": jnp.ones((3000, 8))}

    def shapes(outputs):
        run = operator(outputs)
        return products(lambda data: run.apply(data, {}, None)[0], data)

    assert "1500,3000]" not in shapes(["attended"])
    assert "f32[2,1500,3000]" in shapes(["attended", "weights"])
