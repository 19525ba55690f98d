"""What a called operator costs beside a bare `jax.jit` of the same arithmetic."""

from collections.abc import Callable

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
from harness import Report, interleaved, median_ms, paired

WIDTH = 128
LIMITS = {
    "op(batch)": 1.3,
    "op(batch), metadata": 1.3,
    "op(batch), masks": 1.6,
    "Batch.from_elements": 1.25,
}
Run = Callable[[], object]


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


def report(quick: bool) -> Report:
    """Calls, stacking, the cost of a leaf and of wrapping."""
    out = Report("What a called operator costs")
    rounds = 8 if quick else 60
    for rows in (32, 256):
        calls(out, rows, rounds)
        stacking(out, rows, rounds)
    leaves(out, rounds)
    wrapping(out, rounds)
    return out


def calls(out: Report, rows: int, rounds: int) -> None:
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
    compare(out, f"calls, {rows} rows of 2 x {WIDTH} float32", variants, rounds=rounds, inner=50)
    assert_no_recompiles(variants)


def stacking(out: Report, rows: int, rounds: int) -> None:
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
    compare(out, f"stacking {rows} records", variants, rounds=rounds, inner=20)


def compare(out: Report, title: str, variants: dict[str, Run], *, rounds: int, inner: int) -> None:
    """A table of times beside the first variant, with the limits that there are."""
    times = interleaved(variants, rounds=rounds, inner=inner)
    base, *_ = variants
    ratios = {name: paired(times, name, base) for name in variants}
    out.table(
        title,
        [
            {"variant": name, "us": 1e3 * median_ms(times[name]), f"x {base}": ratios[name]}
            for name in variants
        ],
    )
    for name, ratio in ratios.items():
        if name in LIMITS:
            out.limit(f"{name}, {title}", ratio.median, at_most=LIMITS[name])


def assert_no_recompiles(variants: dict[str, Run]) -> None:
    """Every variant has run: none may compile again."""
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _, **__: compiled.append(name) if "compile" in name else None
    )
    for run in variants.values():
        jax.block_until_ready(run())
    assert not compiled, f"a repeated call compiled: {compiled}"
    jax.monitoring.clear_event_listeners()


def leaves(out: Report, rounds: int) -> None:
    batch = Batch.from_parts(dict.fromkeys(("image", "text"), jnp.ones((32, WIDTH))))
    few, many = Stack(config(), leaves=2), Stack(config(), leaves=402)
    variants = {"2": lambda: few(batch), "402": lambda: many(batch)}
    times = interleaved(variants, rounds=rounds, inner=20)
    slope = 1e6 * float(np.median(times["402"] - times["2"])) / 400
    out.limit("a learnable leaf, us", slope, at_most=0.5)


def wrapping(out: Report, rounds: int) -> None:
    data = {name: jnp.ones((256, WIDTH)) for name in ("image", "text")}
    mask = jnp.ones(256, bool)
    run = {"wrap": lambda: Batch.from_parts(data, valid_mask=mask).epoch}
    times = interleaved(run, rounds=rounds, inner=200)
    out.limit("Batch.from_parts, us", 1e3 * median_ms(times["wrap"]), at_most=15)
