"""Fusions with the originals' weights (tools/golden/fusion.py): values and all gradients."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_file import Golden, linear

from datarax import functional, nn
from datarax.nn.transformer import TransformerBlock

GOLDEN = Golden("fusion")
WIDE = pytest.mark.parametrize(
    "wide", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["f64", "f32"]
)


def rngs():
    return nnx.Rngs(0)


def named(**theirs):
    """Parameters that have the original's layout, by the original's names."""
    return {ours: lambda w, name=name: w[name] for ours, name in theirs.items()}


def block_layout(chunks):
    layout = linear("projections/0", "linear0") | linear("projections/1", "linear1")
    for c in range(chunks):
        for m in range(2):
            layout |= linear(f"merges/{c}/{m}", f"merge_linears{m}.{c}")
    return layout | linear("output", "linear_out")


def attention_block(ours, theirs):
    """Torch stacks the three maps of its attention; flax has an axis for the heads."""
    layout = {
        f"{ours}output/kernel": lambda w: w["self_attn.out_proj.weight"].T,
        f"{ours}output/bias": lambda w: w["self_attn.out_proj.bias"],
    }
    for k, name in enumerate(("query", "key", "value")):
        part = slice(4 * k, 4 * k + 4)
        layout[f"{ours}{name}/kernel"] = lambda w, part=part: w["self_attn.in_proj_weight"][part].T
        layout[f"{ours}{name}/bias"] = lambda w, part=part: w["self_attn.in_proj_bias"][part]
    for k in range(2):
        layout[f"{ours}norms/{k}/scale"] = lambda w, k=k: w[f"norm{k + 1}.weight"]
        layout[f"{ours}norms/{k}/bias"] = lambda w, k=k: w[f"norm{k + 1}.bias"]
    return layout | linear(f"{ours}wide", "linear1") | linear(f"{ours}narrow", "linear2")


def linen_block(ours, theirs, width=4):
    """A block of scenic: dense layers have their kernels as ours, attention's have heads."""
    at = "MultiHeadDotProductAttention_0"
    layout = {}
    for name, path in (("wide", "MlpBlock_0/Dense_0"), ("narrow", "MlpBlock_0/Dense_1")):
        for part in ("kernel", "bias"):
            layout[f"{ours}/{name}/{part}"] = lambda w, key=f"{theirs}/{path}/{part}": w[key]
    for name in ("query", "key", "value"):
        key = f"{theirs}/{at}/{name}"
        layout[f"{ours}/{name}/kernel"] = lambda w, key=key: w[f"{key}/kernel"].reshape(width, -1)
        layout[f"{ours}/{name}/bias"] = lambda w, key=key: w[f"{key}/bias"].reshape(-1)
    key = f"{theirs}/{at}/out"
    layout[f"{ours}/output/kernel"] = lambda w: w[f"{key}/kernel"].reshape(-1, width)
    layout[f"{ours}/output/bias"] = lambda w: w[f"{key}/bias"]
    for k in range(2):
        for part in ("scale", "bias"):
            name = f"{theirs}/LayerNorm_{k}/{part}"
            layout[f"{ours}/norms/{k}/{part}"] = lambda w, name=name: w[name]
    return layout


def factorized(**options):
    return nn.FactorizedBilinearFusion(
        (3, 4),
        2,
        hidden_features=5,
        activation="relu",
        output_activation="relu",
        rngs=rngs(),
        **options,
    )


def two_stages():
    layout = {}
    for stage in range(2):
        for m in range(2):
            layout |= linear(f"projections/{stage}/{m}", f"linear{m}_{stage}")
    return layout | linear("output", "linear_out")


ONE_STAGE = (
    linear("projections/0/0", "linear0")
    | linear("projections/0/1", "linear1")
    | linear("output", "linear_out")
)
MUTAN = (
    linear("projections/0", "linear0")
    | linear("projections/1", "linear1")
    | linear("merges/0/0", "merge_linear0")
    | linear("merges/0/1", "merge_linear1")
    | linear("output", "linear_out")
)
TUCKER = (
    linear("projections/0", "linear0")
    | linear("projections/1", "linear1")
    | {
        "core": lambda w: np.moveaxis(w["bilinear.weight"], 0, -1),
        "core_bias": lambda w: w["bilinear.bias"],
    }
    | linear("output", "linear_out")
)
GATE = linear("projections/0", "fc_x") | linear("projections/1", "fc_y")
INTERACTION = named(interaction="W", from_x="U", from_y="V", bias="b")
LOW_RANK = named(**{"factors/0": "audio_factor", "factors/1": "video_factor"}) | {
    "factors/2": lambda w: w["text_factor"],
    "weights": lambda w: w["fusion_weights"][0],
    "bias": lambda w: w["fusion_bias"][0],
}


def block(**options):
    return nn.BlockFusion((3, 4), 2, hidden_features=5, rngs=rngs(), **options)


def interaction(form, condition):
    widths, out = ((4, 3), 4) if condition else ((3, 4), 4)
    return nn.MultiplicativeFusion(
        widths, 2 if form == "matrix" else out, form=form, condition=condition, rngs=rngs()
    )


