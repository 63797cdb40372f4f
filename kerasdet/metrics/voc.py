"""PASCAL VOC's average precision, which detectors of its years were compared by."""

from __future__ import annotations

import numpy as np

from kerasdet.metrics.matching import dataset_labels, overlaps, pair

# Recalls at which precision was read until 2009.
POINTS = np.linspace(0, 1, 11)


def voc_metrics(dataset, detections, iou=0.5, per_class=True):
    """Average precision as VOC's development kit computes it.

    Detections of a class choose in the order of their scores, over all photos. Each looks at the object of
    its class on its photo that it overlaps most: the first one to reach it by at least `iou` is right, later
    ones are wrong, and what reaches an ignore region (an object marked difficult) counts neither way. Other
    than for COCO, a detection whose best object is taken does not turn to the next one.

    Args:
        dataset: sequence of `Sample` with `.classes`; its ignore regions are of every class, and VOC's
            difficult objects of their own.
        detections: iterable of `Detections`, one a photo, in the set's order.
        iou: least overlap. Boxes are not made a pixel wider and higher for it, as the kit does, which counts
            pixels.
        per_class: add "VOC_AP/<class>".

    Returns:
        dict of float in [0, 1]: "VOC_AP", the area under precision over recall, which never rises, as from
        2010 on; "VOC07_AP", its mean at recalls of 0, .1 ... 1, as before. Both are means over the classes
        that the set has objects of; nan where it has none.

    Raises:
        ValueError: empty set, lengths that differ, a class that the detector does not know.

    Source: Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2010 and 2015, sections 4.2
    and 3.4.

    Example: two objects, and of falling score a hit, a stray and a hit. Precision is 1 up to a recall of 1/2
    and 2/3 from there on: an area of 5/6, and (6 * 1 + 5 * 2/3) / 11 = .848 at eleven points.
    """
    found = pair(dataset, detections)
    area, points = {}, {}
    for label, name in enumerate(dataset.classes):
        curve = _curve(dataset, found, label, iou)
        area[name], points[name] = (_area(*curve), _at_points(*curve)) if curve else (np.nan, np.nan)
    metrics = {"VOC_AP": _mean(area), "VOC07_AP": _mean(points)}
    if per_class:
        metrics |= {f"VOC_AP/{name}": value for name, value in area.items()}
    return metrics


def _curve(dataset, found, label: int, iou: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Precision and recall after each detection of a class that counts; None where it has no object."""
    right, scores, objects = [], [], 0
    for sample, detected in zip(dataset, found, strict=True):
        truth = sample.boxes[sample.labels == label]
        objects += len(truth)
        mine = dataset_labels(detected, dataset.classes) == label
        order = np.argsort(-detected.scores[mine], kind="stable")
        boxes, of_photo = detected.boxes[mine][order], detected.scores[mine][order]
        everything = np.concatenate([truth, sample.ignore])
        overlap = overlaps(boxes, everything, np.zeros(len(everything), bool))
        taken = set()
        for row, score in zip(overlap, of_photo, strict=True):
            best = int(row.argmax()) if len(row) else -1
            near = best >= 0 and row[best] >= iou
            if near and best >= len(truth):
                continue
            right.append(near and best not in taken)
            scores.append(score)
            if near:
                taken.add(best)
    if not objects:
        return None
    order = np.argsort(-np.array(scores), kind="stable")
    hits = np.cumsum(np.array(right, float)[order])
    return hits / np.arange(1, len(hits) + 1), hits / objects


def _area(precision: np.ndarray, recall: np.ndarray) -> float:
    # The best precision at this recall or any above it.
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def _at_points(precision: np.ndarray, recall: np.ndarray) -> float:
    # Recalls such as 3 / 10 are a bit less than POINTS has them.
    return float(np.mean([precision[recall >= point - 1e-9].max(initial=0.0) for point in POINTS]))


def _mean(values: dict[str, float]) -> float:
    known = [value for value in values.values() if not np.isnan(value)]
    return float(np.mean(known)) if known else float(np.nan)
