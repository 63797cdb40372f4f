"""Soft classes in the losses of every detector that says one class among several; worked out by hand."""

import math

import numpy as np
import pytest
from handmade import losses, objects, raw_maps
from harness import tiny_backbone
from keras import ops
from overfeats import small
from test_trident import net as trident

from kerasdet import zoo
from kerasdet.models.faster_rcnn import FasterRCNN
from kerasdet.models.ssd import SSD
from kerasdet.models.yolo_v1 import YOLOv1
from kerasdet.models.yolo_v3 import YOLOv3


def yolo(**options):
    squares = ((8, 8), (16, 16), (32, 32))
    return YOLOv3(
        ("a", "b"), backbone=tiny_backbone(), image_size=64, anchors=squares, channels=8, **options
    )


def yolo_v1(**options):
    return YOLOv1(
        ("a", "b"), backbone=tiny_backbone(), image_size=64, grid=2, head="light", channels=8, **options
    )


def ssd(**options):
    backbone = tiny_backbone(output_stride=16)
    return SSD(
        ("a", "b", "c"), backbone=backbone, network="paper", image_size=64,
        anchor_sizes=(0.16, 0.24, 0.32, 0.4), **options
    )


def two_stage(**options):
    return FasterRCNN(
        ("a", "b", "c"), backbone=tiny_backbone(), image_size=64, channels=8, before=(20, 20),
        proposals=(10, 10), regions=8, anchor_sizes=(6, 12, 20, 32, 48), **options
    )


@pytest.mark.parametrize(("smoothing", "no", "yes"), [(0.1, 0.05, 0.95), ("yolo", 0.025, 0.975)])
def test_of_yolo_v3(smoothing, no, yes):
    detector = yolo(label_smoothing=smoothing)
    raw = raw_maps(detector, class_logits=[math.log(3), -1.0])
    found = losses(detector, objects([20, 20, 36, 36], labels=[0]), raw)
    # p = 3/4 of the object's class, and 1 / (1 + e) of the other.
    expected = -yes * math.log(0.75) - (1 - yes) * math.log(0.25)
    expected += no * math.log(1 + math.e) + (1 - no) * math.log(1 + 1 / math.e)
    assert found["class_loss"] == pytest.approx(expected, rel=1e-5)
    hard = losses(yolo(), objects([20, 20, 36, 36], labels=[0]), raw)
    assert {k: v for k, v in hard.items() if k != "class_loss"} == pytest.approx(
        {k: v for k, v in found.items() if k != "class_loss"}
    )


def test_of_yolo_v1():
    detector = yolo_v1(label_smoothing=0.1)
    raw = raw_maps(detector, class_logits=[0.75, 0.5])
    found = losses(detector, objects([20, 20, 36, 36], labels=[0]), raw)["class_loss"]
    assert found == pytest.approx((0.75 - 0.95) ** 2 + (0.5 - 0.05) ** 2, rel=1e-5)


def cross_entropy(probabilities, label, smoothing):
    """By the general form, over all classes with background."""
    soft = (1 - smoothing) * np.eye(len(probabilities))[label] + smoothing / len(probabilities)
    return -np.sum(soft * np.log(probabilities))


def test_of_ssd():
    detector = ssd(label_smoothing=0.2)
    raw = raw_maps(detector)
    raw["class_logits"][:] = np.log([1, 4, 2])
    said = np.array([1, 1, 4, 2]) / 8
    found = losses(detector, objects([5.76, 5.76, 26.24, 26.24], labels=[1]), raw)["class_loss"]
    expected = cross_entropy(said, 2, 0.2) + 3 * cross_entropy(said, 0, 0.2)
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_negatives_of_ssd_are_those_that_are_taken_for_objects():
    """Though, smoothed, what is surely background costs more."""
    detector = ssd(label_smoothing=0.2)
    targets, raw = objects([22, 14, 34, 26]), raw_maps(detector)
    sure, taken = np.array([40, 0, 0, 0]), np.array([0, 2, 0, 0])
    raw["background_logit"][:] = sure[:1]
    goal = detector.targets({key: ops.convert_to_tensor(value) for key, value in targets.items()})
    positive, negative = (ops.convert_to_numpy(goal[key])[0] for key in ("positive", "negative"))
    wrong = np.flatnonzero(negative)[: 3 * positive.sum()]
    for rows in (positive, wrong):
        raw["background_logit"][0, rows] = taken[0]
        raw["class_logits"][0, rows] = taken[1:]
    said = np.exp(taken) / np.exp(taken).sum()
    expected = cross_entropy(said, 1, 0.2) + 3 * cross_entropy(said, 0, 0.2)
    assert losses(detector, targets, raw)["class_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("background", [True, False])
def test_of_overfeat(background):
    detector = small(background=background, label_smoothing=0.3)
    raw = raw_maps(detector)
    raw["class_logits"][:] = np.log([1, 4])
    if background:
        raw["background_logit"][:] = np.log(3)
        said = np.array([3, 1, 4]) / 8
        # Ten windows on the object, and 26 on none: see test_losses_by_hand of OverFeat.
        expected = cross_entropy(said, 2, 0.3) + 2.6 * cross_entropy(said, 0, 0.3)
    else:
        expected = cross_entropy(np.array([1, 4]) / 5, 1, 0.3)
    found = losses(detector, objects([18, 8, 50, 40], labels=[1]), raw)
    assert found["class_loss"] == pytest.approx(expected, rel=1e-5)


def test_of_two_stages():
    detector = two_stage(label_smoothing=0.1)
    goal = {
        "positive": [[1, 0]], "negative": [[0, 1]], "label": [[1, 0]], "weight": [[0.5, 0]],
        "deltas": np.zeros((1, 2, 4)),
    }
    goal = {k: np.array(v, np.int32 if k == "label" else np.float32) for k, v in goal.items()}
    logits = np.tile(np.log(np.float32([1, 1, 4, 2])), (1, 2, 1))
    said = np.array([1, 1, 4, 2]) / 8
    found = detector.region_losses(goal, {"logits": logits, "deltas": np.zeros((1, 2, 3, 4), np.float32)})
    expected = (0.5 * cross_entropy(said, 2, 0.1) + cross_entropy(said, 0, 0.1)) / 1.5
    assert float(found["class_loss"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("build", [yolo, yolo_v1, ssd, two_stage, trident, small])
def test_it_is_in_the_configuration_and_checked(build):
    detector = build(label_smoothing=0.25)
    again = type(detector).from_config(detector.get_config())
    assert again.label_smoothing == detector.label_smoothing == 0.25
    with pytest.raises(ValueError, match="label_smoothing is 1.5; give 0 for none"):
        build(label_smoothing=1.5)


def test_a_detector_is_adapted_to_softer_labels():
    assert zoo.adapt(yolo(), label_smoothing=0.25).label_smoothing == 0.25
