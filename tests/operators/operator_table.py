"""One row an operator; every contract of test_contracts.py is crossed with all of them."""

import alignment_rows
import attention_rows
import contrastive_rows
import field_rows
import fusion_rows
from operator_row import Row

TABLE: dict[str, Row] = {
    **fusion_rows.ROWS,
    **contrastive_rows.ROWS,
    **alignment_rows.ROWS,
    **attention_rows.ROWS,
    **field_rows.ROWS,
}
