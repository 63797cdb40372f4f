"""Overlap of boxes against worked examples and against exact areas counted on a grid."""

import numpy as np
from keras import ops

from kerasdet.boxes.iou import area, giou, pairwise_iou


def numpy(x):
    return ops.convert_to_numpy(x)


def boxes(*rows):
    return np.array(rows, np.float32)


def test_area_of_plain_empty_and_turned_boxes():
    rows = boxes([1, 2, 4, 4], [3, 3, 3, 9], [5, 5, 1, 1])
    np.testing.assert_allclose(numpy(area(rows)), [6, 0, 0])


def test_iou_worked_examples():
    a = boxes([0, 0, 2, 2], [0, 0, 4, 4], [3, 3, 3, 3])
    b = boxes([1, 1, 3, 3], [0, 0, 2, 2], [2, 0, 4, 2])
    expected = [[1 / 7, 1, 0], [4 / 16, 4 / 16, 4 / 16], [0, 0, 0]]
    np.testing.assert_allclose(numpy(pairwise_iou(a, b)), expected, atol=1e-6)


def test_iou_takes_batches():
    rng = np.random.default_rng(0)
    a = np.sort(rng.integers(0, 12, (2, 5, 2, 2)), axis=-2).reshape(2, 5, 4).astype(np.float32)
    b = np.sort(rng.integers(0, 12, (2, 3, 2, 2)), axis=-2).reshape(2, 3, 4).astype(np.float32)

    def cells(box):
        grid = np.zeros((12, 12), bool)
        x1, y1, x2, y2 = box.astype(int)
        grid[y1:y2, x1:x2] = True
        return grid

    found = numpy(pairwise_iou(a, b))
    assert found.shape == (2, 5, 3)
    for i in np.ndindex(2, 5, 3):
        one, two = cells(a[i[0], i[1]]), cells(b[i[0], i[2]])
        union = (one | two).sum()
        np.testing.assert_allclose(found[i], (one & two).sum() / union if union else 0, atol=1e-6)


def test_giou_worked_examples():
    a = boxes([0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 4, 4])
    b = boxes([2, 0, 3, 1], [0, 0, 2, 2], [1, 1, 3, 3], [1, 1, 3, 3])
    # Apart: 0 - 1/3. Equal: 1. Shared 1 of 7 in a hull of 9: 1/7 - 2/9. Inside: 4/16, no gap.
    expected = [-1 / 3, 1, 1 / 7 - 2 / 9, 4 / 16]
    np.testing.assert_allclose(numpy(giou(a, b)), expected, atol=1e-6)


def test_giou_of_empty_boxes_is_finite():
    assert np.isfinite(numpy(giou(boxes([1, 1, 1, 1]), boxes([1, 1, 1, 1])))).all()
