"""Outlines: grids by hand, against pycocotools, and there and back."""

import numpy as np
import pytest

from kerasdet import outlines

SQUARE = np.array([(10, 20), (50, 20), (50, 60), (10, 60)], np.float32)
TRIANGLE = np.array([(30, 10), (55, 70), (5, 70)], np.float32)


def test_grid_by_hand():
    left = np.array([(0, 0), (5, 0), (5, 10), (0, 10)], np.float32)
    grid = outlines.grid_of((left,), np.array([0, 0, 10, 10], np.float32), 20)
    np.testing.assert_array_equal(grid[:, :10], 1)
    assert not grid[:, 10:].any()
    two = (left, left + (8, 0))
    assert outlines.grid_of(two, np.array([0, 0, 13, 10]), 13)[5].tolist().count(0) in (2, 3)


def test_overlapping_polygons_of_one_object_fill_their_union():
    """As pycocotools has it: no hole where both lie."""
    polygons = (SQUARE, SQUARE + (20, 20))
    box = np.array([10, 20, 70, 80], np.float32)
    grid = outlines.grid_of(polygons, box, 60)
    exact = outlines.decode(outlines.encode_outline(polygons, 80, 100))[20:, 10:70]
    assert grid[25:35, 25:35].all() and exact[25:35, 25:35].all()
    # But for the cells at the edges.
    assert (grid != exact).sum() <= 2 * 160


@pytest.mark.parametrize("size, overlap", [(14, 0.94), (28, 0.97)])
def test_a_round_object_is_as_large_in_a_grid_as_it_is(size, overlap):
    """No wider for the cells that its edge touches: what is learned would be too large everywhere."""
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle = (50 + 40 * np.stack([np.cos(angle), np.sin(angle)], 1)).astype(np.float32)
    box = np.array([10, 10, 90, 90], np.float32)
    grid = outlines.grid_of((circle,), box, size)
    assert grid.mean() == pytest.approx(np.pi / 4, rel=0.02)
    mask = outlines.paste(grid.astype(np.float32), box, 100, 100)
    exact = np.hypot(*np.mgrid[-49.5:50, -49.5:50]) <= 40
    assert (mask & exact).sum() / (mask | exact).sum() > overlap


def test_pasted_grid_covers_its_box_and_nothing_else():
    mask = outlines.paste(np.ones((28, 28), np.float32), np.array([10, 20, 50, 60], np.float32), 80, 100)
    expected = np.zeros((80, 100), np.uint8)
    expected[20:60, 10:50] = 1
    np.testing.assert_array_equal(mask, expected)
    # What lies beyond the photo is cut, and an empty box holds nothing.
    outside = outlines.paste(np.ones((28, 28), np.float32), np.array([90, -5, 120, 5], np.float32), 80, 100)
    assert outside[:5, 90:].all() and outside.sum() == 50
    assert not outlines.paste(np.ones((28, 28), np.float32), np.zeros(4, np.float32), 80, 100).any()


@pytest.mark.parametrize("polygon", [SQUARE, TRIANGLE])
def test_a_grid_laid_over_its_box_is_the_object_again(polygon):
    box = np.concatenate([polygon.min(0), polygon.max(0)])
    grid = outlines.grid_of((polygon,), box, 28).astype(np.float32)
    mask = outlines.paste(grid, box, 80, 100)
    exact = outlines.decode(outlines.encode_outline((polygon,), 80, 100))
    assert (mask & exact).sum() / (mask | exact).sum() > 0.93


def test_run_lengths_there_and_back():
    rng = np.random.default_rng(0)
    mask = (rng.random((13, 17)) < 0.4).astype(np.uint8)
    np.testing.assert_array_equal(outlines.decode(outlines.encode(mask)), mask)
    # Uncompressed, column by column: 2 without, 3 with, the rest without.
    plain = outlines.decode({"size": [4, 3], "counts": [2, 3, 7]})
    np.testing.assert_array_equal(plain.T.ravel(), [0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="no run lengths"):
        outlines.decode({"size": [4, 3]})


def test_polygons_around_a_mask_run_along_its_pixels():
    mask = np.zeros((30, 40), np.uint8)
    mask[5:15, 8:20] = 1
    mask[20:28, 30:40] = 1
    found = outlines.outline_of(mask)
    assert len(found) == 2
    boxes = sorted([*points.min(0).tolist(), *points.max(0).tolist()] for points in found)
    assert boxes == [[8, 5, 20, 15], [30, 20, 40, 28]]
    np.testing.assert_array_equal(outlines.decode(outlines.encode_outline(found, 30, 40)), mask)
    slanted = outlines.decode(outlines.encode_outline((TRIANGLE,), 80, 100))
    again = outlines.decode(outlines.encode_outline(outlines.outline_of(slanted), 80, 100))
    assert (slanted & again).sum() / (slanted | again).sum() > 0.95
