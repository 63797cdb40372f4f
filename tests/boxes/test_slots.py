"""Who gets a slot that several objects claim, against a loop; points in regions."""

import numpy as np
from keras import ops

from kerasdet.boxes.slots import inside, winners


def test_winners_by_hand():
    found = winners(np.array([[3, 3, 5]]), np.array([[9.0, 4.0, 7.0]]), np.array([[True] * 3]))
    assert ops.convert_to_numpy(found).tolist() == [[0, 1, 1]]


def test_winners_agree_with_a_loop():
    rng = np.random.default_rng(0)
    slots, sizes = rng.integers(0, 4, (6, 9)).astype(np.int32), rng.integers(1, 4, (6, 9)) * 1.0
    real = rng.random((6, 9)) < 0.7
    expected = np.zeros((6, 9))
    for photo in range(6):
        for slot in range(4):
            claims = [i for i in range(9) if slots[photo, i] == slot and real[photo, i]]
            if claims:
                expected[photo, min(claims, key=lambda i: (sizes[photo, i], -i))] = 1
    found = ops.convert_to_numpy(winners(slots, sizes.astype(np.float32), real))
    np.testing.assert_array_equal(found, expected)
    assert 0 < expected.sum() < real.sum()


def test_points_inside_regions():
    points = np.array([[0, 0], [5, 5], [10, 10], [4, 9]], np.float32)
    regions = np.array([[[0, 0, 10, 10], [0, 0, 0, 0]], [[4, 8, 5, 11], [9, 9, 11, 11]]], np.float32)
    found = ops.convert_to_numpy(inside(points, regions))
    assert found.tolist() == [[True, True, False, True], [False, False, True, True]]


def test_points_of_each_photo():
    points = np.array([[[0, 0], [5, 5]], [[9, 9], [20, 3]]], np.float32)
    regions = np.array([[[0, 0, 2, 2]], [[0, 0, 10, 10]]], np.float32)
    assert ops.convert_to_numpy(inside(points, regions)).tolist() == [[True, False], [True, False]]
