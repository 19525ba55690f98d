"""Ranks of both directions beside the bare matmul pass, an argsort and `lax.top_k`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from datarax.functional import contests, rank_of, two_way_contests
from harness import Report, fastest, interleaved, median_ms, paired, temporary_bytes

TILES = (128, 256, 512, 1024)
WIDTH = 512
LIMIT = 100 * 2**20


def report(quick: bool) -> Report:
    """Time against the bare pass, memory at 100k, exactness against a dense float64 matrix."""
    out = Report("Retrieval: ranks of both directions in one pass")
    compare(out, 2048 if quick else 8192, rounds=3 if quick else 7, tiles=TILES)
    if not quick:
        compare(out, 32768, rounds=2, tiles=(512,), both_alone=True)
    sorting(out, 2048 if quick else 8192, rounds=3)
    memory(out)
    exactness(out, 1000 if quick else 3000)
    out.note(
        "What is above the bare pass is the counting: each score is compared with two thresholds, "
        "the row's and the column's, which reads every block once more. A block is 16 to 64 MiB, "
        "beyond the caches, and chunks of columns would need the rows' thresholds before the block "
        "is there. Fewer rows at once lose more in the product (128 rows: 1.3 of the floor) than "
        "the cache gives back. On a quiet machine the product is twice as fast as on a busy one, "
        "and the same counting a larger share of it: 1.13 to 1.17 from run to run."
    )
    return out


def rows(n: int, *, width: int = WIDTH) -> tuple[jax.Array, jax.Array]:
    """Unit queries, and targets near them."""
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(n, width)).astype(np.float32)
    targets = queries + 4 * rng.normal(size=(n, width)).astype(np.float32)
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, targets)]
    return jnp.asarray(units[0]), jnp.asarray(units[1])


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    axes = (((1,), (1,)), ((), ()))
    return lax.dot_general(a, b, axes, precision=lax.Precision.HIGHEST)


@partial(jax.jit, static_argnames="tile")
def bare(queries: jax.Array, targets: jax.Array, *, tile: int) -> jax.Array:
    """The products of blocks of rows and nothing else; the barrier keeps them whole."""

    def block(total: jax.Array, begin: jax.Array) -> tuple[jax.Array, None]:
        part = lax.dynamic_slice_in_dim(queries, begin, tile)
        return total + lax.optimization_barrier(product(part, targets))[0, 0], None

    starts = jnp.arange(0, len(queries), tile, dtype=jnp.int32)
    return lax.scan(block, jnp.float32(0), starts)[0]


@partial(jax.jit, static_argnames=("tile", "way", "k"))
def ordered(queries, targets, *, tile: int, way: str, k: int = 10):
    """One direction with `lax.top_k`, or with an argsort of every row."""

    def block(begin: jax.Array) -> jax.Array:
        scores = product(lax.dynamic_slice_in_dim(queries, begin, tile), targets)
        own = begin + jnp.arange(tile, dtype=jnp.int32)
        found = lax.top_k(scores, k)[1] if way == "top_k" else jnp.argsort(-scores, axis=1)
        return jnp.any(found[:, :k] == own[:, None], axis=1)

    return lax.map(block, jnp.arange(0, len(queries), tile, dtype=jnp.int32))


def compare(
    out: Report, n: int, *, rounds: int, tiles: tuple[int, ...], both_alone: bool = False
) -> None:
    queries, targets = rows(n)
    both, one = jax.jit(two_way_contests), jax.jit(contests)
    variants = {
        f"bare pass, tile {tile}": partial(bare, queries, targets, tile=tile) for tile in tiles
    }
    floors = list(variants)
    variants["both directions"] = lambda: both(queries, targets)
    if not both_alone:
        variants["one direction"] = lambda: one(queries, targets)
        variants["top_k(10), one direction"] = partial(
            ordered, queries, targets, tile=256, way="top_k"
        )
    times = interleaved(variants, rounds=rounds)
    floor = fastest(times, floors)
    title = f"n = m = {n}, d = {WIDTH}, float32"
    out.table(
        f"{title}; floor: {floor}, {2e-9 * n * n * WIDTH / np.median(times[floor]):.0f} GFLOP/s",
        [
            {"variant": name, "ms": median_ms(times[name]), "x floor": paired(times, name, floor)}
            for name in variants
        ],
    )
    ratio = paired(times, "both directions", floor).median
    out.limit(f"both directions over one bare pass, {title}", ratio, at_most=1.15)


def sorting(out: Report, n: int, *, rounds: int) -> None:
    """A part of the rows, as an argsort of all takes minutes."""
    queries, targets = rows(n)
    part = queries[:256]
    variants = {
        "bare pass": partial(bare, part, targets, tile=256),
        "top_k(10)": lambda: ordered(part, targets, tile=256, way="top_k"),
        "argsort": lambda: ordered(part, targets, tile=256, way="argsort"),
    }
    times = interleaved(variants, rounds=rounds)
    out.table(
        f"256 rows of {n}: what a ranking costs",
        [
            {"variant": name, "ms": median_ms(times[name]), "x": paired(times, name, "bare pass")}
            for name in variants
        ],
    )


def memory(out: Report) -> None:
    """Temporaries of the compiled program at 100,000 x 100,000, which is not run."""
    n = 100_000
    x = jax.ShapeDtypeStruct((n, WIDTH), jnp.float32)
    ids = jax.ShapeDtypeStruct((n,), jnp.int32)
    mask = jax.ShapeDtypeStruct((n,), jnp.bool_)

    def masked(a, b, ids, mask):
        options = {"query_presence": mask, "target_presence": mask}
        return two_way_contests(a, b, query_ids=ids, target_ids=ids, **options)

    sizes = {
        "both directions": temporary_bytes(two_way_contests, x, x),
        "both directions, ids and masks": temporary_bytes(masked, x, x, ids, mask),
        "one direction": temporary_bytes(contests, x, x),
    }
    mebibytes = {name: size / 2**20 for name, size in sizes.items()}
    out.table(
        "temporaries at 100k x 100k (a matrix: 38,147 MiB)",
        [{"variant": name, "MiB": size} for name, size in mebibytes.items()],
    )
    for name, size in mebibytes.items():
        out.limit(f"{name}, MiB", size, at_most=LIMIT / 2**20)


def exactness(out: Report, n: int) -> None:
    """Copies tie; ranks are those of the float32 matrix, and near those of the float64 one."""
    queries, targets = rows(n)
    targets = targets.at[1::2].set(targets[::2])
    there, back = (rank_of(x) for x in jax.jit(two_way_contests)(queries, targets))
    found = []
    for dtype in ("float32", "float64"):
        if dtype == "float32":
            scores = np.asarray(jax.jit(product)(queries, targets))
        else:
            scores = np.asarray(queries, np.float64) @ np.asarray(targets, np.float64).T
        for name, ours, matrix in (("rows", there, scores), ("columns", back, scores.T)):
            wrong = np.abs(np.asarray(ours) - expected_ranks(matrix))
            found.append(
                {
                    "direction": name,
                    "matrix": dtype,
                    "ranks that differ": f"{np.mean(wrong > 0):.4%}",
                    "by at most": float(wrong.max()),
                }
            )
            if dtype == "float32":
                out.limit(f"ranks off the float32 matrix, {name}", wrong.max(), at_most=0)
    out.table(f"ranks of {n} rows, every target twice, against a whole matrix", found)


def expected_ranks(scores: np.ndarray) -> np.ndarray:
    own = np.diagonal(scores)[:, None]
    return (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
