"""The contrastive losses over a mesh: what devices receive, hold and compute.

Nothing is timed. The programs are compiled for 8 virtual devices in a process of their own; volumes
and matmuls are counted in the compiled HLO, memory is that of its buffers.

U is what one device receives when all rows of one modality come to it: (k - 1)/k N d values.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from harness import Report

DEVICES = 8
LIMITS = {
    "info_nce gather": ("gather form", 2.0),
    "info_nce ring": ("ring form", 3.0),
    "sigmoid ring": ("SigLIP ring", 2.0),
    "info_nce auto": ("Auto-sharded jit", 4.0),
    "one way gather": ("one-way gather form", 2.0),
    "one way ring": ("one-way ring form", 3.0),
    "sigmoid auto": ("Auto-sharded jit, SigLIP", 4.0),
}


def report(quick: bool) -> Report:
    rows, features = (512, 64) if quick else (4096, 256)
    found = _measured(rows, features)
    result = Report("Over a mesh")
    title = f"Loss and all gradients on {DEVICES} virtual devices, N = {rows}, d = {features}, f32"
    result.table(title, found["forms"])
    for row in found["forms"]:
        if row["form"] in LIMITS:
            name, bound = LIMITS[row["form"]]
            result.limit(f"{name}: volume in U", row["matrices / U"], at_most=bound + 1e-6)
        if row["form"] != "info_nce as GSPMD takes plain code":
            name = f"{row['form']}: matmul FLOPs of a device x devices / those of one"
            result.limit(name, row["FLOPs x devices / one"], at_most=1.1)
            result.limit(
                f"{row['form']}: deviation from one device", row["deviation"], at_most=1e-6
            )
    result.table(f"Temporary memory of a device at {rows // DEVICES} rows each", found["memory"])
    for loss in ("info_nce", "sigmoid"):
        two, four, eight = (x["MiB"] for x in found["memory"] if x["form"] == f"{loss} ring")
        for count, size in ((2, two), (4, four)):
            name = f"{loss} ring: memory of a device, of {DEVICES} / of {count}"
            result.limit(name, eight / size, at_most=1.01)
    result.note(
        "Volumes are those of matrices of at least the local rows; `all / U` counts the vectors of "
        "N numbers too. The sigmoid loss and the one-way gather form have a branch for cotangents "
        "that differ between rows, which a mean does not take: its 2 products are counted on both "
        "sides, and the volume with it stands beside. A one-way ring form does 4 products where "
        "one device does 3: the gradient of the first columns needs each row's log-sum-exp, which "
        "the last columns complete, so a device that keeps neither all columns (gather) nor all "
        "logits of its rows forms these twice. With 2 devices the ring has one hop, which the "
        "compiler takes out of its loop and merges with what stands around: its memory differs for "
        "that by up to a block of rows, and is the same for 4 devices as for 8. Hops before or "
        "after the loop, and barriers between products and hops, changed neither. Nothing here "
        "says how fast it is: 8 virtual devices share the cores of one machine."
    )
    return result


def _measured(rows: int, features: int) -> dict[str, Any]:
    """What a process with virtual devices prints as its last line."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}"
    done = subprocess.run(
        [sys.executable, __file__, str(rows), str(features)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the process with {DEVICES} devices failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _worker(rows: int, features: int) -> dict[str, Any]:
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, rows, features))
    a, b = (jnp.asarray(v / np.linalg.norm(v, axis=1, keepdims=True), jnp.float32) for v in x)
    return {
        "forms": [
            _form(name, kind, a, b)
            for name in ("info_nce", "sigmoid")
            for kind in ("gather", "ring", "auto", "explicit")
        ]
        + [_form("one way", kind, a, b) for kind in ("gather", "ring")]
        + [_form("info_nce", "as GSPMD takes plain code", a, b)],
        "memory": [
            _memory(name, kind, count, a, b)
            for name in ("info_nce", "sigmoid")
            for kind in ("gather", "ring")
            for count in (2, 4, 8)
        ],
    }


