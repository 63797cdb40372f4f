"""Detections: what may be in one, what comes out of it, and how it draws."""

import json

import numpy as np
import pytest
from PIL import Image

from kerasdet import outlines
from kerasdet.detections import Detections

CLASSES = ("person", "dog")


def some(**changes):
    fields = {
        "boxes": [[10, 20, 50, 100], [60, 40, 90, 70], [0, 0, 30, 30]],
        "scores": [0.9, 0.6, 0.2],
        "labels": [0, 1, 0],
        "classes": CLASSES,
        "parts": {"head": [[20, 20, 40, 40], [60, 40, 70, 50], [5, 5, 10, 10]]},
        "path": "a/street.jpg",
    }
    return Detections(**(fields | changes))


def test_arrays_have_fixed_types_and_names_follow_labels():
    found = some()
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (
        np.float32,
        np.float32,
        np.int32,
    )
    assert found.parts["head"].dtype == np.float32
    assert found.names == ["person", "dog", "person"]
    assert len(found) == 3


def test_rows_are_sorted_by_score_all_together():
    found = some(scores=[0.2, 0.9, 0.6])
    np.testing.assert_allclose(found.scores, [0.9, 0.6, 0.2])
    np.testing.assert_array_equal(found.boxes[0], [60, 40, 90, 70])
    np.testing.assert_array_equal(found.parts["head"][1], [5, 5, 10, 10])
    assert found.names == ["dog", "person", "person"]


def test_outlines_are_sorted_with_their_boxes():
    left, right = np.zeros((2, 4, 6), np.uint8)
    left[:, :2], right[:, 4:] = 1, 1
    masks = tuple(map(outlines.encode, (left, right)))
    found = some(boxes=[[0, 0, 2, 4], [4, 0, 6, 4]], scores=[0.2, 0.9], labels=[0, 1], parts={}, masks=masks)
    np.testing.assert_array_equal(found.mask(0), right)
    np.testing.assert_array_equal(found.mask(1), left)
    np.testing.assert_array_equal(found.above(0.5).mask(0), right)


def test_above_keeps_scores_at_least_that_high_and_leaves_the_original():
    found = some()
    kept = found.above(0.6)  # .6 is not exact in float32: the comparison must not lose it
    np.testing.assert_allclose(kept.scores, [0.9, 0.6])
    assert kept.parts["head"].shape == (2, 4)
    assert kept.path == found.path
    assert len(found) == 3


def test_nothing_found():
    found = Detections([], [], [], CLASSES)
    assert found.boxes.shape == (0, 4)
    assert found.names == [] and found.to_coco(1) == []
    assert len(found.above(0.5)) == 0
    assert "nothing found" in repr(found)


def test_repr_says_what_and_where():
    assert repr(some()) == "<Detections on street.jpg: 2 person, 1 dog, best score 0.90>"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [0.9, 0.6]}, r"scores has shape \(2,\)"),
        ({"boxes": np.zeros((3, 5))}, r"boxes has shape \(3, 5\)"),
        ({"parts": {"head": np.zeros((2, 4))}}, r"parts\['head'\] has shape \(2, 4\)"),
        ({"labels": [0, 2, 0]}, "label 2 has no name among 2 classes"),
        ({"labels": [0, -1, 0]}, "label -1 has no name"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        some(**changes)


def test_to_coco_is_plain_json():
    rows = json.loads(json.dumps(some().to_coco(7)))
    assert rows[1]["bbox"] == [60, 40, 30, 30]
    assert rows[1]["category_id"] == 2 and rows[1]["image_id"] == 7
    assert rows[1]["score"] == pytest.approx(0.6)


# === Drawing ===


def test_draw_marks_the_boxes_and_leaves_the_photo_alone():
    photo = np.full((120, 160, 3), 90, np.uint8)
    found = some(photo=photo)
    picture = found.draw()
    assert isinstance(picture, Image.Image) and picture.size == (160, 120)
    assert (photo == 90).all()
    drawn = np.asarray(picture)
    assert (drawn[60, 10] != 90).any()  # left side of the first box
    assert (drawn[35, 20] != 90).any()  # left side of its head
    assert (drawn[70, 30] == 90).all()  # middle of the first box
    assert (drawn[110, 150] == 90).all()  # far from everything


def test_draw_gives_classes_their_own_colours():
    photo = np.full((200, 200, 3), 90, np.uint8)
    boxes = [[10, 50, 60, 190], [80, 50, 120, 190], [140, 50, 190, 190]]
    drawn = Detections(boxes, [0.9, 0.8, 0.7], [0, 1, 0], CLASSES, photo=photo).draw()
    first, second, third = (drawn.getpixel((x, 150)) for x in (10, 80, 140))
    assert first == third != second


def test_draw_copes_with_boxes_beyond_the_border_and_without_area():
    photo = np.zeros((40, 30, 3), np.uint8)
    boxes = [[-50, -50, 500, 500], [10, 10, 10, 10], [28, 38, 30, 40]]
    assert Detections(boxes, [0.9, 0.8, 0.7], [0, 0, 0], CLASSES, photo=photo).draw().size == (
        30,
        40,
    )


def test_draw_reads_the_photo_from_its_path(tmp_path):
    path = tmp_path / "grey.png"
    Image.new("RGB", (64, 48), (90, 90, 90)).save(path)
    assert some(path=str(path)).draw().size == (64, 48)


def test_draw_without_a_photo_says_what_to_do():
    with pytest.raises(ValueError, match="keep_photo=True"):
        some(path=None).draw()


def test_outlines_on_a_photo_as_long_as_any():
    mask = np.zeros((3, 32_000), np.uint8)
    mask[1, 31_000:] = 1
    found = Detections([[31_000, 1, 32_000, 2]], [0.9], [0], CLASSES, masks=(outlines.encode(mask),))
    np.testing.assert_array_equal(found.mask(0), mask.astype(bool))
    with pytest.raises(ValueError, match="each side is 1 to 8192"):
        outlines.decode(found.masks[0])  # as a stranger's file may promise anything
