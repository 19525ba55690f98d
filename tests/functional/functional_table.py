"""One row a function; every contract of test_contracts.py is crossed with all of them."""

import alignment_cases
import attention_cases
import audio_cases
import contrastive_cases
import fusion_cases
import image_cases
import matching_cases
import metric_cases
import pair_cases
import tiled_cases
import transport_cases
import vector_cases

CASES = [
    *vector_cases.CASES,
    *contrastive_cases.CASES,
    *tiled_cases.CASES,
    *fusion_cases.CASES,
    *matching_cases.CASES,
    *pair_cases.CASES,
    *attention_cases.CASES,
    *alignment_cases.CASES,
    *transport_cases.CASES,
    *metric_cases.CASES,
    *image_cases.CASES,
    *audio_cases.CASES,
]
