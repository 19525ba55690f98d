"""Contrastive learning: similarity of a record's modalities, and losses over the batch."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from datarax.core import random
from datarax.core.cross_modal import CrossModalOperator, CrossModalOperatorConfig
from datarax.core.element_batch import Batch
from datarax.core.fields import require_fields
from datarax.functional.checks import accumulation_dtype, check_mask
from datarax.functional.contrastive import symile, volume_contrastive
from datarax.functional.contrastive.pairs import average_over_pairs, mean_similarities
from datarax.functional.contrastive.volume import Shape
from datarax.functional.masking import safe_l2_normalize
from datarax.functional.similarity import cosine_similarity
from datarax.nn.projection import LogitScale, ProjectionHead
from datarax.nn.queue import EmbeddingQueue
from datarax.operators.checks import check_axes, check_count
from datarax.operators.contrastive_config import (
    INITIAL_SCALES,
    OF_ALL_FIELDS,
    READ_BY,
    ContrastiveOperatorConfig,
)
from datarax.operators.pair_losses import Columns, Side, narrow_dtype, pair_losses


class ContrastiveOperator(CrossModalOperator):
    r"""Similarity of modalities, or a contrastive loss of each record against its batch.

    With a plain `CrossModalOperatorConfig`: the cosine similarity of the first field with each
    other one, a scalar for two fields, `[M - 1]` for M. Stochastic, it adds noise of a standard
    deviation that is drawn for each record from U(0, 0.1).

    With a `ContrastiveOperatorConfig`: projection heads, unit vectors, a learned inverse
    temperature, and the loss of `config.method` over the rows of the batch. The first output field
    is the loss of each record `[]`, for losses of two modalities the mean over the pairs of
    modalities that it has; it is present where there is such a pair. M more output fields get the
    embeddings.

    `batch_state` gets scalars worth watching under the name of the loss: `temperature`, the bias,
    `queue_size`, and the mean cosines of matching and of other pairs (`positive_similarity`,
    `negative_similarity`), each averaged over the pairs of fields.

    Raises:
      ValueError: if projection heads are asked for without rngs.
    """

    built_from = (
        "method",
        "features",
        "projection_features",
        "hidden_features",
        "pairs",
        "per_pair_temperature",
        "ids_field",
        "queue_size",
        "initial_scale",
        "max_scale",
        "initial_bias",
        "relative_bias",
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
        if "max_scale" in READ_BY[config.method]:
            self.logit_scale = _logit_scale(config)
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
        if config.queue_size is not None:
            self.queue = EmbeddingQueue(
                config.queue_size,
                config.projection_features or config.features[config.input_fields[0]],
                modalities=len(config.input_fields),
                with_ids=config.ids_field is not None,
            )

    @property
    def required_fields(self) -> tuple[str, ...]:
        """All inputs for a similarity; none for a loss, which leaves absent modalities out."""
        if isinstance(self.config, ContrastiveOperatorConfig):
            return ()
        return tuple(self.config.input_fields)

    def check_batch(self, batch: Batch) -> None:
        """Raise as `CrossModalOperator.check_batch`, and for fields that the config names.

        Raises:
          KeyError: for a field of ids, masks, teachers or negatives that the batch lacks.
          TypeError: for an input field that is not floating point, or a mask that is not boolean.
          ValueError: for an input field or a mask of another shape.
        """
        super().check_batch(batch)
        config = self.config
        if not isinstance(config, ContrastiveOperatorConfig):
            return
        named = [] if config.ids_field is None else [config.ids_field]
        for others in (config.token_masks, config.teacher_fields, config.negatives_fields):
            named += [] if others is None else others.values()
        require_fields(batch.data, named)
        axes = ["n", "t"] if config.similarity == "late_interaction" else ["n"]
        why = f"features and similarity={config.similarity!r}"
        for name in config.input_fields:
            check_axes(name, batch[name], [*axes, config.features[name]], why=why)
        for name, other in (config.token_masks or {}).items():
            check_mask(batch[other], shape=batch[name].shape[:2], name=f"field {other!r}")
        for name, other in (config.negatives_fields or {}).items():
            check_axes(other, batch[other], ["n", "k", config.features[name]], why="features")

    def embed(self, field: str, x: Array) -> Array:
        """Unit vectors `[..., d]` in the shared space from the values `[..., width]` of a field.

        Raises:
          ValueError: for a field that is no input, or an operator without a loss.
        """
        return safe_l2_normalize(self._projected(field, x))

    def _projected(self, field: str, x: Array) -> Array:
        config = self.config
        if not isinstance(config, ContrastiveOperatorConfig) or field not in config.features:
            raise ValueError(f"{field!r} is no input of a contrastive loss: {config.input_fields}")
        return x if config.projection_features is None else self.heads[field](x)

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
        """The losses of a batch; see `functional.contrastive`."""
        config = self.config
        if not isinstance(config, ContrastiveOperatorConfig):
            return super().apply_batch(batch, stats)
        self.check_batch(batch)
        made = {n: self._projected(n, _values(config, batch, n)) for n in config.input_fields}
        # Wide: the loss rounds them for its products alone.
        vectors = {n: safe_l2_normalize(x.astype(accumulation_dtype(x))) for n, x in made.items()}
        masks = {name: _mask(config, batch, name) for name in config.input_fields}
        every = jnp.ones(batch.batch_size, bool)
        presence = {name: every if mask is None else mask for name, mask in masks.items()}
        if config.enqueue == "before":
            self._enqueue(config, batch, vectors, presence=presence)
        loss = self._loss_of_all if config.method in OF_ALL_FIELDS else self._loss_of_pairs
        losses, used = loss(config, batch, vectors, presence=presence)
        if config.enqueue == "after":
            self._enqueue(config, batch, vectors, presence=presence)
        units = [vectors[name].astype(x.dtype) for name, x in made.items()]
        outputs = [losses, *units][: len(config.output_fields)]
        there = [used, *presence.values()][: len(outputs)]
        reported = dict(zip(config.output_fields, there, strict=True))
        everywhere = all(mask is None for mask in masks.values())
        watched = self._watched(config, vectors, presence=presence)
        return batch.replace(
            data=self._store_outputs(batch.data, outputs),
            presence=batch.presence if everywhere else {**batch.presence, **reported},
            batch_state=_with_state(batch.batch_state, config.output_fields[0], watched),
        )

    def _loss_of_all(
        self,
        config: ContrastiveOperatorConfig,
        batch: Batch,
        vectors: dict[str, Array],
        *,
        presence: dict[str, Array],
    ) -> tuple[Array, Array]:
        options = {"logit_scale": self.logit_scale(), "presence": list(presence.values())}
        if config.method == "symile":
            if config.symile_negatives == "n":
                fixed = random.threefry_key(jnp.zeros(2, jnp.uint32))
                options["key"] = fixed if self.deterministic else self.batch_key(batch)
            return symile(list(vectors.values()), negatives=config.symile_negatives, **options)
        shape: Shape = "volume"
        if config.method == "triangle":
            shape = "triangle_root" if config.triangle_root else "triangle"
        return volume_contrastive(
            list(vectors.values()),
            shape=shape,
            directions=config.directions,
            label_smoothing=config.label_smoothing,
            ids=_ids(config, batch),
            **options,
        )

    def _loss_of_pairs(
        self,
        config: ContrastiveOperatorConfig,
        batch: Batch,
        vectors: dict[str, Array],
        *,
        presence: dict[str, Array],
    ) -> tuple[Array, Array]:
        sides = {
            name: self._side(config, batch, name, vectors=vectors[name], presence=presence[name])
            for name in vectors
        }
        losses, where, weights = [], [], []
        given = config.pair_weights or (1.0,) * len(config.field_pairs)
        for place, (a, b) in enumerate(config.field_pairs):
            temperature = self._scalars(config)
            if config.per_pair_temperature:
                temperature = {name: x[place] for name, x in temperature.items()}
            options = {"ids": _ids(config, batch), "operands": narrow_dtype(batch[a], batch[b])}
            parts = pair_losses(config, sides[a], sides[b], temperature=temperature, **options)
            losses += parts
            where += [presence[a] & presence[b]] * len(parts)
            weights += [given[place]] * len(parts)
        return average_over_pairs(
            jnp.stack(losses, axis=1), where=jnp.stack(where, axis=1), weights=jnp.asarray(weights)
        )

    def _side(
        self,
        config: ContrastiveOperatorConfig,
        batch: Batch,
        name: str,
        *,
        vectors: Array,
        presence: Array,
    ) -> Side:
        columns = None
        if config.queue_size is not None:
            place = config.input_fields.index(name)
            columns = Columns(self.queue.embeddings(place), self.queue.valid(place), self.queue.ids)
        elif config.negatives_fields is not None and name in config.negatives_fields:
            other = config.negatives_fields[name]
            negatives = self.embed(name, batch[other])
            there = batch.where(other)
            there = jnp.ones(batch.batch_size, bool) if there is None else there
            columns = Columns(
                negatives.reshape(-1, negatives.shape[-1]),
                jnp.repeat(there, negatives.shape[1]),
            )
        tokens, teachers = config.token_masks or {}, config.teacher_fields or {}
        return Side(
            vectors,
            presence,
            tokens=batch[tokens[name]] if name in tokens else None,
            columns=columns,
            teacher=batch[teachers[name]] if name in teachers else None,
        )

    def _scalars(self, config: ContrastiveOperatorConfig) -> dict[str, Array]:
        """The scale and the bias that the method has, as the functions call them."""
        if "max_scale" not in READ_BY[config.method]:
            return {}
        scalars = {
            "logit_scale": self.logit_scale(),
            "logit_bias": self.logit_scale.logit_bias,
            "relative_bias": self.logit_scale.relative_bias,
        }
        return {name: x for name, x in scalars.items() if x is not None}

    def _enqueue(
        self,
        config: ContrastiveOperatorConfig,
        batch: Batch,
        vectors: dict[str, Array],
        *,
        presence: dict[str, Array],
    ) -> None:
        if config.queue_size is not None and not self.deterministic:
            where, ids = list(presence.values()), _ids(config, batch)
            self.queue.enqueue(list(vectors.values()), where=where, ids=ids)

    def _watched(
        self,
        config: ContrastiveOperatorConfig,
        vectors: dict[str, Array],
        *,
        presence: dict[str, Array],
    ) -> dict[str, Array]:
        scalars = self._scalars(config)
        if "logit_scale" in scalars:
            scalars["temperature"] = 1 / scalars.pop("logit_scale")
        if config.queue_size is not None:
            scalars["queue_size"] = self.queue.size
        if config.similarity == "cosine":
            pairs = list(combinations(vectors, 2))
            both = [presence[a] & presence[b] for a, b in pairs]
            found = [
                mean_similarities(vectors[a], vectors[b], where=rows)
                for (a, b), rows in zip(pairs, both, strict=True)
            ]
            some = jnp.stack([jnp.any(rows) for rows in both])
            names = ("positive_similarity", "negative_similarity")
            for name, values in zip(names, zip(*found, strict=True), strict=True):
                scalars[name] = average_over_pairs(jnp.stack(values), where=some)[0]
        return jax.lax.stop_gradient(scalars)


def _logit_scale(config: ContrastiveOperatorConfig) -> LogitScale:
    scale = config.initial_scale
    if scale is None:
        scale = min(INITIAL_SCALES.get(config.method, 1 / 0.07), config.max_scale)
    return LogitScale(
        initial_scale=scale,
        min_scale=min(1.0, scale),
        max_scale=config.max_scale,
        initial_bias=config.initial_bias if config.method == "sigmoid" else None,
        relative=config.relative_bias,
        pairs=len(config.field_pairs) if config.per_pair_temperature else None,
    )


def _ids(config: ContrastiveOperatorConfig, batch: Batch) -> Array | None:
    return None if config.ids_field is None else jnp.asarray(batch[config.ids_field])


def _values(config: ContrastiveOperatorConfig, batch: Batch, name: str) -> Array:
    """A field, with zeros for tokens that are not there: no head may see what they hold."""
    masks = config.token_masks or {}
    if name not in masks:
        return batch[name]
    return jnp.where(jnp.asarray(batch[masks[name]])[..., None], batch[name], 0)


def _mask(config: ContrastiveOperatorConfig, batch: Batch, name: str) -> Array | None:
    """The rows that have a field with all that belongs to it; `None` means all."""
    tokens, teachers = config.token_masks or {}, config.teacher_fields or {}
    named = [name, *(others[name] for others in (tokens, teachers) if name in others)]
    named += [] if config.ids_field is None else [config.ids_field]
    mask = batch.where(*named)
    if name in tokens:
        some = jnp.any(batch[tokens[name]], axis=-1)
        mask = some if mask is None else mask & some
    return None if mask is None else jnp.asarray(mask)


def _with_state(batch_state: Any, name: str, scalars: dict[str, Array]) -> Any:
    """The batch's state with the loss's scalars under its name; any other state is left alone."""
    if batch_state is not None and not isinstance(batch_state, Mapping):
        return batch_state
    return {**(batch_state or {}), name: scalars}


def _is_shape(x: Any) -> bool:
    return isinstance(x, tuple) and all(isinstance(n, int) for n in x)
