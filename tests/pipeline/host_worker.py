"""One host of several: reads its part of shards, and says what each step gave."""

import json
import sys

import numpy as np

from datarax.pipeline import ErrorCaps, Pipeline
from datarax.sources.tar import TarSource

FIELDS = {
    "number": {"from": "json.n", "decode": "number", "dtype": "int32"},
    "text": {"from": "txt", "decode": "text", "length": 8},
    "vector": {"from": "npy", "decode": "array", "shape": [2], "missing": "mask"},
}


def identities(batch, row):
    """What each field of a row says it is of."""
    found = [int(batch["number"][row]), int(bytes(batch["text"][row]).rstrip(b"\0"))]
    if batch.presence["vector"][row]:
        found += batch["vector"][row].astype(int).tolist()
    return found


def main(pattern, ledger, host, hosts, epochs):
    source = TarSource(pattern, fields=FIELDS)
    given = []
    with Pipeline(
        source,
        batch_size=8,
        seed=1,
        host=host,
        hosts=hosts,
        ledger=ledger,
        error_caps=ErrorCaps(fraction=1, consecutive=None),
    ) as pipeline:
        for _ in range(epochs):
            for batch in pipeline:
                rows = np.flatnonzero(batch.valid_mask).tolist()
                given.append([identities(batch, row) for row in rows])
    print(json.dumps(given))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
