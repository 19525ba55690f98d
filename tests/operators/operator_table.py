"""One row an operator; every contract of test_contracts.py is crossed with all of them."""

import alignment_rows
import attention_rows
import contrastive_rows
import field_rows
import fusion_rows
import presence_rows
import transport_rows
from operator_row import Row

TABLE: dict[str, Row] = {
    **fusion_rows.ROWS,
    **presence_rows.ROWS,
    **contrastive_rows.ROWS,
    **alignment_rows.ROWS,
    **attention_rows.ROWS,
    **transport_rows.ROWS,
    **field_rows.ROWS,
}

# Rows that only test_config_fields.py reads.
CONFIG_TABLE: dict[str, Row] = {**TABLE, **contrastive_rows.CONFIG_ROWS, **field_rows.CONFIG_ROWS}

# Rows that take their neighbour's way through the operator, with another function of
# `functional/` at its end: the gate checks their shapes, `make test-all` everything.
VARIANTS = (
    "fusion concat",
    "fusion weighted_sum",
    "fusion gate",
    "fusion block",
    "fusion low_rank_tensor",
    "similarity of three",
    "info_nce smooth",
    "nt_xent",
    "triangle",
    "alignment cosine",
    "alignment squared_error",
    "huber",
    "modality gap",
    "barlow_twins",
    "cka",
    "procrustes stored",
    "attention pool resampler",
    "co-attention of a shared similarity",
    "latent fusion by queries",
    "transport tokens",
    "transport unbalanced",
    "transport partial",
    "transport divergence",
    "random_crop",
)
