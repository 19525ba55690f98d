"""The values and gradients of an original (tests/golden/*.npz), and how ours are compared."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

FOLDER = Path(__file__).parents[1] / "golden"


class Golden:
    """One file of `tools/make_golden.py`; its entries are described in `golden/recorder.py`."""

    def __init__(self, family: str) -> None:
        with np.load(FOLDER / f"{family}.npz") as file:
            self.arrays = dict(file)

    @cached_property
    def cases(self) -> list[str]:
        return [name.removesuffix("/value") for name in self.arrays if name.endswith("/value")]

    def source(self, case: str) -> str:
        """Package and version, or repository and commit, and the symbol."""
        return str(self.arrays[f"{case}/source"])

    def entries(self, case: str, place: str) -> dict[str, np.ndarray]:
        prefix = f"{case}/{place}/"
        return {
            name.removeprefix(prefix): x
            for name, x in self.arrays.items()
            if name.startswith(prefix)
        }

    def check(self, case: str, ours: Callable, *, wide: bool, exact: float = 1e-9) -> None:
        """`ours(**inputs, **constants)` has the value and the gradients of the original.

        The bounds are relative to each number, and to the largest of its array for those that
        rounding leaves near 0. A gradient that is 0 altogether, as that of CLIP's bias, is held to
        a thousandth of the bound of the largest.
        """
        bound = exact if wide else 1e-5
        with jax.enable_x64(wide):
            inputs = {k: jnp.asarray(x) for k, x in self.entries(case, "in").items()}
            constants = {k: jnp.asarray(x) for k, x in self.entries(case, "with").items()}
            cotangent = self.arrays.get(f"{case}/cotangent")

            def objective(inputs: dict) -> tuple:
                value = ours(**inputs, **constants)
                if cotangent is None:
                    return value, value
                return jnp.sum(value * jnp.asarray(cotangent, value.dtype)), value

            run = jax.jit(jax.value_and_grad(objective, has_aux=True))
            (_, value), gradients = run(inputs)
        expected = self.entries(case, "grad")
        peak = max((np.max(np.abs(x)) for x in expected.values()), default=0.0)
        assert_close(value, self.arrays[f"{case}/value"], bound, f"{self.source(case)}: value")
        for name in gradients:
            if name in expected:
                message = f"{self.source(case)}: gradient of {name}"
                floor = 1e-3 * bound * peak
                assert_close(gradients[name], expected[name], bound, message, floor=floor)


def assert_close(
    actual: jax.Array, expected: np.ndarray, bound: float, message: str, *, floor: float = 1e-12
) -> None:
    absolute = max(bound * float(np.max(np.abs(expected))), floor)
    np.testing.assert_allclose(actual, expected, rtol=bound, atol=absolute, err_msg=message)
