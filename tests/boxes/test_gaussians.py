"""Gaussians on a grid: profiles, drawing, regions and who owns a cell."""

import numpy as np
import pytest
from keras import ops

from kerasdet.boxes import centers, gaussians


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


def test_splat_and_positives_are_those_of_each_class_alone():
    rng = np.random.default_rng(0)
    y, x = (rng.uniform(0, 1, (3, 9, 5)).astype(np.float32) for _ in range(2))
    labels = rng.integers(-1, 7, (3, 9)).astype(np.int32)
    cell = rng.integers(0, 5, (3, 9, 2)).astype(np.float32)
    weights = rng.uniform(0.1, 1, (3, 9)).astype(np.float32)
    heat, middle = np.zeros((2, 3, 5, 5, 7), np.float32)
    for photo, row in zip(*np.nonzero(labels >= 0), strict=True):
        label = labels[photo, row]
        drawn = heat[photo, ..., label]
        np.maximum(drawn, y[photo, row][:, None] * x[photo, row], out=drawn)
        down, across = cell[photo, row].astype(int)
        middle[photo, down, across, label] = max(middle[photo, down, across, label], weights[photo, row])
    np.testing.assert_allclose(numpy(gaussians.splat(y, x, labels, 7)), heat, rtol=1e-6)
    found = numpy(centers.positives(cell, {"labels": labels, "weights": weights}, 5, 7))
    np.testing.assert_array_equal(found, middle)


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


# === Radii ===


def overlaps(height, width, r):
    """IoU of a box with itself moved by r, smaller by r all around, and larger by r all around."""
    area, shared = height * width, (height - r) * (width - r)
    smaller, larger = (height - 2 * r) * (width - 2 * r), (height + 2 * r) * (width + 2 * r)
    return shared / (2 * area - shared), smaller / area, area / larger


@pytest.mark.parametrize(("height", "width"), [(10, 10), (40, 3), (1, 1), (25, 60)])
def test_exact_radius_leaves_the_overlap_asked_for(height, width):
    r = float(numpy(gaussians.exact_radius(floats(height), floats(width)))[0])
    assert min(overlaps(height, width, r)) == pytest.approx(0.7, abs=1e-4)
    r = float(numpy(gaussians.exact_radius(floats(height), floats(width), 0.5))[0])
    assert min(overlaps(height, width, r)) == pytest.approx(0.5, abs=1e-4)


def test_radii_of_a_square_by_hand():
    # (1 - sqrt .7) / 2 = .08167; of 2.8 n and sqrt((2.8 n)^2 + 3.36 n^2), half the difference: .27332.
    n = floats(100)
    np.testing.assert_allclose(numpy(gaussians.exact_radius(n, n)), [8.167], atol=1e-3)
    np.testing.assert_allclose(numpy(gaussians.original_radius(n, n)), [27.332], atol=1e-3)


def test_original_radius_is_the_least_larger_root_halved():
    rng = np.random.default_rng(0)
    height, width = rng.uniform(1, 100, (2, 50)).astype(np.float32)
    total, area, o = height + width, height * width, 0.7
    roots = []
    for a, b, c in (  # a r^2 + b r + c = 0 of a box moved, smaller, larger
        (1, -total, area * (1 - o) / (1 + o)),
        (4, -2 * total, (1 - o) * area),
        (4 * o, 2 * o * total, (o - 1) * area),
    ):
        roots.append((-b + np.sqrt(b**2 - 4 * a * c)) / 2)
    found = numpy(gaussians.original_radius(height, width))
    np.testing.assert_allclose(found, np.min(roots, 0), rtol=1e-4)
