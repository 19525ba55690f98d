"""Records that are the same in one respect or another."""

from collections.abc import Iterable

import numpy as np


def join_equal(columns: Iterable[np.ndarray], presence: Iterable[np.ndarray | None]) -> np.ndarray:
    """A group number for each record: int [n]; a chain of records, each equal to the next in one
    of the columns, shares it.

    Args:
      columns: arrays [n, ...], at least one.
      presence: for each column bool [n], where False a record is not compared; `None`: all are.

    Example:
      >>> a, b = np.array([1, 1, 2, 3]), np.array([5, 6, 6, 7])
      >>> join_equal([a, b], [None, None]).tolist()
      [0, 0, 0, 3]
    """
    parent: list[int] = []

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for column, present in zip(columns, presence, strict=True):
        parent = parent or list(range(len(column)))
        first: dict[bytes, int] = {}
        for row in range(len(column)) if present is None else np.flatnonzero(present).tolist():
            one, other = root(first.setdefault(column[row].tobytes(), row)), root(row)
            parent[max(one, other)] = min(one, other)
    return np.array([root(row) for row in range(len(parent))])
