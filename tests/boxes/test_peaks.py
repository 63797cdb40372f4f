"""Peaks on maps made by hand."""

import numpy as np
from keras import ops

from kerasdet.boxes.peaks import take, top_peaks


def peaks(heat, count):
    result = top_peaks(ops.convert_to_tensor(np.asarray(heat, np.float32)), count)
    return [ops.convert_to_numpy(value) for value in result]


def test_only_cells_above_their_neighbours_are_peaks():
    heat = np.zeros((1, 4, 5, 1))
    heat[0, 0, 0] = 0.5  # a peak in the corner
    heat[0, 0, 1] = 0.4  # its shoulder
    heat[0, 1, 1] = 0.45  # touches it by the corner: no peak
    heat[0, 3, 4] = 0.7
    heat[0, 3, 2] = 0.2  # two cells away from the last: a peak
    scores, classes, cells = peaks(heat, 6)
    np.testing.assert_allclose(scores[0], [0.7, 0.5, 0.2, 0, 0, 0], rtol=1e-6)
    np.testing.assert_array_equal(cells[0, :3], [3 * 5 + 4, 0, 3 * 5 + 2])
    assert not classes.any()


def test_every_cell_of_a_plateau_is_a_peak():
    heat = np.zeros((1, 3, 3, 1))
    heat[0, 1, 1:] = 0.6
    scores, _, cells = peaks(heat, 4)
    np.testing.assert_allclose(scores[0], [0.6, 0.6, 0, 0], rtol=1e-6)
    assert set(cells[0, :2]) == {4, 5}


def test_classes_have_peaks_of_their_own():
    heat = np.zeros((2, 3, 4, 3))
    heat[0, 1, 2, 0] = 0.3
    heat[0, 1, 2, 2] = 0.9  # the same cell, another class
    heat[0, 1, 3, 1] = 0.5  # a neighbour, another class
    heat[1, 2, 3, 1] = 0.8  # another photo
    scores, classes, cells = peaks(heat, 4)
    np.testing.assert_allclose(scores, [[0.9, 0.5, 0.3, 0], [0.8, 0, 0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(classes[0, :3], [2, 1, 0])
    np.testing.assert_array_equal(cells[0, :3], [6, 7, 6])
    assert classes[1, 0] == 1 and cells[1, 0] == 11


def test_take_reads_a_map_at_cells():
    maps = np.arange(2 * 3 * 4 * 2, dtype=np.float32).reshape(2, 3, 4, 2)
    cells = np.array([[0, 7], [11, 5]], np.int32)
    found = ops.convert_to_numpy(take(ops.convert_to_tensor(maps), ops.convert_to_tensor(cells)))
    np.testing.assert_array_equal(found[0], [maps[0, 0, 0], maps[0, 1, 3]])
    np.testing.assert_array_equal(found[1], [maps[1, 2, 3], maps[1, 1, 1]])
