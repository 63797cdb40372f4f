"""Augmentation moves boxes as it moves pixels, and drops what it has to."""

import dataclasses

import numpy as np
import pytest

from kerasdet import photo
from kerasdet.data.augment import Augment, place
from kerasdet.data.sample import Sample

SIZE = 96


def sample_of(*boxes, labels=None, ignore=(), parts=None, part_weights=None):
    n = len(boxes)
    extra = {}
    if parts is not None:
        extra["parts"] = np.array(parts, np.float32)
        extra["part_weights"] = np.array(part_weights, np.float32)
    return Sample(
        "none.jpg", np.array(boxes, np.float32).reshape(n, 4),
        np.array(labels or [0] * n, np.int32), np.array(ignore, np.float32).reshape(-1, 4), **extra,
    )


def matrices(augment, sample, shape, count, seed=0):
    base = photo.square_matrix(*shape, SIZE)
    rng = np.random.default_rng(seed)
    return [augment.matrix(sample, base, SIZE, rng) for _ in range(count)]


@pytest.mark.parametrize("shape", [(80, 120), (200, 90)])
def test_pixels_and_boxes_move_together(shape):
    """A white rectangle, warped at random: its bright pixels are bounded by the moved box."""
    height, width = shape
    box = [0.3 * width, 0.4 * height, 0.6 * width, 0.9 * height]
    box = [int(side) for side in box]
    image = np.zeros((*shape, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    sample = sample_of(box)
    flipped = seen = 0
    for matrix in matrices(Augment(), sample, shape, 60):
        boxes, *_ = place(sample, matrix, SIZE, Augment.none())
        square = photo.warp(image, matrix, SIZE)
        # Beyond the photo's border lies mean colour, about 116: brighter than half is the rectangle.
        rows, columns = np.nonzero(square.min(-1) > 127)
        assert len(boxes) == 1
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(boxes[0], edges, atol=1.0)
        flipped += matrix[0, 0] < 0
        seen += 1
    assert seen == 60 and 15 < flipped < 45


def test_the_warp_stays_within_its_bounds():
    sample = sample_of([10, 10, 40, 70])
    augment = Augment(zoom=(0.5, 2.0), aspect=1.5, flip=0.5)
    base = photo.square_matrix(80, 120, SIZE)
    seen = []
    for matrix in matrices(augment, sample, (80, 120), 300):
        x, y = abs(matrix[0, 0]) / base[0, 0], matrix[1, 1] / base[1, 1]
        assert 0.5 - 1e-6 <= np.sqrt(x * y) <= 2 + 1e-6
        assert 1 / 1.5 - 1e-6 <= x / y <= 1.5 + 1e-6
        left, top, right, bottom = photo.transform_boxes(np.array([[0, 0, 120, 80]]), matrix)[0]
        # Larger than the square: no border inside it. Smaller: the whole photo inside it.
        for low, high in ((left, right), (top, bottom)):
            if high - low > SIZE:
                assert low <= 1e-3 and high >= SIZE - 1e-3
            else:
                assert low >= -1e-3 and high <= SIZE + 1e-3
        seen.append(np.sqrt(x * y))
    assert min(seen) < 0.6 and max(seen) > 1.7


@pytest.mark.parametrize(
    ("box", "low", "high"), [([2, 2, 8, 8], 0, 1), ([57, 37, 63, 43], 0.25, 0.75)], ids=["corner", "middle"]
)
def test_half_of_the_crops_are_drawn_around_an_object(box, low, high):
    """By chance alone, a sixteenth of the photo seldom has its corner, or its middle near the centre."""
    sample = sample_of(box)
    crops = matrices(Augment(zoom=(4, 4)), sample, (80, 120), 300)
    boxes = np.concatenate([photo.transform_boxes(sample.boxes, matrix) for matrix in crops])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / SIZE
    assert 0.4 < ((centres >= low) & (centres <= high)).all(-1).mean() < 0.6


def test_none_changes_nothing():
    augment = Augment.none()
    sample = sample_of([10, 10, 40, 70])
    base = photo.square_matrix(80, 120, SIZE)
    np.testing.assert_allclose(matrices(augment, sample, (80, 120), 1)[0], base, atol=1e-9)
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(augment.light(image, np.random.default_rng(0)), image)


def test_light_changes_values_within_bounds():
    image = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    rng = np.random.default_rng(0)
    grey = dataclasses.replace(Augment.none(), saturation=1.0)
    bright = dataclasses.replace(Augment.none(), brightness=0.1)
    for _ in range(20):
        changed = grey.light(image, rng).astype(int)
        assert changed.shape == (8, 8, 3)
        # The brightness of a grey copy stays, up to clipping; the order of the channels as well.
        assert (np.diff(changed[0, 0]) <= 1).all()
        assert np.abs(bright.light(image, rng).astype(int) - image).max() <= 26
    assert Augment().light(image, rng).dtype == np.uint8


def test_light_goes_as_far_as_its_bounds_either_way():
    def lit(**options):
        image, rng = np.full((1, 1, 3), (200, 100, 50), np.uint8), np.random.default_rng(0)
        augment = plain(**options)
        return np.array([augment.light(image, rng)[0, 0] for _ in range(200)]).astype(int)

    moved = lit(brightness=0.1) - [200, 100, 50]  # all three alike, by 25.5 at most
    assert np.ptp(moved, axis=1).max() <= 1 and moved.min() < -20 and moved.max() > 20
    blue = lit(contrast=0.4)[:, 2]  # 128 - 78 * (.6 to 1.4)
    assert 15 < blue.min() < 30 and 70 < blue.max() < 83
    red = lit(saturation=0.5)[:, 0]  # 124 of grey, and 76 * (.5 to 1.5)
    assert 158 < red.min() < 175 and 225 < red.max() < 241


def test_place_by_hand():
    """Half size, moved 30 px to the left: what happens to each of four boxes."""
    matrix = np.array([[0.5, 0, -30], [0, 0.5, 0]])
    sample = sample_of(
        [80, 20, 120, 60],  # inside: 10..30 x 10..30
        [20, 20, 90, 60],  # -20..15: 15 of 35 columns are left, less than half
        [0, 0, 40, 40],  # gone
        [100, 100, 106, 140],  # 3 px wide, less than min_side
        labels=[3, 2, 1, 0], ignore=[[0, 0, 100, 20], [0, 0, 20, 20]],
    )
    augment = dataclasses.replace(Augment.none(), min_visible=0.5, min_side=4.0)
    boxes, labels, ignore, parts, weights, _ = place(sample, matrix, SIZE, augment)
    np.testing.assert_allclose(boxes, [[10, 10, 30, 30]])
    assert labels.tolist() == [3]
    np.testing.assert_allclose(ignore, [[0, 0, 20, 10], [0, 10, 15, 30], [20, 50, 23, 70]])
    assert boxes.dtype == np.float32 and ignore.dtype == np.float32


def test_parts_follow_their_object_and_count_while_they_are_seen():
    matrix = np.array([[-1.0, 0, 96], [0, 1, -20]])  # mirrored, moved up
    sample = sample_of(
        [10, 20, 50, 90], [60, 10, 90, 80],
        parts=[[[20, 22, 40, 40], [10, 80, 50, 90]], [[70, 12, 80, 24], [0, 0, 0, 0]]],
        part_weights=[[1, 1], [1, 0]],
    )
    boxes, _, _, parts, weights, _ = place(sample, matrix, SIZE, Augment.none())
    np.testing.assert_allclose(boxes, [[46, 0, 86, 70], [6, 0, 36, 60]])
    np.testing.assert_allclose(parts[0], [[56, 2, 76, 20], [46, 60, 86, 70]])
    np.testing.assert_allclose(parts[1, 0], [16, 0, 26, 4])
    # A third of the second one's head is left: it teaches nothing.
    np.testing.assert_array_equal(weights, [[1, 1], [0, 0]])


def test_photos_without_objects_or_parts():
    empty = place(sample_of(), np.eye(2, 3), SIZE, Augment())
    assert [value.shape for value in empty[:3]] == [(0, 4), (0,), (0, 4)]
    boxes, *_ = place(sample_of([1, 1, 30, 30]), np.eye(2, 3), SIZE, Augment())
    assert boxes.shape == (1, 4)


# === SSD's crops ===


def plain(**options):
    return dataclasses.replace(Augment.none(), **options)


def scripted(monkeypatch, *parts):
    """The next parts that are drawn from a window, as fractions of it."""
    left = list(parts)

    def part(window, rng):
        x1, y1, x2, y2 = left.pop(0)
        width, height = window[2:] - window[:2]
        return np.array([x1 * width, y1 * height, x2 * width, y2 * height]) + np.tile(window[:2], 2)

    monkeypatch.setattr("kerasdet.data.augment._part", part)
    return left


def test_a_part_is_taken_that_overlaps_an_object_enough(monkeypatch):
    boxes = np.array([[0, 0, 48, 48], [70, 70, 80, 80]], np.float32)
    parts = [
        (0.6, 0, 1, 0.5),  # holds no centre
        (0, 0, 1, 1),  # IoU .25 with the larger box
        (0, 0, 0.75, 0.6),  # holds all of it: 48 * 48 of 72 * 57.6, .556
    ]
    for overlap, number in ((0.1, 1), (0.3, 2), (0.5, 2)):
        scripted(monkeypatch, *parts)
        found = plain(overlaps=(overlap,)).window(boxes, SIZE, np.random.default_rng(0))
        np.testing.assert_allclose(found, np.array(parts[number]) * SIZE, err_msg=str(overlap))
    # None of fifty is good enough: the whole picture.
    left = scripted(monkeypatch, *parts * 20)
    found = plain(overlaps=(0.9,)).window(boxes, SIZE, np.random.default_rng(0))
    np.testing.assert_allclose(found, [0, 0, SIZE, SIZE])
    assert len(left) == 60 - 50


def test_any_part_or_the_whole_picture(monkeypatch):
    boxes = np.array([[80, 80, 90, 90]], np.float32)
    left = scripted(monkeypatch, (0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1), (0, 0, 0.5, 0.5))
    rng = np.random.default_rng(0)
    # Any, but with the object's centre.
    np.testing.assert_allclose(plain(overlaps=(0.0,)).window(boxes, SIZE, rng), [48, 48, 96, 96])
    assert len(left) == 1
    np.testing.assert_allclose(plain(overlaps=(1.0,)).window(boxes, SIZE, rng), [0, 0, 96, 96])
    assert len(left) == 1
    # Without objects every part will do, but no overlap can be asked for.
    none = np.zeros((0, 4), np.float32)
    np.testing.assert_allclose(plain(overlaps=(0.5,)).window(none, SIZE, rng), [0, 0, 96, 96])
    np.testing.assert_allclose(plain(overlaps=(0.0,)).window(none, SIZE, rng), [0, 0, 48, 48])


def test_the_part_fills_the_square(monkeypatch):
    """A crop by hand: the left half of the upper two thirds of the square, from a photo of 80 x 120."""
    scripted(monkeypatch, (0, 0, 0.5, 2 / 3))
    sample = sample_of([12, 8, 36, 40])
    augment = plain(overlaps=(0.1,))
    (matrix,) = matrices(augment, sample, (80, 120), 1)
    # Across: 96 / 120, twice as large; down: 96 / 80, 1.5 times as large.
    np.testing.assert_allclose(matrix, [[1.6, 0, 0], [0, 1.8, 0]], atol=1e-9)
    boxes, *_ = place(sample, matrix, SIZE, augment)
    np.testing.assert_allclose(boxes, [[19.2, 14.4, 57.6, 72]], rtol=1e-5)


def test_expansion_shrinks_the_photo_within_the_square():
    sample = sample_of([12, 8, 36, 40])
    scales = []
    for matrix in matrices(plain(expand=4.0), sample, (80, 120), 300):
        left, top, right, bottom = photo.transform_boxes(np.array([[0, 0, 120, 80]]), matrix)[0]
        assert min(left, top) >= -1e-3 and max(right, bottom) <= SIZE + 1e-3
        assert right - left == pytest.approx(bottom - top)
        scales.append((right - left) / SIZE)
    scales = np.array(scales)
    assert 0.4 < (scales == 1).mean() < 0.6 and 0.25 <= scales.min() < 0.27


def test_parts_have_the_published_sides_and_aspects():
    rng = np.random.default_rng(0)
    augment = plain(overlaps=(0.0,))
    none = np.zeros((0, 4), np.float32)
    windows = np.array([augment.window(none, SIZE, rng) for _ in range(500)]) / SIZE
    sides = windows[:, 2:] - windows[:, :2]
    assert windows.min() >= 0 and windows.max() <= 1 + 1e-9
    scale, aspect = np.sqrt(sides.prod(-1)), sides[:, 0] / sides[:, 1]
    assert 0.3 <= scale.min() < 0.32 and 0.98 < scale.max() <= 1
    assert 0.5 - 1e-9 <= aspect.min() < 0.6 and 1.7 < aspect.max() <= 2 + 1e-9


def test_ssd_moves_pixels_and_boxes_together():
    box = [40, 30, 72, 66]
    image = np.zeros((80, 120, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    sample = sample_of(box)
    augment = dataclasses.replace(Augment.ssd(), min_side=0.0)
    for matrix in matrices(augment, sample, (80, 120), 60):
        boxes, *_ = place(sample, matrix, SIZE, augment)
        assert len(boxes) == 1  # its centre is always in the picture
        rows, columns = np.nonzero(photo.warp(image, matrix, SIZE).min(-1) > 127)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(boxes[0], edges, atol=1.5)


def test_ssds_own_augmentation():
    """As in the authors' caffe: brightness by 32 of 255, contrast and saturation by half, hue by 36 degrees
    (18 of OpenCV's 180), four times as wide a canvas, and crops that overlap by one of their figures."""
    found = Augment.ssd()
    assert found.brightness == pytest.approx(32 / 255, abs=0.001)
    assert (found.contrast, found.saturation, found.hue, found.expand) == (0.5, 0.5, 36, 4)
    # 0 is any crop, 1 the whole photo.
    assert found.overlaps == (0, 0.1, 0.3, 0.5, 0.7, 0.9, 1)
    assert (found.zoom, found.aspect, found.flip, found.by_centre) == ((1, 1), 1, 0.5, True)


def test_objects_stay_by_their_centre():
    matrix = np.array([[1.0, 0, -20], [0, 1, 0]])
    # Centres at -1, 1 and 95.5 px: of the second and third about half is left.
    sample = sample_of([0, 0, 38, 10], [0, 20, 42, 30], [100, 40, 131, 50], labels=[0, 1, 2])
    boxes, labels, ignore, *_ = place(sample, matrix, SIZE, plain(by_centre=True, min_visible=0.9))
    assert labels.tolist() == [1, 2]
    np.testing.assert_allclose(boxes, [[0, 20, 22, 30], [80, 40, 96, 50]])
    np.testing.assert_allclose(ignore, [[0, 0, 18, 10]])


def test_hue_turns_colours_and_leaves_grey():
    rng = np.random.default_rng(0)
    augment = plain(hue=36.0)
    grey = np.full((4, 4, 3), 90, np.uint8)
    np.testing.assert_array_equal(augment.light(grey, rng), grey)
    red = np.full((1, 1, 3), (200, 0, 0), np.uint8)
    seen = {tuple(augment.light(red, rng)[0, 0].tolist()) for _ in range(200)}
    # Up to 36 degrees either way: green or blue rises to 200 * 36 / 60, never both.
    assert all(r == 200 and min(g, b) == 0 and max(g, b) <= 121 for r, g, b in seen)
    assert max(g for _, g, _ in seen) > 100 and max(b for _, _, b in seen) > 100


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"zoom": 1.5}, "zoom is 1.5; give the lowest"), ({"zoom": (1.5, 0.5)}, "zoom is"),
        ({"zoom": (0, 1.5)}, "zoom is"), ({"aspect": 0}, "aspect is 0; give a factor"),
        ({"overlaps": 0.5}, "overlaps is 0.5; give a tuple"), ({"overlaps": (2,)}, "overlaps is"),
        ({"flip": 5}, "flip is 5; give a probability"), ({"min_visible": 2}, "min_visible is 2; give"),
        ({"brightness": -3}, "brightness is -3; give a fraction, 0"), ({"expand": 0.5}, "expand is 0.5"),
        ({"hue": float("nan")}, "hue is nan; give degrees"),
    ],
)
def test_options_that_make_no_sense_are_named(options, told):
    with pytest.raises(ValueError, match=told):
        Augment(**options)
