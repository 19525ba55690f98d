"""The fusions of the originals, with their weights.

MultiBench's scalar interaction calls a method as if it were a function; it is given that function.
LMF is given its inputs after the unimodal networks. Left out: BlockTucker, LinearSum, ConcatMLP and
MCB of block.bootstrap.pytorch (forms that we do not have; MCB needs a removed part of torch),
MultiBench's LowRankTensorFusion (its factors are no parameters; LMF is the original), and CoMM's
FusionTransformer, whose file could not be had: torch's own encoder stands for it.
"""

from functools import partial
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import torch

from golden.linen import SCOPE, linen_case
from golden.recorder import Recorder, undone_casts
from golden.sources import Sources, packaged, stubbed

TORCH = {
    "torch": torch,
    "nn": torch.nn,
    "F": torch.nn.functional,
    "Variable": torch.autograd.Variable,
}


def record(sources: Sources) -> None:
    golden = Recorder("fusion", seed=20242)
    bilinear(golden)
    gates(golden, sources)
    multibench(golden, sources)
    low_rank(golden, sources)
    experts(golden, sources)
    torchmultimodal(golden)
    transformer(golden)
    bottleneck(golden, sources)
    golden.save()


def pair(golden: Recorder, *widths: int) -> dict[str, np.ndarray]:
    return {name: golden.normal(5, width) for name, width in zip("xy", widths, strict=True)}


def drawn(module: torch.nn.Module) -> torch.nn.Module:
    """The module with normal weights: some originals start at 0, or with what memory holds."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def bilinear(golden: Recorder) -> None:
    with stubbed("bootstrap"):
        from block.models.networks.fusions import fusions
    cases = {
        "mlb": (fusions.MLB, {"normalize": True}),
        "mfb": (fusions.MFB, {"factor": 2}),
        "mfh": (fusions.MFH, {"factor": 2, "normalize": True}),
        "mutan": (fusions.Mutan, {"rank": 3}),
        "tucker": (fusions.Tucker, {"normalize": True}),
        "block_before_cat": (fusions.Block, {"chunks": 3, "rank": 2}),
        "block_after_cat": (fusions.Block, {"chunks": 3, "rank": 2, "pos_norm": "after_cat"}),
    }
    for case, (original, options) in cases.items():
        module = drawn(original([3, 4], 2, mm_dim=5, **options))
        golden.add(
            case,
            packaged("block.bootstrap.pytorch", f"fusions.py:{original.__name__}"),
            lambda x, y, module=module: module([x, y]),
            pair(golden, 3, 4),
            weights=dict(module.named_parameters()),
        )


def gates(golden: Recorder, sources: Sources) -> None:
    repository, path = "GeWu-Lab/OGM-GE_CVPR2022", "models/fusion_modules.py"
    names = ["SumFusion", "ConcatFusion", "FiLM", "GatedFusion"]
    scope = sources.load(repository, path, names, TORCH)
    cases = {
        "sum": ("SumFusion", {"input_dim": 3}),
        "concat": ("ConcatFusion", {"input_dim": 6}),
        "film": ("FiLM", {"input_dim": 3, "dim": 3}),
        "film_by_y": ("FiLM", {"input_dim": 3, "dim": 3, "x_film": False}),
        "gate": ("GatedFusion", {"input_dim": 3, "dim": 4}),
        "gate_by_y": ("GatedFusion", {"input_dim": 3, "dim": 4, "x_gate": False}),
    }
    for case, (name, options) in cases.items():
        module = drawn(scope[name](output_dim=2, **options))
        golden.add(
            case,
            sources.name(repository, f"{path}:{name}"),
            lambda x, y, module=module: module(x, y)[2],
            pair(golden, 3, 3),
            weights=dict(module.named_parameters()),
        )


def multibench(golden: Recorder, sources: Sources) -> None:
    repository, path = "pliang279/MultiBench", "fusions/common_fusions.py"
    name = "MultiplicativeInteractions2Modal"
    scope = sources.load(
        repository, path, [name, "TensorFusion"], TORCH | {"repeatHorizontally": repeat}
    )
    widths = {"matrix": 2, "vector": 4, "scalar": 4}
    for form, out in widths.items():
        for flip in (False, True):
            sides = [4, 3] if flip else [3, 4]
            module = drawn(scope[name]([3, 4], out, form, flip=flip))
            golden.add(
                f"interaction_{form}{'_flipped' if flip else ''}",
                sources.name(repository, f"{path}:{name}({form!r})"),
                lambda x, y, module=module: module([x, y]),
                pair(golden, *sides),
                weights=dict(module.named_parameters()),
            )
    for m in (2, 3):
        module = scope["TensorFusion"]([2, 3, 2][:m])
        golden.add(
            f"tensor_{m}",
            sources.name(repository, f"{path}:TensorFusion"),
            lambda module=module, **x: module(list(x.values())),
            {f"x{k}": golden.normal(4, width) for k, width in enumerate([2, 3, 2][:m])},
        )


def repeat(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """MultiBench's `repeatHorizontally`, word for word."""
    return tensor.repeat(count).view(count, -1).transpose(0, 1)


