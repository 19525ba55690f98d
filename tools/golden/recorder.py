"""What a golden file holds of a case: inputs, value, gradients, and whose they are."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import numpy as np
import torch

TARGET = Path(__file__).parents[2] / "tests" / "golden"


class Recorder:
    """Gathers the cases of one family and writes them to `tests/golden/<family>.npz`.

    A case has the entries `<case>/in/<name>` (differentiated inputs), `<case>/with/<name>` (other
    inputs), `<case>/weights/<name>`, `<case>/value`, `<case>/grad/<name>` of inputs and weights,
    `<case>/source`, and for a value that is no scalar `<case>/cotangent`, with which the gradients
    were taken. All are float64.
    """

    def __init__(self, family: str, *, seed: int) -> None:
        self.family = family
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.arrays = {"seed": np.array(seed), "torch": np.array(version("torch"))}

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal numbers."""
        return self.rng.normal(size=shape)

    def unit(self, *shape: int) -> np.ndarray:
        """Unit vectors along the last axis."""
        x = self.rng.normal(size=shape)
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    def add(
        self,
        case: str,
        source: str,
        function: Callable[..., torch.Tensor],
        inputs: Mapping[str, np.ndarray],
        *,
        constants: Mapping[str, np.ndarray] | None = None,
        weights: Mapping[str, torch.nn.Parameter] | None = None,
    ) -> None:
        """Run `function(**inputs, **constants)` and its backward pass."""
        constants = constants or {}
        weights = weights or {}
        tensors = {
            name: torch.tensor(x, dtype=torch.float64, requires_grad=True)
            for name, x in inputs.items()
        }
        others = {name: torch.as_tensor(np.asarray(x)) for name, x in constants.items()}
        value = function(**tensors, **others)
        if value.ndim > 0:
            cotangent = self.normal(*value.shape)
            self.arrays[f"{case}/cotangent"] = cotangent
            (value * torch.tensor(cotangent)).sum().backward()
        else:
            value.backward()
        if value.dtype != torch.float64:
            raise TypeError(f"{case} was computed in {value.dtype}")
        gradients = {
            name: x.grad.numpy()
            for name, x in (tensors | dict(weights)).items()
            if x.grad is not None
        }
        self.put(
            case,
            source,
            value.detach().numpy(),
            inputs=inputs,
            constants=constants,
            weights={name: x.detach().numpy() for name, x in weights.items()},
            gradients=gradients,
        )

    def put(
        self,
        case: str,
        source: str,
        value: np.ndarray | float,
        *,
        inputs: Mapping[str, np.ndarray],
        constants: Mapping[str, np.ndarray] | None = None,
        weights: Mapping[str, np.ndarray] | None = None,
        gradients: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Keep a case whose value was computed elsewhere."""
        if not np.all(np.isfinite(value)):
            raise ValueError(f"{case} is not finite")
        self.arrays[f"{case}/source"] = np.array(source)
        self.arrays[f"{case}/value"] = np.asarray(value)
        for place, entries in (
            ("in", inputs),
            ("with", constants),
            ("weights", weights),
            ("grad", gradients),
        ):
            for name, x in (entries or {}).items():
                self.arrays[f"{case}/{place}/{name}"] = np.asarray(x)

    def save(self) -> None:
        """Write the file."""
        TARGET.mkdir(exist_ok=True)
        path = TARGET / f"{self.family}.npz"
        np.savez_compressed(path, **self.arrays)
        cases = sum(name.endswith("/value") for name in self.arrays)
        print(f"{path.name}: {cases} cases, {path.stat().st_size / 1024:.0f} KiB")


@contextmanager
def undone_casts() -> Iterator[None]:
    """Originals that cast to float32 or move to a GPU run in float64 on the CPU."""
    same = {name: (lambda x, *_, **__: x) for name in ("float", "cuda")}
    with mock.patch.multiple(torch.Tensor, **same):
        yield
