"""The model of a run: an encoder for each field, trained to agree on every pair of fields."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.core.masks import zero_skipped
from datarax.functional.contrastive import sigmoid_bias_init
from datarax.functional.masking import safe_l2_normalize
from datarax.operators.contrastive import ContrastiveOperator
from datarax.operators.contrastive_config import ContrastiveOperatorConfig
from datarax.operators.field_choice import FieldChoice, FieldChoiceConfig
from datarax.operators.fusion import FusionOperator, FusionOperatorConfig
from datarax.operators.presence import ModalityDropout, ModalityDropoutConfig
from datarax.sources.glyphs import OTHER_FACES
from datarax.train.config import FUSED, GLYPHS, TrainConfig
from datarax.train.grad_cache import grad_cache
from datarax.train.towers import (
    FEATURES,
    columns_of,
    given,
    make_encoder,
    masked_towers,
    text_towers,
)

AUGMENTATION = "augmentation"
# A volume is 0 where one modality is made of the others, so these relate the towers alone.
OF_TOWERS = ("volume", "symile")
# What a setting of `TrainConfig` means to the operator, where that is not the method's own name.
LOSS_OPTIONS: dict[str, dict[str, Any]] = {
    "decoupled": {"method": "info_nce", "decoupled": True},
    "smoothed": {"method": "info_nce", "label_smoothing": 0.1},
    "symile": {
        "method": "symile",
        "symile_negatives": "n",
        "max_scale": 1000.0,
        "stochastic": True,
        "stream_name": AUGMENTATION,
    },
}


class Retriever(nnx.Module):
    """Encoders into one space that a contrastive operator holds together.

    In training a glyph may come from another face, and modalities may be hidden. The fusion of the
    fused towers is one more modality, `"fused"`; for a loss of all towers at once, `"fused"` is the
    mean of their unit vectors instead.

    Args:
      config: which towers, the width of the space, the rates of dropout.
      rngs: the streams `params` (initial values) and `augmentation` (faces, modality dropout).
    """

    def __init__(self, config: TrainConfig, *, rngs: nnx.Rngs) -> None:
        self.towers = tuple(sorted(config.towers))
        self.encoders = nnx.Dict(  # not by the bare names: a field may be called "items"
            {encoded_field(x): make_encoder(x, config, rngs=rngs) for x in config.towers}
        )
        self.micro_batch = config.micro_batch
        self.masked = masked_towers(config)
        self.parts = config.fused_towers
        fields = [encoded_field(name) for name in config.towers]
        self.faces = _faces(config, rngs) if config.data == GLYPHS else None
        self.modality_dropout = ModalityDropout(
            ModalityDropoutConfig(
                input_fields=fields,
                output_fields=fields,
                rate=config.modality_dropout,
                stochastic=True,
                stream_name=AUGMENTATION,
            ),
            rngs=rngs,
        )
        fused = bool(self.parts) and config.loss not in OF_TOWERS
        self.fusion = _fusion(config, rngs) if fused else None
        compared = [*fields, encoded_field(FUSED)] if fused else fields
        if config.loss in OF_TOWERS:
            # The first is the anchor: a picture beside its outline would match without a text.
            texts = [encoded_field(name) for name in text_towers(config)]
            compared = sorted(fields, key=lambda name: name not in texts)
        self.has_temperature = config.loss != "triplet"
        self.contrastive = ContrastiveOperator(
            ContrastiveOperatorConfig(
                input_fields=compared,
                output_fields=["loss"],
                features=dict.fromkeys(compared, FEATURES),
                projection_features=config.embedding_size,
                **_loss_options(config),
            ),
            rngs=rngs,
        )
        if config.compute_dtype != "float32":
            self.encoders.set_attributes(dtype=jnp.dtype(config.compute_dtype))
            self.set_attributes(compute_dtype=config.compute_dtype)

    def __call__(self, batch: Batch, *, rng_key: jax.Array) -> Batch:
        """The features of the batch with a loss a record, and its scalars in `batch_state["loss"]`.

        Args:
          batch: raw fields, one a tower at least, and the other faces.
          rng_key: for dropout in the encoders.
        """
        chosen = batch if self.faces is None else self.faces(batch)
        batch = zero_skipped(chosen, batch.where())
        features, there = {}, {}
        for place, name in enumerate(self.towers):
            inputs = tuple(batch[column] for column in columns_of([name], self.masked))
            made = encoded_field(name)
            key = jax.random.fold_in(rng_key, place)
            features[made] = self._encode(self.encoders[made], inputs, key)
            if name in batch.presence:
                there[made] = batch.presence[name]
        # instead of the raw fields, which may be called like one of them or like the loss
        batch = self.modality_dropout(batch.replace(data=features, presence=there))
        if self.fusion is not None:
            batch = self.fusion(batch)
        return self.contrastive(batch)

    def _encode(
        self, encoder: nnx.Module, inputs: tuple[jax.Array, ...], key: jax.Array
    ) -> jax.Array:
        if self.micro_batch is None:
            return encoder(*inputs, rng_key=key)
        keys = jax.random.split(key, len(inputs[0]))
        return grad_cache(_encode_rows, micro_batch=self.micro_batch)(encoder, inputs, keys)

    def embed(self, field: str, values: jax.Array | Mapping[str, jax.Array]) -> jax.Array:
        """Unit vectors [n, embedding_size] of a field's values.

        Args:
          field: a tower, or `"fused"`.
          values: an array; or, by field, arrays and masks. `"fused"` needs all its parts so.

        Raises:
          KeyError: if there is no tower for the field.
        """
        if field == FUSED and self.fusion is not None:
            encoded = {encoded_field(name): self._features(name, values) for name in self.parts}
            features = self.fusion(Batch.from_parts(encoded))[encoded_field(FUSED)]
        elif self.parts and field == FUSED:
            columns = given(values, field)
            return safe_l2_normalize(sum(self.embed(name, columns) for name in self.parts))
        elif field in self.towers:
            features = self._features(field, values)
        else:
            raise KeyError(f"no tower for {field!r}; the model has {list(self.towers)}")
        # Scores of bfloat16 vectors would often tie.
        return self.contrastive.embed(encoded_field(field), features.astype(jnp.float32))

    def _features(self, name: str, values: Any) -> jax.Array:
        columns = given(values, name)
        inputs = [columns[c] for c in columns_of([name], self.masked) if c in columns]
        return self.encoders[encoded_field(name)](*inputs)

    @property
    def temperature(self) -> float | None:
        """The learned temperature of the loss; `None` for a triplet, which has none."""
        return 1 / float(self.contrastive.logit_scale()) if self.has_temperature else None


def encoded_field(name: str) -> str:
    """The field that holds the features of a tower's field."""
    return f"{name}_features"


