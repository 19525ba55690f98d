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
