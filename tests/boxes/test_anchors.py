"""Default boxes: a worked example, and the counts, places and sizes of SSD300."""

import math

import numpy as np

from kerasdet.boxes.anchors import boxes_per_cell, default_boxes, rpn_anchors


def test_one_cell_by_hand():
    found = default_boxes([1], [32], [8, 18], [(4,)])
    expected = [[12, 12, 20, 20], [10, 10, 22, 22], [8, 14, 24, 18], [14, 8, 18, 24]]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


def test_maps_rows_cells_and_boxes_come_in_order():
    found = default_boxes([3, 1], [10, 30], [4, 9, 16], [(), (2,)])
    assert len(found) == 3 * 3 * 2 + 4
    centres = (found[:, :2] + found[:, 2:]) / 2
    expected = [(x, y) for y in (5, 15, 25) for x in (5, 15, 25) for _ in range(2)] + [(15, 15)] * 4
    np.testing.assert_allclose(centres, expected, atol=1e-4)
    widths = found[:, 2] - found[:, 0]
    np.testing.assert_allclose(widths[:18], [4, 6] * 9, atol=1e-5)
    np.testing.assert_allclose(widths[18:], [9, 12, 9 * math.sqrt(2), 9 / math.sqrt(2)], rtol=1e-5)


def test_ssd300_has_8732_boxes_of_the_published_sizes():
    smallest, largest = (30, 60, 111, 162, 213, 264), (60, 111, 162, 213, 264, 315)
    cells, steps = (38, 19, 10, 5, 3, 1), (8, 16, 32, 64, 100, 300)
    ratios = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
    found = default_boxes(cells, steps, (*smallest, largest[-1]), ratios)
    assert len(found) == 8732
    start = 0
    for count, step, low, high, ratio in zip(cells, steps, smallest, largest, ratios, strict=True):
        each = boxes_per_cell(ratio)
        assert each == 2 + 2 * len(ratio)
        # The last cell of the map, its boxes one by one.
        end = start + count * count * each
        middle = (count - 0.5) * step
        sides = [(low, low), (math.sqrt(low * high),) * 2]
        for r in ratio:
            sides += [(low * math.sqrt(r), low / math.sqrt(r)), (low / math.sqrt(r), low * math.sqrt(r))]
        expected = [
            (middle - w / 2, middle - h / 2, middle + w / 2, middle + h / 2) for w, h in sides
        ]
        np.testing.assert_allclose(found[end - each : end], expected, rtol=1e-5, atol=1e-3)
        start = end


# === Region proposal networks ===


def test_rpn_anchors_of_one_cell_by_hand():
    (found,) = rpn_anchors([1], [32], [[16, 4]], (1.0, 4.0))
    expected = [[8, 8, 24, 24], [12, 0, 20, 32], [14, 14, 18, 18], [15, 12, 17, 20]]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


def test_rpn_anchors_of_a_map_that_starts_elsewhere():
    """Two cells, 64 px between them, the first around (16, 16)."""
    (found,) = rpn_anchors([2], [64], [[8]], (1.0,), firsts=[16])
    expected = [[12, 12, 20, 20], [76, 12, 84, 20], [12, 76, 20, 84], [76, 76, 84, 84]]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_rpn_anchors_of_a_pyramid():
    """FPN at 800 px: one size a level, ratios of one area (section 4.1)."""
    strides, sizes = (4, 8, 16, 32, 64), (32, 64, 128, 256, 512)
    cells = [800 // stride for stride in strides]
    found = rpn_anchors(cells, strides, [[side] for side in sizes])
    assert [len(level) for level in found] == [3 * count**2 for count in cells]
    for level, size, stride, count in zip(found, sizes, strides, cells, strict=True):
        sides = level[:, 2:] - level[:, :2]
        np.testing.assert_allclose(np.prod(sides, -1), size**2, rtol=1e-3)
        np.testing.assert_allclose(sides[:3, 1] / sides[:3, 0], [0.5, 1, 2], rtol=1e-4)
        centres = (level[:, 2:] + level[:, :2]) / 2
        np.testing.assert_allclose(centres[3], [stride * 1.5, stride / 2], atol=1e-2)
        np.testing.assert_allclose(centres[3 * count], [stride / 2, stride * 1.5], atol=1e-2)
