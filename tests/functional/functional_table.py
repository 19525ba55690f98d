"""One row a function; every contract of test_contracts.py is crossed with all of them."""

import alignment_cases
import attention_cases
import contrastive_cases
import fusion_cases
import matching_cases
import vector_cases

CASES = [
    *vector_cases.CASES,
    *contrastive_cases.CASES,
    *fusion_cases.CASES,
    *matching_cases.CASES,
    *attention_cases.CASES,
    *alignment_cases.CASES,
]
