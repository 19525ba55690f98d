"""Contrastive learning: similarity of a record's modalities, and losses over the batch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.fields import require_fields
from datarax.functional.contrastive import pairwise_multimodal
from datarax.functional.masking import safe_l2_normalize
from datarax.functional.similarity import cosine_similarity
from datarax.nn.projection import LogitScale, ProjectionHead
from datarax.operators.checks import (
    check_choice,
    check_count,
    check_features,
    check_number,
    check_positive,
)

ContrastiveMethod = Literal["info_nce", "sigmoid"]
Pairs = Literal["all", "anchor"]


@dataclass(frozen=True)
class ContrastiveOperatorConfig(CrossModalOperatorConfig):
    """Which contrastive loss, on which embeddings.

    Attributes:
      method: `functional.info_nce` or `functional.sigmoid_contrastive`.
      features: the width of each input field.
      projection_features: width of the shared space; `None` takes the fields as they are, of
        equal width.
      hidden_features: hidden width of the projection heads; `None` is a linear head.
      pairs: all pairs of fields, or those of the first with each other one.
      label_smoothing: of InfoNCE, in [0, 1).
      ids_field: field of integers `[]`; rows that share one are positives of each other.
      initial_scale: the inverse temperature at the start; `None` is 1/0.07 for InfoNCE (CLIP) and
        10 for the sigmoid loss (SigLIP).
      max_scale: bound of the learned inverse temperature; 100 is CLIP's.
      initial_bias: read by the sigmoid loss only, the start of its bias; -10 is SigLIP's, and
        `functional.sigmoid_bias_init` gives it for a batch size.

    Raises:
      ValueError: for an unknown choice, sizes that do not fit, a number out of range, or
        `stochastic`.
    """

    operation: str = field(default="contrastive", kw_only=True)
    method: ContrastiveMethod = field(default="info_nce", kw_only=True)
    features: dict[str, int] = field(kw_only=True, hash=False)
    projection_features: int | None = field(default=None, kw_only=True)
    hidden_features: int | None = field(default=None, kw_only=True)
    pairs: Pairs = field(default="all", kw_only=True)
    label_smoothing: float = field(default=0.0, kw_only=True)
    ids_field: str | None = field(default=None, kw_only=True)
    initial_scale: float | None = field(default=None, kw_only=True)
    max_scale: float = field(default=100.0, kw_only=True)
    initial_bias: float = field(default=-10.0, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("method", self.method, ContrastiveMethod)
        check_choice("pairs", self.pairs, Pairs)
        check_features(self.features, self.input_fields)
        fields = len(self.input_fields)
        if fields < 2 or len(set(self.input_fields)) < fields:
            raise ValueError(f"input_fields must hold two or more fields, got {self.input_fields}")
        check_count("output_fields", self.output_fields, [1, 1 + fields])
        self._check_sizes()
        check_number("label_smoothing", self.label_smoothing, low=0, high=0.999)
        check_number("max_scale", self.max_scale, low=0, high=math.inf, open_low=True)
        check_number("initial_bias", self.initial_bias, low=-math.inf, high=math.inf)
        if self.initial_scale is not None:
            check_number(
                "initial_scale", self.initial_scale, low=0, high=self.max_scale, open_low=True
            )
        if self.label_smoothing and self.method == "sigmoid":
            raise ValueError("label_smoothing belongs to method 'info_nce', got method 'sigmoid'")
        if self.stochastic:
            raise ValueError("the losses are deterministic: put a stochastic operator before them")

    def _check_sizes(self) -> None:
        if self.projection_features is not None:
            check_positive("projection_features", self.projection_features)
        elif self.hidden_features is not None:
            raise ValueError("hidden_features needs projection_features")
        elif len(set(self.features.values())) > 1:
            raise ValueError(
                f"fields of different widths {self.features} need projection_features to meet"
            )
        if self.hidden_features is not None:
            check_positive("hidden_features", self.hidden_features)


class ContrastiveOperator(CrossModalOperator):
    r"""Similarity of modalities, or a contrastive loss of each record against its batch.

    With a plain `CrossModalOperatorConfig`: the cosine similarity of the first field with each
    other one, a scalar for two fields, `[M - 1]` for M. Stochastic, it adds noise of a standard
    deviation that is drawn for each record from U(0, 0.1).

    With a `ContrastiveOperatorConfig`: projection heads, unit vectors, a learned inverse
    temperature, and `functional.pairwise_multimodal` over the rows of the batch. The first output
    field is the loss of each record `[]`, the mean over the pairs of modalities that it has; it is
    present where there is such a pair. M more output fields get the embeddings. `batch_state` gets
    the temperature and the bias under the name of the loss.

    Raises:
      ValueError: if projection heads are asked for without rngs.
    """

    built_from = (
        "method",
        "features",
        "projection_features",
        "hidden_features",
        "initial_scale",
        "max_scale",
        "initial_bias",
    )

    def __init__(
        self,
        config: CrossModalOperatorConfig,
        *,
        rngs: nnx.Rngs | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(config, rngs=rngs, name=name)
        if not isinstance(config, ContrastiveOperatorConfig):
            check_count("output_fields", config.output_fields, [1])
            if len(config.input_fields) < 2:
                raise ValueError(f"a similarity needs two fields, got {config.input_fields}")
            return
        scale = config.initial_scale
        if scale is None:
            scale = 1 / 0.07 if config.method == "info_nce" else 10.0
        sigmoid = config.method == "sigmoid"
        self.logit_scale = LogitScale(
            initial_scale=min(scale, config.max_scale),
            min_scale=min(1.0, config.max_scale, scale),
            max_scale=config.max_scale,
            initial_bias=config.initial_bias if sigmoid else None,
        )
        if config.projection_features is not None:
            if rngs is None:
                raise ValueError("projection heads draw their parameters: give rngs")
            self.heads = nnx.Dict(
                {
                    name: ProjectionHead(
                        config.features[name],
                        config.projection_features,
                        hidden_features=config.hidden_features,
                        rngs=rngs,
                    )
                    for name in config.input_fields
                }
            )

    @property
    def required_fields(self) -> tuple[str, ...]:
        """All inputs for a similarity; none for a loss, which leaves absent modalities out."""
        if isinstance(self.config, ContrastiveOperatorConfig):
            return ()
        return tuple(self.config.input_fields)

    def check_batch(self, batch: Batch) -> None:
        """Raise as `CrossModalOperator.check_batch`, and if the field of ids is missing."""
        super().check_batch(batch)
        config = self.config
        if isinstance(config, ContrastiveOperatorConfig) and config.ids_field is not None:
            require_fields(batch.data, [config.ids_field])

    def embed(self, field: str, x: Array) -> Array:
        """Unit vectors `[..., d]` in the shared space from the values `[..., width]` of a field.

        Raises:
          ValueError: for a field that is no input, or an operator without a loss.
        """
        config = self.config
        if not isinstance(config, ContrastiveOperatorConfig) or field not in config.features:
            raise ValueError(f"{field!r} is no input of a contrastive loss: {config.input_fields}")
        if config.projection_features is not None:
            x = self.heads[field](x)
        return safe_l2_normalize(x)

    def apply(
        self,
        data: Any,
        state: Any,
        metadata: dict[str, Any] | None,
        random_params: Any = None,
        stats: dict[str, Any] | None = None,
    ) -> tuple[Any, Any, dict[str, Any] | None]:
        """Similarity within one record.

        Raises:
          ValueError: for the config of a loss, which relates rows.
        """
        if isinstance(self.config, ContrastiveOperatorConfig):
            raise ValueError("a contrastive loss relates rows: call the operator on a batch")
        anchor, *others = self._extract_inputs(data)
        similarity = jnp.stack([cosine_similarity(anchor, other) for other in others])
        if random_params is not None:
            noise = random_params["scale"] * random_params["noise"]
            similarity = similarity + noise.astype(similarity.dtype)
        value = similarity[0] if len(others) == 1 else similarity
        return self._store_outputs(data, [value]), state, metadata

    def generate_random_params(self, rng: Array, data_shapes: Any) -> dict[str, Array] | None:
        """The noise of a similarity: `scale` `[B]` in [0, 0.1), standard normal `noise` `[B]`."""
        if not self.config.stochastic:
            return None
        rows = (jax.tree.leaves(data_shapes, is_leaf=_is_shape)[0][0],)
        scale_key, noise_key = jax.random.split(rng)
        return {
            "scale": jax.random.uniform(scale_key, rows, minval=0.0, maxval=0.1),
            "noise": jax.random.normal(noise_key, rows),
        }

    def apply_batch(self, batch: Batch, stats: dict[str, Any] | None = None) -> Batch:
        """The losses of a batch; see `functional.pairwise_multimodal`."""
        config = self.config
        if not isinstance(config, ContrastiveOperatorConfig):
            return super().apply_batch(batch, stats)
        self.check_batch(batch)
        embeddings = [self.embed(name, batch[name]) for name in config.input_fields]
        rows = jnp.ones(batch.batch_size, bool)
        masks = [batch.where(name) for name in config.input_fields]
        presence = [rows if mask is None else mask for mask in masks]
        scale, bias = self.logit_scale(), self.logit_scale.logit_bias
        losses, used = pairwise_multimodal(
            embeddings,
            logit_scale=scale,
            logit_bias=bias,
            presence=presence,
            loss=config.method,
            pairs=config.pairs,
            label_smoothing=config.label_smoothing,
            ids=None if config.ids_field is None else batch[config.ids_field],
        )
        outputs = [losses, *embeddings][: len(config.output_fields)]
        reported = dict(zip(config.output_fields, [used, *presence][: len(outputs)], strict=True))
        everywhere = all(mask is None for mask in masks)
        return batch.replace(
            data=self._store_outputs(batch.data, outputs),
            presence=batch.presence if everywhere else {**batch.presence, **reported},
            batch_state=_with_state(batch.batch_state, config.output_fields[0], scale, bias),
        )


def _with_state(batch_state: Any, name: str, scale: Array, bias: Array | None) -> Any:
    """The batch's state with the loss's scalars under its name; any other state is left alone."""
    if batch_state is not None and not isinstance(batch_state, Mapping):
        return batch_state
    scalars = {"temperature": 1 / scale} | ({} if bias is None else {"logit_bias": bias})
    return {**(batch_state or {}), name: jax.lax.stop_gradient(scalars)}


def _is_shape(x: Any) -> bool:
    return isinstance(x, tuple) and all(isinstance(n, int) for n in x)
