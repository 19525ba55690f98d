"""The Variables of an operator that are no parameters: its counters and its base key."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx


class Counter(nnx.Variable):
    """A number of rows: uint32, modulo 2^32."""

    def add(self, n: Any) -> None:
        """Count `n` more.

        Raises:
          TraceContextError: in a JAX transform that the Variable is foreign to.
        """
        self.set_raw_value(self._raw_value + jnp.asarray(n, jnp.uint32))

    def add_on_host(self, n: Any) -> None:
        """Count `n` more in an eager call: `add` without the two checks of the trace level.

        An int is counted on the host; an array stays on its device, and nothing waits for it.
        """
        if type(n) is int:
            total: Any = np.uint32((int(self._raw_value) + n) & 0xFFFFFFFF)
        else:
            total = self._raw_value + n
        object.__setattr__(self, "_raw_value", total)


class BaseKey(nnx.Variable):
    """The data of the threefry key that an operator's per-record keys are folded from."""
