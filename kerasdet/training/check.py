"""The overfit check: what cannot learn a few photos by heart will not learn many; and what may be wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import keras
import numpy as np

from kerasdet.data.augment import Augment
from kerasdet.ema import EMA
from kerasdet.metrics import coco_metrics
from kerasdet.metrics.evaluation import detect_all
from kerasdet.metrics.matching import overlaps
from kerasdet.nan_guard import NaNGuard
from kerasdet.training.optimizer import adamw

# Photos of the one batch, its steps, and steps from one look at what is found to the next.
PHOTOS, STEPS, EVERY = 8, 400, 50
GOAL = 0.95
# Objects with a shorter side are hard to see for any network, and by half of this for none.
SMALL_SIDE = 8


@dataclasses.dataclass(frozen=True)
class Check:
    """How the check went.

    Attributes:
        passed: whether the average precision on the photos reached .95.
        metrics: what `coco_metrics` says of the photos at the end.
        steps: how many it took.
        losses: mean loss of every fifty steps.
        reasons: what is probably wrong, the likeliest first; empty where it passed.
    """

    passed: bool
    metrics: dict[str, float]
    steps: int
    losses: list[float]
    reasons: list[str]


def overfit(
    detector, dataset, *, photos: int = PHOTOS, rate: float = 1e-3, steps: int = STEPS,
    report: Callable[[int, float, float], object] | None = None,
) -> Check:
    """Trains a detector on one batch, unaugmented, until it finds all objects on it.

    Args:
        detector: a `kerasdet.Detector` with the set's classes; it is trained and compiled.
        dataset: photos to take a few from, such that as many classes as possible are on them.
        photos: how many.
        rate: learning rate of AdamW.
        steps: at most, in rounds of fifty.
        report: called after each round with the steps so far, the loss and the AP.

    Raises:
        ValueError: no objects in the set, or less than one step.
        FloatingPointError: see `NaNGuard`.
    """
    few = some_photos(dataset, photos)
    if steps < 1:
        raise ValueError(f"steps is {steps}; give 1 or more")
    images, targets = next(iter(few.batches(len(few), detector, augment=Augment.none())))
    average = EMA()
    average.images = [images]
    detector.compile(adamw(rate))
    losses, done, metrics = [], 0, {}
    while done < steps:
        count = min(EVERY, steps - done)
        history = detector.fit(
            _Again(images, targets, count), verbose=0, shuffle=False, callbacks=[NaNGuard(), average]
        )
        losses.append(float(history.history["loss"][0]))
        done += count
        found = list(detect_all(detector, few))
        metrics = coco_metrics(few, found)
        if report:
            report(done, losses[-1], metrics["AP"])
        if metrics["AP"] >= GOAL:
            return Check(True, metrics, done, losses, [])
    reasons = _of_boxes(detector, few, targets) + _of_training(few, found, metrics, losses)
    return Check(False, metrics, done, losses, reasons or ["nothing stands out: allow more steps"])


class _Again(keras.utils.PyDataset):
    """One batch, again and again."""

    def __init__(self, images, targets, count: int):
        super().__init__()
        self.batch, self.count = (images, targets), count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.batch


def some_photos(dataset, count: int):
    """A few photos with objects, each with as many classes as possible that those before have not."""
    classes = [set(sample.labels.tolist()) for sample in dataset]
    chosen: list[int] = []
    seen: set[int] = set()
    while len(chosen) < count:
        left = [i for i, found in enumerate(classes) if found and i not in chosen]
        if not left:
            break
        chosen.append(max(left, key=lambda i: len(classes[i] - seen)))
        seen |= classes[chosen[-1]]
    if not chosen:
        raise ValueError(f"the set {dataset.name!r} has no objects on its photos; there is nothing to learn")
    return dataset.subset(chosen)


# === What may be wrong ===


def _of_boxes(detector, few, targets) -> list[str]:
    """What the boxes of the photos, in the network's square, say beforehand."""
    small = total = 0
    hidden, doubled, crowded = [], [], []
    for sample, boxes, labels in zip(few, targets["boxes"], targets["labels"], strict=True):
        boxes, labels = boxes[labels >= 0], labels[labels >= 0]
        total += len(boxes)
        small += int(((boxes[:, 2:] - boxes[:, :2]).min(-1) < SMALL_SIDE).sum())
        if len(sample.boxes) > detector.max_detections:
            crowded.append(sample.path)
        overlap = np.triu(overlaps(boxes, boxes, np.zeros(len(boxes), bool)), 1)
        same = labels[:, None] == labels
        if (overlap[~same] > 0.9).any() or (overlap[same] > 0.9).any():
            doubled.append(sample.path)
        elif detector.nms_iou is not None and (overlap[same] > detector.nms_iou).any():
            hidden.append(sample.path)
    reasons = []
    if small > 0.1 * total:
        reasons.append(
            f"{small} of {total} objects are less than {SMALL_SIDE} px wide or high in the square of "
            f"{detector.image_size} px: give a larger image_size, or cut the photos into parts"
        )
    once = f"objects of a class overlap by more than nms_iou={detector.nms_iou}, so only one of them is found"
    full = f"more objects than max_detections={detector.max_detections}"
    for paths, text in (
        (doubled, "objects have almost the same box: is one labelled twice, or as two classes?"),
        (hidden, f"{once}: build the detector with a higher one"),
        (crowded, f"{full}: build the detector with a higher number, and as many candidates"),
    ):
        if paths:
            reasons.append(f"{', '.join(map(str, paths))}: {text}")
    return reasons


def _of_training(few, found, metrics: dict, losses: Sequence[float]) -> list[str]:
    """What the losses and the figures say."""
    reasons = []
    if losses[-1] > losses[0]:
        reasons.append(f"the loss rose from {losses[0]:.3g} to {losses[-1]:.3g}: give a lower rate")
    elif len(losses) > 1 and losses[-1] > 0.5 * losses[0]:
        reasons.append(
            f"the loss only fell from {losses[0]:.3g} to {losses[-1]:.3g}: give a higher rate; kerasdet "
            "lr-find shows which"
        )
    if len(few.classes) > 1:
        alike = _without_classes(few, found)["AP"]
        if alike > metrics["AP"] + 0.1:
            reasons.append(
                f"boxes are found (AP {alike:.2f} without regard to classes), but classes are confused: do "
                "the labels mean the same on every photo?"
            )
    if metrics["AP50"] >= 0.9:
        reasons.append(
            f"objects are found (AP50 {metrics['AP50']:.2f}), but their boxes are not exact: are they drawn "
            "closely, and does the detector have anchors or strides for their sizes?"
        )
    elif metrics["AR"] >= 0.9:
        reasons.append(
            f"all objects are found (AR {metrics['AR']:.2f}), and others: are all objects on the photos "
            "labelled?"
        )
    missed = [name for name in few.classes if not math.isnan(ap := metrics[f"AP50/{name}"]) and ap < 0.1]
    if missed and len(missed) < len(few.classes):
        reasons.append(f"of {', '.join(missed)} nothing is found: look at these classes' boxes")
    return reasons


def _without_classes(few, found) -> dict[str, float]:
    """What the photos score when every object is of one class."""
    def one(item, **changes):
        return dataclasses.replace(item, labels=np.zeros_like(item.labels), **changes)

    alike = type(few)([one(sample) for sample in few], ("object",), name=few.name)
    return coco_metrics(alike, [one(each, classes=("object",)) for each in found])
