"""Overlap of boxes against worked examples and against exact areas counted on a grid."""

import math

import numpy as np
import pytest
from keras import ops

from kerasdet.boxes.iou import area, ciou, diou, giou, iou, pairwise_iou


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


def random_pairs():
    rng = np.random.default_rng(1)
    return [
        np.sort(rng.uniform(0, 10, (50, 2, 2)), axis=-2).reshape(50, 4).astype(np.float32) for _ in "ab"
    ]


def test_iou_row_by_row_is_the_diagonal_of_all_pairs():
    a, b = random_pairs()
    np.testing.assert_allclose(numpy(iou(a, b)), np.diagonal(numpy(pairwise_iou(a, b))), atol=1e-6)


def test_diou_worked_examples():
    a = boxes([0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 4, 4])
    b = boxes([2, 0, 3, 1], [0, 0, 2, 2], [1, 1, 3, 3], [1, 1, 3, 3])
    # Centres 2 apart in a hull of 3 x 1; none; 1, 1 apart in 3 x 3; none.
    expected = [-4 / 10, 1, 1 / 7 - 2 / 18, 4 / 16]
    np.testing.assert_allclose(numpy(diou(a, b)), expected, atol=1e-6)


def test_ciou_worked_examples():
    a, b = boxes([0, 0, 2, 1], [0, 0, 4, 2]), boxes([0, 0, 1, 2], [0, 0, 2, 1])
    # The first differ in shape as the docstring works out; the second only in size and place.
    expected = [1 / 3 - 0.0625 - 0.033752, 0.25 - (1 + 0.25) / 20]
    np.testing.assert_allclose(numpy(ciou(a, b)), expected, atol=1e-5)


def test_no_gradient_goes_through_how_much_aspect_counts():
    """Equation 11 differentiates v alone: d ciou = d diou - alpha d v, with alpha as it is."""
    tf = pytest.importorskip("tensorflow")
    a, b = tf.Variable([[0.0, 0.0, 2.0, 1.0]]), tf.constant([[0.0, 0.0, 1.0, 2.0]])

    def v(boxes):
        angle = tf.atan2(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        return 4 / math.pi**2 * (angle - math.atan2(1, 2)) ** 2

    with tf.GradientTape(persistent=True) as tape:
        complete, distance, aspect = ciou(a, b), diou(a, b), v(a)
    alpha = aspect / (1 - 1 / 3 + aspect)
    expected = tape.gradient(distance, a) - alpha * tape.gradient(aspect, a)
    np.testing.assert_allclose(tape.gradient(complete, a), expected, rtol=1e-4, atol=1e-6)


def test_ciou_agrees_with_a_loop():
    a, b = random_pairs()
    expected = []
    for one, two in zip(a.astype(float), b.astype(float), strict=True):
        (ax, ay, aX, aY), (bx, by, bX, bY) = one, two
        shared = max(0, min(aX, bX) - max(ax, bx)) * max(0, min(aY, bY) - max(ay, by))
        overlap = shared / ((aX - ax) * (aY - ay) + (bX - bx) * (bY - by) - shared)
        diagonal = (max(aX, bX) - min(ax, bx)) ** 2 + (max(aY, bY) - min(ay, by)) ** 2
        distance = ((ax + aX - bx - bX) ** 2 + (ay + aY - by - bY) ** 2) / 4
        v = 4 / math.pi**2 * (math.atan((bX - bx) / (bY - by)) - math.atan((aX - ax) / (aY - ay))) ** 2
        expected.append(overlap - distance / diagonal - v * v / (1 - overlap + v))
    np.testing.assert_allclose(numpy(ciou(a, b)), expected, atol=1e-5)


def test_measures_of_empty_boxes_are_finite():
    dot, line = boxes([1, 1, 1, 1]), boxes([1, 1, 1, 5])
    for measure in (iou, diou, ciou):
        for a, b in ((dot, dot), (dot, line), (line, boxes([0, 0, 3, 3]))):
            assert np.isfinite(numpy(measure(a, b))).all()
