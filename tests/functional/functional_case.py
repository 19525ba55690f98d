"""What a row of the table is: how to call a function, its oracle, what its inputs look like."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
import numpy as np

N = 6
IDS = np.array([3, 1, 3, 2, 1, 3], np.int32)


@dataclass(frozen=True, kw_only=True)
class Case:
    """`run` and `oracle` are called as f(*arrays, mask, ids); every array has the batch first.

    kind: "rows" relates rows and gives one value a row, "set" one value for all,
      "matrix" one a pair of rows, "pointwise" treats rows alone.
    mask: the shape of the mask, None where the function has none.
    spoiled: which arrays may hold garbage where the mask is False.
    exhaustive: whether it runs in `make test-all` alone.
    forward: whether it has a forward-mode derivative (a `custom_vjp` has none).
    check_seed: of the arrays whose gradient is compared with differences.
    """

    name: str
    run: Callable
    oracle: Callable
    shapes: tuple[tuple[int, ...], ...]
    kind: Literal["rows", "set", "matrix", "pointwise"]
    mask: tuple[int, ...] | None = None
    spoiled: tuple[int, ...] = ()
    ids: bool = False
    tolerance: float = 2e-2
    exhaustive: bool = False
    forward: bool = True
    check_seed: int = 3

    def arrays(self, *, seed=0, n=N, dtype=np.float32):
        rng = np.random.default_rng(seed)
        return [rng.normal(size=(n, *shape[1:])).astype(dtype) for shape in self.shapes]

    def some_mask(self, *, n=N):
        if self.mask is None:
            return None
        mask = np.random.default_rng(7).random((n, *self.mask[1:])) < 0.6
        mask[0], mask[1] = True, False
        return mask

    def full_mask(self):
        return None if self.mask is None else np.ones((N, *self.mask[1:]), bool)

    def labels(self, *, n=N):
        return IDS[:n] if self.ids else None


def on_device(case, arrays, mask=None, ids=None):
    """`case.run` as a function of its arrays alone, the rest closed over."""
    mask = None if mask is None else jnp.asarray(mask)
    ids = None if ids is None else jnp.asarray(ids)
    return lambda *xs: case.run(*xs, mask, ids), [jnp.asarray(x) for x in arrays]


def vectors(name, function, reference, *, inputs=2, kind="pointwise"):
    return Case(
        name=name,
        run=lambda *args: function(*args[:-2]),
        oracle=reference,
        shapes=((N, 4),) * inputs,
        kind=kind,
    )
