"""Picking rows, by hand."""

import numpy as np
from keras import ops

from kerasdet.boxes.rows import at_rows, top_pairs


def test_rows_of_each_photo_with_and_without_channels():
    values = np.array([[[1, 2], [3, 4], [5, 6]], [[7, 8], [9, 10], [11, 12]]], np.float32)
    rows = np.array([[2, 0], [1, 1]], np.int32)
    np.testing.assert_array_equal(at_rows(values, rows), [[[5, 6], [1, 2]], [[9, 10], [9, 10]]])
    np.testing.assert_array_equal(at_rows(values[..., 0], rows), [[5, 1], [9, 9]])


def test_pairs_of_row_and_class_by_score():
    scores = np.array([[[0.1, 0.7], [0.9, 0.2], [0.3, 0.04]]], np.float32)
    best, rows, labels = (ops.convert_to_numpy(each) for each in top_pairs(scores, 4, lowest=0.25))
    np.testing.assert_allclose(best, [[0.9, 0.7, 0.3, 0.0]])
    np.testing.assert_array_equal(rows[0, :3], [1, 0, 2])
    np.testing.assert_array_equal(labels[0, :3], [0, 1, 0])


def test_pairs_of_one_class_are_its_rows():
    scores = np.array([[[0.1], [0.9], [0.3]]], np.float32)
    best, rows, labels = (ops.convert_to_numpy(each) for each in top_pairs(scores, 2))
    np.testing.assert_allclose(best, [[0.9, 0.3]])
    np.testing.assert_array_equal(rows, [[1, 2]])
    np.testing.assert_array_equal(labels, [[0, 0]])
