"""The learned fusions: what all of them keep, and the limits in which one is another."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import erf

from datarax import functional, nn

WIDTHS, OUT, N = (3, 5, 2), 4, 6
PAIR = WIDTHS[:2]
THREE = {
    "sum": nn.SumFusion,
    "mean": partial(nn.SumFusion, average=True),
    "concat_mlp": partial(nn.ConcatFusion, mlp_features=7),
    "attention_joint": partial(nn.AttentionFusion, scores="joint"),
    "mfh": partial(nn.FactorizedBilinearFusion, rank=2, stages=2, activation="tanh"),
    "block": partial(nn.BlockFusion, rank=2, chunks=2, normalize="chunks"),
    "low_rank_tensor": partial(nn.LowRankTensorFusion, rank=2),
    "product": nn.ExpertsFusion,
    "mixture": partial(nn.ExpertsFusion, combination="mixture"),
}
TWO = {
    "gate": nn.SigmoidGateFusion,
    "film": partial(nn.FiLMFusion, condition=1),
    "tucker": nn.TuckerFusion,
    "matrix": nn.MultiplicativeFusion,
}
SMALL = {"depth": 1, "num_heads": 2, "mlp_features": 5}
TOKENS = {
    "transformer": partial(nn.TransformerFusion, readout="mean", **SMALL),
    "bottleneck": partial(nn.BottleneckFusion, fusion_layer=0, readout="cls", **SMALL),
}
PRESENCE = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [0, 0, 0], [0, 0, 1], [1, 1, 0]], bool)
every = pytest.mark.parametrize("kind", [*THREE, *TWO, *TOKENS])


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def make(kind):
    """The module, random inputs, and who is there."""
    widths = PAIR if kind in TWO else WIDTHS
    module = (THREE | TWO | TOKENS)[kind](widths, OUT, rngs=nnx.Rngs(0))
    for _, leaf in nnx.to_flat_state(nnx.state(module, nnx.Param)):
        leaf[...] = leaf[...] + 0.1  # biases start at 0, and would hide what they add
    lengths = (2, 1, 3) if kind in TOKENS else (0, 0, 0)
    inputs = [
        normal(N, *([length] if length else []), width, seed=m)
        for m, (width, length) in enumerate(zip(widths, lengths, strict=False))
    ]
    return module, inputs, [jnp.asarray(column) for column in PRESENCE.T[: len(widths)]]


def flat(fused):
    return jnp.concatenate(fused, axis=-1) if isinstance(fused, tuple) else fused


@nnx.jit
def run(module, inputs, masks):
    return flat(module(inputs, masks))


@every
def test_absent_modalities_reach_neither_result_nor_gradients(kind):
    module, clean, masks = make(kind)

    def objective(module, inputs):
        fused = flat(module(inputs, masks))
        return jnp.sum(jnp.sin(fused)), fused

    step = nnx.jit(nnx.grad(objective, argnums=(0, 1), has_aux=True))
    expected, value = step(module, clean)
    for path, leaf in nnx.to_flat_state(nnx.state(expected[0])):
        assert bool(jnp.any(leaf[...] != 0)), path
    for garbage in (np.nan, np.inf):
        dirty = [
            jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, garbage)
            for x, mask in zip(clean, masks, strict=True)
        ]
        got, dirty_value = step(module, dirty)
        np.testing.assert_array_equal(dirty_value, value)
        jax.tree.map(np.testing.assert_array_equal, got, expected)
    there = np.any(masks, axis=0)
    assert not value[~there].any()
    assert all(row.any() for row in value[there])
    for gradient, mask in zip(expected[1], masks, strict=True):
        assert not gradient[~mask].any()
        assert gradient[mask].any()


@every
def test_one_record_is_a_row_of_the_batch(kind):
    module, inputs, masks = make(kind)
    one = run(module, [x[1] for x in inputs], [mask[1] for mask in masks])
    np.testing.assert_allclose(one, run(module, inputs, masks)[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "lists"),
    [
        ("sum", ["projections"]),
        ("low_rank_tensor", ["factors"]),
        ("product", ["means", "log_variances"]),
    ],
)
def test_permuted_modalities_with_permuted_parameters_give_the_same(kind, lists):
    module, inputs, masks = make(kind)
    expected = run(module, inputs, masks)
    order = [2, 0, 1]
    for name in lists:
        setattr(module, name, nnx.List([getattr(module, name)[m] for m in order]))
    module.in_features = tuple(WIDTHS[m] for m in order)
    got = run(module, [inputs[m] for m in order], [masks[m] for m in order])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_sum_and_mean():
    module, inputs, masks = make("sum")
    mean = make("mean")[0]
    count = PRESENCE.sum(axis=1, keepdims=True)
    total = run(module, inputs, masks)
    hidden = [np.asarray(f(x)) for f, x in zip(module.projections, inputs, strict=True)]
    expected = sum(h * p[:, None] for h, p in zip(hidden, PRESENCE.T, strict=True))
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        run(mean, inputs, masks), expected / np.maximum(count, 1), rtol=1e-5, atol=1e-5
    )


def test_a_hidden_layer_before_the_projection():
    module, inputs, presence = make("concat_mlp")
    (w, c), (v, e) = (
        (np.asarray(x.kernel[...], np.float64), np.asarray(x.bias[...], np.float64))
        for x in (module.hidden, module.projection)
    )
    arrays = [np.asarray(x, np.float64) for x in inputs]
    x = np.concatenate([a * p[:, None] for a, p in zip(arrays, PRESENCE.T, strict=True)], axis=1)
    hidden = x @ w + c
    hidden = hidden * (1 + erf(hidden / np.sqrt(2))) / 2
    expected = (hidden @ v + e) * PRESENCE.any(axis=1)[:, None]
    np.testing.assert_allclose(module(inputs, presence), expected, rtol=1e-5, atol=1e-6)


def test_joint_attention_scores_the_concatenation():
    module, inputs, _ = make("attention_joint")
    scores = np.asarray(module.score(jnp.concatenate(inputs, axis=-1)), np.float64)
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    hidden = [np.asarray(f(x)) for f, x in zip(module.projections, inputs, strict=True)]
    expected = sum(w[:, None] * h for w, h in zip(weights.T, hidden, strict=True))
    np.testing.assert_allclose(run(module, inputs, None), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("condition", [0, 1])
def test_gate_and_film_without_their_conditioner(condition):
    gate = nn.SigmoidGateFusion(PAIR, OUT, condition=condition, rngs=nnx.Rngs(0))
    film = nn.FiLMFusion(PAIR, OUT, condition=condition, rngs=nnx.Rngs(0))
    inputs = [normal(N, width, seed=m) for m, width in enumerate(PAIR)]
    other = 1 - condition
    masks = [jnp.zeros(N, bool) if m == condition else jnp.ones(N, bool) for m in (0, 1)]
    np.testing.assert_allclose(
        gate(inputs, masks), gate.output(gate.projections[other](inputs[other])), rtol=1e-5
    )
    np.testing.assert_allclose(film(inputs, masks), film.output(inputs[other]), rtol=1e-5)
    full = film([x * 0 if m == condition else x for m, x in enumerate(inputs)])
    np.testing.assert_allclose(full, film.output(inputs[other]), rtol=1e-5)  # gamma starts at 1


def test_mutan_is_block_of_one_chunk_and_mlb_of_identities():
    x = [normal(N, 4, seed=m) for m in range(2)]
    block = nn.BlockFusion((4, 4), 4, rank=1, normalize="none", rngs=nnx.Rngs(0))
    mlb = nn.FactorizedBilinearFusion((4, 4), 4, normalize="none", rngs=nnx.Rngs(0))
    for m in range(2):
        block.merges[0][m].kernel[...] = jnp.eye(4)
        block.projections[m] = mlb.projections[0][m]
    block.output = mlb.output
    np.testing.assert_allclose(block(x), mlb(x), rtol=1e-5, atol=1e-6)


def test_tucker_with_a_diagonal_core_is_mlb():
    x = [normal(N, 4, seed=m) for m in range(2)]
    tucker = nn.TuckerFusion((4, 4), 4, normalize="none", rngs=nnx.Rngs(0))
    mlb = nn.FactorizedBilinearFusion((4, 4), 4, normalize="none", rngs=nnx.Rngs(0))
    diagonal = np.zeros((4, 4, 4))
    diagonal[range(4), range(4), range(4)] = 1
    tucker.core[...] = jnp.asarray(diagonal, jnp.float32)
    for m in range(2):
        tucker.projections[m] = mlb.projections[0][m]
    tucker.output = mlb.output
    np.testing.assert_allclose(tucker(x), mlb(x), rtol=1e-5, atol=1e-6)


def test_low_rank_tensor_equals_the_whole_where_the_factors_coincide():
    low = nn.LowRankTensorFusion(PAIR, OUT, rank=3, rngs=nnx.Rngs(0))
    whole = nn.TensorFusion(PAIR, OUT, rngs=nnx.Rngs(0))
    low.bias[...] = normal(OUT)
    kernel = jnp.einsum("r,rio,rjo->ijo", low.weights[...], *(f[...] for f in low.factors))
    whole.output.kernel[...] = kernel.reshape(-1, OUT)
    whole.output.bias[...] = low.bias[...]
    inputs = [normal(N, width, seed=m) for m, width in enumerate(PAIR)]
    masks = [jnp.asarray(column) for column in PRESENCE.T[:2]]
    np.testing.assert_allclose(low(inputs, masks), whole(inputs, masks), rtol=1e-4, atol=1e-5)


def test_multiplicative_vector_and_scalar_are_matrices():
    inputs = [normal(N, 3), normal(N, 4, seed=1)]
    matrix = nn.MultiplicativeFusion((3, 4), 4, rngs=nnx.Rngs(0))
    for form in ("vector", "scalar"):
        small = nn.MultiplicativeFusion((3, 4), 4, form=form, rngs=nnx.Rngs(1))
        rows = [p[...] for p in (small.interaction, small.from_x, small.from_y, small.bias)]
        if form == "scalar":
            rows = [jnp.repeat(r[:, None], 4, 1) for r in rows[:2]] + [
                jnp.repeat(r, 4) for r in rows[2:]
            ]
        W, U, V, b = rows
        matrix.interaction[...] = jax.vmap(jnp.diag)(W)
        matrix.from_x[...] = U
        matrix.from_y[...] = jnp.diag(V)
        matrix.bias[...] = b
        np.testing.assert_allclose(small(inputs), matrix(inputs), rtol=1e-5, atol=1e-5)


def test_a_bottleneck_that_begins_after_the_last_layer_is_separate_encoders():
    module = nn.BottleneckFusion(
        PAIR, OUT, fusion_layer=1, rngs=nnx.Rngs(0), **(SMALL | {"num_heads": 1})
    )
    inputs = [normal(N, 2, 3), normal(N, 1, 5, seed=1)]
    masks = [jnp.ones(N, bool), jnp.asarray(PRESENCE[:, 0])]
    tokens = [
        module.norm(block(project(x)))
        for project, block, x in zip(module.projections, module.blocks[0], inputs, strict=True)
    ]
    both, first = jnp.mean(jnp.concatenate(tokens, axis=1), axis=1), jnp.mean(tokens[0], axis=1)
    expected = module.output(jnp.where(masks[1][:, None], both, first))
    np.testing.assert_allclose(run(module, inputs, masks), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("options", "meet"), [({}, True), ({"fusion_layer": 1}, False)])
def test_by_default_modalities_meet_in_the_bottleneck(options, meet):
    module = nn.BottleneckFusion((2, 3), 4, num_heads=1, rngs=nnx.Rngs(0), **options)
    seen = []
    # The readout's mean adds the modalities up: what they tell each other shows before it alone.
    module.norm = lambda x: seen.append(x) or x
    first = normal(2, 2)
    for second in (normal(1, 3, seed=1), normal(1, 3, seed=2)):
        module([first, second])
    assert np.allclose(seen[0], seen[2]) is not meet


def test_bottleneck_tokens_are_averaged_over_what_is_there():
    options = {"num_heads": 1, "mlp_features": 5, "fusion_layer": 0}
    module = nn.BottleneckFusion(WIDTHS, OUT, rngs=nnx.Rngs(0), **options)
    inputs = [normal(N, 1, width, seed=m) for m, width in enumerate(WIDTHS)]
    two = nn.BottleneckFusion(PAIR, OUT, rngs=nnx.Rngs(0), **options)
    for name in ("bottleneck", "norm", "output"):
        setattr(two, name, getattr(module, name))
    two.projections = nnx.List(list(module.projections)[:2])
    two.blocks = nnx.List([nnx.List(list(layer)[:2]) for layer in module.blocks])
    masks = [jnp.ones(N, bool), jnp.ones(N, bool), jnp.zeros(N, bool)]
    expected = run(two, inputs[:2], masks[:2])
    np.testing.assert_allclose(run(module, inputs, masks), expected, rtol=1e-5, atol=1e-5)


def test_chunk_sizes_of_block():
    sizes = nn.bilinear.chunk_sizes
    assert sizes(7, 4) == (2, 2, 2, 1)
    assert sizes(10, 4) == (3, 3, 3, 1)
    assert sizes(10, 8) == (2, 2, 1, 1, 1, 1, 1, 1)
    assert sizes(6, 4) == (2, 2, 1, 1)  # the original makes the last one empty
    with pytest.raises(ValueError, match="chunks must be at most hidden_features 3, got 4"):
        sizes(3, 4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda r: nn.SigmoidGateFusion(WIDTHS, 4, rngs=r), "gate takes exactly 2 .* got 3"),
        (lambda r: nn.FiLMFusion((3,), 4, rngs=r), "FiLM takes exactly 2 modalities, got 1"),
        (lambda r: nn.TuckerFusion(WIDTHS, 4, rngs=r), "Tucker fusion takes exactly 2 .* got 3"),
        (lambda r: nn.MultiplicativeFusion(WIDTHS, 4, rngs=r), "takes exactly 2 .* got 3"),
        (lambda r: nn.FactorizedBilinearFusion((3,), 4, rngs=r), "at least 2 modalities, got 1"),
        (lambda r: nn.BlockFusion((3,), 4, rngs=r), "at least 2 modalities, got 1"),
        (lambda r: nn.TensorFusion((3,), 4, rngs=r), "at least 2 modalities, got 1"),
        (lambda r: nn.LowRankTensorFusion((3,), 4, rngs=r), "at least 2 modalities, got 1"),
        (lambda r: nn.ExpertsFusion((3,), 4, rngs=r), "at least 2 modalities, got 1"),
        (lambda r: nn.TransformerFusion((3,), 4, rngs=r), "at least 2 modalities, got 1"),
        (lambda r: nn.BottleneckFusion((3,), 4, rngs=r), "at least 2 modalities, got 1"),
        (lambda r: nn.SumFusion((), 4, rngs=r), "at least one modality, got none"),
        (lambda r: nn.FiLMFusion(PAIR, 4, condition=2, rngs=r), "condition must be 0 or 1.* got 2"),
        (lambda r: nn.MultiplicativeFusion(PAIR, 4, condition=2, rngs=r), "condition must be"),
        (lambda r: nn.BlockFusion(PAIR, 4, rank=0, rngs=r), "rank must be positive, got 0"),
        (lambda r: nn.BlockFusion(PAIR, 4, chunks=5, rngs=r), "chunks must be at most"),
        (lambda r: nn.BlockFusion(PAIR, 4, normalize="chunks", rngs=r), "more than one chunk"),
        (lambda r: nn.LowRankTensorFusion(PAIR, 4, rank=0, rngs=r), "rank must be positive"),
        (
            lambda r: nn.MultiplicativeFusion(PAIR, 4, form="vector", rngs=r),
            "out_features of form 'vector' must be 5.* got 4",
        ),
        (lambda r: nn.TransformerFusion(PAIR, 4, num_heads=3, rngs=r), "num_heads 3 does not"),
        (lambda r: nn.TransformerFusion(PAIR, 4, depth=0, rngs=r), "depth must be positive"),
        (
            lambda r: nn.BottleneckFusion(PAIR, 4, fusion_layer=3, rngs=r),
            "fusion_layer must be from 0 to depth 2, got 3",
        ),
        (lambda r: nn.BottleneckFusion(PAIR, 4, num_bottlenecks=0, rngs=r), "num_bottlenecks"),
    ],
)
def test_modules_refuse(build, message):
    with pytest.raises(ValueError, match=message):
        build(nnx.Rngs(0))


def test_functions_name_the_shapes():
    with pytest.raises(ValueError, match=r"at least 2 modalities .* got shape"):
        functional.hadamard_product(jnp.ones((1, 3)))
