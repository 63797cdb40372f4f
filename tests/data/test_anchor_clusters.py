"""Sizes of a set's boxes in the square, and the picture of them."""

import numpy as np
from PIL import Image

from kerasdet.data.anchors import box_sizes
from kerasdet.data.charts import draw_anchors
from kerasdet.data.dataset import Dataset
from kerasdet.data.sample import Sample


def some(path, *boxes, **fields):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Sample(str(path), boxes, np.zeros(len(boxes), np.int32), **fields)


def test_sizes_by_hand_with_and_without_the_photos_size(tmp_path):
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    data = Dataset(
        [
            some(tmp_path / "a.png", [0, 0, 50, 50], [10, 10, 10, 40]),
            some("not_read.png", [5, 0, 15, 30], width=50, height=300),
            some("not_read_either.png"),
        ],
        ("a",),
    )
    np.testing.assert_allclose(box_sizes(data, 64), [[16, 32], [12.8, 6.4]], rtol=1e-6)
    np.testing.assert_allclose(
        box_sizes(data, 64, "letterbox"), [[16, 16], [10 * 64 / 300, 6.4]], rtol=1e-6
    )
    assert box_sizes(data.subset([2]), 64).shape == (0, 2)


def test_dots_and_anchors_are_drawn_where_they_belong():
    sizes = np.array([[80.0, 40.0], [10, 20]])
    figure = draw_anchors(sizes, np.array([[160.0, 240.0], [8, 8]]), np.array([0, 1]), 320)
    left, right = figure.axes
    dots, anchor, others, _ = [line.get_xydata().tolist() for line in left.lines]
    assert (dots, anchor, others) == ([[80, 40]], [[160, 240]], [[10, 20]])
    first, second = right.patches
    # Around the middle of the square, (160, 160).
    assert first.get_bbox().extents.tolist() == [80, 40, 240, 280]
    assert second.get_bbox().extents.tolist() == [156, 156, 164, 164]
    assert left.lines[0].get_color() == left.lines[1].get_color() == first.get_edgecolor()[:3]
    assert left.get_xlim() == right.get_ylim() == (0, 320)
