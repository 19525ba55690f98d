"""The contrastive losses beside the matrix products that they cannot do without."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from datarax import functional
from datarax.functional.contrastive.tiles import choose_tile
from harness import (
    Report,
    compile_seconds,
    fastest,
    interleaved,
    median_ms,
    paired,
    peak_resident_bytes,
    relative_error,
    spread,
    temporary_bytes,
)

WIDTH = 512
SCALE, BIAS = 20.0, -10.0
TILES = (256, 512, 1024, 2048)
MIB = 2**20
Loss = Callable[..., jax.Array]
PROCESS = """
import os
os.environ["JAX_PLATFORMS"] = "cpu"
import jax, jax.numpy as jnp, numpy as np
from datarax import functional
rng = np.random.default_rng(0)
a, b = (jnp.asarray(rng.standard_normal(({n}, {d}), np.float32) / {d}**0.5) for _ in "ab")
step = jax.jit(jax.value_and_grad(lambda a, b: jnp.mean({call}), (0, 1)))
jax.block_until_ready(step(a, b))
"""


def report(quick: bool) -> Report:
    """Time beside bare products, memory beside naive, accuracy beside float64."""
    out = Report("Contrastive losses")
    sizes = (512,) if quick else (4096, 8192)
    for n in sizes:
        symmetric(out, n, rounds=3 if quick else 5)
    one_pass(out, sizes[0], rounds=3 if quick else 5)
    rounded(out, sizes[0], rounds=3 if quick else 15)
    memory(out, sizes, large=(2048, 64) if quick else (65536, 256))
    two_views(out, 64 if quick else 512, rounds=2 if quick else 1)
    traps(out, 256 if quick else 1024)
    matched(out, 256 if quick else 1024)
    out.note(
        "Bare products are tiled as ours are, and have nothing between them but, in bf16, the cast "
        "of the logits; every ratio is to the fastest of the forms raced. Every gradient is "
        "returned, the scale's too. The loss in open_clip's form makes both matrices of logits "
        "and two cross-entropies. Compiling ours takes more than twice as long as naive: a loop of "
        "rows and one of columns in it, for the loss and again for its gradients. "
        "At 8192 rows ours was between 1.07 and 1.14 of the floor from run to run: a tenth is "
        "spent on exponentials and maxima, of blocks that a cache holds. The floor is the faster "
        "order of the products; beside the usual one (`down the columns`) ours is at 0.98 to 1.04."
    )
    return out


def rows(n: int, *, shared: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """Unit vectors, independent or with a `shared` part in each pair."""
    rng = np.random.default_rng(0)
    part = shared * rng.normal(size=(n, WIDTH))
    pair = [part + rng.normal(size=(n, WIDTH)) for _ in range(2)]
    a, b = (jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), jnp.float32) for x in pair)
    return a, b


def product(x: jax.Array, y: jax.Array, contract: tuple[int, int]) -> jax.Array:
    axes = (((contract[0],), (contract[1],)), ((), ()))
    return lax.dot_general(x, y, axes, preferred_element_type=jnp.float32)


def bare(a: jax.Array, b: jax.Array, *, tile: int, count: int, across: bool) -> Any:
    """Logits and their products with both sides: 3 products, or 4 with a pass before.

    The sums for b are those of L^T x, or `across`, of x^T L: a CPU is faster at these.
    """
    blocks = a.reshape(-1, min(tile, len(a)), a.shape[1])
    first = None
    if count == 4:
        _, first = lax.scan(lambda c, x: (c, product(x, b, (1, 1))[:, 0]), 0, blocks)

    def body(of_b, x):
        logits = product(x, b, (1, 1)).astype(x.dtype)
        turned = lax.optimization_barrier(x.T)
        sums = product(turned, logits, (1, 0)) if across else product(logits, x, (0, 0))
        return of_b + sums, product(logits, b, (1, 0))

    shape = b.shape[::-1] if across else b.shape
    return first, lax.scan(body, jnp.zeros(shape, jnp.float32), blocks)


def naive_logits(a: jax.Array, b: jax.Array, s: jax.Array) -> jax.Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)  # float64 stays
    return s * jnp.matmul(a, b.T, preferred_element_type=wide)


def naive(a: jax.Array, b: jax.Array, s: jax.Array) -> jax.Array:
    logits = naive_logits(a, b, s)
    sums = jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)
    return jnp.mean(sums / 2 - jnp.diagonal(logits))


def open_clip(a: jax.Array, b: jax.Array, s: jax.Array) -> jax.Array:
    labels = jnp.arange(len(a))
    entropy = optax.losses.softmax_cross_entropy_with_integer_labels
    sides = [entropy(naive_logits(x, y, s), labels) for x, y in ((a, b), (b, a))]
    return (jnp.mean(sides[0]) + jnp.mean(sides[1])) / 2


def naive_one_way(a: jax.Array, b: jax.Array, s: jax.Array) -> jax.Array:
    logits = naive_logits(a, b, s)
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.diagonal(logits))


def naive_sigmoid(a: jax.Array, b: jax.Array, s: jax.Array) -> jax.Array:
    logits = naive_logits(a, b, s) + jnp.asarray(BIAS, s.dtype)
    signs = 2 * jnp.eye(len(a), dtype=logits.dtype) - 1
    return -jnp.mean(jnp.sum(jax.nn.log_sigmoid(signs * logits), axis=1))


def ours(a: jax.Array, b: jax.Array, s: jax.Array, **options: Any) -> jax.Array:
    return jnp.mean(functional.info_nce(a, b, logit_scale=s, **options))


def our_sigmoid(a: jax.Array, b: jax.Array, s: jax.Array, **options: Any) -> jax.Array:
    options = {"logit_bias": BIAS, **options}
    return jnp.mean(functional.sigmoid_contrastive(a, b, logit_scale=s, **options))


def step(loss: Loss) -> Callable[..., Any]:
    """The loss and every gradient, compiled."""
    return jax.jit(jax.value_and_grad(loss, (0, 1, 2)))


def errors(loss: Loss, exact: Any, arguments: tuple) -> float:
    """The worst error of the loss and the gradients, each relative to its largest magnitude."""
    found = jax.tree.leaves(step(loss)(*arguments))
    return max(relative_error(x, y) for x, y in zip(found, exact, strict=True))


def in_float64(loss: Loss, arguments: tuple) -> list[np.ndarray]:
    """The dense form in float64."""
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(x, np.float64)) for x in arguments]
        return [np.asarray(x) for x in jax.tree.leaves(step(loss)(*wide))]


def floors(a: jax.Array, b: jax.Array, *, count: int) -> dict[str, Callable[[], Any]]:
    """The products at each tile size; at one, in the other order of them too."""
    runs = {}
    for tile in (t for t in TILES if t <= len(a)):
        form = partial(bare, tile=tile, count=count, across=True)
        runs[f"bare {count}, tile {tile}"] = partial(jax.jit(form), a, b)
    other = partial(bare, tile=min(1024, len(a)), count=count, across=False)
    return runs | {f"bare {count}, down the columns": partial(jax.jit(other), a, b)}


def compare(
    out: Report, title: str, losses: dict[str, Loss], *, floor: dict, data: tuple, rounds: int
) -> dict[str, Any]:
    """A table of times beside the fastest floor; gives the times and that floor's name."""
    steps = {name: step(loss) for name, loss in losses.items()}
    runs = {name: partial(compiled, *data) for name, compiled in steps.items()}
    times = interleaved({**floor, **runs}, rounds=rounds)
    again = [name for name, compiled in steps.items() if compiled._cache_size() != 1]
    if again:
        raise RuntimeError(f"compiled more than once, so the times are of compiling: {again}")
    base = fastest(times, floor)
    flops = 2 * len(data[0]) ** 2 * data[0].shape[1] * int(base.split()[1].strip(","))
    out.limit(f"{title}: the floor's spread over the rounds", spread(times[base]), at_most=0.15)
    out.table(
        f"{title}; the floor is {base}, {flops / median_ms(times[base]) / 1e6:.0f} GFLOP/s",
        [
            {
                "variant": name,
                "ms": median_ms(times[name]),
                "/ floor": paired(times, name, base),
                "temporaries MiB": temporary_bytes(step(losses[name]), *data) / MIB
                if name in losses
                else "",
            }
            for name in times
        ],
    )
    return {"times": times, "base": base}


