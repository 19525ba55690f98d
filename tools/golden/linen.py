"""Originals written in flax.linen, run in float64."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from golden.recorder import Recorder

SCOPE = {"nn": nn, "jax": jax, "jnp": jnp, "Any": Any, "Initializer": Any, "Tuple": tuple}


def linen_case(
    golden: Recorder,
    case: str,
    source: str,
    module: nn.Module,
    call: Callable[..., jax.Array],
    inputs: Mapping[str, np.ndarray],
    *,
    learned: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Record `call(apply, **inputs, **learned)`; `apply` runs the module with normal weights.

    `learned` are weights that the original gets as inputs.
    """
    learned = learned or {}
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(x) for name, x in (inputs | learned).items()}

        def parameters() -> dict:
            made = {}

            def initialise(*a: Any, **k: Any) -> jax.Array:
                value, variables = module.init_with_output(jax.random.key(0), *a, **k)
                made.update(variables["params"])
                return value

            call(initialise, **arrays)
            return made

        shapes = flatten_dict(jax.eval_shape(parameters), sep="/")
        weights = {
            name: jnp.asarray(golden.normal(*x.shape) / np.sqrt(x.shape[0]))
            for name, x in shapes.items()
        }

        def run(weights: dict, arrays: dict) -> jax.Array:
            variables = {"params": unflatten_dict(weights, sep="/")}
            return call(lambda *a, **k: module.apply(variables, *a, **k), **arrays)

        value, back = jax.vjp(run, weights, arrays)
        cotangent = golden.normal(*value.shape)
        of_weights, of_inputs = back(jnp.asarray(cotangent))
    golden.arrays[f"{case}/cotangent"] = cotangent
    golden.put(
        case,
        source,
        value,
        inputs=inputs,
        weights=weights | learned,
        gradients=of_weights | of_inputs,
    )
