"""Writes tests/golden/<family>.npz: values and gradients of the original implementations.

    python tools/make_golden.py --sources DIR [family ...]

It needs an environment of its own, since torch is no dependency of this project; installed without
their dependencies, the originals bring no second torch and no image library:
    python -m venv ENV && ENV/bin/pip install torch==2.13.0 numpy jax==0.10.2 flax==0.12.8
    ENV/bin/pip install --no-deps open_clip_torch==3.3.0 pytorch-metric-learning==2.9.0 \
        lightly==1.6.0 symile==0.1.0 x-clip==0.14.4 flamingo-pytorch==0.1.2 \
        perceiver-pytorch==0.11.0 x-transformers==2.31.10 einops einops-exts einx \
        torch-einops-utils loguru packaging beartype tqdm iopath portalocker \
        cca-zoo==4.0.1 clip-benchmark==1.6.2
    ENV/bin/pip install --no-deps --no-build-isolation block.bootstrap.pytorch==0.1.6
    ENV/bin/pip install --no-deps --python-version 3.9 --only-binary :all: \
        --target ENV/lib/python3.11/site-packages torchmultimodal-nightly==2024.4.1
Originals that live only in a repository are read from `DIR/<owner>/<repository>/<path>`, at the
commits of `golden/sources.py`.
"""

import argparse
import warnings
from importlib import import_module
from pathlib import Path

import torch

from golden.sources import Sources

FAMILIES = ("contrastive", "alignment", "fusion", "attention", "metrics")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("families", nargs="*", metavar="family", help=", ".join(FAMILIES))
    parser.add_argument("--sources", type=Path, help="folder of the originals' repositories")
    arguments = parser.parse_args()
    unknown = set(arguments.families) - set(FAMILIES)
    if unknown:
        parser.error(f"families must be among {list(FAMILIES)}, got {sorted(unknown)}")
    warnings.simplefilter("ignore")
    torch.set_default_dtype(torch.float64)
    for family in arguments.families or FAMILIES:
        import_module(f"golden.{family}").record(Sources(arguments.sources))


if __name__ == "__main__":
    main()