def build(config: TrainConfig) -> Retriever:
    """The untrained model: the same for the same configuration."""
    return Retriever(config, rngs=nnx.Rngs(config.seed))


def _encode_rows(encoder: Any, inputs: tuple[jax.Array, ...], keys: jax.Array) -> jax.Array:
    """Each row with its own key, so that dropout is the same in micro-batches of any size."""

    def encode(row: tuple[jax.Array, ...], key: jax.Array) -> jax.Array:
        return encoder(*(x[None] for x in row), rng_key=key)[0]

    return jax.vmap(encode)(inputs, keys)


def _loss_options(config: TrainConfig) -> dict[str, Any]:
    if config.loss == "sigmoid":
        bias = sigmoid_bias_init(config.batch_size)
        return {"method": "sigmoid", "initial_bias": bias}
    return LOSS_OPTIONS.get(config.loss, {"method": config.loss})


def _faces(config: TrainConfig, rngs: nnx.Rngs) -> FieldChoice:
    choice = FieldChoiceConfig(
        input_fields=["image", *OTHER_FACES],
        output_fields=["image"],
        rate=config.face_rate,
        stochastic=True,
        stream_name=AUGMENTATION,
    )
    return FieldChoice(choice, rngs=rngs)


def _fusion(config: TrainConfig, rngs: nnx.Rngs) -> FusionOperator:
    parts = [encoded_field(name) for name in config.fused_towers]
    method: Any = config.fusion
    options = FusionOperatorConfig(
        input_fields=parts,
        output_fields=[encoded_field(FUSED)],
        method=method,
        features=dict.fromkeys(parts, FEATURES),
        out_features=FEATURES,
    )
    return FusionOperator(options, rngs=rngs)
