"""Sounds."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from datarax.functional.audio import log_mel_spectrogram, mel_filterbank
from datarax.nn.encoders.layers import SequencePool

MOST_FRAMES = 128  # that attention sees


class SoundEncoder(nnx.Module):
    """Log-mel frames of 25 ms every 10 ms, convolutions along time, then attention and pooling.

    A frame is kept where the sample in its middle is. Without dropout, the features do not depend
    on how far a sound is padded.

    Args:
      samples: of the longest sound.
      rate: in Hz.
      mels: bands.
      width: of a frame's vector.
      layers: attention blocks.
      out_features: width of the result.
      dropout: rate on the frames' vectors.
      rngs: the stream `params` draws the kernels.

    Example:
      >>> encode = SoundEncoder(samples=1600, rate=8000, mels=16, width=8, rngs=nnx.Rngs(0))
      >>> jax.eval_shape(encode, jnp.zeros((2, 1600))).shape
      (2, 256)
    """

    def __init__(
        self,
        *,
        samples: int,
        rate: int,
        mels: int = 64,
        width: int = 128,
        layers: int = 1,
        out_features: int = 256,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.hop = max(1, rate // 100)
        self.window = max(2, min(2 * (rate // 80), samples))
        # What has fewer bins than bands would leave some of these empty.
        self.mels = min(mels, max(1, self.window // 4))
        self.rate = rate
        frames = -(-samples // self.hop)
        halvings = max(1, (frames // MOST_FRAMES).bit_length())
        # A click has a flat spectrum: the fast variance would be the rounding of its level.
        self.norm = nnx.LayerNorm(self.mels, use_fast_variance=False, rngs=rngs)
        self.convolutions = nnx.List(
            [
                nnx.Conv(
                    width if i else self.mels,
                    width,
                    (3,),
                    strides=(2,),
                    padding=((1, 1),),
                    rngs=rngs,
                )
                for i in range(halvings)
            ]
        )
        length = -(-frames // 2**halvings)
        self.pool = SequencePool(
            length, width, out_features, layers=layers, dropout=dropout, rngs=rngs
        )

    def __call__(
        self,
        sound: Float[Array, "n t"],
        mask: Bool[Array, "n t"] | None = None,
        *,
        rng_key: PRNGKeyArray | None = None,
    ) -> Float[Array, "n d"]:
        """Features of the samples that `mask` keeps; of a row without any, a constant."""
        there = jnp.ones(sound.shape, bool) if mask is None else mask
        bank = mel_filterbank(fft_length=self.window, sample_rate=self.rate, n_mels=self.mels)
        # Zeros behind: the end is mirrored, and must not tell how long the padding is.
        x, padded = (jnp.pad(array, ((0, 0), (0, self.window))) for array in (sound, there))
        x = log_mel_spectrogram(
            x, filterbank=bank, fft_length=self.window, hop_length=self.hop, where=padded
        )
        kept = there[:, :: self.hop]
        x = jnp.where(kept[..., None], self.norm(x[:, : kept.shape[1]]), 0)
        for convolution in self.convolutions:
            x = jax.nn.gelu(convolution(x))
            kept = kept[:, ::2]
            x = jnp.where(kept[..., None], x, 0)
        return self.pool(x, kept, rng_key=rng_key)
