"""The methods of fusion by name: the module of each, and the options of the config it reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from datarax.nn.bilinear import BlockFusion, FactorizedBilinearFusion, TuckerFusion
from datarax.nn.experts import ExpertsFusion
from datarax.nn.fusion import (
    AttentionFusion,
    ConcatFusion,
    GatedFusion,
    SumFusion,
    WeightedSumFusion,
)
from datarax.nn.gating import FiLMFusion, SigmoidGateFusion
from datarax.nn.multiplicative import MultiplicativeFusion
from datarax.nn.tensor_fusion import LowRankTensorFusion, TensorFusion
from datarax.nn.token_fusion import BottleneckFusion, TransformerFusion

FusionMethod = Literal[
    "concat",
    "weighted_sum",
    "sum",
    "mean",
    "attention",
    "gated",
    "gate",
    "film",
    "mlb",
    "mfb",
    "mfh",
    "mutan",
    "tucker",
    "block",
    "tensor",
    "low_rank_tensor",
    "product_of_experts",
    "mixture_of_experts",
    "transformer",
    "bottleneck",
    "multiplicative",
]
TOKEN_METHODS = ("transformer", "bottleneck")


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
      module: called with the widths, `out_features`, the options and `rngs`.
      options: fields of the config that it reads, beside those that all read.
      fixed: arguments of the module that make it this method.
      fields: how many input fields it takes: `(at least, at most)`.
    """

    module: Callable[..., Any]
    options: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    fields: tuple[int, int | None] = (2, None)


_ANY, _TWO = (1, None), (2, 2)
_BILINEAR = ("hidden_features", "activation", "output_activation", "normalize")
_TOKENS = ("hidden_features", "depth", "num_heads", "mlp_features", "readout", "token_masks")

METHODS: dict[str, Method] = {
    "concat": Method(ConcatFusion, ("mlp_features",), fields=_ANY),
    "weighted_sum": Method(WeightedSumFusion, fields=_ANY),
    "sum": Method(SumFusion, fields=_ANY),
    "mean": Method(SumFusion, fixed={"average": True}, fields=_ANY),
    "attention": Method(AttentionFusion, ("scores",), fields=_ANY),
    "gated": Method(GatedFusion, ("gate",), fields=_ANY),
    "gate": Method(SigmoidGateFusion, ("hidden_features", "conditioner"), fields=_TWO),
    "film": Method(FiLMFusion, ("conditioner",), fields=_TWO),
    "mlb": Method(FactorizedBilinearFusion, _BILINEAR),
    "mfb": Method(FactorizedBilinearFusion, (*_BILINEAR, "rank")),
    "mfh": Method(FactorizedBilinearFusion, (*_BILINEAR, "rank"), {"stages": 2}),
    "mutan": Method(BlockFusion, ("hidden_features", "rank", "normalize")),
    "tucker": Method(TuckerFusion, ("hidden_features", "normalize"), fields=_TWO),
    "block": Method(BlockFusion, ("hidden_features", "rank", "chunks", "normalize")),
    "tensor": Method(TensorFusion),
    "low_rank_tensor": Method(LowRankTensorFusion, ("rank",)),
    "product_of_experts": Method(ExpertsFusion, ("eps",)),
    "mixture_of_experts": Method(ExpertsFusion, (), {"combination": "mixture"}),
    "transformer": Method(TransformerFusion, _TOKENS),
    "bottleneck": Method(BottleneckFusion, (*_TOKENS, "num_bottlenecks", "fusion_layer")),
    "multiplicative": Method(MultiplicativeFusion, ("form", "conditioner"), fields=_TWO),
}
