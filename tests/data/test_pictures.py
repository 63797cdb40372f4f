"""Pages of photos, and charts: what is drawn is where it belongs."""

import io

import numpy as np
import pytest
from PIL import Image

from kerasdet.boxes.anchors import default_boxes
from kerasdet.data import Dataset, Sample
from kerasdet.data.charts import anchor_sides, draw_classes, draw_sizes
from kerasdet.data.page import draw_page, draw_pairs
from kerasdet.drawing import PALETTE, draw_labels

BLACK = np.zeros((100, 200, 3), np.uint8)


def test_labels_are_drawn_by_class_or_by_object():
    boxes = np.array([[10, 10, 90, 90], [110, 20, 190, 80]], np.float32)
    image = draw_labels(BLACK, boxes, [1, 0], ("cat", "dog"))
    assert image.getpixel((10, 50)) == PALETTE[1] and image.getpixel((110, 50)) == PALETTE[0]
    names = np.asarray(draw_labels(BLACK, boxes, [1, 1], ("cat", "dog")), int)
    plain = np.asarray(draw_labels(BLACK, boxes, [0, 0], ("dog",)), int)
    assert np.abs(names[:40] - plain[:40]).max() > 100  # the plates with the names
    assert Image.fromarray(plain.astype(np.uint8)).getpixel((110, 50)) == PALETTE[1]


def test_parts_and_ignore_regions():
    boxes = np.array([[10, 10, 90, 90]], np.float32)
    head = np.array([40, 20, 60, 40])
    image = draw_labels(BLACK, boxes, [0], ("person",), [(0, head)], [[110, 20, 190, 80]])
    assert image.getpixel((40, 30)) == PALETTE[0]
    for at in ((110, 50), (150, 50)):  # frame and cross
        grey = image.getpixel(at)
        assert min(grey) > 150 and max(grey) - min(grey) < 12


def test_outlines_are_filled():
    triangle = np.array([[20, 20], [80, 20], [20, 80]], np.float32)
    image = draw_labels(BLACK, np.array([[20, 20, 80, 80]], np.float32), [0], ("cat",), masks=[(triangle,)])
    assert image.getpixel((35, 35))[0] > 80 and image.getpixel((70, 70)) == (0, 0, 0)


@pytest.fixture
def photos(tmp_path):
    """A wide photo with a box on its left half, and a small high one without."""
    Image.new("RGB", (640, 240), (0, 0, 0)).save(tmp_path / "wide.png")
    Image.new("RGB", (30, 60), (0, 0, 0)).save(tmp_path / "high.png")
    box = np.array([[0, 0, 320, 240]], np.float32)
    wide = Sample(
        str(tmp_path / "wide.png"), box, np.zeros(1, np.int32),
        parts=np.array([[[40, 40, 280, 200]]], np.float32), part_weights=np.ones((1, 1), np.float32),
    )
    high = Sample(
        str(tmp_path / "high.png"), np.zeros((0, 4), np.float32), np.zeros(0, np.int32),
        parts=np.zeros((0, 1, 4), np.float32), part_weights=np.zeros((0, 1), np.float32),
    )
    return Dataset([wide, high] * 2, ("person",), ("head",))


def test_a_page_shows_photos_fitted_with_their_boxes(photos):
    page = draw_page(photos)
    # Two by two places of 320 x 240 px; the wide photo is 320 x 120 in the middle of the first.
    assert page.size == (8 + 2 * 328, 8 + 2 * 268)
    assert page.getpixel((8 + 160, 8 + 30)) == (255, 255, 255)
    assert page.getpixel((8 + 250, 8 + 70)) == (0, 0, 0)
    assert page.getpixel((8 + 160, 8 + 120)) == PALETTE[0]  # right edge of the box
    assert page.getpixel((8 + 20, 8 + 120)) == PALETTE[0]  # left edge of the head
    assert page.getpixel((8 + 328 + 160, 8 + 5)) == (0, 0, 0)  # the small one is made larger
    assert page.getpixel((8 + 328 + 60, 8 + 120)) == (255, 255, 255)
    caption = np.asarray(page)[8 + 240 + 3 : 8 + 260, 8:328]
    assert caption.min() < 120
    assert draw_page(photos.subset([0])).size == (8 + 328, 8 + 268)


def test_pairs_stand_side_by_side(photos):
    assert draw_pairs([(photos[0].path, photos[1].path)]).size == (8 + 2 * 328, 8 + 268)
    assert draw_pairs([(photos[0].path, photos[1].path)] * 3).size == (8 + 4 * 328, 8 + 2 * 268)


def test_anchors_of_all_kinds_of_detectors():
    pairs = ((10, 20), (30, 5))
    np.testing.assert_array_equal(anchor_sides(pairs), [[10, 20], [30, 5]])
    boxes = default_boxes((2, 1), (16, 32), (8, 18, 32), ((4,), ()))
    expected = [[4, 16], [8, 8], [12, 12], [16, 4], [18, 18], [24, 24]]
    np.testing.assert_array_equal(anchor_sides(boxes), expected)
    np.testing.assert_array_equal(anchor_sides([boxes[:16], boxes[16:]]), expected)


def test_sizes_are_drawn_on_axes_that_double():
    sizes, anchors = np.array([[16.0, 64.0], [2, 2]]), np.array([[64, 16], [999, 4]])
    figure = draw_sizes(sizes, 256, stride=8, anchors=anchors)
    left, right = figure.axes
    dots, squares = [line.get_xydata().tolist() for line in left.lines]
    assert dots == [[16, 64], [2, 2]]
    assert squares == [[64, 16], [256, 4]]  # the square ends at 256
    assert left.get_xscale() == left.get_yscale() == "log" and left.get_xlim() == (2, 256)
    # Less than a cell wide, or high: from the axes' beginning to 8 px.
    wide, high = left.patches
    assert (wide.get_x(), wide.get_width(), high.get_y(), high.get_height()) == (2, 6, 2, 6)
    filled = [(bar.get_x(), bar.get_height()) for bar in right.patches if bar.get_height()]
    # A quarter as wide as high; a square.
    np.testing.assert_allclose(filled, [(0.25, 1), (1, 1)])
    assert right.lines[0].get_xdata().tolist() == [4, 8]  # the last bin holds all beyond


def test_sizes_of_nothing_and_without_a_detector():
    figure = draw_sizes(np.zeros((0, 2)), 256)
    figure.savefig(io.BytesIO())
    assert figure.axes[0].get_title().startswith("0 boxes") and not figure.axes[0].patches


def test_bars_of_classes_are_as_long_as_they_have_objects():
    counts = {"a": {"train": (5, 1), "val": (0, 0)}, "b": {"train": (10, 2), "val": (1, 1)}}
    axes = draw_classes(counts).axes[0]
    # The class with most objects comes first.
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"] and axes.yaxis_inverted()
    train, val = axes.containers
    assert [bar.get_width() for bar in train] == [10, 5] and [bar.get_width() for bar in val] == [1, 0]
    assert train[0].get_facecolor() != val[0].get_facecolor()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "val"]
