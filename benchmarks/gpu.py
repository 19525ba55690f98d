"""Contrastive losses and attention on an accelerator, in bfloat16, beside its own products.

python benchmarks/gpu.py [--quick] [--out docs/benchmarks_gpu.md]

n = 32,768 to 131,072 rows of width 512. The floor is four (three) products in tiles by the library
of the device, cuBLAS on NVIDIA. The naive loss runs where its matrices of logits fit. Accuracy is
that of loss and gradients beside the dense form in float64, at a size where that fits. Attention
runs as `dot_product_attention` chooses (cuDNN where its rules hold), in our own blocks, and by both
implementations of `jax.nn`.

Markdown goes to `--out` and JSON beside it after every part, so that a run that is cut short keeps
what it has. `--quick` takes tiny sizes, on whatever device there is: it shows that everything runs.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "")  # JAX's own choice; the harness would take the CPU

import jax
import jax.numpy as jnp
import numpy as np

import contrastive
from contrastive import MIB, SCALE, Loss, bare, in_float64, naive, naive_sigmoid, step
from datarax.functional import dot_product_attention
from datarax.functional.attention.cudnn import fits_cudnn, local_cudnn
from datarax.functional.attention.query_blocks import choose_chunk
from harness import (
    Report,
    Run,
    environment,
    fastest,
    interleaved,
    median_ms,
    paired,
    relative_error,
    temporary_bytes,
)
from run import section

TILES = (1024, 2048, 4096, 8192)
SHARE = 0.6  # of the device's memory that the naive loss may take
PARTS = ("loss", "a", "b", "scale")
ONE_WAY = partial(contrastive.ours, directions="a_to_b")


def report(quick: bool, *, keep: Callable[[Report], None] = lambda _: None) -> Report:
    """Times, memory and accuracy with every gradient; `keep` is called after each part."""
    out = Report("Contrastive losses and attention on an accelerator")
    if jax.default_backend() == "cpu":
        out.note("This was the CPU: the tables show that the program runs, nothing else.")
    out.note(f"cuDNN that attention may take: {local_cudnn() or 'none'}.")
    for shared in (0.0, 1.0):
        accuracy(out, 256 if quick else 4096, shared=shared)
        keep(out)
    for masked in (False, True):
        shape = (2, 16, 32, 2, 8) if quick else (4, 2048, 4096, 8, 64)
        attention(out, *shape, masked=masked, rounds=2 if quick else 9)
        keep(out)
    for n in (640,) if quick else (32_768, 65_536, 131_072):
        size(out, n, rounds=2 if quick else 9)
        keep(out)
    return out


def accuracy(out: Report, n: int, *, shared: float) -> None:
    """Errors of loss and gradients beside the dense form in float64, of rounded embeddings."""
    a, b = (x.astype(jnp.bfloat16) for x in contrastive.rows(n, shared=shared))
    scale = jnp.float32(SCALE)
    wide = (a.astype(jnp.float32), b.astype(jnp.float32), scale)
    operands = {"operand_dtype": jnp.bfloat16}
    variants: dict[str, tuple[Loss, Loss, tuple]] = {
        "InfoNCE": (contrastive.ours, naive, (a, b, scale)),
        "InfoNCE, float32 rows": (partial(contrastive.ours, **operands), naive, wide),
        "naive InfoNCE": (naive, naive, (a, b, scale)),
        "one way": (ONE_WAY, contrastive.naive_one_way, (a, b, scale)),
        "sigmoid": (contrastive.our_sigmoid, naive_sigmoid, (a, b, scale)),
        "sigmoid, float32 rows": (
            partial(contrastive.our_sigmoid, **operands),
            naive_sigmoid,
            wide,
        ),
        "naive sigmoid": (naive_sigmoid, naive_sigmoid, (a, b, scale)),
    }
    exact = {dense: in_float64(dense, wide) for _, dense, _ in variants.values()}
    rows = []
    for name, (loss, dense, data) in variants.items():
        found = jax.tree.leaves(step(loss)(*data))
        errors = map(relative_error, found, exact[dense])
        rows.append({"variant": name, **dict(zip(PARTS, errors, strict=True))})
    kind = "matched pairs" if shared else "independent rows"
    out.table(f"errors against float64, {n} x {contrastive.WIDTH}, {kind}, products bfloat16", rows)
    worst = {row["variant"]: max(row["a"], row["b"]) for row in rows}
    share = worst["InfoNCE, float32 rows"] / worst["naive InfoNCE"]
    out.limit(f"{kind}: error of the gradients / naive bf16's", share, at_most=0.1)


def attention(
    out: Report, records: int, t: int, s: int, heads: int, width: int, *, masked: bool, rounds: int
) -> None:
    """Forward and backward: what is chosen, our blocks, jax.nn, and the bare products."""
    rng = np.random.default_rng(0)
    q, k, v, cotangent = (
        jnp.asarray(rng.normal(size=(records, x, heads, width)), jnp.bfloat16) for x in (t, s, s, t)
    )
    mask = jnp.asarray(rng.random((records, 1, 1, s)) < 0.8) if masked else None
    chunk = min(t // 2, choose_chunk((records, heads, t, s)))
    rival = partial(jax.nn.dot_product_attention, mask=mask)
    forms: dict[str, Callable[..., jax.Array]] = {
        "bare einsums": _bare,
        "datarax": partial(dot_product_attention, mask=mask),
        "datarax, blocks": partial(dot_product_attention, mask=mask, chunk=chunk),
        "jax.nn xla": partial(rival, implementation="xla"),
    }
    if fits_cudnn(q, k, v, cudnn=local_cudnn(), masked=masked):
        forms["jax.nn cudnn"] = partial(rival, implementation="cudnn")
    runs = {name: jax.jit(_with_gradients(form)) for name, form in forms.items()}
    times = interleaved(
        {name: partial(run, q, k, v, cotangent) for name, run in runs.items()}, rounds=rounds
    )
    exact = _exact_attention(q, k, v, cotangent, mask=mask)
    rows = []
    for name, run in runs.items():
        found = [x[:1, :, :1] for x in run(q, k, v, cotangent)]
        error = max(map(relative_error, found, exact))
        rows.append(
            {
                "form": name,
                "ms": median_ms(times[name]),
                "/ bare": paired(times, name, "bare einsums"),
                "/ jax.nn xla": paired(times, name, "jax.nn xla"),
                "temporaries MiB": temporary_bytes(run, q, k, v, cotangent) / MIB,
                "error": "" if name == "bare einsums" else f"{error:.1e}",
            }
        )
    what = "masked" if masked else "plain"
    shape = f"T = {t}, S = {s}, {heads} heads of {width}, B = {records}"
    out.table(f"attention, {what}, forward and backward, {shape}, bfloat16", rows)
    ratio = paired(times, "datarax", "jax.nn xla").median
    out.limit(f"attention, {what}, time / jax.nn", ratio, at_most=0.5)


def size(out: Report, n: int, *, rounds: int) -> None:
    """One table: the losses, the naive ones where they fit, and the floors."""
    keys = jax.random.split(jax.random.key(0))
    a, b = (_unit(jax.random.normal(key, (n, contrastive.WIDTH))) for key in keys)
    data = (a, b, jnp.float32(SCALE))
    losses: dict[str, Loss] = {
        "InfoNCE": contrastive.ours,
        "one way": ONE_WAY,
        "sigmoid": contrastive.our_sigmoid,
    }
    rivals: dict[str, Loss] = {"naive InfoNCE": naive, "naive sigmoid": naive_sigmoid}
    fits = {name: loss for name, loss in rivals.items() if temporary(loss, data) < room()}
    losses |= fits
    floors: dict[str, Run] = {
        f"bare {count}, tile {tile}{way}": partial(
            jax.jit(partial(bare, tile=tile, count=count, across=not way)), a, b
        )
        for way in ("", ", down the columns")
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
    for name, count, bound in (("InfoNCE", 4, 1.25), ("one way", 3, 1.25), ("sigmoid", 3, 1.25)):
        ratio = paired(times, name, base[count]).median
        out.limit(f"{name} / bare {count}, n = {n}", ratio, at_most=bound)
    for name in rivals.keys() - fits.keys():
        out.note(f"{n}: {name} was left out: its temporaries do not fit the device.")


def temporary(loss: Loss, data: tuple) -> int:
    """Bytes of temporaries of the loss and its gradients, from the compiled program."""
    return temporary_bytes(jax.value_and_grad(loss, (0, 1, 2)), *data)


def room() -> float:
    """Bytes that the naive loss may take: a share of the device's memory, where it tells."""
    statistics: dict[str, Any] = jax.devices()[0].memory_stats() or {}
    return SHARE * statistics.get("bytes_limit", 2**33)