def symmetric(out: Report, n: int, *, rounds: int) -> None:
    data = (*rows(n), jnp.float32(SCALE))
    raced = (128, *TILES) if n <= 4096 else TILES[:3]  # longer and shorter ones lose at 4096
    chosen = choose_tile(n, n, chunked=True)
    tiles = {f"ours, tile {t}": partial(ours, tile=t) for t in raced if t <= n and t != chosen}
    losses = {"ours": ours, "naive": naive, "open_clip's form": open_clip, **tiles}
    floor = floors(*data[:2], count=4)
    found = compare(
        out,
        f"InfoNCE, both ways, {n} x {WIDTH} float32",
        losses,
        floor=floor,
        data=data,
        rounds=rounds,
    )
    times, base = found["times"], found["base"]
    name = f"InfoNCE, n = {n}: "
    out.limit(f"{name}/ bare 4", paired(times, "ours", base).median, at_most=1.10)
    out.limit(f"{name}/ naive", paired(times, "ours", "naive").median, at_most=1.00)
    form = paired(times, "ours", "open_clip's form").median
    out.limit(f"{name}/ open_clip's form", form, at_most=0.55)
    best = fastest(times, ["ours", *tiles])
    share = paired(times, "ours", best).median
    out.limit(f"{name}chosen tile, {chosen} / best ({best})", share, at_most=1.05)
    exact = in_float64(naive, data)
    out.limit(f"{name}error at scale 20", errors(ours, exact, data), at_most=1e-6)
    if n > 4096:
        return
    seconds = [compile_seconds(jax.value_and_grad(f, (0, 1, 2)), *data) for f in (ours, naive)]
    out.limit(f"{name}seconds to compile / naive's", seconds[0] / seconds[1], at_most=2.0)


