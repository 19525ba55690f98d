"""The contrastive losses on an accelerator, in bfloat16, beside its own matrix products.

python benchmarks/gpu.py [--quick] [--out docs/benchmarks_gpu.md]

n = 32,768 to 131,072 rows of width 512. The floor is four (three) products in tiles by the library
of the device, cuBLAS on NVIDIA. The naive loss runs where its matrices of logits fit. `--quick`
takes a tiny size, on whatever device there is: it shows that everything runs.
"""

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "")  # JAX's own choice; the harness would take the CPU

import jax
import jax.numpy as jnp

import contrastive
from contrastive import MIB, SCALE, Loss, bare, naive, naive_sigmoid, step
from harness import (
    Report,
    Run,
    environment,
    fastest,
    interleaved,
    median_ms,
    paired,
    temporary_bytes,
)
from run import write

TILES = (1024, 2048, 4096, 8192)
SHARE = 0.6  # of the device's memory that the naive loss may take


def report(quick: bool) -> Report:
    """Times and memory at each size, with every gradient."""
    out = Report("Contrastive losses on an accelerator")
    for n in (640,) if quick else (32_768, 65_536, 131_072):
        size(out, n, rounds=2 if quick else 9)
    if jax.default_backend() == "cpu":
        out.note("This was the CPU: the table shows that the program runs, nothing else.")
    return out


def size(out: Report, n: int, *, rounds: int) -> None:
    """One table: the losses, the naive ones where they fit, and the floors."""
    keys = jax.random.split(jax.random.key(0))
    a, b = (_unit(jax.random.normal(key, (n, contrastive.WIDTH))) for key in keys)
    data = (a, b, jnp.float32(SCALE))
    losses: dict[str, Loss] = {
        "InfoNCE": contrastive.ours,
        "one way": partial(contrastive.ours, directions="a_to_b"),
        "sigmoid": contrastive.our_sigmoid,
    }
    rivals: dict[str, Loss] = {"naive InfoNCE": naive, "naive sigmoid": naive_sigmoid}
    fits = {name: loss for name, loss in rivals.items() if temporary(loss, data) < room()}
    losses |= fits
    floors: dict[str, Run] = {
        f"bare {count}, tile {tile}": partial(jax.jit(partial(bare, tile=tile, count=count)), a, b)
        for count in (3, 4)
        for tile in TILES
        if tile <= n or tile == TILES[0]
    }
    runs = {name: partial(step(loss), *data) for name, loss in losses.items()}
    times = interleaved({**floors, **runs}, rounds=rounds)
    base = {
        count: fastest(times, [name for name in floors if name.startswith(f"bare {count}")])
        for count in (3, 4)
    }
    out.table(
        f"{n} x {contrastive.WIDTH} bfloat16",
        [
            {
                "variant": name,
                "ms": median_ms(times[name]),
                "/ bare 3": paired(times, name, base[3]),
                "/ bare 4": paired(times, name, base[4]),
                "temporaries MiB": temporary(losses[name], data) / MIB if name in losses else "",
            }
            for name in times
        ],
    )
    flops = 8 * n**2 * contrastive.WIDTH
    out.note(f"{n}: {base[4]} ran at {flops / median_ms(times[base[4]]) / 1e9:.1f} TFLOP/s.")
    out.limit(f"InfoNCE / bare 4, n = {n}", paired(times, "InfoNCE", base[4]).median, at_most=1.25)
    for name in rivals.keys() - fits.keys():
        out.note(f"{n}: {name} was left out: its temporaries do not fit the device.")


def temporary(loss: Loss, data: tuple) -> int:
    """Bytes of temporaries of the loss and its gradients, from the compiled program."""
    return temporary_bytes(jax.value_and_grad(loss, (0, 1, 2)), *data)


def room() -> float:
    """Bytes that the naive loss may take: a share of the device's memory, where it tells."""
    statistics: dict[str, Any] = jax.devices()[0].memory_stats() or {}
    return SHARE * statistics.get("bytes_limit", 2**33)


def _unit(x: jax.Array) -> jax.Array:
    return (x / jnp.linalg.norm(x, axis=1, keepdims=True)).astype(jnp.bfloat16)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tiny size, on any device")
    parser.add_argument("--out", type=Path, default=None, help="a .md file; JSON is put beside it")
    options = parser.parse_args()
    found = report(options.quick)
    if options.out is not None:
        write(options.out, [found], environment(), {})
    return bool(found.missed) and not options.quick


if __name__ == "__main__":
    sys.exit(main())
