"""One row a function: how to call it, its oracle, what its inputs look like."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import functional_oracles as oracle
import jax.numpy as jnp
import numpy as np

from datarax import functional

N = 6
IDS = np.array([3, 1, 3, 2, 1, 3], np.int32)


@dataclass(frozen=True, kw_only=True)
class Case:
    """`run` and `oracle` are called as f(*arrays, mask, ids); every array has the batch first.

    kind: "rows" relates rows and gives one value a row, "set" one value for all,
      "matrix" one a pair of rows, "pointwise" treats rows alone.
    mask: the shape of the mask, None where the function has none.
    spoiled: which arrays may hold garbage where the mask is False.
    """

    name: str
    run: Callable
    oracle: Callable
    shapes: tuple[tuple[int, ...], ...]
    kind: Literal["rows", "set", "matrix", "pointwise"]
    mask: tuple[int, ...] | None = None
    spoiled: tuple[int, ...] = ()
    ids: bool = False
    tolerance: float = 2e-2

    def arrays(self, *, seed=0, n=N, dtype=np.float32):
        rng = np.random.default_rng(seed)
        return [rng.normal(size=(n, *shape[1:])).astype(dtype) for shape in self.shapes]

    def some_mask(self, *, n=N):
        if self.mask is None:
            return None
        mask = np.random.default_rng(7).random((n, *self.mask[1:])) < 0.6
        mask[0], mask[1] = True, False
        return mask

    def labels(self, *, n=N):
        return IDS[:n] if self.ids else None


def _info_nce(name, *, ids=False, **options):
    ours = {"logit_scale": options.pop("scale", 5.0)}
    theirs = {"scale": ours["logit_scale"], **options}
    names = {"bias": "logit_bias", "smoothing": "label_smoothing"}
    ours |= {names.get(k, k): v for k, v in options.items()}
    return Case(
        name=name,
        run=lambda a, b, mask, ids: functional.info_nce(a, b, where=mask, ids=ids, **ours),
        oracle=partial(oracle.info_nce, **theirs),
        shapes=((N, 4), (N, 4)),
        kind="rows",
        mask=(N,),
        spoiled=(0, 1),
        ids=ids,
    )


def _sigmoid(name, *, ids=False):
    return Case(
        name=name,
        run=lambda a, b, mask, ids: functional.sigmoid_contrastive(
            a, b, logit_scale=3.0, logit_bias=-2.0, where=mask, ids=ids
        ),
        oracle=partial(oracle.sigmoid, scale=3.0, bias=-2.0),
        shapes=((N, 4), (N, 4)),
        kind="rows",
        mask=(N,),
        spoiled=(0, 1),
        ids=ids,
    )


def _pairwise(name, *, loss, pairs, ids=False):
    def run(x, mask, ids):
        presence = None if mask is None else [mask[:, m] for m in range(3)]
        options = {"loss": loss, "pairs": pairs, "presence": presence, "ids": ids}
        modalities = [x[:, m] for m in range(3)]
        return functional.pairwise_multimodal(
            modalities, logit_scale=3.0, logit_bias=-2.0, **options
        )[0]

    single = {"info_nce": oracle.info_nce, "sigmoid": oracle.sigmoid}[loss]
    return Case(
        name=name,
        run=run,
        oracle=partial(oracle.pairwise, loss=partial(single, scale=3.0, bias=-2.0), pairs=pairs),
        shapes=((N, 3, 4),),
        kind="rows",
        mask=(N, 3),
        spoiled=(0,),
        ids=ids,
    )


def _slots(function, reference):
    return Case(
        name=function.__name__,
        run=lambda x, mask, ids: function(x, where=mask),
        oracle=reference,
        shapes=((N, 5),),
        kind="pointwise",
        mask=(N, 5),
        spoiled=(0,),
    )


def _vectors(name, function, reference, *, inputs=2, kind="pointwise"):
    return Case(
        name=name,
        run=lambda *args: function(*args[:-2]),
        oracle=reference,
        shapes=((N, 4),) * inputs,
        kind=kind,
    )


def _stacked(name, function, reference, *, second):
    return Case(
        name=name,
        run=lambda x, y, mask, ids: function(x, y, presence=mask),
        oracle=reference,
        shapes=((N, 3, 4), second),
        kind="pointwise",
        mask=(N, 3),
        spoiled=(0, 1),
    )


def _concatenate(x, mask, ids):
    presence = None if mask is None else [mask[..., m] for m in range(3)]
    return functional.masked_concatenate([x[..., m, :] for m in range(3)], presence=presence)


def _attention(query, key, value, mask, ids):
    return functional.dot_product_attention(
        query, key, value, mask=None if mask is None else mask[..., None, None, :]
    )


def _row_cosine(p, q):
    return float(p @ q) / np.sqrt(float(p @ p) * float(q @ q))


CASES = [
    _info_nce("info_nce"),
    _info_nce("info_nce_bias", bias=-1.5),
    _info_nce("info_nce_a_to_b", directions="a_to_b"),
    _info_nce("info_nce_b_to_a", directions="b_to_a", ids=True),
    _info_nce("info_nce_smoothing", smoothing=0.2),
    _info_nce("info_nce_ids", ids=True),
    _info_nce("info_nce_ids_smoothing", ids=True, smoothing=0.1),
    _sigmoid("sigmoid_contrastive"),
    _sigmoid("sigmoid_contrastive_ids", ids=True),
    _pairwise("pairwise_all", loss="info_nce", pairs="all"),
    _pairwise("pairwise_anchor", loss="info_nce", pairs="anchor"),
    _pairwise("pairwise_sigmoid_ids", loss="sigmoid", pairs="all", ids=True),
    _slots(functional.masked_mean, oracle.mean),
    _slots(functional.masked_softmax, oracle.softmax),
    _slots(functional.masked_logsumexp, oracle.logsumexp),
    _vectors("safe_l2_norm", functional.safe_l2_norm, oracle.norm, inputs=1),
    _vectors("safe_l2_normalize", functional.safe_l2_normalize, oracle.normalize, inputs=1),
    _vectors("cosine_similarity", functional.cosine_similarity, oracle.cosine),
    _vectors("cosine_alignment", functional.cosine_alignment, lambda *x: 1 - oracle.cosine(*x)),
    _vectors("squared_error_alignment", functional.squared_error_alignment, oracle.squared_error),
    _vectors("alignment_loss", functional.alignment_loss, oracle.power_distance(2)),
    _vectors(
        "alignment_loss_1", partial(functional.alignment_loss, power=1.0), oracle.power_distance(1)
    ),
    _vectors(
        "alignment_loss_half",
        partial(functional.alignment_loss, power=0.5),
        oracle.power_distance(0.5),
    ),
    _vectors(
        "pairwise_dot_product",
        functional.pairwise_dot_product,
        oracle.pairwise_matrix(lambda p, q: float(p @ q)),
        kind="matrix",
    ),
    _vectors(
        "pairwise_cosine_similarity",
        functional.pairwise_cosine_similarity,
        oracle.pairwise_matrix(_row_cosine),
        kind="matrix",
    ),
    _vectors(
        "pairwise_squared_distance",
        functional.pairwise_squared_distance,
        oracle.pairwise_matrix(lambda p, q: float((p - q) @ (p - q))),
        kind="matrix",
    ),
    Case(
        name="uniformity",
        run=lambda x, mask, ids: functional.uniformity(x, where=mask),
        oracle=oracle.uniformity,
        shapes=((N, 4),),
        kind="set",
        mask=(N,),
        spoiled=(0,),
        tolerance=5e-2,
    ),
    Case(
        name="modality_gap",
        run=lambda a, b, mask, ids: functional.modality_gap(a, b, where=mask),
        oracle=oracle.gap,
        shapes=((N, 4), (N, 4)),
        kind="set",
        mask=(N,),
        spoiled=(0, 1),
    ),
    Case(
        name="dot_product_attention",
        run=_attention,
        oracle=oracle.attention,
        shapes=((N, 3, 2, 4), (N, 5, 2, 4), (N, 5, 2, 3)),
        kind="pointwise",
        mask=(N, 5),
        spoiled=(1, 2),
    ),
    _stacked("weighted_sum", functional.weighted_sum, oracle.weighted_sum, second=(N, 3)),
    _stacked(
        "attention_weighted_sum",
        functional.attention_weighted_sum,
        oracle.attention_weighted_sum,
        second=(N, 3),
    ),
    _stacked(
        "gated_sum_softmax", functional.gated_sum, oracle.gated_sum("softmax"), second=(N, 3, 4)
    ),
    _stacked(
        "gated_sum_sigmoid",
        partial(functional.gated_sum, gate="sigmoid"),
        oracle.gated_sum("sigmoid"),
        second=(N, 3, 4),
    ),
    Case(
        name="masked_concatenate",
        run=_concatenate,
        oracle=oracle.concatenate,
        shapes=((N, 3, 4),),
        kind="pointwise",
        mask=(N, 3),
        spoiled=(0,),
    ),
]


def on_device(case, arrays, mask=None, ids=None):
    """`case.run` as a function of its arrays alone, the rest closed over."""
    mask = None if mask is None else jnp.asarray(mask)
    ids = None if ids is None else jnp.asarray(ids)
    return lambda *xs: case.run(*xs, mask, ids), [jnp.asarray(x) for x in arrays]