def low_rank(golden: Recorder, sources: Sources) -> None:
    repository, path = "Justin1904/Low-rank-Multimodal-Fusion", "model.py"
    original = sources.load(repository, path, ["LMF"], TORCH)["LMF"]
    module = original.__new__(original)
    torch.nn.Module.__init__(module)
    for name in ("audio", "video", "text"):
        setattr(module, f"{name}_subnet", torch.nn.Identity())
    module.output_dim, module.use_softmax = 4, False
    shapes = {
        "audio_factor": (3, 3, 4),
        "video_factor": (3, 4, 4),
        "text_factor": (3, 3, 4),
        "fusion_weights": (1, 3),
        "fusion_bias": (1, 4),
    }
    for name, shape in shapes.items():
        setattr(module, name, torch.nn.Parameter(torch.tensor(golden.normal(*shape))))
    widths = {"audio_x": 2, "video_x": 3, "text_x": 2}
    golden.add(
        "low_rank_tensor",
        sources.name(repository, f"{path}:LMF"),
        lambda **x: module(**x),
        {name: golden.normal(5, width) for name, width in widths.items()},
        weights=dict(module.named_parameters()),
    )


def experts(golden: Recorder, sources: Sources) -> None:
    repository, path = "pliang279/MultiBench", "fusions/MVAE.py"
    names = ["ProductOfExperts", "prior_expert"]
    scope = sources.load(repository, path, names, TORCH)
    module = scope["ProductOfExperts"]((1, 5, 4))
    inputs = {
        name: golden.normal(5, 4)
        for name in ("mean_0", "mean_1", "log_variance_0", "log_variance_1")
    }
    with undone_casts():
        golden.add(
            "product_of_experts",
            sources.name(repository, f"{path}:ProductOfExperts"),
            lambda mean_0, mean_1, log_variance_0, log_variance_1: torch.stack(
                module([mean_0, mean_1], [log_variance_0, log_variance_1])
            ),
            inputs,
        )


def torchmultimodal(golden: Recorder) -> None:
    from torchmultimodal.modules.fusions.attention_fusion import AttentionFusionModule

    module = drawn(AttentionFusionModule({"x": 3, "y": 4}, 2))
    golden.add(
        "attention_joint",
        packaged("torchmultimodal-nightly", "AttentionFusionModule"),
        lambda x, y: module({"x": x, "y": y}),
        pair(golden, 3, 4),
        weights=dict(module.named_parameters()),
    )


def transformer(golden: Recorder) -> None:
    layer = torch.nn.TransformerEncoderLayer(
        4,
        nhead=2,
        dim_feedforward=6,
        dropout=0.0,
        activation=partial(torch.nn.functional.gelu, approximate="tanh"),
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
    )
    module = drawn(layer)
    mask = np.array([[True, True, False], [True, True, True], [True, False, True]])
    golden.add(
        "transformer_block",
        packaged("torch", "TransformerEncoderLayer(norm_first=True)"),
        lambda x, mask: module(x, src_key_padding_mask=~mask) * mask[..., None],
        {"x": golden.normal(3, 3, 4)},
        constants={"mask": mask},
        weights=dict(module.named_parameters()),
    )


def bottleneck(golden: Recorder, sources: Sources) -> None:
    """Scenic's encoder and its mean (`gap`), without positions, which ours leaves to the caller."""
    repository = "google-research/scenic"
    layers = "scenic/model_lib/layers/attention_layers.py"
    identity = SimpleNamespace(IdentityLayer=lambda name: lambda x: x)
    block = sources.load(repository, layers, ["MlpBlock"], SCOPE | {"nn_layers": identity})
    path = "scenic/projects/mbt/model.py"
    scope = SCOPE | {
        "attention_layers": SimpleNamespace(MlpBlock=block["MlpBlock"]),
        "add_positional_embed": lambda x, name: x,
    }
    encoder = sources.load(repository, path, ["EncoderBlock", "Encoder"], scope)["Encoder"]
    linen_case(
        golden,
        "bottleneck",
        sources.name(repository, f"{path}:Encoder"),
        encoder(
            mlp_dim=6,
            num_layers=3,
            num_heads=2,
            modality_fusion=("rgb", "spectrogram"),
            fusion_layer=1,
            use_bottleneck=True,
            dtype=np.float64,
        ),
        lambda apply, x, y, bottleneck: apply(
            {"rgb": x, "spectrogram": y},
            jnp.broadcast_to(bottleneck, (len(x), *bottleneck.shape)),
            train=False,
        ).mean(axis=1),
        {"x": golden.normal(2, 3, 4), "y": golden.normal(2, 2, 4)},
        learned={"bottleneck": golden.normal(2, 4)},
    )