def one_pass(out: Report, n: int, *, rounds: int) -> None:
    data = (*rows(n), jnp.float32(SCALE))
    one_way = partial(ours, directions="a_to_b")
    losses = {
        "one way": one_way,
        "naive one way": naive_one_way,
        "sigmoid": our_sigmoid,
        "naive sigmoid": naive_sigmoid,
    }
    alone = {name: jax.jit(losses[name]) for name in ("one way", "sigmoid")}
    floor = floors(*data[:2], count=3)
    title = f"gradients formed in the forward pass, {n} x {WIDTH} float32"
    found = compare(out, title, losses, floor=floor, data=data, rounds=rounds)
    times, base = found["times"], found["base"]
    for name, bound in (("one way", 1.12), ("sigmoid", 1.15)):
        out.limit(f"{name} / bare 3", paired(times, name, base).median, at_most=bound)
        exact = in_float64(losses[f"naive {name}"], data)
        out.limit(f"{name}: error", errors(losses[name], exact, data), at_most=1e-6)
    loss = interleaved(
        {**{k: partial(f, *data) for k, f in alone.items()}, base: floor[base]},
        rounds=max(rounds // 3, 2),
    )
    for name in alone:
        share = paired(loss, name, base).median
        out.limit(f"{name}: the loss alone / bare 3", share, at_most=0.45)


def rounded(out: Report, n: int, *, rounds: int) -> None:
    """Operands in bfloat16; naive rounds its embeddings and lets autodiff do the rest."""
    a, b = (x.astype(jnp.bfloat16).astype(jnp.float32) for x in rows(n))
    data = (a, b, jnp.float32(SCALE))
    losses = {
        "ours, bf16": partial(ours, operand_dtype=jnp.bfloat16),
        "naive, bf16": lambda a, b, s: naive(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), s),
    }
    floor = floors(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), count=4)
    if len(floor) > 2:  # many rounds are needed here, of the two fastest
        raced = interleaved(floor, rounds=2)
        floor = dict(sorted(floor.items(), key=lambda item: np.median(raced[item[0]]))[:2])
    title = f"InfoNCE, {n} x {WIDTH}, operands bfloat16"
    found = compare(out, title, losses, floor=floor, data=data, rounds=rounds)
    times, base = found["times"], found["base"]
    out.limit("bf16 / bare 4 of bf16", paired(times, "ours, bf16", base).median, at_most=1.25)
    exact = in_float64(naive, data)
    narrow = (a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), data[2])
    found = {
        "ours, float32 rows, operands bf16": step(losses["ours, bf16"])(*data),
        "naive, float32 rows rounded": step(losses["naive, bf16"])(*data),
        "ours, bf16 rows": step(ours)(*narrow),
        "naive, bf16 rows": step(naive)(*narrow),
    }
    worst = {
        name: max(map(relative_error, jax.tree.leaves(values)[1:3], exact[1:3]))
        for name, values in found.items()
    }
    table = [{"rows": name, "error of the gradients": value} for name, value in worst.items()]
    out.table(f"{title}: errors of the gradients, beside float64", table)
    mine, plain, *_ = worst.values()
    out.limit("bf16: error of the gradients / naive bf16's", mine / plain, at_most=0.1)
    out.note(
        "Gradients of rows that are bf16 themselves are rounded to it in the end, ours and naive's "
        "alike."
    )


