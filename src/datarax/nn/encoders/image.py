"""Pictures."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from datarax.nn.encoders.layers import DenseHead


class ImageEncoder(nnx.Module):
    """Convolutions of stride 2 with group norm, then a dense layer that keeps the places apart.

    Args:
      size: of the pictures: height and width, or one number for both.
      channels: of the pictures; `None` for gray ones without that axis.
      widths: channels of the convolutions, each divisible by 8.
      out_features: width of the result.
      dropout: rate before and after the dense layer.
      rngs: the stream `params` draws the kernels.

    Example:
      >>> encode = ImageEncoder(size=8, widths=(8,), out_features=4, rngs=nnx.Rngs(0))
      >>> jax.eval_shape(encode, jnp.zeros((3, 8, 8), jnp.uint8)).shape
      (3, 4)
    """

    def __init__(
        self,
        *,
        size: int | tuple[int, int] = 32,
        channels: int | None = None,
        widths: Sequence[int] = (32, 64, 128),
        out_features: int = 256,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 1 or any(width % 8 for width in widths):
            raise ValueError(
                f"expected a positive size and widths divisible by 8, got {size} and "
                f"{tuple(widths)}"
            )
        self.shape = (height, width) if channels is None else (height, width, channels)
        ins = (channels or 1, *widths[:-1])
        self.convolutions = nnx.List(
            [
                nnx.Conv(i, o, kernel_size=(3, 3), strides=(2, 2), rngs=rngs)
                for i, o in zip(ins, widths, strict=True)
            ]
        )
        self.norms = nnx.List([nnx.GroupNorm(o, num_groups=8, rngs=rngs) for o in widths])
        places = math.prod(-(-side // 2 ** len(widths)) for side in (height, width))
        self.head = DenseHead(places * widths[-1], out_features, dropout=dropout, rngs=rngs)

    def __call__(
        self, image: UInt8[Array, "n h w *c"], *, rng_key: PRNGKeyArray | None = None
    ) -> Float[Array, "n d"]:
        """Features of pictures; 255 is 1."""
        if image.shape[1:] != self.shape:
            sides = ", ".join(map(str, self.shape))
            raise ValueError(f"expected pictures [n, {sides}], got {image.shape}")
        x = image if image.ndim == 4 else image[..., None]
        x = x.astype(jnp.float32) / 255
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = jax.nn.gelu(norm(convolution(x)))
        return self.head(x.reshape(x.shape[0], -1), rng_key=rng_key)
