"""The greedy matching and the overlaps it works on, by hand."""

import numpy as np
import pytest

from kerasdet.metrics.matching import match, overlaps

NONE = np.array([False, False])


def test_overlap_is_over_the_union_or_over_the_box_itself():
    boxes = [[0, 0, 10, 10], [100, 100, 110, 110]]
    objects = [[5, 0, 15, 10], [5, 0, 15, 10]]
    np.testing.assert_allclose(
        overlaps(boxes, objects, np.array([False, True])), [[50 / 150, 0.5], [0, 0]]
    )


def test_boxes_without_area_overlap_nothing():
    assert (overlaps([[5, 5, 5, 5]], [[0, 0, 10, 10], [5, 5, 5, 5]], NONE) == 0).all()


def test_better_scores_choose_first_and_the_rest_take_what_is_left():
    overlap = np.array([[0.9, 0.6], [0.8, 0.55]])
    matched = match(overlap, NONE, NONE, [0.5, 0.6])
    np.testing.assert_array_equal(matched, [[0, 1], [0, -1]])


def test_a_threshold_is_met_by_an_equal_overlap():
    assert match(np.array([[0.5]]), NONE[:1], NONE[:1], [0.5])[0, 0] == 0
    assert match(np.array([[1.0]]), NONE[:1], NONE[:1], [1.0])[0, 0] == 0


def test_ignored_objects_come_last_however_well_they_overlap():
    overlap = np.array([[0.95, 0.55], [0.9, 0.1]])
    ignored = np.array([True, False])
    np.testing.assert_array_equal(match(overlap, ignored, NONE, [0.5]), [[1, 0]])


@pytest.mark.parametrize(("crowd", "last"), [(True, 0), (False, -1)])
def test_only_crowds_are_taken_more_than_once(crowd, last):
    matched = match(np.array([[0.9], [0.8]]), np.array([True]), np.array([crowd]), [0.5])
    np.testing.assert_array_equal(matched, [[0, last]])


def test_no_detections_or_no_objects():
    assert match(np.zeros((0, 2)), NONE, NONE, [0.5]).shape == (1, 0)
    np.testing.assert_array_equal(match(np.zeros((2, 0)), NONE[:0], NONE[:0], [0.5]), [[-1, -1]])


def test_of_equal_overlaps_the_later_object_is_taken_as_in_pycocotools():
    overlap = np.array([[0.8, 0.8], [0.0, 0.8]])
    np.testing.assert_array_equal(match(overlap, NONE, NONE, [0.5]), [[1, -1]])
