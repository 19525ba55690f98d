"""Rows of the contrastive losses."""

from functools import partial

import functional_oracles as oracle
from functional_case import Case, N

from datarax import functional


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
]
