"""The values and gradients of an original (tests/golden/*.npz), and how ours are compared."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

Layout = Mapping[str, Callable[[dict[str, np.ndarray]], np.ndarray] | np.ndarray]

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

    def check(self, case: str, ours: Callable, *, wide: bool) -> None:
        """`ours(**inputs, **constants)` has the value and the gradients of the original.

        The bounds are relative to each number, and to the largest of its array for those that
        rounding leaves near 0. A gradient that is 0 altogether, as that of CLIP's bias or
        of a key's, is held to the bound of the largest, and none closer than its rounding.
        """
        self._compare(case, lambda arrays, **x: ours(**arrays, **x), {}, wide)

    def check_module(
        self,
        case: str,
        build: Callable[[], nnx.Module],
        layout: Layout,
        call: Callable | None = None,
        *,
        wide: bool,
    ) -> None:
        """The same of the module of `build` with the original's weights, and of their gradients.

        `layout` gives for every parameter of the module, by its path, what it is of the original's
        weights: a transpose, a part; the gradients are rearranged alike. An array in its place is
        a parameter that the original does not have. `call(module, **inputs, **constants)` is
        `module(list(inputs))` for `None`.
        """
        # Abstract: drawing parameters that are replaced takes longer than the rest.
        graph, parameters, rest = nnx.split(nnx.eval_shape(build), nnx.Param, ...)
        paths = {
            "/".join(map(str, keys)): keys for keys in flatten_dict(nnx.to_pure_dict(parameters))
        }
        assert sorted(layout) == sorted(paths), "the layout is not that of the module's parameters"
        theirs, gradients = self.entries(case, "weights"), self.entries(case, "grad")
        weights = {
            path: np.array(of(theirs)) if callable(of) else of for path, of in layout.items()
        }
        call = call or (lambda module, **inputs: module(list(inputs.values())))

        def ours(arrays: dict, **constants: jax.Array) -> jax.Array:
            drawn = {keys: arrays[path] for path, keys in paths.items()}
            state = jax.tree.map(lambda x: x, parameters)
            nnx.replace_by_pure_dict(state, unflatten_dict(drawn))
            inputs = {name: x for name, x in arrays.items() if name not in paths}
            return call(nnx.merge(graph, state, rest), **inputs, **constants)

        expected = {path: np.array(of(gradients)) for path, of in layout.items() if callable(of)}
        self._compare(case, ours, weights, wide, expected)

    def _compare(
        self,
        case: str,
        ours: Callable,
        weights: dict[str, np.ndarray],
        wide: bool,
        weight_gradients: dict[str, np.ndarray] | None = None,
    ) -> None:
        constants, cotangent = self.entries(case, "with"), self.arrays.get(f"{case}/cotangent")
        inputs = self.entries(case, "in")
        given = inputs | weights, constants, cotangent
        value = self.arrays[f"{case}/value"]
        expected = {k: x for k, x in self.entries(case, "grad").items() if k in inputs}
        expected |= weight_gradients or {}
        if not wide:
            # Rounding the inputs alone may move a gradient by more than the bound, so there the
            # float64 program decides, which a case of its own holds to the original.
            given = jax.tree.map(rounded, given)
            value, gradients = value_and_gradients(ours, *given, wide=True)
            expected = {name: np.asarray(gradients[name]) for name in expected}
        bound = 1e-9 if wide else 1e-5
        actual, gradients = value_and_gradients(ours, *given, wide=wide)
        assert_close(actual, value, bound, f"{self.source(case)}: value")
        peak = max((np.max(np.abs(x)) for x in expected.values()), default=0.0)
        for name, gradient in gradients.items():
            if name in expected:
                message = f"{self.source(case)}: gradient of {name}"
                zero = np.max(np.abs(expected[name])) <= 1e-12 * peak
                floor = (bound if zero else np.finfo(gradient.dtype).eps) * peak
                assert_close(gradient, expected[name], bound, message, floor=floor)


def rounded(x: np.ndarray) -> np.ndarray:
    """The nearest float32 number, in float64; other dtypes as they are."""
    return x.astype(np.float32).astype(np.float64) if x.dtype == np.float64 else x


def value_and_gradients(
    ours: Callable, inputs: dict, constants: dict, cotangent: np.ndarray | None, *, wide: bool
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`ours(inputs, **constants)`, and the gradients of its sum weighted by the cotangent."""
    with jax.enable_x64(wide):
        arrays, constants = jax.tree.map(jnp.asarray, (inputs, constants))

        def objective(arrays: dict) -> tuple:
            value = ours(arrays, **constants)
            if cotangent is None:
                return value, value
            return jnp.sum(value * jnp.asarray(cotangent, value.dtype)), value

        (_, value), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))(arrays)
    return value, gradients


def assert_close(
    actual: jax.Array, expected: np.ndarray, bound: float, message: str, *, floor: float = 0.0
) -> None:
    absolute = max(bound * float(np.max(np.abs(expected))), floor, 1e-12)
    np.testing.assert_allclose(actual, expected, rtol=bound, atol=absolute, err_msg=message)


def linear(ours: str, theirs: str) -> Layout:
    """Torch's `Linear` has its weight as [out, in]; our kernels are [in, out]."""
    return {
        f"{ours}/kernel": lambda w: w[f"{theirs}.weight"].T,
        f"{ours}/bias": lambda w: w[f"{theirs}.bias"],
    }
