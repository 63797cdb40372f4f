"""Assigners against worked examples and against plain loops."""

import numpy as np
import pytest
from keras import ops

from kerasdet.boxes import assign


def match(boxes, anchors, labels=None, **options):
    boxes, anchors = np.array([boxes], np.float32), np.array(anchors, np.float32)
    labels = np.array([labels or [0] * boxes.shape[1]], np.int32)
    return ops.convert_to_numpy(assign.match(boxes, labels, anchors, **options))[0].tolist()


# === Matching ===

ROW = [[0, 0, 10, 10], [10, 0, 20, 10], [20, 0, 30, 10], [30, 0, 40, 10]]


def test_the_best_anchor_and_all_above_the_threshold():
    # IoU with ROW[0]: 80 / 120; with ROW[1]: 20 / 180.
    assert match([[2, 0, 12, 10]], ROW) == [0, -1, -1, -1]
    # 40 / 160 with the third and 60 / 140 with the second: under the threshold, and yet the best one.
    assert match([[14, 0, 24, 10]], ROW) == [-1, 0, -1, -1]
    # 100 / 150 with the first two each: both learn it.
    assert match([[0, 0, 15, 10]], [[0, 0, 10, 10], [5, 0, 15, 10], [30, 0, 40, 10]]) == [0, 0, -1]


def test_an_anchor_between_two_objects_learns_the_nearer_one():
    # The second anchor overlaps the first object by 8 / 12 and the second by 6 / 14 ...
    anchors = [[0, 0, 10, 10], [2, 0, 12, 10], [6, 0, 16, 10]]
    assert match([[0, 0, 10, 10], [6, 0, 16, 10]], anchors) == [0, 0, 1]


def test_an_object_without_room_takes_the_next_best_anchor():
    # Both want the first anchor; the exact one has it. The other's second best overlaps it by 1 / 19.
    assert match([[1, 0, 11, 10], [0, 0, 10, 10]], ROW) == [1, 0, -1, -1]
    # The one that is turned away turns a third one away, which has less right to the second anchor.
    objects = [[0, 0, 10, 10], [1, 0, 11, 10], [10.9, 0, 10.95, 10]]
    assert match(objects, ROW) == [0, 1, -1, -1]


def test_padding_and_objects_off_every_anchor_claim_nothing():
    assert match([[0, 0, 10, 10], [20, 0, 30, 10]], ROW, labels=[-1, 3]) == [-1, -1, 1, -1]
    assert match([[0, 50, 10, 60]], ROW) == [-1, -1, -1, -1]
    assert match([[0, 0, 0, 0]] * 3, ROW, labels=[-1, -1, -1]) == [-1, -1, -1, -1]


def test_equal_overlaps_are_settled_by_order():
    assert match([[0, 0, 10, 10], [0, 0, 10, 10]], [[0, 0, 10, 10], [0, 0, 10, 9]]) == [0, 1]


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.mark.parametrize("objects", [8, 38])
@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_taking_pair_by_pair(seed, objects):
    """SSD's matching, one pair after the other, on random boxes; a crowd has hardly an anchor for each."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (2, 40, 2))
    boxes, anchors = (np.concatenate([x, x + rng.uniform(8, 40, (40, 2))], -1) for x in low)
    boxes = boxes[:objects]
    overlap = np.array([[iou(a, b) for b in anchors] for a in boxes])
    expected = np.where(overlap.max(0) >= 0.5, overlap.argmax(0), -1)
    left = overlap.copy()
    while left.max() > 0:
        row, column = np.unravel_index(left.argmax(), left.shape)
        expected[column] = row
        left[row], left[:, column] = 0, 0
    assert match(boxes, anchors) == expected.tolist()


def test_photos_of_a_batch_do_not_touch_each_other():
    boxes = np.array([[[0, 0, 10, 10]], [[20, 0, 30, 10]]], np.float32)
    found = assign.match(boxes, np.zeros((2, 1), np.int32), np.array(ROW, np.float32))
    assert ops.convert_to_numpy(found).tolist() == [[0, -1, -1, -1], [-1, -1, 0, -1]]


# === Hard negatives ===


def hard(loss, negative, count):
    found = assign.highest(
        np.array(loss, np.float32), np.array(negative, bool), np.array(count, np.int32)
    )
    return ops.convert_to_numpy(found).tolist()


def test_the_worst_negatives_of_each_photo():
    loss = [[0.1, 0.9, 0.5, 0.7], [0.4, 0.3, 0.2, 0.1]]
    negative = [[True, False, True, True], [True, True, True, False]]
    assert hard(loss, negative, [2, 1]) == [[0, 0, 1, 1], [1, 0, 0, 0]]


def test_more_than_there_are_and_none():
    assert hard([[0.1, 0.9]] * 2, [[True, False]] * 2, [5, 0]) == [[1, 0], [0, 0]]


def test_exactly_so_many_of_equal_losses():
    assert hard([[0.5] * 6], [[True] * 6], [4]) == [[1, 1, 1, 1, 0, 0]]
    assert hard([[0.0] * 4], [[False, True, True, True]], [2]) == [[0, 1, 1, 0]]


# === By overlap ===


def overlapping(boxes, places, labels=None, **options):
    boxes = np.array([boxes], np.float32)
    labels = np.array([labels or [0] * boxes.shape[1]], np.int32)
    options = {"positive": 0.7, "negative": (0.0, 0.3)} | options
    owner, background = assign.by_overlap(boxes, labels, np.array(places, np.float32), **options)
    return ops.convert_to_numpy(owner)[0].tolist(), ops.convert_to_numpy(background)[0].tolist()


# IoU with [0, 0, 10, 10]: 1, .8, .6, .5, .2, 0.
PLACES = [[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 6], [0, 0, 10, 20], [0, 0, 10, 2], [50, 50, 60, 60]]


def test_objects_background_and_neither():
    owner, background = overlapping([[0, 0, 10, 10]], PLACES)
    assert owner == [0, 0, -1, -1, -1, -1]
    assert background == [False, False, False, False, True, True]


def test_the_lower_bound_of_background():
    """Fast R-CNN's: what hardly overlaps an object is no hard example."""
    _, background = overlapping([[0, 0, 10, 10]], PLACES, positive=0.7, negative=(0.1, 0.5))
    assert background == [False, False, False, False, True, False]


