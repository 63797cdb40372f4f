"""PASCAL VOC's average precision on examples worked out by hand, and beside the kit's steps in loops."""

import math

import numpy as np
import pytest

from kerasdet.data.dataset import Dataset, Sample
from kerasdet.detections import Detections
from kerasdet.metrics import coco_metrics, voc_metrics

CLASSES = ("cat", "dog")
LEFT, RIGHT, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [60, 60, 70, 70]


def sample(*objects, ignore=()):
    boxes = np.array([box for box, _ in objects], np.float32).reshape(-1, 4)
    labels = np.array([label for _, label in objects], np.int32)
    return Sample("a.jpg", boxes, labels, ignore=np.array(ignore, np.float32).reshape(-1, 4))


def found(*rows):
    """(box, score, label) each."""
    rows = sorted(rows, key=lambda row: -row[1])
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    return Detections(boxes, np.array([row[1] for row in rows]), [row[2] for row in rows], CLASSES)


def scored(samples, detections, **options):
    return voc_metrics(Dataset(samples, classes=CLASSES), detections, **options)


def test_the_example_of_the_docstring():
    metrics = scored(
        [sample((LEFT, 0), (RIGHT, 0))], [found((LEFT, 0.9, 0), (FAR, 0.8, 0), (RIGHT, 0.7, 0))]
    )
    assert metrics["VOC_AP"] == metrics["VOC_AP/cat"] == pytest.approx(5 / 6)
    assert metrics["VOC07_AP"] == pytest.approx((6 + 5 * 2 / 3) / 11)
    # There is no dog, and none was found.
    assert math.isnan(metrics["VOC_AP/dog"])


def test_a_second_detection_of_an_object_is_wrong_though_another_object_is_near():
    """COCO has it turn to that one."""
    near = [2, 0, 12, 10]  # IoU 80 / 120 with LEFT
    data, boxes = [sample((LEFT, 0), (near, 0))], [found((LEFT, 0.9, 0), ([0.5, 0, 10.5, 10], 0.8, 0))]
    # Half of the objects, the first detection right and the second wrong.
    assert scored(data, boxes)["VOC_AP"] == pytest.approx(1 / 2)
    assert coco_metrics(Dataset(data, classes=CLASSES), boxes)["AP50/cat"] == pytest.approx(1)


def test_difficult_objects_count_neither_way():
    data = [sample((LEFT, 0), ignore=[RIGHT])]
    assert scored(data, [found((RIGHT, 0.9, 0), (RIGHT, 0.8, 0), (LEFT, 0.7, 0))])["VOC_AP"] == 1
    assert scored(data, [found((FAR, 0.9, 0), (LEFT, 0.7, 0))])["VOC_AP"] == pytest.approx(1 / 2)


def test_what_is_not_found_and_what_is_not_there():
    assert scored([sample((LEFT, 0))], [found()])["VOC_AP"] == 0
    assert math.isnan(scored([sample()], [found((LEFT, 0.9, 0))])["VOC_AP"])
    both = scored([sample((LEFT, 0), (RIGHT, 1))], [found((LEFT, 0.9, 0))], per_class=False)
    assert both == {"VOC_AP": 0.5, "VOC07_AP": 0.5}


def test_the_overlap_that_is_asked_for():
    data, shifted = [sample((LEFT, 0))], [found(([0, 0, 10, 6], 0.9, 0))]
    assert scored(data, shifted, iou=0.6)["VOC_AP"] == 1 and scored(data, shifted, iou=0.61)["VOC_AP"] == 0


def kit(samples, detections, label, iou):
    """VOCevaldet.m and VOCap.m, step by step: both averages of one class."""
    rows = [
        (score, photo, box) for photo, each in enumerate(detections)
        for box, score, found_label in zip(each.boxes, each.scores, each.labels, strict=True)
        if found_label == label
    ]
    rows.sort(key=lambda row: -row[0])
    objects = sum(int((each.labels == label).sum()) for each in samples)
    done, true, false = set(), [], []
    for _, photo, box in rows:
        best, place, difficult = -1, None, False
        every = [(truth, False) for truth in samples[photo].boxes[samples[photo].labels == label]]
        every += [(truth, True) for truth in samples[photo].ignore]
        for number, (truth, hard) in enumerate(every):
            wide = min(box[2], truth[2]) - max(box[0], truth[0])
            high = min(box[3], truth[3]) - max(box[1], truth[1])
            if wide > 0 and high > 0:
                areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (box, truth)]
                overlap = wide * high / (sum(areas) - wide * high)
                if overlap > best:
                    best, place, difficult = overlap, (photo, number), hard
        hit = best >= iou
        true.append(float(hit and not difficult and place not in done))
        false.append(float(not hit or (not difficult and place in done)))
        if hit and not difficult:
            done.add(place)
    tp, fp = np.cumsum(true), np.cumsum(false)
    recall, precision = tp / objects, tp / np.maximum(tp + fp, 1e-9)
    eleven = sum(max([p for p, r in zip(precision, recall, strict=True) if r >= t - 1e-9], default=0)
                 for t in np.arange(11) / 10) / 11
    recall, precision = np.r_[0, recall, 1], np.r_[0, precision, 0]
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum()), eleven


@pytest.mark.parametrize("seed", range(4))
def test_many_photos_as_the_kit_scores_them(seed):
    rng = np.random.default_rng(seed)
    samples, detections = [], []
    for _ in range(12):
        low = rng.uniform(0, 60, (5, 2))
        boxes = np.concatenate([low, low + rng.uniform(10, 40, (5, 2))], 1)
        labels = rng.integers(0, 2, 5)
        samples.append(sample(*zip(boxes[:4], labels[:4], strict=True), ignore=boxes[4:]))
        near = np.repeat(boxes, 2, 0) + rng.normal(0, 4, (10, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        detections.append(found(*zip(near, rng.uniform(0, 1, 10), np.repeat(labels, 2), strict=True)))
    metrics = scored(samples, detections)
    by_hand = np.array([kit(samples, detections, label, 0.5) for label in (0, 1)])
    assert [metrics["VOC_AP/cat"], metrics["VOC_AP/dog"]] == pytest.approx(by_hand[:, 0].tolist())
    assert [metrics["VOC_AP"], metrics["VOC07_AP"]] == pytest.approx(by_hand.mean(0).tolist())
    assert 0.1 < metrics["VOC_AP"] < 0.9
