"""Rows of the contrastive losses over blocks of logits: 4 rows of 6, so that the last is short.

The same oracles as the dense forms; two a block where a row costs a program anyway.
"""

from dataclasses import replace
from functools import partial

import contrastive_oracles
import functional_oracles as oracle
from functional_case import Case, N

from datarax import functional


def _pair(name, run, reference, *, ids=False, inputs=2):
    return Case(
        name=f"tiled {name}",
        run=run,
        oracle=reference,
        shapes=((N, 4),) * inputs,
        kind="rows",
        mask=(N,),
        spoiled=tuple(range(inputs)),
        ids=ids,
        forward=False,
    )


def _info_nce(name, *, ids=False, tile=4, **options):
    names = {"scale": "logit_scale", "smoothing": "label_smoothing"}
    ours = {names.get(k, k): v for k, v in options.items()}

    def run(a, b, mask, ids):
        return functional.info_nce(a, b, where=mask, ids=ids, tile=tile, **ours)

    return _pair(name, run, partial(oracle.info_nce, **options), ids=ids)


def _decoupled(name, *, ids=False):
    def run(a, b, mask, ids):
        options = {"where": mask, "ids": ids, "decoupled": True, "tile": 4}
        return functional.info_nce(a, b, logit_scale=2.0, **options)

    return _pair(name, run, partial(contrastive_oracles.decoupled, scale=2.0), ids=ids)


def _queued():
    def run(a, b, more_a, more_b, mask, ids):
        options = {"negatives_a": more_a, "negatives_b": more_b, "negatives_where": mask}
        options |= {"where": mask, "ids": ids, "negatives_ids": ids, "tile": 4}
        return functional.info_nce(a, b, logit_scale=2.0, **options)

    reference = partial(contrastive_oracles.queued, scale=2.0)
    return _pair("extra negatives", run, reference, ids=True, inputs=4)


def _halves():
    def run(x, mask, ids):
        sides = {} if mask is None else {"where_a": mask[:, 0], "where_b": mask[:, 1]}
        return functional.info_nce(x[:, 0], x[:, 1], logit_scale=2.0, tile=4, **sides)

    return Case(
        name="tiled missing halves",
        run=run,
        oracle=partial(contrastive_oracles.halves, scale=2.0),
        shapes=((N, 2, 4),),
        kind="rows",
        mask=(N, 2),
        spoiled=(0,),
        forward=False,
    )


def _nt_xent(name, *, decoupled=False):
    def run(a, b, mask, ids):
        options = {"where": mask, "decoupled": decoupled, "tile": 5}
        return functional.nt_xent(a, b, logit_scale=2.0, **options)

    reference = partial(contrastive_oracles.nt_xent, scale=2.0, without_positive=decoupled)
    return _pair(name, run, reference)


def _sigmoid(name, *, ids=False):
    def run(a, b, mask, ids):
        options = {"logit_bias": -2.0, "where": mask, "ids": ids, "tile": 4}
        return functional.sigmoid_contrastive(a, b, logit_scale=3.0, **options)

    return _pair(name, run, partial(oracle.sigmoid, scale=3.0, bias=-2.0), ids=ids)


def _supervised(name, *, paired):
    def run(a, b, mask, ids):
        options = {"ids": ids, "where": mask, "tile": 4}
        return functional.supervised_contrastive(a, b, logit_scale=2.0, **options)

    loop = partial(contrastive_oracles.supervised, scale=2.0, soft=None, teach=None, share=0.0)
    if paired:
        return _pair(name, run, loop, ids=True)
    # Parity, since the ids of the rows that the table's mask keeps are all different.
    return _pair(
        name,
        lambda a, mask, ids: run(a, None, mask, ids % 2),
        lambda a, mask, ids: loop(a, None, mask, ids % 2),
        ids=True,
        inputs=1,
    )


def _exhaustive(*cases):
    return [replace(case, exhaustive=True) for case in cases]


CASES = [
    _info_nce("info_nce ids smoothing", scale=5.0, ids=True, smoothing=0.1),
    _queued(),
    *_exhaustive(
        _info_nce("info_nce", scale=5.0),
        _info_nce("info_nce a_to_b", scale=5.0, directions="a_to_b"),
        _decoupled("info_nce decoupled ids", ids=True),
        _halves(),
        _nt_xent("nt_xent"),
        _sigmoid("sigmoid ids", ids=True),
        _supervised("supervised own", paired=False),
    ),
]

# Checked against their loops alone.
VARIANTS = [
    _info_nce("info_nce one block", scale=5.0, tile=6),
    _info_nce("info_nce single rows", scale=5.0, tile=1),
    _info_nce("info_nce smoothing", scale=5.0, smoothing=0.2),
    _info_nce("info_nce b_to_a ids", scale=5.0, directions="b_to_a", ids=True),
    _decoupled("info_nce decoupled"),
    _nt_xent("nt_xent decoupled", decoupled=True),
    _sigmoid("sigmoid"),
    _supervised("supervised pair", paired=True),
]
