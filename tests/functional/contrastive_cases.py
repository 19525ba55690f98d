"""Rows of the contrastive losses."""

from functools import partial

import contrastive_oracles
import functional_oracles as oracle
import jax.numpy as jnp
import numpy as np
from functional_case import Case, N

from datarax import functional
from datarax.functional.checks import accumulation_dtype


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


def _pair(name, run, reference, *, ids=False, inputs=2):
    """A loss of two embeddings and a mask of rows."""
    return Case(
        name=name,
        run=run,
        oracle=reference,
        shapes=((N, 4),) * inputs,
        kind="rows",
        mask=(N,),
        spoiled=tuple(range(inputs)),
        ids=ids,
    )


def _decoupled(name, *, ids=False):
    def run(a, b, mask, ids):
        return functional.info_nce(a, b, logit_scale=2.0, where=mask, ids=ids, decoupled=True)

    return _pair(name, run, partial(contrastive_oracles.decoupled, scale=2.0), ids=ids)


def _queued():
    def run(a, b, more_a, more_b, mask, ids):
        return functional.info_nce(
            a,
            b,
            logit_scale=2.0,
            where=mask,
            ids=ids,
            negatives_a=more_a,
            negatives_b=more_b,
            negatives_where=mask,
            negatives_ids=ids,
        )

    reference = partial(contrastive_oracles.queued, scale=2.0)
    return _pair("extra_negatives", run, reference, ids=True, inputs=4)


def _halves():
    def run(x, mask, ids):
        sides = {} if mask is None else {"where_a": mask[:, 0], "where_b": mask[:, 1]}
        return functional.info_nce(x[:, 0], x[:, 1], logit_scale=2.0, **sides)

    return _stacked("missing_halves", run, partial(contrastive_oracles.halves, scale=2.0), count=2)


def _stacked(name, run, reference, *, count=3, ids=False):
    """A loss of `count` modalities in one array, with a mask of modalities."""
    return Case(
        name=name,
        run=run,
        oracle=reference,
        shapes=((N, count, 4),),
        kind="rows",
        mask=(N, count),
        spoiled=(0,),
        ids=ids,
    )


def _split(x, mask):
    count = x.shape[1]
    presence = None if mask is None else [mask[:, m] for m in range(count)]
    return {"embeddings": [x[:, m] for m in range(count)], "presence": presence}


def _soft_sigmoid():
    def run(a, b, mask, ids):
        soft = _matrix(ids, 0.9, 0.05, like=a)
        return functional.sigmoid_contrastive(
            a, b, logit_scale=3.0, relative_bias=0.5, where=mask, targets=soft
        )

    reference = partial(
        contrastive_oracles.sigmoid_soft, scale=3.0, relative=0.5, high=0.9, low=0.05
    )
    return _pair("sigmoid_soft_relative", run, reference, ids=True)


def _relative_sigmoid():
    def run(a, b, mask, ids):
        return functional.sigmoid_contrastive(
            a, b, logit_scale=3.0, relative_bias=0.5, where=mask, ids=ids
        )

    reference = partial(
        contrastive_oracles.sigmoid_soft, scale=3.0, relative=0.5, high=1.0, low=0.0
    )
    return _pair("sigmoid_relative_ids", run, reference, ids=True)


def _matrix(ids, same, different, *, like):
    return jnp.where(ids[:, None] == ids[None, :], same, different).astype(accumulation_dtype(like))


def _of_ids(same, different):
    """The pair function of an oracle that closes over the ids of the table."""
    return lambda ids: lambda i, j: same if ids[i] == ids[j] else different


def _supervised(name, *, paired, soft=None, taught=None):
    """`soft` and `taught`: values for equal and for different ids."""
    share = 0.0 if taught is None else 0.4

    def run(a, b, mask, ids):
        options = {"ids": ids} if soft is None else {"targets": _matrix(ids, *soft, like=a)}
        if taught is not None:
            options |= {"teacher_similarity": _matrix(ids, *taught, like=a), "distillation": share}
        other = b if paired else None
        return functional.supervised_contrastive(a, other, logit_scale=2.0, where=mask, **options)

    def reference(a, b, mask, ids):
        return contrastive_oracles.supervised(
            a,
            b if paired else None,
            mask,
            ids,
            scale=2.0,
            soft=None if soft is None else _of_ids(*soft)(ids),
            teach=None if taught is None else _of_ids(*taught)(ids),
            share=share,
        )

    if paired:
        return _pair(name, run, reference, ids=True)
    # Parity, since the ids of the rows that the table's mask keeps are all different.
    return _pair(
        name,
        lambda a, mask, ids: run(a, None, mask, ids % 2),
        lambda a, mask, ids: reference(a, None, mask, ids % 2),
        ids=True,
        inputs=1,
    )


def _nt_xent(name, *, decoupled=False):
    def run(a, b, mask, ids):
        return functional.nt_xent(a, b, logit_scale=2.0, where=mask, decoupled=decoupled)

    reference = partial(contrastive_oracles.nt_xent, scale=2.0, without_positive=decoupled)
    return _pair(name, run, reference)


