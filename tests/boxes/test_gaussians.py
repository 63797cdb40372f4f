"""Gaussians on a grid: profiles, drawing, regions and who owns a cell."""

import numpy as np
from keras import ops

from kerasdet.boxes import gaussians


def numpy(x):
    return ops.convert_to_numpy(x)


def floats(*values):
    return np.array(values, np.float32)


def test_profile_by_hand_is_cut_off():
    value = numpy(gaussians.profile(7, floats(3), floats(1), floats(2), floats(5)))
    expected = [0, 0, np.exp(-0.5), 1, np.exp(-0.5), np.exp(-2), 0]
    np.testing.assert_allclose(value, [expected], rtol=1e-6)


def test_splat_takes_the_maximum_within_a_class_and_leaves_out_padding():
    y = floats([1, 0.5], [0, 0.8], [1, 1], [1, 1])[None]
    x = floats([1, 0.2], [1, 1], [0, 0.3], [1, 1])[None]
    drawn = numpy(gaussians.splat(y, x, np.array([[0, 0, 1, -1]]), 2))
    assert drawn.shape == (1, 2, 2, 2)
    np.testing.assert_allclose(drawn[0, :, :, 0], [[1, 0.2], [0.8, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(drawn[0, :, :, 1], [[0, 0.3], [0, 0.3]], rtol=1e-6)


def test_region_covers_the_cells_whose_middle_it_holds():
    boxes = floats([0.5, 1.4, 2.5, 2.6], [0, 0, 0, 0], [3.6, 3.6, 9, 9])[None]
    expected = np.zeros((4, 5), bool)
    expected[1:3, 0:2] = True  # middles .5 and 1.5 across (2.5 is its end), 1.5 and 2.5 down
    found = numpy(gaussians.region_mask(boxes, 4, 5))[0]
    np.testing.assert_array_equal(found, expected)
    wide = numpy(gaussians.region_mask(floats([3.4, 3.4, 9, 9])[None], 4, 5))[0]
    assert wide.sum() == 2 and wide[3, 3] and wide[3, 4]


def test_the_smallest_object_owns_a_cell():
    reach = np.zeros((1, 3, 2, 2), np.float32)
    reach[0, 0] = 1
    reach[0, 1, 0, :] = 0.1
    owner = numpy(gaussians.owners(reach, floats(9, 4, 1)[None]))
    np.testing.assert_array_equal(owner[0, 0], [[0, 0], [1, 1]])
    np.testing.assert_array_equal(owner[0, 1], [[1, 1], [0, 0]])
    assert not owner[0, 2].any()


def test_two_equal_objects_do_not_share_a_cell():
    owner = numpy(gaussians.owners(np.ones((1, 2, 3, 3), np.float32), floats(4, 4)[None]))
    np.testing.assert_array_equal(owner.sum(1), 1)


def test_paint_writes_values_into_owned_cells():
    owner = np.zeros((1, 2, 2, 2), np.float32)
    owner[0, 0, 0, 1] = owner[0, 1, 1, 0] = 1
    values = floats([5, 6], [7, 8])[None]
    painted = numpy(gaussians.paint(owner, values))[0]
    np.testing.assert_array_equal(painted, [[[0, 0], [5, 6]], [[7, 8], [0, 0]]])