def memory(out: Report, sizes: tuple[int, ...], *, large: tuple[int, int]) -> None:
    table = []
    for n in sizes:
        data = (*rows(n), jnp.float32(SCALE))
        losses = {"InfoNCE": ours, "one way": partial(ours, directions="a_to_b")}
        losses |= {"sigmoid": our_sigmoid}
        plain = temporary_bytes(step(naive), *data)
        for name, loss in losses.items():
            bytes_ = temporary_bytes(step(loss), *data)
            bound = 2.5 * n * WIDTH * 4 + choose_tile(n, n) * n * 4
            bound = min(bound, 3.5 * n * WIDTH * 4)
            table.append(
                {"loss": name, "n": n, "MiB": bytes_ / MIB, "/ n d 4 B": bytes_ / (n * WIDTH * 4)}
                | {"naive InfoNCE / it": plain / bytes_}
            )
            out.limit(f"{name}, n = {n}: temporaries / bound", bytes_ / bound, at_most=1.0)
        if n in (4096, 8192):
            share = plain / temporary_bytes(step(ours), *data)
            out.limit(f"n = {n}: naive's temporaries / ours", share, at_least=n / 409.6)
    out.table("temporaries of loss and gradients", table)
    n, d = large
    shapes = (jax.ShapeDtypeStruct((n, d), jnp.float32),) * 2
    found = temporary_bytes(step(ours), *shapes, jax.ShapeDtypeStruct((), jnp.float32))
    out.limit(f"{n} x {d}: temporaries, GiB", found / 2**30, at_most=1.5)
    call = "functional.info_nce(a, b, logit_scale=20.0)"
    peak = peak_resident_bytes(PROCESS.format(n=n, d=d, call=call))
    out.limit(f"{n} x {d}, run: peak of the whole process, GiB", peak / 2**30, at_most=1.5)


