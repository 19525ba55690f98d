"""Fusion: one vector from the modalities that a record has."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import jax.numpy as jnp
from flax import nnx

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.fields import get_field, require_fields
from datarax.core.presence import row_presence, with_presence
from datarax.functional.fusion.multiplicative import Form
from datarax.functional.fusion.weighted import Gate
from datarax.nn.bilinear import Activation, Normalize
from datarax.nn.fusion import Scores, WeightedSumFusion
from datarax.nn.token_fusion import Readout
from datarax.operators.checks import (
    check_choice,
    check_count,
    check_features,
    check_number,
    check_options,
    check_positive,
)
from datarax.operators.fusion_methods import METHODS, TOKEN_METHODS, FusionMethod


@dataclass(frozen=True)
class FusionOperatorConfig(CrossModalOperatorConfig):
    """How to fuse.

    Attributes:
      method: the name of a module of `nn`, see `fusion_methods.METHODS`.
      features: the width of each input field.
      out_features: the width of the result.
      gate: gated: a `"softmax"` over the modalities that are there, or a `"sigmoid"` for each
        (Arevalo et al., 2017, arXiv:1702.01992).
      scores: attention: each modality's score from itself (`"separate"`) or from all (`"joint"`).
      conditioner: gate, film, multiplicative: the field that conditions the other one; `None`: the
        first.
      hidden_features: gate, bilinear and token methods: the width in which the modalities meet;
        `None`: `out_features`.
      activation, output_activation: mlb, mfb, mfh: of the projections and of the result.
      normalize: bilinear methods: signed square root and unit norm of the product, the
        `"whole"` one or each of block's `"chunks"`; or `"none"`.
      rank: terms of each sum in mfb, mfh, mutan, block and low_rank_tensor.
      chunks: block: number of chunks.
      eps: product_of_experts: added to every variance.
      depth, num_heads, mlp_features: transformer, bottleneck: number of blocks, heads of each, and
        width inside each; `mlp_features=None` is four times that of a token. concat:
        `mlp_features` is the width of a hidden layer, `None` for none.
      readout: transformer, bottleneck: a class token or the mean of tokens.
      token_masks: transformer, bottleneck: for input fields that are token sequences `[t, d]` the
        field with a bool for each token, True to keep; a field without an entry keeps all.
      num_bottlenecks, fusion_layer: bottleneck: the shared tokens, and the layer from which on
        they are there; above `depth - 2` the fields do not meet before the readout.
      form: multiplicative: the weights made from the conditioner are a `"matrix"`, a `"vector"`
        (its diagonal) or a `"scalar"`.

    Raises:
      ValueError: for an unknown choice, an option that the method does not read, a size that does
        not fit, or a wrong number of fields.
    """

    method: FusionMethod = field(default="attention", kw_only=True)
    features: dict[str, int] = field(kw_only=True, hash=False)
    out_features: int = field(kw_only=True)
    gate: Gate = field(default="softmax", kw_only=True)
    scores: Scores = field(default="separate", kw_only=True)
    conditioner: str | None = field(default=None, kw_only=True)
    hidden_features: int | None = field(default=None, kw_only=True)
    activation: Activation = field(default="identity", kw_only=True)
    output_activation: Activation = field(default="identity", kw_only=True)
    normalize: Normalize = field(default="whole", kw_only=True)
    rank: int = field(default=8, kw_only=True)
    chunks: int = field(default=4, kw_only=True)
    eps: float = field(default=0.0, kw_only=True)
    depth: int = field(default=2, kw_only=True)
    num_heads: int = field(default=4, kw_only=True)
    mlp_features: int | None = field(default=None, kw_only=True)
    readout: Readout = field(default="mean", kw_only=True)
    token_masks: dict[str, str] | None = field(default=None, kw_only=True, hash=False)
    num_bottlenecks: int = field(default=4, kw_only=True)
    fusion_layer: int = field(default=0, kw_only=True)
    form: Form = field(default="matrix", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("method", self.method, FusionMethod)
        choices = {
            "gate": (self.gate, Gate),
            "scores": (self.scores, Scores),
            "activation": (self.activation, Activation),
            "output_activation": (self.output_activation, Activation),
            "normalize": (self.normalize, Normalize),
            "readout": (self.readout, Readout),
            "form": (self.form, Form),
        }
        for name, (value, among) in choices.items():
            check_choice(name, value, among)
        check_options(self, self.method, {name: m.options for name, m in METHODS.items()})
        check_features(self.features, self.input_fields)
        self._check_sizes()
        self._check_fields()

    def _check_sizes(self) -> None:
        sizes = {
            "out_features": self.out_features,
            "rank": self.rank,
            "chunks": self.chunks,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "num_bottlenecks": self.num_bottlenecks,
            "hidden_features": self.hidden_features,
            "mlp_features": self.mlp_features,
        }
        for name, size in sizes.items():
            if size is not None or name not in ("hidden_features", "mlp_features"):
                check_positive(name, size)
        check_number("eps", self.eps, low=0, high=1)
        width = self.hidden_features or self.out_features
        if self.method in TOKEN_METHODS and width % self.num_heads:
            raise ValueError(
                f"num_heads {self.num_heads} does not divide the width {width}: "
                "give another, or hidden_features"
            )
        if self.method == "block" and self.chunks > width:
            raise ValueError(f"chunks must be at most hidden_features {width}, got {self.chunks}")
        if self.normalize == "chunks" and self.method != "block":
            raise ValueError(f"normalize='chunks' is read by block only, got {self.method!r}")
        layer = self.fusion_layer
        whole = isinstance(layer, int) and not isinstance(layer, bool)
        if self.method == "bottleneck" and not (whole and 0 <= layer <= self.depth):
            raise ValueError(
                f"fusion_layer must be an integer from 0 to depth {self.depth}, got {layer!r}"
            )

    def _check_fields(self) -> None:
        least, most = METHODS[self.method].fields
        count = len(self.input_fields)
        if count < least or (most is not None and count > most):
            wanted = f"exactly {most}" if least == most else f"at least {least}"
            raise ValueError(
                f"method {self.method!r} takes {wanted} input_fields, got {count}: "
                f"{self.input_fields}"
            )
        check_count("output_fields", self.output_fields, [1, 2] if self.of_experts else [1])
        if self.conditioner is not None and self.conditioner not in self.input_fields:
            raise ValueError(
                f"conditioner must be one of {self.input_fields}, got {self.conditioner!r}"
            )
        masks = self.token_masks
        if masks is not None and (
            not isinstance(masks, Mapping)
            or not set(masks) <= set(self.input_fields)
            or not all(isinstance(mask, str) for mask in masks.values())
        ):
            raise ValueError(
                f"token_masks must map fields of {self.input_fields} to mask fields, got {masks!r}"
            )

    @property
    def of_experts(self) -> bool:
        """Whether the method gives a log-variance too, for a second output field."""
        return self.method in ("product_of_experts", "mixture_of_experts")


class FusionOperator(CrossModalOperator):
    """Fuse the input fields `[d_m]` of a record into one output field `[d]`.

    With a plain `CrossModalOperatorConfig` it is a learned weighted sum of fields of equal width
    (`nn.WeightedSumFusion`), with a `FusionOperatorConfig` any of its methods. A record needs one
    of the fields only: the output is present if any input is. The transformer and the bottleneck
    also take fields of tokens `[t, d_m]`; one without a kept token counts as absent. The two
    methods of experts write the mean and, with a second output field, the log-variance.

    Example:
      >>> config = CrossModalOperatorConfig(input_fields=["image", "text"], output_fields=["joint"])
      >>> record = {"image": jnp.ones(3), "text": jnp.zeros(3)}
      >>> FusionOperator(config).apply(record, {}, None)[0]["joint"].tolist()
      [0.5, 0.5, 0.5]
    """

    built_from = (
        "method",
        "features",
        "out_features",
        *sorted({name for method in METHODS.values() for name in method.options} - {"token_masks"}),
    )

    def __init__(
        self,
        config: CrossModalOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        if not isinstance(config, FusionOperatorConfig):
            check_count("output_fields", config.output_fields, [1])
            self.fusion: Any = WeightedSumFusion([None] * len(config.input_fields))
        elif rngs is None:
            raise ValueError(f"fusion by {config.method!r} draws its parameters: give rngs")
        else:
            self.fusion = _fusion(config, rngs)

    @property
    def required_fields(self) -> tuple[str, ...]:
        """None: absent modalities are left out of the fusion."""
        return ()

    def check_batch(self, batch: Batch) -> None:
        """Raise as `CrossModalOperator.check_batch`, and if a mask field is missing."""
        super().check_batch(batch)
        if isinstance(self.config, FusionOperatorConfig):
            require_fields(batch.data, (self.config.token_masks or {}).values())

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Fuse one record; see `nn`."""
        config = self.config
        inputs = self._extract_inputs(data)
        presence = row_presence(metadata, config.input_fields)
        if isinstance(config, FusionOperatorConfig) and config.method in TOKEN_METHODS:
            names = config.token_masks or {}
            masks = [get_field(data, names[f]) if f in names else None for f in config.input_fields]
            tokens = [x[None] if jnp.ndim(x) == 1 else x for x in inputs]
            fused = self.fusion(tokens, presence, masks=masks)
            presence = [
                there if mask is None else there & jnp.any(mask)
                for there, mask in zip(presence, masks, strict=True)
            ]
        else:
            _check_vectors(dict(zip(config.input_fields, inputs, strict=True)))
            fused = self.fusion(inputs, presence)
        outputs = list(fused) if isinstance(fused, tuple) else [fused]
        written = config.output_fields
        some = [reduce(jnp.logical_or, presence)] * len(written)
        data = self._store_outputs(data, outputs[: len(written)])
        return data, state, with_presence(metadata, written, some)


def _check_vectors(fields: dict[str, Any]) -> None:
    for name, x in fields.items():
        if jnp.ndim(x) != 1:
            raise ValueError(
                f"field {name!r} must be a vector [d] in each record, got shape {jnp.shape(x)}: "
                f"only {' and '.join(TOKEN_METHODS)} take tokens"
            )


def _fusion(config: FusionOperatorConfig, rngs: nnx.Rngs) -> nnx.Module:
    """The module of the method, its options by the names that both have."""
    method = METHODS[config.method]
    values = dataclasses.asdict(config)
    options = {name: values[name] for name in method.options if name != "token_masks"}
    if "conditioner" in options:
        name = options.pop("conditioner")
        options["condition"] = 0 if name is None else config.input_fields.index(name)
    widths = [config.features[name] for name in config.input_fields]
    return method.module(widths, config.out_features, **options, **method.fixed, rngs=rngs)
