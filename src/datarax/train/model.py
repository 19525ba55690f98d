"""The model of a run: an encoder for each field, trained to agree on every pair of fields."""

from typing import Any

import jax
from flax import nnx

from datarax.core.element_batch import Batch
from datarax.nn.encoders import ImageEncoder, PointEncoder, TextEncoder
from datarax.operators.contrastive import ContrastiveOperator, ContrastiveOperatorConfig
from datarax.operators.presence import ModalityDropout, ModalityDropoutConfig
from datarax.sources.glyphs import OTHER_FACES
from datarax.train.config import TrainConfig
from datarax.train.faces import FaceChoice, FaceChoiceConfig

FEATURES = 256
AUGMENTATION = "augmentation"


class Retriever(nnx.Module):
    """Encoders into one space that a contrastive operator holds together.

    In training a picture may come from another face, and modalities may be hidden.

    Args:
      config: which towers, the width of the space, the rates of dropout.
      rngs: the streams `params` (initial values) and `augmentation` (faces, modality dropout).
    """

    def __init__(self, config: TrainConfig, *, rngs: nnx.Rngs) -> None:
        self.encoders = nnx.Dict({name: _encoder(name, config, rngs) for name in config.towers})
        encoded = {name: encoded_field(name) for name in config.towers}
        fields = list(encoded.values())
        self.faces = FaceChoice(
            FaceChoiceConfig(
                input_fields=["image", *OTHER_FACES],
                output_fields=["image"],
                operation="augmentation",
                rate=config.face_rate,
                stochastic=True,
                stream_name=AUGMENTATION,
            ),
            rngs=rngs,
        )
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
        self.contrastive = ContrastiveOperator(
            ContrastiveOperatorConfig(
                input_fields=fields,
                output_fields=["loss"],
                features=dict.fromkeys(fields, FEATURES),
                projection_features=config.embedding_size,
            ),
            rngs=rngs,
        )

    def __call__(self, batch: Batch, *, rng_key: jax.Array) -> Batch:
        """The batch with a loss a record, and its `temperature` in `batch_state["loss"]`.

        Args:
          batch: raw fields, one a tower at least, and the other faces.
          rng_key: for dropout in the encoders.
        """
        batch = self.faces(batch)
        for place, (name, encoder) in enumerate(sorted(self.encoders.items())):
            features = encoder(batch[name], rng_key=jax.random.fold_in(rng_key, place))
            batch = batch.replace(data={**batch.data, encoded_field(name): features})
        return self.contrastive(self.modality_dropout(batch))

    def embed(self, field: str, column: jax.Array) -> jax.Array:
        """Unit vectors [n, embedding_size] of a field's values."""
        return self.contrastive.embed(encoded_field(field), self.encoders[field](column))

    @property
    def temperature(self) -> float:
        """The learned temperature of the loss."""
        return 1 / float(self.contrastive.logit_scale())


def encoded_field(name: str) -> str:
    """The field that holds the features of a tower's field."""
    return f"{name}_features"


def build(config: TrainConfig) -> Retriever:
    """The untrained model: the same for the same configuration."""
    return Retriever(config, rngs=nnx.Rngs(config.seed))


def _encoder(name: str, config: TrainConfig, rngs: nnx.Rngs) -> Any:
    kinds: dict[str, Any] = {"image": ImageEncoder, "outline": PointEncoder, "name": TextEncoder}
    return kinds[name](out_features=FEATURES, dropout=config.dropout, rngs=rngs)