def two_views(out: Report, n: int, *, rounds: int) -> None:
    a, b = rows(n)
    labels = jnp.tile(jnp.arange(n), 2)

    def rival(z):
        return optax.losses.ntxent(z, labels, temperature=1 / SCALE)

    def mine(z):
        return jnp.mean(functional.nt_xent(z[:n], z[n:], logit_scale=SCALE))

    z = jnp.concatenate([a, b])
    runs = {
        "ours": jax.jit(jax.value_and_grad(mine)),
        "optax.losses.ntxent": jax.jit(jax.value_and_grad(rival)),
    }
    values: dict[str, Any] = {}

    def call(name: str) -> None:
        values[name] = jax.block_until_ready(runs[name](z))  # optax takes seconds: kept

    times = interleaved({k: partial(call, k) for k in runs}, rounds=rounds)
    bytes_ = {k: temporary_bytes(f, z) for k, f in runs.items()}
    out.table(
        f"NT-Xent, {2 * n} rows ({n} pairs) of {WIDTH}",
        [
            {"variant": k, "ms": median_ms(times[k]), "temporaries MiB": bytes_[k] / MIB}
            for k in runs
        ],
    )
    names = ("optax.losses.ntxent", "ours")
    full = n >= 512
    out.limit(
        "NT-Xent: optax / ours, time", paired(times, *names).median, at_least=100 if full else 1
    )
    memory_share = bytes_[names[0]] / bytes_[names[1]]
    out.limit("NT-Xent: optax / ours, temporaries", memory_share, at_least=300 if full else 1)
    share = float(values["ours"][0] / values[names[0]][0])
    out.limit("NT-Xent: difference from optax", abs(share - 1), at_most=1e-5)


def traps(out: Report, n: int) -> None:
    """Inputs on which a fixed shift, or a factored exponential, fails; scale 100."""
    rng = np.random.default_rng(0)
    pair = rng.normal(size=(2, n, WIDTH))
    a, b = pair / np.linalg.norm(pair, axis=2, keepdims=True)
    even = np.arange(n)[:, None] % 2 == 0
    inputs = {
        "random": (a, b),
        "half identical": (a, np.where(even, a, b)),
        "all cosines <= 0": (_tilted(a, 0.5), _tilted(b, -0.5)),
        "all cosines about -0.64": (np.abs(a), -np.abs(b)),
    }
    table = []
    for name, arrays in inputs.items():
        data = (*(jnp.asarray(x, jnp.float32) for x in arrays), jnp.float32(100))
        exact = in_float64(naive, data)
        row = {"input": name}
        for label, loss in (("ours", partial(ours, tile=256)), ("naive", naive)):
            found = jax.tree.leaves(step(loss)(*data))
            for part, x, y in zip(("loss", "a", "b", "scale"), found, exact, strict=True):
                row[f"{label}: {part}"] = relative_error(x, y)
        table.append(row)
        worst = {k: max(v for p, v in row.items() if p.startswith(k)) for k in ("ours", "naive")}
        out.limit(f"{name}, scale 100: error", worst["ours"], at_most=1e-5)
        out.limit(f"{name}: error / naive's", worst["ours"] / worst["naive"], at_most=2.0)
    out.table(f"errors against float64 at scale 100, {n} x {WIDTH} float32", table)


def matched(out: Report, n: int) -> None:
    """Pairs that share a part, as those of a model that has trained: the weights nearly cancel."""
    table = []
    forms = {"both ways": (ours, naive), "one way": (partial(ours, directions="a_to_b"), None)}
    for shared in (1.0, 2.0):
        data = (*rows(n, shared=shared), jnp.float32(SCALE))
        for form, (mine, plain) in forms.items():
            plain = plain or naive_one_way
            exact = in_float64(plain, data)
            found = [errors(partial(mine, tile=256), exact, data), errors(plain, exact, data)]
            row = {"shared part": shared, "form": form, "loss": float(exact[0])}
            table.append(row | {"error, ours": found[0], "error, naive": found[1]})
            name = f"matched pairs, {shared:g} shared, {form}: error / naive's"
            out.limit(name, found[0] / found[1], at_most=2.0)
    out.table(f"errors of matched pairs against float64, scale {SCALE:g}, {n} x {WIDTH}", table)


def _tilted(x: np.ndarray, share: float) -> np.ndarray:
    """Unit vectors with one coordinate in common."""
    first = np.full((len(x), 1), share)
    return np.concatenate([first, np.sqrt(1 - share**2) * x[:, 1:]], axis=1)
