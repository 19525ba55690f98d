"""Losses of three modalities in blocks, beside their dense forms: time, temporaries, accuracy."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from datarax.functional import (
    gram_volume,
    info_nce_from_similarity,
    pairwise_multimodal,
    symile,
    volume_contrastive,
)
from harness import Report, interleaved, median_ms, paired, relative_error

SCALE = 20.0
Loss = Callable[[list[jax.Array], jax.Array], jax.Array]


def report(quick: bool) -> Report:
    """Volume and pairs at n = 2048, Symile over all n^3 tuples; quick takes a fraction of each."""
    out = Report("Three modalities: blocks beside the dense form")
    rounds = 3 if quick else 5
    size = {"n": 768, "d": 64, "least": 2} if quick else {"n": 2048, "d": 256}
    volume = {"dense": dense_volume, "blocks": tiled_volume}
    compare(out, "volume_contrastive", volume, rounds=rounds, **size)
    pairs = {"dense": dense_pairs, "blocks": tiled_pairs}
    compare(out, "pairwise_multimodal", pairs, rounds=rounds, **size)
    cube = {"n": 96, "d": 32} if quick else {"n": 224, "d": 64}
    tuples = {"dense": dense_symile, "blocks": tiled_symile}
    compare(out, "symile, n^2 negatives", tuples, rounds=rounds, **cube)
    return out


def rows(n: int, d: int) -> list[jax.Array]:
    """Unit vectors of three modalities that share half of their direction."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(n, d))
    noisy = [common + rng.normal(size=(n, d)) for _ in range(3)]
    return [jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), jnp.float32) for x in noisy]


def dense_volume(embeddings: list[jax.Array], scale: jax.Array) -> jax.Array:
    anchor, *others = embeddings
    return info_nce_from_similarity(-gram_volume(anchor, others), logit_scale=scale).mean()


def tiled_volume(embeddings: list[jax.Array], scale: jax.Array) -> jax.Array:
    return volume_contrastive(embeddings, logit_scale=scale)[0].mean()


def dense_pairs(embeddings: list[jax.Array], scale: jax.Array) -> jax.Array:
    losses = [
        info_nce_from_similarity(
            jnp.matmul(embeddings[k], embeddings[l].T, precision="highest"), logit_scale=scale
        ).mean()
        for k, l in ((0, 1), (0, 2), (1, 2))
    ]
    return sum(losses[1:], losses[0]) / 3


def tiled_pairs(embeddings: list[jax.Array], scale: jax.Array) -> jax.Array:
    return pairwise_multimodal(embeddings, logit_scale=scale)[0].mean()


def dense_symile(embeddings: list[jax.Array], scale: jax.Array) -> jax.Array:
    """The cube of logits at once: n^3 numbers, and the n^2 x d products that they come from."""
    x, y, z = embeddings
    n, d = x.shape
    products = (x[:, None, :] * y[None, :, :]).reshape(n * n, d)
    cube = scale * jnp.matmul(products, z.T, precision="highest").reshape(n, n, n)
    own = jnp.diagonal(jnp.diagonal(cube))
    axes = ((1, 2), (0, 2), (0, 1))
    lse = [jax.scipy.special.logsumexp(cube, axis=axis) for axis in axes]
    return jnp.mean(sum(lse[1:], lse[0]) / 3 - own)


def tiled_symile(embeddings: list[jax.Array], scale: jax.Array) -> jax.Array:
    return symile(embeddings, logit_scale=scale, tile=None)[0].mean()


def compare(
    out: Report,
    title: str,
    forms: dict[str, Loss],
    *,
    rounds: int,
    n: int,
    d: int,
    least: float = 4,
) -> None:
    """Loss and every gradient: paired times, bytes of temporaries, error against float64."""
    embeddings, scale = rows(n, d), jnp.float32(SCALE)
    steps = {name: jax.value_and_grad(loss, argnums=(0, 1)) for name, loss in forms.items()}
    compiled = {
        name: jax.jit(step).lower(embeddings, scale).compile() for name, step in steps.items()
    }
    times = interleaved(
        {name: partial(run, embeddings, scale) for name, run in compiled.items()}, rounds=rounds
    )
    held = {name: run.memory_analysis().temp_size_in_bytes for name, run in compiled.items()}
    errors = {name: error(run, forms["dense"], embeddings) for name, run in compiled.items()}
    out.table(
        f"{title}, n = {n}, d = {d}, float32, loss and gradients",
        [
            {
                "form": name,
                "ms": median_ms(times[name]),
                "x dense": paired(times, name, "dense"),
                "temporaries, MiB": held[name] / 2**20,
                "temporaries, n d 4 B": held[name] / (n * d * 4),
                "largest relative error": errors[name],
            }
            for name in forms
        ],
    )
    out.limit(
        f"{title}, blocks over dense, time", paired(times, "blocks", "dense").median, at_most=1.3
    )
    out.limit(
        f"{title}, dense over blocks, temporaries", held["dense"] / held["blocks"], at_least=least
    )
    out.limit(f"{title}, error of blocks", errors["blocks"], at_most=max(1e-6, 2 * errors["dense"]))


def error(run: Callable, dense: Loss, embeddings: list[jax.Array]) -> float:
    """The largest relative error of the loss and of each gradient."""
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(x), jnp.float64) for x in embeddings]
        scale = jnp.asarray(SCALE, jnp.float64)
        exact = jax.jit(jax.value_and_grad(dense, argnums=(0, 1)))(wide, scale)
        exact = [np.asarray(x) for x in jax.tree.leaves(exact)]
    found = jax.tree.leaves(run(embeddings, jnp.float32(SCALE)))
    return max(relative_error(x, y) for x, y in zip(found, exact, strict=True))