def write(out: Path, about: dict[str, Any], found: Report) -> None:
    """The tables as Markdown, and everything as JSON beside it."""
    whole = json.loads(json.dumps({"about": about, **asdict(found)}, default=str))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(whole, indent=1) + "\n")
    lines = [
        "# Benchmarks on an accelerator",
        "",
        "Written by `benchmarks/gpu.py`. Ratios are medians of paired rounds in one process, with",
        "the tenth and ninetieth percentiles.",
    ]
    out.write_text("\n".join(lines + section(whole)) + "\n")


def _unit(x: jax.Array) -> jax.Array:
    return (x / jnp.linalg.norm(x, axis=1, keepdims=True)).astype(jnp.bfloat16)


def _bare(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    logits = jnp.einsum("bthd,bshd->bhts", query, key)
    return jnp.einsum("bhts,bshd->bthd", logits * query.shape[-1] ** -0.5, value)


def _with_gradients(attend: Callable[..., jax.Array]) -> Callable[..., list[jax.Array]]:
    def run(*arguments: jax.Array) -> list[jax.Array]:
        *inputs, cotangent = arguments
        output, back = jax.vjp(attend, *inputs)
        return [output, *back(cotangent)]

    return run


def _exact_attention(*arrays: jax.Array, mask: jax.Array | None) -> list[np.ndarray]:
    """Output and gradients of the first head of the first record, in float64."""
    kept = None if mask is None else np.asarray(mask[:1])

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        logits = jnp.einsum("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5
        logits = logits if kept is None else jnp.where(kept, logits, -jnp.inf)
        return jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(logits, axis=-1), v)

    with jax.enable_x64(True):
        first = [jnp.asarray(np.asarray(x[:1, :, :1], np.float64)) for x in arrays]
        return [np.asarray(x) for x in jax.jit(_with_gradients(attend))(*first)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, on any device")
    parser.add_argument("--out", type=Path, default=None, help="a .md file; JSON is put beside it")
    options = parser.parse_args(arguments)
    about, start = environment(), time.perf_counter()

    def keep(found: Report) -> None:
        if options.out is not None:
            seconds = round(time.perf_counter() - start)
            write(options.out, about | {"seconds": seconds}, found)

    found = report(options.quick, keep=keep)
    return bool(found.missed) and not options.quick


if __name__ == "__main__":
    sys.exit(main())
