"""Writes tests/golden/open_clip.npz: values and gradients of open_clip's losses.

It needs an environment of its own, since torch is no dependency of this project:
    python -m venv ENV && ENV/bin/pip install torch==2.13.0 numpy
    ENV/bin/pip install --no-deps open_clip_torch==3.3.0
    ENV/bin/python tools/make_golden.py
open_clip's package needs torchvision, so its loss.py is loaded by file.
"""

import importlib.util
from importlib.metadata import distribution, version
from pathlib import Path

import numpy as np
import torch

SEED = 20240
CASES = {"small": (5, 4, 7.0, -3.0), "clip": (16, 32, 100.0, -10.0), "one": (1, 8, 14.3, -2.0)}
TARGET = Path(__file__).parent.parent / "tests" / "golden" / "open_clip.npz"


def open_clip_losses():
    path = distribution("open_clip_torch").locate_file("open_clip/loss.py")
    spec = importlib.util.spec_from_file_location("open_clip_loss", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {"clip": module.ClipLoss(), "siglip": module.SigLipLoss()}


def main():
    rng = np.random.default_rng(SEED)
    arrays = {
        "seed": np.array(SEED),
        "torch": np.array(version("torch")),
        "open_clip_torch": np.array(version("open_clip_torch")),
        "cases": np.array(list(CASES)),
    }
    for case, (n, d, scale, bias) in CASES.items():
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, n, d)))
        arrays |= {f"{case}/a": a, f"{case}/b": b, f"{case}/scale": scale, f"{case}/bias": bias}
        for name, loss in open_clip_losses().items():
            inputs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (a, b)]
            scalars = [
                torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (scale, bias)
            ]
            value = loss(*inputs, *scalars)
            value.backward()
            arrays[f"{case}/{name}/value"] = value.detach().numpy()
            for key, x in zip(("a", "b", "scale", "bias"), inputs + scalars, strict=True):
                arrays[f"{case}/{name}/grad_{key}"] = x.grad.numpy()
    TARGET.parent.mkdir(exist_ok=True)
    np.savez(TARGET, **arrays)
    print(f"{TARGET.name}: {len(arrays)} arrays")


if __name__ == "__main__":
    main()