def _form(name: str, kind: str, a: Any, b: Any) -> dict[str, Any]:
    import jax
    import numpy as np

    from collectives import collectives, matmul_flops, volume

    compiled, arguments = _compiled(name, kind, DEVICES, a, b)
    text = compiled.as_text()
    every = collectives(text, devices=DEVICES)
    moved = [x for x in every if not x.place]
    unit = (DEVICES - 1) / DEVICES * a.size * 4
    least = a.size // DEVICES
    one = _loss(name, "one", None)
    exact = jax.jit(one).lower(a, b, *_scalars(name)).compile()
    pairs = zip(
        jax.tree.leaves(compiled(*arguments)),
        jax.tree.leaves(exact(a, b, *_scalars(name))),
        strict=True,
    )
    return {
        "form": f"{name} {kind}",
        "matrices / U": volume(moved, least=least) / unit,
        "all / U": volume(moved) / unit,
        "with the branch": volume(every, least=least) / unit,
        "FLOPs x devices / one": matmul_flops(text) * DEVICES / _least_flops(name, kind, a),
        "MiB of a device": compiled.memory_analysis().temp_size_in_bytes / 2**20,
        "deviation": max(_deviation(np.asarray(p), np.asarray(q)) for p, q in pairs),
        "kinds": " ".join(sorted({x.kind for x in moved if np.prod(x.shape) >= least})),
    }


def _memory(name: str, kind: str, count: int, a: Any, b: Any) -> dict[str, Any]:
    rows = a.shape[0] // DEVICES * count
    compiled, _ = _compiled(name, kind, count, a[:rows], b[:rows])
    size = compiled.memory_analysis().temp_size_in_bytes / 2**20
    return {"form": f"{name} {kind}", "devices": count, "MiB": size}


def _compiled(name: str, kind: str, count: int, a: Any, b: Any) -> tuple[Any, tuple]:
    """The program of a form, and the arguments, spread over the devices."""
    import jax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    axis = AxisType.Explicit if kind == "explicit" else AxisType.Auto
    mesh = jax.make_mesh((count,), ("data",), axis_types=(axis,), devices=jax.devices()[:count])
    rows, every = (NamedSharding(mesh, PartitionSpec(*x)) for x in (("data",), ()))
    arguments = (
        *(jax.device_put(x, rows) for x in (a, b)),
        *(jax.device_put(x, every) for x in _scalars(name)),
    )
    return jax.jit(_loss(name, kind, mesh)).lower(*arguments).compile(), arguments


def _loss(name: str, kind: str, mesh: Any) -> Callable[..., Any]:
    """The mean loss and all its gradients, of embeddings, scale and bias."""
    import jax
    import jax.numpy as jnp

    from datarax.functional import info_nce, sigmoid_contrastive

    loss = sigmoid_contrastive if name == "sigmoid" else info_nce
    form = {"collective": kind} if kind in ("gather", "ring") else {}
    form |= {"directions": "a_to_b"} if name == "one way" else {}

    def plain(a: Any, b: Any, scale: Any, bias: Any) -> Any:
        logits = scale * a @ b.T + bias
        both = jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)
        return jnp.mean(both / 2 - jnp.diagonal(logits))

    def ours(a: Any, b: Any, scale: Any, bias: Any) -> Any:
        return jnp.mean(loss(a, b, logit_scale=scale, logit_bias=bias, **form))

    return jax.value_and_grad(plain if kind.startswith("as GSPMD") else ours, (0, 1, 2, 3))


def _scalars(name: str) -> tuple[Any, Any]:
    """The scale and the bias; SigLIP's are those at its start."""
    import jax.numpy as jnp

    return jnp.float32(10.0 if name == "sigmoid" else 20.0), jnp.float32(-10.0)


def _least_flops(name: str, kind: str, a: Any) -> float:
    """Of the matmuls of one device, and of the branch for uneven cotangents where a form has it."""
    products = {"info_nce": 4, "sigmoid": 3, "one way": 3}[name]
    branch = 2 if name == "sigmoid" or (name, kind) == ("one way", "gather") else 0
    return (products + branch) * 2.0 * a.shape[0] ** 2 * a.shape[1]


def _deviation(found: Any, exact: Any) -> float:
    """Relative to the largest magnitude; a gradient that is 0 in truth, such as InfoNCE's bias."""
    return float(abs(found - exact).max() / max(abs(exact).max(), 1e-3))


if __name__ == "__main__":
    print(json.dumps(_worker(*map(int, sys.argv[1:]))))
