"""When cuDNN's fused attention is used, and how it is called."""

from importlib import import_module
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.backend import get_backend
from jaxtyping import Array

# Before 9.5 there is no gradient by a bias or a mask of any length, nor of heads wider than 128.
_LEAST_VERSION, _BLACKWELL_VERSION, _BLACKWELL_ULTRA_VERSION = 90500, 90700, 91100
_ARCHITECTURES = (8, 9, 10, 12)  # Ampere and Ada, Hopper, Blackwell: those that are known of
_HALF = (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16))


class Cudnn(NamedTuple):
    """cuDNN as 10000 major + 100 minor + patch, and the compute capabilities of its GPUs."""

    version: int
    capabilities: frozenset[tuple[int, int]]


def fits_cudnn(
    query: Array | jax.ShapeDtypeStruct,
    key: Array | jax.ShapeDtypeStruct,
    value: Array | jax.ShapeDtypeStruct,
    *,
    cudnn: Cudnn | None,
    masked: bool = False,
    bias: Array | jax.ShapeDtypeStruct | None = None,
) -> bool:
    """Whether cuDNN is known to take these shapes and dtypes, with the gradient.

    Args:
      query, key, value: [..., t, h, d], [..., s, k, d] and [..., s, k, e]; only shapes and dtypes
        are read.
      cudnn: what runs them; `None` takes nothing.
      masked: whether there is a mask.
      bias: what is added to the logits, if anything; only its dtype is read.

    Returns:
      True for bfloat16 or float16 throughout, the bias too (in float32 its gradient was NaN,
      jax-ml/jax#32242), max(d, e) in multiples of 8 up to 128, or 256 on Hopper, nothing empty;
      with a mask or bias also even t and s. From cuDNN 9.5 on, on Blackwell from 9.7 or 9.11.
      That is the rule of jax 0.10.2 (`jax._src.cudnn.fused_attention_stablehlo`) without what it
      takes but cuDNN has no gradient of: heads wider than 128 on Blackwell.

    Example:
      >>> x = jax.ShapeDtypeStruct((2, 16, 8, 64), jnp.bfloat16)
      >>> hopper = Cudnn(91000, frozenset({(9, 0)}))
      >>> fits_cudnn(x, x, x, cudnn=hopper), fits_cudnn(x, x, x, cudnn=None)
      (True, False)
    """
    if cudnn is None or not cudnn.capabilities:
        return False
    arrays = (query, key, value) if bias is None else (query, key, value, bias)
    half = len({x.dtype for x in arrays}) == 1 and query.dtype in _HALF
    width = max(query.shape[-1], value.shape[-1])
    widest = min(_widest(cudnn.version, capability) for capability in cudnn.capabilities)
    even = query.shape[-3] % 2 == key.shape[-3] % 2 == 0 or (bias is None and not masked)
    whole = all(size > 0 for x in (query, key, value) for size in x.shape)
    return half and whole and even and width % 8 == 0 and width <= widest


def _widest(version: int, capability: tuple[int, int]) -> int:
    """The largest width of a head, 0 for none."""
    least = _BLACKWELL_VERSION if capability[0] >= 10 else _LEAST_VERSION
    if capability == (10, 3):
        least = _BLACKWELL_ULTRA_VERSION
    if version < least or capability[0] not in _ARCHITECTURES:
        return 0
    return 256 if capability[0] == 9 else 128


def local_cudnn() -> Cudnn | None:
    """The cuDNN of the default backend's GPUs, or `None` if there is none or nothing is known.

    Decided while tracing: elsewhere the call cannot even be traced. A program for the CPU of such a
    machine is told apart when it is lowered.
    """
    if jax.default_backend() != "gpu" or "cuda" not in get_backend().platform_version.lower():
        return None
    version = _version()
    if version is None:
        return None
    numbers = (device.compute_capability.split(".") for device in jax.local_devices())
    return Cudnn(version, frozenset((int(major), int(minor)) for major, minor in numbers))


def _version() -> int | None:
    """The version that JAX's CUDA plugin loaded; it has no public name."""
    for plugin in ("jax_cuda13_plugin", "jax_cuda12_plugin"):
        try:
            return int(import_module(f"{plugin}._versions").cudnn_get_version())
        except (ImportError, AttributeError):
            continue
    return None


def cudnn_attention(
    query: Array,
    key: Array,
    value: Array,
    keep: Array | None,
    bias: Array | None,
    *,
    scale: float,
) -> Array:
    """Attention [..., t, h, e] by cuDNN, exactly 0 for a query that sees nothing.

    Args:
      query, key, value: as in `fits_cudnn`.
      keep: bool, broadcastable to [..., k, g, t, s], or `None`.
      bias: added to the logits, broadcastable to [..., k, g, t, s], or `None`.
      scale: the factor of the products.
    """
    *leading, t, h, d = query.shape
    s, k = key.shape[-3:-1]
    e = value.shape[-1]

    def whole(x: Array | None) -> Array | None:
        return None if x is None else jnp.broadcast_to(x, (*leading, k, h // k, t, s))

    mask, bias = whole(keep), whole(bias)
    if mask is not None and bias is not None:
        bias = jnp.where(mask, bias, 0)
    # One width, which jax.nn wants: zeros add nothing to a product, and bring nothing.
    wide = [_widened(x, max(d, e)) for x in (query, key, value)]
    joined = [x.reshape(-1, *x.shape[-3:]) for x in wide]
    mask, bias = (None if x is None else x.reshape(-1, h, t, s) for x in (mask, bias))
    # Under `vmap` jax.nn wants all of them mapped or none, and over axis 0; the cotangent as well.
    never = _never(*joined, mask, bias)
    *joined, mask, bias = (
        None if x is None else jnp.where(never, jnp.zeros_like(x), x) for x in (*joined, mask, bias)
    )
    output = jax.nn.dot_product_attention(
        *joined, mask=mask, bias=bias, scale=scale, implementation="cudnn"
    )
    output = jnp.where(never, jnp.zeros_like(output), output)
    if mask is not None:
        sees = jnp.swapaxes(jnp.any(mask, axis=-1), -1, -2)
        output = jnp.where(sees[..., None], output, 0)
    return output[..., :e].reshape(*leading, t, h, e)


def _widened(x: Array, width: int) -> Array:
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])])


def _never(*arrays: Array | None) -> Array:
    """False, mapped wherever one of the arrays is."""
    found = jnp.zeros((), bool)
    for x in arrays:
        if x is not None:
            first = x.reshape(-1)[0]
            found = found | ((first != first) & False)
    return found
