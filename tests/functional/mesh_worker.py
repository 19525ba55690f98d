"""Losses on 8 virtual devices beside one device in float64; run as a process of its own.

python mesh_worker.py CASES OUT, both JSON. A case is a dict: loss, options, how, devices, rows; the
first `kept` rows are there, where it says how many. A `second` one differentiates a gradient.
"""

import json
import os
import sys
from pathlib import Path

if __name__ == "__main__":  # pytest imports it too, to look for doctests
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    )
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from collectives import collectives, matmul_flops, volume
from datarax.functional import info_nce, sigmoid_contrastive

LOSSES = {"info_nce": info_nce, "sigmoid": sigmoid_contrastive}
WIDTH, EXTRA = 8, 6
SHARED = ("negatives_a", "negatives_b", "negatives_where", "negatives_ids")


def arrays_of(case, *, seed=0):
    """The rows that are removed hold NaN; cotangents are uneven, unless it says `uniform`."""
    rng = np.random.default_rng(seed)
    rows, names = case["rows"], case.get("arrays", ())
    a, b = (rng.normal(size=(rows, WIDTH)) / 2 for _ in range(2))
    every = {
        "where": rng.random(rows) > 0.2,
        "where_a": rng.random(rows) > 0.2,
        "where_b": rng.random(rows) > 0.2,
        "ids": rng.integers(0, rows // 2, rows).astype(np.int32),
        "targets": rng.random((rows, rows)),
        "negatives_a": rng.normal(size=(EXTRA, WIDTH)) / 2,
        "negatives_b": rng.normal(size=(EXTRA, WIDTH)) / 2,
        "negatives_where": rng.random(EXTRA) > 0.3,
        "negatives_ids": rng.integers(0, rows // 2, EXTRA).astype(np.int32),
    }
    cotangent = rng.random(rows) + 0.5
    if case.get("uniform"):
        cotangent = np.full(rows, 1 / rows)
    if "kept" in case:
        every["where"] = np.arange(rows) < case["kept"]
    if "where" in names:
        a[~every["where"]] = np.nan
    return a, b, cotangent, {name: every[name] for name in names}


def split(arrays):
    """What is differentiated, and what is not."""
    wanted = [n for n in arrays if n in ("negatives_a", "negatives_b")]
    return {n: arrays[n] for n in wanted}, {n: x for n, x in arrays.items() if n not in wanted}


def objective(loss, options, place):
    """The losses weighted, and the losses; `place` calls the loss with all its arrays."""

    def run(a, b, scale, bias, negatives, others, weights):
        line = {"logit_scale": scale, options.get("bias", "logit_bias"): bias}
        found = place(loss, (a, b), line, {**negatives, **others})
        return jnp.sum(found * weights), found

    def slope(a, b, *others):
        of_a, of_b = jax.grad(lambda *sides: run(*sides, *others)[0], (0, 1))(a, b)
        return jnp.sum(of_a * b) + jnp.sum(jnp.sin(of_b))

    if options.get("second"):
        return jax.jit(jax.value_and_grad(slope, (0, 1, 2, 6)))
    return jax.jit(jax.value_and_grad(run, (0, 1, 2, 3, 4), has_aux=True))


def on_one_device(case):
    a, b, weights, arrays = arrays_of(case)
    settings = case.get("settings", {})
    starts = range(0, case["rows"], case["rows"] // case["devices"])

    def place(loss, pair, line, arrays):
        if case["how"] != "shard_map alone":
            return loss(*pair, **line, **arrays, **settings)
        rows = [slice(i, i + case["rows"] // case["devices"]) for i in starts]
        parts = [({n: x[own] for n, x in arrays.items()}, [x[own] for x in pair]) for own in rows]
        return jnp.concatenate([loss(*own, **line, **x, **settings) for x, own in parts])

    run = objective(LOSSES[case["loss"]], case, place)
    with jax.enable_x64(True):
        arguments = jax.tree.map(jnp.asarray, (a, b, 5.0, -1.0, *split(arrays), weights))
        return jax.tree.map(np.asarray, run(*arguments))


def over_devices(case):
    a, b, weights, arrays = arrays_of(case)
    count, how = case["devices"], case["how"]
    kind = AxisType.Explicit if how == "explicit" else AxisType.Auto
    shape, names = ((count,), ("data",)) if how != "two axes" else ((count // 2, 2), ("data", "x"))
    mesh = jax.make_mesh(
        shape, names, axis_types=(kind,) * len(names), devices=jax.devices()[:count]
    )
    even = case["rows"] % mesh.shape["data"] == 0
    settings = {**case.get("settings", {}), **case.get("over", {})}
    if how == "two axes":
        settings["axis_name"] = "data"

    def put(x, name=""):
        spec = PartitionSpec("data") if even and name not in SHARED else PartitionSpec()
        x = np.asarray(x, np.float32 if np.asarray(x).dtype == np.float64 else None)
        return jax.device_put(x, NamedSharding(mesh, spec if x.ndim else PartitionSpec()))

    def place(loss, pair, line, arrays):
        if not how.startswith("shard_map"):
            return loss(*pair, **line, **arrays, **settings)
        rows, every = PartitionSpec("data"), PartitionSpec()
        axis = None if how == "shard_map alone" else "data"
        return jax.shard_map(
            lambda pair, line, arrays: loss(*pair, **line, **arrays, **settings, axis_name=axis),
            mesh=mesh,
            in_specs=(rows, every, {name: every if name in SHARED else rows for name in arrays}),
            out_specs=rows,
            check_vma=how != "shard_map unchecked",
        )(pair, line, arrays)

    arrays = [{n: put(x, n) for n, x in part.items()} for part in split(arrays)]
    arguments = (put(a), put(b), put(5.0), put(-1.0), *arrays, put(weights))
    compiled = objective(LOSSES[case["loss"]], case, place).lower(*arguments).compile()
    return jax.tree.map(np.asarray, compiled(*arguments)), compiled.as_text(), mesh.shape["data"]


def deviation(found, exact):
    """The largest, relative to the largest magnitude of each array."""
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.max(np.abs(found - exact)) / max(np.max(np.abs(exact)), 1e-3))


def outcome(case):
    exact = on_one_device(case)
    found, text, count = over_devices(case)
    rows = case["rows"]
    unit = (count - 1) / count * rows * WIDTH * 4
    every = collectives(text, devices=count)
    moved = [x for x in every if not x.place]
    local = -(-rows // count)
    return {
        "errors": [deviation(*x) for x in zip(*map(jax.tree.leaves, (found, exact)), strict=True)],
        "units": volume(moved, least=local * WIDTH) / unit if unit else 0,
        "units with a branch": volume(every, least=local * WIDTH) / unit if unit else 0,
        "kinds": sorted({x.kind for x in moved if np.prod(x.shape) >= local * WIDTH}),
        "share": matmul_flops(text) * count / (2 * rows**2 * WIDTH),
    }


if __name__ == "__main__":
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    given, out = map(Path, sys.argv[1:])
    out.write_text(json.dumps([outcome(case) for case in json.loads(given.read_text())]))
