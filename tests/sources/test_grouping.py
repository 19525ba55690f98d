import numpy as np

from datarax.sources.grouping import join_equal


def test_chains_over_columns_are_joined():
    a = np.array([[1], [1], [2], [3], [4]])
    b = np.array([[5, 0], [6, 0], [6, 0], [7, 0], [5, 1]])
    assert join_equal([a, b], [None, None]).tolist() == [0, 0, 0, 3, 4]
    assert join_equal([a], [None]).tolist() == [0, 0, 2, 3, 4]


def test_absent_values_join_nothing():
    a = np.array([1, 1, 1, 2])
    present = np.array([True, False, True, True])
    assert join_equal([a], [present]).tolist() == [0, 1, 0, 3]