def _weighted_pairs():
    scales, weights = (1.0, 2.0, 0.5), (0.5, 2.0, 1.0)

    def run(x, mask, ids):
        return functional.pairwise_multimodal(
            **_split(x, mask), logit_scale=jnp.array(scales), pair_weights=jnp.array(weights)
        )[0]

    reference = partial(contrastive_oracles.weighted_pairs, scales=scales, weights=weights)
    return _stacked("pairwise_weighted", run, reference)


def _spanned(name, shape, *, ids=False, count=3, smoothing=0.0):
    def run(x, mask, ids):
        return functional.volume_contrastive(
            **_split(x, mask), logit_scale=0.3, shape=shape, ids=ids, label_smoothing=smoothing
        )[0]

    reference = partial(contrastive_oracles.spanned, scale=0.3, shape=shape, smoothing=smoothing)
    return _stacked(name, run, reference, count=count, ids=ids)


def _symile(name, *, count):
    def run(x, mask, ids):
        return functional.symile(**_split(x, mask), logit_scale=0.5)[0]

    return _stacked(name, run, partial(contrastive_oracles.symile, scale=0.5), count=count)


def _gram_volume():
    def run(anchor, others, mask, ids):
        split = _split(others, mask)
        return functional.gram_volume(anchor, split["embeddings"], presence=split["presence"])

    return Case(
        name="gram_volume",
        run=run,
        oracle=contrastive_oracles.gram_volume,
        shapes=((N, 5), (N, 3, 5)),
        kind="matrix",
    )


def _triangle(name, *, root):
    return Case(
        name=name,
        run=lambda a, b, c, mask, ids: functional.triangle_area(a, b, c, root=root),
        oracle=partial(contrastive_oracles.triangle_area, root=root),
        shapes=((N, 4),) * 3,
        kind="matrix",
    )


def _negative_distance(p, q):
    return -np.linalg.norm(p - q)


def _cosine(p, q):
    return p @ q / np.sqrt((p @ p) * (q @ q))


def _triplet(name, *, mining, distance="dot", directions="both", ids=False):
    def run(a, b, mask, ids):
        options = {"mining": mining, "distance": distance, "directions": directions}
        return functional.triplet(a, b, margin=0.5, where=mask, ids=ids, **options)

    score = {"dot": np.dot, "cosine": _cosine, "euclidean": _negative_distance}[distance]
    reference = partial(
        contrastive_oracles.triplet, margin=0.5, mining=mining, score=score, directions=directions
    )
    return _pair(name, run, reference, ids=ids)


def _tokens(name, run, reference, *, kind):
    return Case(
        name=name,
        run=run,
        oracle=reference,
        shapes=((N, 3, 4), (N, 3, 4)),
        kind=kind,
        mask=(N, 3),
        spoiled=(0, 1),
    )


def _late_interaction(name, *, reduction):
    def run(a, b, mask, ids):
        return functional.late_interaction(a, b, a_mask=mask, b_mask=mask, reduction=reduction)

    reference = partial(contrastive_oracles.late_interaction, reduction=reduction)
    return _tokens(name, run, reference, kind="matrix")


def _filip():
    def run(a, b, mask, ids):
        forward = functional.late_interaction(a, b, a_mask=mask, b_mask=mask)
        backward = functional.late_interaction(b, a, a_mask=mask, b_mask=mask)
        rows = None if mask is None else jnp.any(mask, axis=1)
        return functional.info_nce_from_similarity(forward, backward, logit_scale=2.0, where=rows)

    return _tokens("filip", run, partial(contrastive_oracles.filip, scale=2.0), kind="rows")


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
    _decoupled("info_nce_decoupled_ids", ids=True),
    _queued(),
    _halves(),
    _soft_sigmoid(),
    _supervised("supervised_own", paired=False),
    _supervised("supervised_soft_taught", paired=True, soft=(0.7, 0.1), taught=(1.5, -0.5)),
    _nt_xent("nt_xent"),
    _spanned("volume_contrastive_ids", "volume", ids=True),
    _symile("symile", count=3),
    _triplet("triplet_hard_ids", mining="hard", ids=True),
    _late_interaction("late_interaction", reduction="mean"),
    _filip(),
]

# Options that take no way of their own through the numbers: checked against their loops alone.
VARIANTS = [
    _triplet("triplet_semi_hard_euclidean", mining="semi_hard", distance="euclidean"),
    _spanned("triangle_root", "triangle_root"),
    _triangle("triangle_area", root=True),
    _weighted_pairs(),
    _decoupled("info_nce_decoupled"),
    _relative_sigmoid(),
    _supervised("supervised_pair", paired=True),
    _supervised("supervised_soft", paired=False, soft=(0.7, 0.1)),
    _supervised("supervised_taught", paired=True, taught=(1.5, -0.5)),
    _nt_xent("nt_xent_decoupled", decoupled=True),
    _spanned("volume_contrastive_four", "volume", count=4),
    _spanned("volume_contrastive_two_smoothing", "volume", count=2, smoothing=0.1),
    _spanned("triangle", "triangle"),
    _symile("symile_four", count=4),
    _gram_volume(),
    _triangle("triangle_area_squared", root=False),
    _triplet("triplet_sum", mining="sum"),
    _triplet("triplet_sum_ids", mining="sum", ids=True, directions="b_to_a"),
    _triplet("triplet_hard_cosine", mining="hard", distance="cosine", directions="a_to_b"),
    _late_interaction("late_interaction_sum", reduction="sum"),
]
