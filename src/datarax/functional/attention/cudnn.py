"""When cuDNN's fused attention is used, and how it is called."""

import jax
import jax.numpy as jnp
from jax.extend.backend import get_backend
from jaxtyping import Array

# cuDNN's fused attention begins with Ampere.
_LEAST_CAPABILITY = 8.0


def fits_cudnn(
    query: Array | jax.ShapeDtypeStruct,
    key: Array | jax.ShapeDtypeStruct,
    value: Array | jax.ShapeDtypeStruct,
    *,
    masked: bool = False,
) -> bool:
    """Whether cuDNN takes these shapes and dtypes, with the gradient, on any GPU since Ampere.

    Args:
      query, key, value: [..., t, h, d], [..., s, k, d] and [..., s, k, e]; only shapes and dtypes
        are read.
      masked: whether there is a mask.

    Returns:
      True for bfloat16 or float16 throughout, and e = d of at most 128 in multiples of 8; with a
      mask also even t and s (jax 0.10.2, `jax._src.cudnn.fused_attention_stablehlo`).

    Example:
      >>> x = jax.ShapeDtypeStruct((2, 16, 8, 64), jnp.bfloat16)
      >>> fits_cudnn(x, x, x), fits_cudnn(x, x, jax.ShapeDtypeStruct(x.shape, jnp.float32))
      (True, False)
    """
    dtypes = {x.dtype for x in (query, key, value)}
    half = len(dtypes) == 1 and dtypes <= {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16)}
    width = query.shape[-1]
    narrow = value.shape[-1] == width and 0 < width <= 128 and width % 8 == 0
    lengths = (query.shape[-3], key.shape[-3])
    even = not masked or all(length % 2 == 0 for length in lengths)
    return half and narrow and even and min(lengths) > 0


def has_cudnn() -> bool:
    """Whether the default backend is a CUDA GPU that cuDNN's fused attention runs on.

    Decided while tracing: elsewhere the call cannot even be traced. A program for the CPU of such a
    machine is told apart when it is lowered.
    """
    if jax.default_backend() != "gpu" or "cuda" not in get_backend().platform_version.lower():
        return False
    return all(float(d.compute_capability) >= _LEAST_CAPABILITY for d in jax.local_devices())


def cudnn_attention(
    query: Array, key: Array, value: Array, keep: Array | None, *, scale: float
) -> Array:
    """Attention [..., t, h, d] by cuDNN, exactly 0 for a query that sees nothing.

    Args:
      query, key, value: as in `fits_cudnn`.
      keep: bool, broadcastable to [..., k, g, t, s], or `None`.
      scale: the factor of the products.
    """
    *leading, t, h, _ = query.shape
    s, k = key.shape[-3:-1]
    mask = None
    if keep is not None:
        mask = jnp.broadcast_to(keep, (*leading, k, h // k, t, s)).reshape(-1, h, t, s)
    joined = [x.reshape(-1, *x.shape[-3:]) for x in (query, key, value)]
    output = jax.nn.dot_product_attention(*joined, mask=mask, scale=scale, implementation="cudnn")
    if mask is not None:
        sees = jnp.swapaxes(jnp.any(mask, axis=-1), -1, -2)
        output = jnp.where(sees[..., None], output, 0)
    return output.reshape(query.shape)
