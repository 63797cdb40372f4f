"""Sizes of a set's boxes in the square, and the picture of them."""

import numpy as np
from PIL import Image

from kerasdet.data.anchors import box_sizes, draw_anchors
from kerasdet.data.dataset import Dataset
from kerasdet.data.sample import Sample
from kerasdet.drawing import PALETTE


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
    sizes = np.array([[80.0, 40.0]])
    image = draw_anchors(sizes, np.array([[160.0, 240.0]]), np.array([0]), 320)
    # 480 px stand for 320; the origin of sizes is (48, 528), the middle of the anchors (816, 288).
    dot = image.getpixel((48 + 120, 528 - 60))
    assert dot != (255, 255, 255) and dot[0] > dot[1]
    assert image.getpixel((48 + 240, 528 - 360)) == PALETTE[0]
    assert image.getpixel((816 - 120 + 1, 288)) == PALETTE[0]
    assert image.getpixel((816, 288 - 180 + 1)) == PALETTE[0]
