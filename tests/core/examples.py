"""Operators and batches that the tests of the contract share; the first ones are the page's own."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from datarax.core import Batch, CrossModalOperator, CrossModalOperatorConfig


class FusionOperator(CrossModalOperator):
    """The page's subclass pattern, word for word."""

    def __init__(self, config: CrossModalOperatorConfig, *, rngs: nnx.Rngs | None = None):
        super().__init__(config, rngs=rngs)
        # Add learnable fusion parameters
        self.fusion_weights = nnx.Param(jnp.ones(len(config.input_fields)))

    def apply(self, data, state, metadata, random_params=None, stats=None):
        # Extract inputs
        inputs = self._extract_inputs(data)

        # Fuse with learnable weights
        fused = sum(w * emb for w, emb in zip(self.fusion_weights[...], inputs))  # noqa: B905

        # Store outputs
        outputs = [fused]
        result = self._store_outputs(data, outputs)

        return result, state, metadata

    def generate_random_params(self, rng, data_shapes):
        # For stochastic operators only
        batch_size = data_shapes[self.config.input_fields[0]][0]
        return jax.random.normal(rng, (batch_size,))


class Noisy(FusionOperator):
    """The page's pattern, with its draw handed on."""

    def apply(self, data, state, metadata, random_params=None, stats=None):
        drawn = jnp.float32(-1) if random_params is None else random_params
        return self._store_outputs(data, [drawn]), state, metadata


class NoisyUniform(Noisy):
    """The page's second draw, word for word."""

    def generate_random_params(self, rng, data_shapes):
        batch_size = data_shapes[self.config.input_fields[0]][0]
        # Generate per-element noise scales
        return jax.random.uniform(rng, (batch_size,), minval=0.0, maxval=0.1)


class Identity(CrossModalOperator):
    """Changes nothing."""

    def apply(self, data, state, metadata, random_params=None, stats=None):
        return data, state, metadata


class Shift(CrossModalOperator):
    """Subtracts a statistic from the first input."""

    def apply(self, data, state, metadata, random_params=None, stats=None):
        (x, *_) = self._extract_inputs(data)
        return self._store_outputs(data, [x if stats is None else x - stats["mean"]]), state, None


class Traced(CrossModalOperator):
    """Doubles the first input and notes in `runs` that it was traced or run."""

    def __init__(self, config, *, runs=None, rngs=None):
        super().__init__(config, rngs=rngs)
        self.weight = nnx.Param(jnp.float32(2))
        self.runs = nnx.static(Notes() if runs is None else runs)

    def apply(self, data, state, metadata, random_params=None, stats=None):
        self.runs.count += 1
        (x, *_) = self._extract_inputs(data)
        return self._store_outputs(data, [x * self.weight[...]]), state, metadata


class Notes:
    """A counter that is compared by identity."""

    def __init__(self):
        self.count = 0


class PairLoss(CrossModalOperator):
    """Batch-level: each row's squared distance to the mean of the other modality."""

    def __init__(self, config, *, rngs=None):
        super().__init__(config, rngs=rngs)
        self.scale = nnx.Param(jnp.float32(1))

    def apply_batch(self, batch, stats=None):
        a, b = self._extract_inputs(batch.data)
        where = batch.where(*self.config.input_fields)
        where = jnp.ones(batch.batch_size, bool) if where is None else where
        count = jnp.maximum(where.sum(), 1).astype(jnp.float32)
        mean = jnp.sum(jnp.where(where[:, None], b, 0), axis=0, keepdims=True) / count
        loss = jnp.sum((self.scale[...] * a - mean) ** 2, axis=-1)
        return batch.replace(
            data=self._store_outputs(batch.data, [loss]), batch_state={"count": count}
        )


class Queue(CrossModalOperator):
    """Batch-level: keeps the sum of the last batch in a Variable."""

    def __init__(self, config, *, rngs=None):
        super().__init__(config, rngs=rngs)
        self.last = nnx.Variable(jnp.zeros(()))

    def apply_batch(self, batch, stats=None):
        (x, *_) = self._extract_inputs(batch.data)
        out = jnp.broadcast_to(self.last[...], x.shape[:1])
        self.last[...] = x.sum()
        return batch.replace(data=self._store_outputs(batch.data, [out]))


def config(*inputs, out=("joint",), **options):
    return CrossModalOperatorConfig(
        input_fields=list(inputs) or ["image", "text"], output_fields=list(out), **options
    )


def stochastic(*inputs, **options):
    return config(*inputs, stochastic=True, stream_name="noise", **options)


def arrays(rows=6, width=3, names=("image", "text"), seed=0):
    rng = np.random.default_rng(seed)
    return {n: jnp.asarray(rng.normal(size=(rows, width)), jnp.float32) for n in names}


def records(rows=6, **parts):
    return Batch.from_parts(arrays(rows), **parts)


def indexed(rows=6, first=0, epoch=0, **parts):
    index = jnp.arange(first, first + rows, dtype=jnp.uint32)
    return records(rows, record_index=index, epoch=epoch, **parts)


def counts(op):
    stats = op.get_operation_stats()
    return stats["applied_count"], stats["skipped_count"]
