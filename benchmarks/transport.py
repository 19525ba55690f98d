"""Sinkhorn an iteration beside two products with a vector, or one tiled product, and OTT."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import batching

from datarax import functional
from harness import (
    Report,
    Run,
    fastest,
    interleaved,
    median_ms,
    paired,
    relative_error,
    temporary_bytes,
)

EPSILON = 0.05
SWEEPS = 20
TILES = (64, 128, 256, 512)
MIB = 2**20


def report(quick: bool) -> Report:
    """Stored, streaming, log domain and OTT, then memory and accuracy."""
    n, width, rounds = (512, 64, 2) if quick else (4096, 128, 5)
    found = Report(f"Transport: Sinkhorn between {n} and {n} points of width {width}")
    x, y = _points(n, width)
    cost = jax.jit(functional.transport_cost)(x, y)
    scaling, stream = _scaling_runs(cost), _streaming_runs(x, y)
    times = interleaved(scaling, rounds=rounds + 4) | interleaved(stream, rounds=rounds)
    for name in ("stored", "streaming"):
        times[f"{name} sweep"] = (
            times[f"{name} {2 * SWEEPS}"] - times[f"{name} {SWEEPS}"]
        ) / SWEEPS
    times |= {"stored log domain": times["log domain 5"] / 5}
    slow = interleaved(_ott_runs(x, y, cost), rounds=max(2, rounds // 2))
    floors = (
        fastest(times, ["two matvecs", "two matvecs, the second as a sum"]),
        fastest(times, [f"one product, tile {t}" for t in TILES]),
    )
    _sweeps(found, times, slow, floors)
    stored, streaming = (
        paired(times, f"{kind} sweep", floor)
        for kind, floor in zip(("stored", "streaming"), floors, strict=True)
    )
    found.limit("stored sweep / two matvecs", stored.median, at_most=1.2)
    found.limit("streaming sweep / one tiled product", streaming.median, at_most=1.5)
    _memory(found, n, width, limited=not quick)
    _accuracy(found, x, y, cost)
    found.note(
        "A sweep is the slope between 20 and 40 sweeps: the first one, in the log domain, and the "
        "making of the kernel stand in the column of 20 sweeps. OTT is run for as many iterations, "
        "at the same epsilon, without its convergence test."
    )
    return found


def _points(n: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Unit vectors, the second set near the first in another order, as of a trained pair."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, width))
    y = x[rng.permutation(n)] + 0.7 * rng.normal(size=(n, width))
    unit = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    first, second = (jnp.asarray(v, jnp.float32) for v in unit)
    return first, second


def _solve(cost: Any, sweeps: int = SWEEPS, **options: Any) -> Any:
    return functional.sinkhorn(
        cost, epsilon=EPSILON, relative=False, num_iterations=sweeps, tolerance=-1.0, **options
    )


def _duals(found: Any) -> tuple[Any, ...]:
    return found.row_potentials, found.column_potentials, found.error


def _between(x: jax.Array, y: jax.Array, sweeps: int = SWEEPS) -> Any:
    return _solve(functional.point_cost(x, y), sweeps, memory_budget=0)


def _scaling_runs(cost: jax.Array) -> dict[str, Run]:
    kernel, vector = jnp.exp(-cost / EPSILON), jnp.ones(len(cost))
    two = jax.jit(lambda k, u, v: (u @ k, k @ v))
    turned = jax.jit(lambda k, u, v: (u @ k, jnp.sum(k * v[None, :], axis=1)))
    runs: dict[str, Run] = {
        "two matvecs": lambda: two(kernel, vector, vector),
        "two matvecs, the second as a sum": lambda: turned(kernel, vector, vector),
    }
    for sweeps in (SWEEPS, 2 * SWEEPS):
        solve = jax.jit(lambda c, s=sweeps: _duals(_solve(c, s)))
        runs[f"stored {sweeps}"] = lambda solve=solve: solve(cost)
    dense = jax.jit(lambda c: _duals(_solve(c, 5, unroll=True)))
    return runs | {"log domain 5": lambda: dense(cost)}


def _streaming_runs(x: jax.Array, y: jax.Array) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    for tile in TILES:
        product = jax.jit(lambda x, y, tile=tile: _one_product(x, y, tile))
        runs[f"one product, tile {tile}"] = lambda product=product: product(x, y)
    for sweeps in (SWEEPS, 2 * SWEEPS):
        solve = jax.jit(lambda x, y, s=sweeps: _duals(_between(x, y, s)))
        runs[f"streaming {sweeps}"] = lambda solve=solve: solve(x, y)
    return runs


def _one_product(x: jax.Array, y: jax.Array, tile: int) -> jax.Array:
    """All tiles of `x @ y.T`, each written over the one before."""
    parts = x.reshape(-1, tile, x.shape[1])
    return jax.lax.scan(
        lambda _, part: (part @ y.T, None), jnp.zeros((tile, len(y)), x.dtype), parts
    )[0]


def _ott_runs(x: jax.Array, y: jax.Array, cost: jax.Array) -> dict[str, Run]:
    # OTT 0.6 reads a name for its batch_size that JAX 0.10 took away: no array is such a thing.
    vars(batching).setdefault("is_vmappable", lambda _: False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ott.geometry import geometry, pointcloud
        from ott.problems.linear import linear_problem
        from ott.solvers.linear import sinkhorn

    def solver(lse: bool, made: Any) -> Run:
        solve = sinkhorn.Sinkhorn(
            lse_mode=lse, threshold=-1.0, inner_iterations=SWEEPS, max_iterations=SWEEPS
        )

        def run(*arrays: jax.Array) -> Any:
            out = solve(linear_problem.LinearProblem(made(*arrays)))
            return out.f, out.g, out.errors

        return jax.jit(run)

    cloud = pointcloud.PointCloud
    variants: dict[str, tuple[Any, bool, tuple]] = {
        "ott stored kernel": (
            lambda c: geometry.Geometry(cost_matrix=c, epsilon=EPSILON),
            False,
            (cost,),
        ),
        "ott PointCloud": (lambda x, y: cloud(x, y, epsilon=EPSILON), True, (x, y)),
        "ott PointCloud, batch_size": (
            lambda x, y: cloud(x, y, epsilon=EPSILON, batch_size=256),
            True,
            (x, y),
        ),
    }
    runs: dict[str, Run] = {}
    for name, (made, lse, arrays) in variants.items():
        run = solver(lse, made)
        runs[name] = lambda run=run, arrays=arrays: run(*arrays)
    return runs


def _sweeps(
    found: Report, times: dict[str, np.ndarray], slow: dict[str, np.ndarray], floors: tuple
) -> None:
    """One table: every way to 20 sweeps, an iteration of it, and that beside its floor."""
    rows = []
    for name, sweep, floor in (
        ("stored kernel", "stored sweep", floors[0]),
        ("stored, log domain (unrolled, as before)", "stored log domain", floors[0]),
        ("streaming", "streaming sweep", floors[1]),
    ):
        whole = f"{sweep.split()[0]} {SWEEPS}"
        total = times.get(whole) if sweep.endswith("sweep") else SWEEPS * times[sweep]
        rows.append(_row(name, total, times[sweep], floor, str(paired(times, sweep, floor))))
    rows += [_row(name, times[name], times[name], name, "1") for name in floors]
    for name, values in slow.items():
        floor = floors[0] if "kernel" in name else floors[1]
        ratio = np.median(values) / SWEEPS / np.median(times[floor])
        rows.append(_row(name, values, values / SWEEPS, floor, f"{ratio:.2f} (medians)"))
    found.table(f"{SWEEPS} sweeps, float32, epsilon {EPSILON}", rows)


def _row(name: str, whole: np.ndarray, sweep: np.ndarray, floor: str, ratio: str) -> dict[str, Any]:
    return {
        "what": name,
        "ms": median_ms(whole),
        "ms a sweep": median_ms(sweep),
        "floor": floor,
        "sweep / floor": ratio,
    }


def _memory(found: Report, n: int, width: int, *, limited: bool) -> None:
    shape = jax.ShapeDtypeStruct((n, width), jnp.float32)

    def stored(x: jax.Array, y: jax.Array, sweeps: int) -> Any:
        return _solve(functional.transport_cost(x, y), sweeps)

    def unrolled(x: jax.Array, y: jax.Array, sweeps: int) -> Any:
        return _solve(functional.transport_cost(x, y), sweeps, unroll=True)

    variants = {"stored": stored, "unrolled": unrolled, "streaming": _between}
    rows, bytes_of = [], {}
    for name, solve in variants.items():
        for sweeps in (SWEEPS, 10 * SWEEPS):

            def value(x: jax.Array, y: jax.Array, solve=solve, sweeps=sweeps) -> jax.Array:
                return solve(x, y, sweeps).regularised_cost

            bytes_of[name, sweeps] = (
                temporary_bytes(value, shape, shape),
                temporary_bytes(jax.grad(value, (0, 1)), shape, shape),
            )
        (loss, short), (_, long) = (bytes_of[name, s] for s in (SWEEPS, 10 * SWEEPS))
        rows.append(
            {
                "what": name,
                "loss, 20 sweeps, MiB": loss / MIB,
                "with gradient, 20 sweeps, MiB": short / MIB,
                "with gradient, 200 sweeps, MiB": long / MIB,
            }
        )
    found.table("Temporary memory of the compiled program", rows)
    for name in ("stored", "streaming"):
        growth = bytes_of[name, 10 * SWEEPS][1] - bytes_of[name, SWEEPS][1]
        found.limit(f"{name} gradient: bytes that 180 sweeps add", growth, at_most=0)
    if limited:
        grown = bytes_of["streaming", SWEEPS][1] / MIB
        found.limit("streaming gradient, temporary MiB", grown, at_most=20)


def _accuracy(found: Report, x: jax.Array, y: jax.Array, cost: jax.Array) -> None:
    """Beside the same sweeps in float64, and POT's; the marginal error is relative."""
    exact = _in_float64(x, y)
    solved = {
        "stored": jax.jit(_solve)(cost),
        "streaming": jax.jit(_between)(x, y),
        "log domain": jax.jit(lambda c: _solve(c, unroll=True))(cost),
    }
    rows = [
        {
            "what": name,
            "cost, relative error": relative_error(one.cost, exact["cost"]),
            "regularised cost, relative error": relative_error(one.regularised_cost, exact["dual"]),
            "row potentials, relative error": relative_error(one.row_potentials, exact["rows"]),
            "error reported": float(one.error),
            "error in float64": exact["error"],
        }
        for name, one in solved.items()
    ]
    found.table(f"Accuracy after {SWEEPS} sweeps, beside float64", rows)
    for name in ("stored", "streaming"):
        wrong = relative_error(solved[name].regularised_cost, exact["dual"])
        found.limit(f"{name} regularised cost, relative error", wrong, at_most=1e-5)


def _in_float64(x: jax.Array, y: jax.Array) -> dict[str, Any]:
    """The same sweeps in NumPy; at this epsilon float64 needs no absorption."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    cost = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    n = len(a)
    kernel, v = np.exp(-cost / EPSILON), np.ones(n) / n
    u = v
    for _ in range(SWEEPS):
        before, u = u, 1 / n / (kernel @ v)
        v = 1 / n / (u @ kernel)
    plan = u[:, None] * kernel * v[None, :]
    rows, columns = (EPSILON * np.log(n * w) for w in (u, v))
    return {
        "cost": np.sum(plan * cost),
        "dual": np.mean(rows) + np.mean(columns) + EPSILON * (1 - plan.sum()),
        "rows": rows,
        "error": float(np.max(np.abs(np.log(u / before)))),
    }
