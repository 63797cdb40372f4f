"""Cells of middles, and what is learned there."""

import numpy as np
from handmade import objects
from keras import ops

from kerasdet.boxes import centers


def test_middles_and_their_cells_by_hand():
    boxes = np.array([[2.5, 1, 7.5, 2], [0, 0, 0, 0], [15, 14, 17, 18]], np.float32)[None]
    middle, cell = (ops.convert_to_numpy(x)[0] for x in centers.middle_cells(boxes, 16))
    np.testing.assert_allclose(middle, [[1.5, 5], [0, 0], [16, 16]])
    np.testing.assert_array_equal(cell, [[1, 5], [0, 0], [15, 15]])  # the last one kept on the grid


def test_positives_hold_weights_and_leave_out_padding():
    targets = objects([0, 0, 4, 4], [8, 0, 12, 4], labels=[1, 0], weights=[0.5, 1])
    cell = np.array([[[0, 0], [0, 2], [0, 0], [0, 0]]], np.float32)
    found = ops.convert_to_numpy(centers.positives(cell, targets, 4, 2))[0]
    assert found[0, 0].tolist() == [0, 0.5] and found[0, 2].tolist() == [1, 0]
    assert found.sum() == 1.5


def test_an_object_under_a_cell_is_learned_inside_an_ignore_region():
    targets = objects([1, 1, 3, 3], ignore=[[0, 0, 16, 16]])
    found = ops.convert_to_numpy(centers.learned_cells(targets, 8, 4))[0, ..., 0]
    expected = np.ones((4, 4))
    expected[:2, :2] = 0
    expected[0, 0] = 1  # padding rows lie at (0, 0) too, and change nothing
    np.testing.assert_array_equal(found, expected)
    nothing = ops.convert_to_numpy(centers.learned_cells(objects(ignore=[[0, 0, 16, 16]]), 8, 4))
    assert nothing[0, 0, 0, 0] == 0


def test_dense_gaussians_and_weights_cell_by_cell():
    # A box of 6 x 4 cells about (4, 5): reach int(3 * .54) = 1 across and int(2 * .54) = 1 down.
    goal = centers.dense_targets(objects([16, 16, 64, 48]), 8, 8, 1)
    expected = np.zeros((8, 8))
    for y in (3, 4, 5):
        for x in (4, 5, 6):
            expected[y, x] = np.exp(-((y - 4) ** 2 + (x - 5) ** 2) / (2 * 0.5**2))
    np.testing.assert_allclose(ops.convert_to_numpy(goal["heat"])[0, ..., 0], expected, atol=1e-6)
    weight = ops.convert_to_numpy(goal["weight"])[0, 0]
    np.testing.assert_allclose(weight, expected / expected.sum() * np.log(1 + 48 * 32), rtol=1e-5, atol=1e-6)