MODULES = {
    "mlb": (lambda: factorized(normalize="whole"), ONE_STAGE),
    "mfb": (lambda: factorized(rank=2, normalize="none"), ONE_STAGE),
    "mfh": (lambda: factorized(rank=2, stages=2, normalize="whole"), two_stages()),
    "mutan": (lambda: block(rank=3, normalize="none"), MUTAN),
    "tucker": (lambda: nn.TuckerFusion((3, 4), 2, hidden_features=5, rngs=rngs()), TUCKER),
    "block_before_cat": (
        lambda: block(chunks=3, rank=2, normalize="chunks"),
        block_layout(3),
    ),
    "block_after_cat": (lambda: block(chunks=3, rank=2, normalize="whole"), block_layout(3)),
    "sum": (lambda: nn.SumFusion((3, 3), 2, rngs=rngs()), GATE),
    "concat": (lambda: nn.ConcatFusion((3, 3), 2, rngs=rngs()), linear("projection", "fc_out")),
    **{
        f"film{name}": (
            lambda condition=condition: nn.FiLMFusion((3, 3), 2, condition=condition, rngs=rngs()),
            linear("film", "fc") | linear("output", "fc_out"),
        )
        for condition, name in enumerate(("", "_by_y"))
    },
    **{
        f"gate{name}": (
            lambda condition=condition: nn.SigmoidGateFusion(
                (3, 3), 2, hidden_features=4, condition=condition, rngs=rngs()
            ),
            GATE | linear("output", "fc_out"),
        )
        for condition, name in enumerate(("", "_by_y"))
    },
    **{
        f"interaction_{form}{name}": (
            lambda form=form, condition=condition: interaction(form, condition),
            INTERACTION,
        )
        for form in ("matrix", "vector", "scalar")
        for condition, name in enumerate(("", "_flipped"))
    },
    "low_rank_tensor": (
        lambda: nn.LowRankTensorFusion((2, 3, 2), 4, rank=3, rngs=rngs()),
        LOW_RANK,
    ),
    "attention_joint": (
        lambda: nn.AttentionFusion((3, 4), 2, scores="joint", rngs=rngs()),
        linear("projections/0", "encoding_projection.x")
        | linear("projections/1", "encoding_projection.y")
        | linear("score", "attention.0"),
    ),
}


@WIDE
@pytest.mark.parametrize("case", MODULES)
def test_a_fusion_agrees_with_the_original(case, wide):
    build, layout = MODULES[case]
    names = list(GOLDEN.entries(case, "in"))  # jit sorts them
    GOLDEN.check_module(
        case,
        build,
        layout,
        lambda module, **inputs: module([inputs[name] for name in names]),
        wide=wide,
    )


def experts(mean_0, mean_1, log_variance_0, log_variance_1):
    """MVAE adds 1e-8 to every variance, and returns the logarithm of the variance."""
    means = jnp.stack([mean_0, mean_1], axis=-2)
    log_variances = jnp.stack([log_variance_0, log_variance_1], axis=-2)
    return jnp.stack(functional.product_of_experts(means, log_variances, eps=1e-8))


FUNCTIONS = {
    "tensor_2": lambda **x: functional.outer_product(list(x.values())),
    "tensor_3": lambda **x: functional.outer_product(list(x.values())),
    "product_of_experts": experts,
}


@WIDE
@pytest.mark.parametrize("case", FUNCTIONS)
def test_a_function_agrees_with_the_original(case, wide):
    GOLDEN.check(case, FUNCTIONS[case], wide=wide)


@WIDE
def test_the_transformer_block_agrees_with_torch(wide):
    def call(module, x, mask):
        tokens = module(x, mask)
        return jnp.where(mask[..., None], tokens, 0)

    def build():
        return TransformerBlock(4, num_heads=2, mlp_features=6, rngs=rngs())

    layout = attention_block("", "")
    GOLDEN.check_module("transformer_block", build, layout, call, wide=wide)


@WIDE
def test_the_bottleneck_fusion_agrees_with_scenic(wide):
    """Its encoder, read out by the mean; our maps before and after it are identities here.

    Two layers share tokens, so that what one modality wrote into them is read by the other.
    """

    def build():
        return nn.BottleneckFusion(
            (4, 4),
            4,
            depth=3,
            fusion_layer=1,
            num_bottlenecks=2,
            num_heads=2,
            mlp_features=6,
            rngs=rngs(),
        )

    layout = {"bottleneck": lambda w: w["bottleneck"]}
    for part in ("scale", "bias"):
        layout[f"norm/{part}"] = lambda w, part=part: w[f"encoder_norm/{part}"]
    for path in ("projections/0", "projections/1", "output"):
        layout |= {f"{path}/kernel": np.eye(4), f"{path}/bias": np.zeros(4)}
    for depth in range(3):
        layout |= linen_block(f"blocks/{depth}/0", f"encoderblock_{depth}")
        layout |= linen_block(f"blocks/{depth}/1", f"encoderblock_{depth}_spectrogram")
    GOLDEN.check_module("bottleneck", build, layout, wide=wide)


def test_every_case_of_the_file_is_compared():
    alone = ["transformer_block", "bottleneck"]
    assert sorted([*MODULES, *FUNCTIONS, *alone]) == sorted(GOLDEN.cases)
