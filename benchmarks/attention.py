"""Cross-attention, long and of few queries, beside `jax.nn` and beside its bare products."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from datarax import nn
from datarax.functional import dot_product_attention
from datarax.functional.attention.absorbed import absorbs
from datarax.functional.attention.query_blocks import choose_chunk
from harness import (
    Report,
    fastest,
    interleaved,
    median_ms,
    paired,
    relative_error,
    temporary_bytes,
)

MIB = 2**20
Attention = Callable[..., jax.Array]


def report(quick: bool) -> Report:
    """Time and memory beside jax.nn, accuracy beside float64, and what the choices cost."""
    out = Report("Cross-attention")
    long(
        out, *((2, 256, 512, 2, 32) if quick else (2, 1024, 2048, 8, 64)), rounds=3 if quick else 7
    )
    if not quick:
        chunks(out, 2, 1024, 2048, 8, 64, rounds=5)
    width, tokens = (64, 128) if quick else (512, 2048)
    for queries in (8, 32) if quick else (8, 32, 64, 256):
        few(out, queries, tokens, width, rounds=3 if quick else 5)
    out.note(
        "Every gradient is returned. Long attention: of query, key and value; the bare form is the "
        "two einsums and their derivative, no softmax between them and nothing computed again. "
        "Few queries: of the whole module, projections included, by parameters, queries and "
        "context; the standard form projects all tokens and calls `jax.nn`."
    )
    out.note("The cuDNN path has not run here: no GPU. Its shape rule is tested on the CPU.")
    return out


def long(out: Report, records: int, t: int, s: int, heads: int, width: int, *, rounds: int) -> None:
    """T queries look at S tokens: forward, and with all gradients."""
    arrays = _arrays(records, t, s, heads, width)
    ours: Attention = partial(
        dot_product_attention,
        chunk=min(t // 2, choose_chunk((records, heads, t, s))),
    )
    variants: dict[str, Attention] = {
        "bare einsums": _bare,
        "jax.nn xla": partial(jax.nn.dot_product_attention, implementation="xla"),
        "datarax": ours,
    }
    exact = _exact(arrays)
    for what, wrap in (("forward", _forward), ("forward and backward", _with_gradients)):
        functions = {name: wrap(f) for name, f in variants.items()}
        bytes_ = {name: temporary_bytes(f, *arrays) for name, f in functions.items()}
        compiled = {name: jax.jit(f) for name, f in functions.items()}
        times = interleaved(
            {name: partial(f, *arrays) for name, f in compiled.items()}, rounds=rounds
        )
        rows = []
        for name, f in compiled.items():
            found = jax.tree.leaves(f(*arrays))
            errors = [relative_error(x[0, :, :2], y) for x, y in zip(found, exact, strict=False)]
            rows.append(
                {
                    "form": name,
                    "ms": median_ms(times[name]),
                    "/ jax.nn": paired(times, name, "jax.nn xla"),
                    "/ bare": paired(times, name, "bare einsums"),
                    "temporaries MiB": bytes_[name] / MIB,
                    "error": "" if name == "bare einsums" else f"{max(errors):.1e}",
                }
            )
        out.table(f"{what}, T = {t}, S = {s}, {heads} heads of {width}, B = {records}, f32", rows)
    ratio = paired(times, "datarax", "jax.nn xla").median
    out.limit("long, forward and backward, time / jax.nn", ratio, at_most=0.5)
    memory = bytes_["datarax"] / bytes_["jax.nn xla"]
    out.limit("long, forward and backward, temporaries / jax.nn", memory, at_most=0.2)
    out.limit("long, error", max(errors), at_most=1e-5)


def chunks(
    out: Report, records: int, t: int, s: int, heads: int, width: int, *, rounds: int
) -> None:
    """What the chosen number of queries at once loses to the best one."""
    arrays = _arrays(records, t, s, heads, width)
    chosen = choose_chunk((records, heads, t, s))
    sizes = sorted({chosen, 32, 64, 128, 256})
    runs = {
        str(c): jax.jit(_with_gradients(partial(dot_product_attention, chunk=c))) for c in sizes
    }
    times = interleaved({c: partial(f, *arrays) for c, f in runs.items()}, rounds=rounds)
    best = fastest(times, runs)
    rows = [{"queries at once": c, "/ best": paired(times, c, best)} for c in runs]
    out.table(f"blocks of queries, chosen {chosen}", rows)
    loss = paired(times, str(chosen), best).median
    out.limit("chosen block / best block", loss, at_most=1.05)


def few(out: Report, queries: int, tokens: int, width: int, *, rounds: int) -> None:
    """The whole module: standard, projected and absorbed, one of which is chosen."""
    records, heads = 4, 8
    module = nn.CrossAttention(
        width, width, num_heads=heads, head_dim=width // heads, rngs=nnx.Rngs(0)
    )
    graph, state = nnx.split(module)
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(records, n, width)).astype(np.float32) for n in (queries, tokens)]

    def ours(absorb: bool | None, state: Any, query: Any, context: Any) -> jax.Array:
        return nnx.merge(graph, state)(query, context, absorb=absorb)

    variants: dict[str, Attention] = {
        "standard": lambda state, *x: _standard(nnx.merge(graph, state), *x),
        "projected": partial(ours, False),
        "absorbed": partial(ours, True),
    }
    functions = {name: _with_gradients(f) for name, f in variants.items()}
    cotangent = rng.normal(size=arrays[0].shape).astype(np.float32)
    inputs = (state, *(jnp.asarray(x) for x in (*arrays, cotangent)))
    bytes_ = {name: temporary_bytes(f, *inputs) for name, f in functions.items()}
    compiled = {name: jax.jit(f) for name, f in functions.items()}
    times = interleaved({n: partial(f, *inputs) for n, f in compiled.items()}, rounds=rounds)
    with jax.enable_x64(True):
        wide = [jnp.asarray(x, jnp.float64) for x in arrays]
        exact = np.asarray(jax.jit(variants["projected"])(state, *wide))
    rows = [
        {
            "form": name,
            "ms": median_ms(times[name]),
            "/ standard": paired(times, name, "standard"),
            "temporaries MiB": bytes_[name] / MIB,
            "error": f"{relative_error(f(*inputs)[0], exact):.1e}",
        }
        for name, f in compiled.items()
    ]
    out.table(f"{queries} queries, {tokens} tokens, width {width}, B = {records}, f32", rows)
    forms = ("projected", "absorbed")
    sizes = {"num_heads": heads, "num_kv_heads": heads, "head_dim": width // heads}
    chosen = forms[absorbs(queries, tokens, context_features=width, **sizes)]
    if queries == 32:
        ratio = paired(times, chosen, "standard").median
        out.limit(f"32 queries, whole module ({chosen}) / standard", ratio, at_most=0.5)
    loss = paired(times, chosen, fastest(times, forms)).median
    out.limit(f"{queries} queries, {chosen} is chosen / better form", loss, at_most=1.05)


def _arrays(records: int, t: int, s: int, heads: int, width: int) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    lengths = (t, s, s, t)
    return [jnp.asarray(rng.normal(size=(records, n, heads, width)), jnp.float32) for n in lengths]


def _forward(attend: Attention) -> Attention:
    return lambda query, key, value, cotangent: attend(query, key, value)


def _with_gradients(attend: Attention) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        *inputs, cotangent = arguments
        output, back = jax.vjp(attend, *inputs)
        return output, back(cotangent)

    return run


def _bare(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    logits = jnp.einsum("bthd,bshd->bhts", query, key)
    return jnp.einsum("bhts,bshd->bthd", logits * query.shape[-1] ** -0.5, value)


def _standard(module: nn.CrossAttention, query: jax.Array, context: jax.Array) -> jax.Array:
    def heads(x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], module.num_heads, module.head_dim)

    q, k, v = heads(module.query(query)), heads(module.key(context)), heads(module.value(context))
    seen = jax.nn.dot_product_attention(q, k, v, implementation="xla")
    return module.output(seen.reshape(*seen.shape[:-2], -1))


def _exact(arrays: list[jax.Array]) -> list[np.ndarray]:
    """Output and gradients of the first two heads of the first record, in float64."""
    q, k, v, g = (np.asarray(x[0, :, :2], np.float64) for x in arrays)
    results = [np.zeros_like(x) for x in (q, q, k, v)]
    scale = q.shape[-1] ** -0.5
    for h in range(q.shape[1]):
        weights = np.exp(scale * q[:, h] @ k[:, h].T)
        weights /= weights.sum(axis=1, keepdims=True)
        seen = weights @ v[:, h]
        aligned = np.sum(seen * g[:, h], axis=1, keepdims=True)
        slope = scale * weights * (g[:, h] @ v[:, h].T - aligned)
        parts = (seen, slope @ k[:, h], slope.T @ q[:, h], weights.T @ g[:, h])
        for result, part in zip(results, parts, strict=True):
            result[:, h] = part
    return results