def test_the_best_place_learns_however_little_it_overlaps():
    objects, places = [[0, 0, 10, 10], [48, 48, 56, 56]], [*PLACES[2:], [53, 53, 63, 63]]
    assert overlapping(objects, places)[0] == [-1] * 5
    owner, background = overlapping(objects, places, best=True)
    # The first object's best overlaps it by .6; the second's two by 36 / 128 and 9 / 155.
    assert owner == [0, -1, -1, 1, -1]
    assert background == [False, False, True, False, True]
    # Of equal places both learn it; an object that overlaps none, and padding, have none.
    twice = [[0, 0, 10, 6], [0, 4, 10, 10], [30, 30, 40, 40]]
    objects = [[0, 0, 10, 10], [80, 80, 90, 90], [30, 30, 40, 36]]
    assert overlapping(objects, twice, [0, 0, -1], best=True)[0] == [0, 0, -1]


def test_a_place_that_is_the_best_of_one_object_learns_that_one():
    # It overlaps the first object more, by .8, which has a better one; it is the best of the second.
    objects, places = [[0, 0, 10, 10], [0, 7, 10, 12]], [[0, 0, 10, 10], [0, 2, 10, 10]]
    assert overlapping(objects, places, best=True)[0] == [0, 1]


def test_proposals_of_each_photo_are_places_of_its_own():
    boxes = np.array([[[0, 0, 10, 10]], [[20, 20, 30, 30]]], np.float32)
    places = np.array([[[0, 0, 10, 10], [20, 20, 30, 30]]] * 2, np.float32)
    owner, _ = assign.by_overlap(boxes, np.zeros((2, 1), np.int32), places, 0.5, (0.0, 0.5))
    assert ops.convert_to_numpy(owner).tolist() == [[0, -1], [-1, 0]]


# === Samples ===


def balanced(positives, negatives, count, share, seed=0):
    random = np.random.default_rng(seed).random((1, positives + negatives)).astype(np.float32)
    positive = np.arange(positives + negatives)[None] < positives
    chosen, other = assign.balanced(random, positive, ~positive, count, share)
    chosen, other = ops.convert_to_numpy(chosen)[0], ops.convert_to_numpy(other)[0]
    assert not chosen[positives:].any() and not other[:positives].any()
    return chosen, other


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"), [(2, 9, (2, 6)), (9, 9, (4, 4)), (9, 2, (4, 2)), (0, 20, (0, 8))]
)
def test_how_many_of_each(positives, negatives, expected):
    chosen, other = balanced(positives, negatives, 8, 0.5)
    assert (chosen.sum(), other.sum()) == expected


def test_a_share_of_less_than_one_place_has_no_positives():
    """Which is why `RegionDetector` refuses it."""
    chosen, other = balanced(9, 9, 3, 0.25)
    assert (chosen.sum(), other.sum()) == (0, 3)


def test_every_place_is_sampled_as_often():
    counts = sum(np.concatenate(balanced(10, 30, 16, 0.25, seed)) for seed in range(300))
    positives, negatives = counts[:10], counts[40 + 10 :]
    np.testing.assert_allclose(positives, 300 * 4 / 10, atol=45)
    np.testing.assert_allclose(negatives, 300 * 12 / 30, atol=45)


def test_a_sliver_has_its_best_places_alone():
    """However little it overlaps them: places that it does not touch are background."""
    places = np.array([[0, 0, 100, 100], [50, 0, 150, 100], [200, 0, 300, 100]], np.float32)
    boxes = np.array([[[60, 10, 60.01, 10.01]]], np.float32)
    owner, background = assign.by_overlap(
        boxes, np.zeros((1, 1), np.int32), places, 0.7, (0.0, 0.3), best=True
    )
    assert ops.convert_to_numpy(owner).tolist() == [[0, 0, -1]]
    assert ops.convert_to_numpy(background).tolist() == [[False, False, True]]


def test_mean_weight_of_what_is_learned():
    weight = np.array([[0.3, 0, 0.5], [0, 0, 0], [1, 0, 0]], np.float32)
    np.testing.assert_allclose(ops.convert_to_numpy(assign.mean_weight(weight)), [0.4, 1, 1], rtol=1e-6)
