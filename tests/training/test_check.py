"""The overfit check, and what it says where something is planted that cannot be learned."""

import dataclasses

import keras
import numpy as np
import pytest
from harness import tiny_backbone
from presets import tiny_csp

from kerasdet.data import Dataset, Sample
from kerasdet.detections import Detections
from kerasdet.metrics import coco_metrics
from kerasdet.models.csp import CSP
from kerasdet.training.check import _of_boxes, _of_training, overfit, some_photos


@pytest.mark.slow
def test_a_sound_detector_learns_its_photos_by_heart(shapes):
    keras.utils.set_random_seed(1)
    detector = CSP(
        shapes.classes, backbone=tiny_backbone(), image_size=64, stride=8, target="dense", channels=32
    )
    seen = []
    found = overfit(detector, shapes, photos=4, rate=5e-3, steps=300, report=lambda *row: seen.append(row))
    assert found.passed and found.metrics["AP"] >= 0.95 and found.reasons == []
    assert seen[-1][0] == found.steps and len(seen) == len(found.losses)


@pytest.mark.usefixtures("untraced")
def test_a_rate_that_is_far_too_low_is_told(scenes, monkeypatch):
    from kerasdet.training import check

    monkeypatch.setattr(check, "EVERY", 1)
    found = overfit(tiny_csp(), scenes, photos=2, rate=1e-9, steps=2)
    assert not found.passed and found.steps == 2
    assert any("the loss only fell" in reason and "a higher rate" in reason for reason in found.reasons)


def test_photos_are_taken_so_that_all_classes_are_there(shapes):
    few = some_photos(shapes, 3)
    assert len(few) == 3 and {label for sample in few for label in sample.labels} == {0, 1, 2}
    assert len(some_photos(shapes, 99)) == sum(len(sample.boxes) > 0 for sample in shapes)
    empty = dataclasses.replace(
        shapes[0], boxes=np.zeros((0, 4), np.float32), labels=np.zeros(0, np.int32)
    )
    with pytest.raises(ValueError, match="the set 'none' has no objects"):
        some_photos(Dataset([empty], shapes.classes, name="none"), 3)


# === Boxes ===


class Detector:
    image_size, max_detections, nms_iou = 64, 3, 0.5


def of_boxes(*rows, labels=None):
    boxes = np.array(rows, np.float32)
    labels = np.array(labels or [0] * len(rows), np.int32)
    few = Dataset([Sample("a.jpg", boxes, labels)], ("cat", "dog"))
    padded = np.concatenate([boxes, np.zeros((2, 4), np.float32)])
    return _of_boxes(Detector, few, {"boxes": padded[None], "labels": np.append(labels, [-1, -1])[None]})


@pytest.mark.parametrize(
    ("rows", "labels", "said"),
    [
        ([[0, 0, 20, 20], [30, 30, 50, 50]], None, None),
        ([[0, 0, 20, 20], [30, 30, 50, 36]], None, "1 of 2 objects are less than 8 px wide or high"),
        ([[0, 0, 20, 20], [0, 0, 20, 20.5]], [0, 1], "a.jpg: objects have almost the same box"),
        # 16 of 24 columns are shared.
        ([[0, 0, 20, 20], [4, 0, 24, 20]], [0, 0], "a.jpg: objects of a class overlap by more than"),
        ([[0, 0, 20, 20], [4, 0, 24, 20]], [0, 1], None),
        ([[i, i, i + 9, i + 9] for i in (0, 10, 20, 30)], None, "a.jpg: more objects than max_detections=3"),
    ],
)
def test_boxes_that_cannot_be_learned_are_told(rows, labels, said):
    found = of_boxes(*rows, labels=labels)
    assert len(found) == bool(said) and all(said in reason for reason in found)


# === Training ===


def of_training(boxes, labels, losses=(4.0, 1.0)):
    """Of a photo with a cat and a dog."""
    truth = np.array([[0, 0, 20, 20], [30, 30, 50, 50]], np.float32)
    few = Dataset([Sample("a.jpg", truth, np.array([0, 1], np.int32))], ("cat", "dog"))
    scores = np.linspace(1, 0.5, len(boxes))
    found = [Detections(np.array(boxes, np.float32), scores, labels, ("cat", "dog"))]
    return _of_training(few, found, coco_metrics(few, found), losses)


RIGHT = [[0, 0, 20, 20], [30, 30, 50, 50]]
STRAY = [[5, 50, 9, 60], [50, 5, 60, 9]]


@pytest.mark.parametrize(
    ("boxes", "labels", "losses", "said"),
    [
        (RIGHT, [1, 0], (4, 1), ["boxes are found (AP 1.00 without regard to classes), but classes"]),
        ([[0, 0, 20, 20], [31, 31, 51, 51]], [0, 1], (4, 1), ["objects are found (AP50 1.00), but"]),
        (STRAY + RIGHT, [0, 1, 0, 1], (4, 1), ["all objects are found (AR 1.00), and others"]),
        ([[0, 0, 20, 20]], [0], (4, 1), ["of dog nothing is found"]),
        ([[0, 0, 20, 20]], [0], (4, 5), ["the loss rose from 4 to 5", "of dog nothing is found"]),
        ([[0, 0, 20, 20]], [0], (4, 3), ["the loss only fell from 4 to 3", "of dog nothing is found"]),
    ],
)
def test_what_figures_and_losses_tell(boxes, labels, losses, said):
    found = of_training(boxes, labels, losses)
    assert [reason[: len(text)] for reason, text in zip(found, said, strict=True)] == said
