"""What a called operator costs beside a bare `jax.jit` of the same arithmetic.

Run: `make bench` or `python benchmarks/dispatch.py`. Prints ratios: the machine is shared, absolute
times mean little. All variants run in one process, interleaved, the order reversed every other
round, one untimed call before each timed cell; a ratio is the median of the paired rounds.
"""

import argparse
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from datarax.core import (
    Batch,
    CrossModalOperator,
    CrossModalOperatorConfig,
    Element,
)

WIDTH = 128
LIMITS = {
    "op(batch)": 1.3,
    "op(batch), metadata": 1.3,
    "op(batch), masks": 1.6,
    "Batch.from_elements": 1.25,
}


class TanhLinear(CrossModalOperator):
    """tanh(W [image; text] + b)."""

    def __init__(self, config, *, rngs):
        super().__init__(config, rngs=rngs)
        self.linear = nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)

    def apply(self, data, state, metadata, random_params=None, stats=None):
        """One record."""
        joint = jnp.concatenate(self._extract_inputs(data), axis=-1)
        return self._store_outputs(data, [jnp.tanh(self.linear(joint))]), state, metadata


class Stack(CrossModalOperator):
    """An operator with many learnable leaves and no arithmetic to speak of."""

    def __init__(self, config, *, leaves):
        super().__init__(config)
        self.weights = nnx.List([nnx.Param(jnp.ones(())) for _ in range(leaves)])

    def apply(self, data, state, metadata, random_params=None, stats=None):
        """One record."""
        first, last = self.weights[0][...], self.weights[-1][...]
        return self._store_outputs(data, [data["image"] * first * last]), state, metadata


def config(**options):
    return CrossModalOperatorConfig(
        input_fields=["image", "text"], output_fields=["joint"], **options
    )


@jax.jit
def bare(params, data):
    joint = jnp.concatenate([data["image"], data["text"]], axis=-1)
    return {"joint": jnp.tanh(joint @ params["kernel"] + params["bias"])}


def paired(
    variants: dict[str, Callable[[], object]], rounds: int, inner: int
) -> dict[str, list[float]]:
    """Microseconds a call, one entry a round."""
    for run in variants.values():
        for _ in range(5):
            jax.block_until_ready(run())
    times: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    gc.collect()
    gc.disable()
    for i in range(rounds):
        for name in names if i % 2 else reversed(names):
            run = variants[name]
            jax.block_until_ready(run())
            start = time.perf_counter()
            for _ in range(inner):
                jax.block_until_ready(run())
            times[name].append((time.perf_counter() - start) / inner * 1e6)
    gc.enable()
    return times


def report(times: dict[str, list[float]], base: str, title: str) -> dict[str, float]:
    """Print medians and paired ratios."""
    print(f"\n{title}")
    ratios = {}
    for name, values in times.items():
        pairs = sorted(v / b for v, b in zip(values, times[base], strict=True))
        ratios[name] = statistics.median(pairs)
        low, high = pairs[len(pairs) // 10], pairs[-1 - len(pairs) // 10]
        print(
            f"  {name:28s} {statistics.median(values):9.1f} us   x{ratios[name]:.2f}  "
            f"(p10 {low:.2f}, p90 {high:.2f})"
        )
    return ratios


def calls(rows: int, rounds: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    data = {
        name: jnp.asarray(rng.normal(size=(rows, WIDTH)), jnp.float32) for name in ("image", "text")
    }
    op = TanhLinear(config(), rngs=nnx.Rngs(0))
    params = {"kernel": op.linear.kernel[...], "bias": op.linear.bias[...]}
    batch = Batch.from_parts(data)
    named = Batch.from_parts(data, metadata=[{"key": f"record {i}"} for i in range(rows)])
    masked = Batch.from_parts(
        data,
        valid_mask=jnp.asarray(rng.random(rows) < 0.9),
        presence={"text": jnp.asarray(rng.random(rows) < 0.8)},
    )
    np.testing.assert_allclose(op(batch)["joint"], bare(params, data)["joint"], atol=1e-6)
    variants = {
        "bare jax.jit": lambda: bare(params, data),
        "op(batch)": lambda: op(batch)["joint"],
        "op(batch), metadata": lambda: op(named)["joint"],
        "op(batch), masks": lambda: op(masked)["joint"],
    }
    with jax.log_compiles(False):
        times = paired(variants, rounds, 50)
    assert_no_recompiles(variants)
    return report(times, "bare jax.jit", f"calls, {rows} rows of 2 x {WIDTH} float32")


def assert_no_recompiles(variants: dict[str, Callable[[], object]]) -> None:
    """Every variant has run: none may compile again."""
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if "compile" in name else None
    )
    for run in variants.values():
        jax.block_until_ready(run())
    assert not compiled, f"a repeated call compiled: {compiled}"
    jax.monitoring.clear_event_listeners()


def leaves(rounds: int) -> float:
    batch = Batch.from_parts(dict.fromkeys(("image", "text"), jnp.ones((32, WIDTH))))
    few, many = Stack(config(), leaves=2), Stack(config(), leaves=402)
    times = paired({"2": lambda: few(batch), "402": lambda: many(batch)}, rounds, 20)
    slope = statistics.median((b - a) / 400 for a, b in zip(times["2"], times["402"], strict=True))
    print(f"\n  {'a learnable leaf':28s} {slope:9.2f} us   (limit 0.50)")
    return slope


def wrapping(rounds: int) -> float:
    data = {name: jnp.ones((256, WIDTH)) for name in ("image", "text")}
    mask = jnp.ones(256, bool)
    times = paired({"wrap": lambda: Batch.from_parts(data, valid_mask=mask).epoch}, rounds, 200)
    cost = statistics.median(times["wrap"])
    print(f"  {'Batch.from_parts':28s} {cost:9.2f} us   (limit 15)")
    return cost


def stacking(rows: int, rounds: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    elements = [
        Element({n: rng.normal(size=WIDTH).astype(np.float32) for n in ("image", "text")})
        for _ in range(rows)
    ]

    def floor():
        stacked = {n: np.stack([e.data[n] for e in elements]) for n in ("image", "text")}
        return jax.device_put(stacked)

    variants = {
        "np.stack + device_put": floor,
        "Batch.from_elements": lambda: Batch.from_elements(elements),
    }
    return report(paired(variants, rounds, 20), "np.stack + device_put", f"stacking {rows} records")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--async-dispatch", action="store_true", help="JAX's default dispatch")
    options = parser.parse_args()
    jax.config.update("jax_cpu_enable_async_dispatch", options.async_dispatch)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    ).stdout.strip()
    print(
        f"{jax.devices()[0].device_kind} ({platform.machine()}), {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, jax {jax.__version__}, "
        f"commit {commit or 'none'}, async dispatch {options.async_dispatch}"
    )
    failed = []
    for rows in (32, 256):
        ratios = calls(rows, options.rounds) | stacking(rows, options.rounds)
        failed += [f"{n}, {rows} rows" for n, r in ratios.items() if r > LIMITS.get(n, np.inf)]
    failed += ["a learnable leaf"] if leaves(options.rounds) > 0.5 else []
    failed += ["Batch.from_parts"] if wrapping(options.rounds) > 15 else []
    print("\nall limits hold" if not failed else f"\nover the limit: {failed}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
