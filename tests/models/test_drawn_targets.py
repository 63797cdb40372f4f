"""What detectors are taught on drawn scenes, where the right answer is visible."""

import numpy as np
from harness import SHAPES, batch_of, tiny_backbone
from keras import ops

from kerasdet.boxes import coders
from kerasdet.models.centernet import CenterNet
from kerasdet.models.csp import CSP
from kerasdet.models.ssd import SSD


def taught(detector, shapes, targets):
    """The batch's objects, and what `targets` (a method of the detector) makes of them."""
    _, given = batch_of(shapes, detector, 8)
    goal = getattr(detector, targets)(given)
    where = list(zip(*np.nonzero(given["labels"] >= 0), strict=True))
    assert len(where) > 10
    return given, {key: ops.convert_to_numpy(value) for key, value in goal.items()}, where


def iou(a, b):
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    shared = sides.prod()
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


def test_centernets_peaks_are_in_the_middle_of_each_shape(shapes):
    detector = CenterNet(SHAPES, backbone=tiny_backbone(), image_size=64, channels=8)
    given, goal, where = taught(detector, shapes, "paper_targets")
    for photo, row in where:
        box, label = given["boxes"][photo, row], given["labels"][photo, row]
        line, column = divmod(int(goal["cell"][photo, row]), 16)
        assert goal["heat"][photo, line, column, label] == goal["positive"][photo, line, column, label] == 1
        # Box and network meet in the cell: what is taught there is the box.
        y, x = np.array([line, column]) + goal["offset"][photo, row]
        high, wide = goal["size"][photo, row]
        found = 4 * np.array([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2])
        np.testing.assert_allclose(found, box, atol=1e-3)
    assert goal["positive"].sum() == len(where)
    # Beside the shapes nothing is near a peak.
    far = np.ones(goal["heat"].shape[:3], bool)
    for photo, row in where:
        x1, y1, x2, y2 = given["boxes"][photo, row] / 4
        far[photo, int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = False
    assert far.any() and goal["heat"][far].max() == 0


def test_csps_owners_teach_the_box_around_each_centre(shapes):
    detector = CSP(SHAPES, backbone=tiny_backbone(), image_size=64, channels=8)
    given, goal, where = taught(detector, shapes, "paper_targets")
    for photo, row in where:
        box, label = given["boxes"][photo, row] / 4, given["labels"][photo, row]
        (cell,) = np.argwhere(goal["centre_owner"][photo, row])
        middle = (box[:2] + box[2:])[::-1] / 2
        np.testing.assert_array_equal(cell, np.floor(middle))
        np.testing.assert_allclose(cell + 0.5 + goal["offset"][photo, row], middle, atol=1e-4)
        np.testing.assert_allclose(goal["size"][photo, row], (box[2:] - box[:2])[::-1], atol=1e-4)
        assert goal["positive"][photo, cell[0], cell[1], label] == 1
    assert goal["positive"].sum() == goal["centre_owner"].sum() == len(where)


def test_ssds_default_boxes_learn_the_shape_that_they_lie_on(shapes):
    detector = SSD(SHAPES, backbone=tiny_backbone(), image_size=64, anchor_sizes=(0.2, 0.35, 0.5))
    given, goal, where = taught(detector, shapes, "targets")
    learned = set()
    for photo, number in zip(*np.nonzero(goal["positive"]), strict=True):
        deltas = ops.convert_to_tensor(goal["deltas"][photo, number][None])
        anchor = detector.anchors[number]
        found = ops.convert_to_numpy(coders.decode(deltas, ops.convert_to_tensor(anchor[None])))[0]
        rows = [row for other, row in where if other == photo]
        row = min(rows, key=lambda each: np.abs(given["boxes"][photo, each] - found).max())
        box = given["boxes"][photo, row]
        np.testing.assert_allclose(found, box, atol=1e-3)
        assert goal["label"][photo, number] == given["labels"][photo, row]
        best = max(iou(each, box) for each in detector.anchors)
        assert iou(anchor, box) >= min(0.5, best) - 1e-5
        learned.add((photo, row))
    assert learned == set(where), "each shape is learned by one default box at least"
    assert not (goal["positive"] & goal["negative"]).any()
