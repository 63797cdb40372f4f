"""What goes with what: detections with photos, class names with each other, boxes with objects."""

from __future__ import annotations

import numpy as np

from kerasdet.data.sample import check_samples


def pair(dataset, detections):
    """Checks that detections answer a data set photo by photo.

    Args:
        dataset: a sequence of `Sample`.
        detections: iterable of `Detections`, the i-th for the i-th photo of the set.

    Returns:
        list of `Detections`, as long as the set.

    Raises:
        ValueError: the set is empty or holds what it must not, see `check_samples`, or the lengths differ.
    """
    if len(dataset) == 0:
        raise ValueError("the data set has no photos, so there is nothing to measure on")
    # Before anything is looked for; an object of no class would be missed by every measure, in silence.
    check_samples(dataset, len(dataset.classes))
    found = list(detections)
    if len(found) != len(dataset):
        raise ValueError(
            f"{len(found)} detections for {len(dataset)} photos; give one Detections a photo, "
            "in the data set's order (an empty one where nothing was found)"
        )
    return found


def class_map(known, wanted):
    """Translates a detector's labels into a data set's by class name.

    Args:
        known: the detector's class names.
        wanted: the data set's class names.

    Returns:
        (len(known),) int64: the data set's label of each of the detector's, -1 where the set does
        not have that class. Such detections are not scored: a detector of 90 classes may be
        measured on a set of people.

    Raises:
        ValueError: the detector does not know a class of the set, whose objects it would be
            marked down for.
    """
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ValueError(
            f"the detector finds {_listed(known)} and the data set has {_listed(missing)} besides; "
            "choose classes with dataset.select(...), or merge them into one with "
            "dataset.as_one_class(...), which is --as-one-class of kerasdet evaluate"
        )
    index = {name: label for label, name in enumerate(wanted)}
    return np.array([index.get(name, -1) for name in known], np.int64)


def dataset_labels(found, classes):
    """Labels of detections in the numbering of a data set.

    Args:
        found: a `Detections`.
        classes: the data set's class names.

    Returns:
        (n,) int64, -1 where the set does not have the class.
    """
    return class_map(found.classes, classes)[found.labels]


def overlaps(boxes, objects, crowd):
    """Overlap of every box with every object, in float64.

    Args:
        boxes: (n, 4) xyxy.
        objects: (m, 4) xyxy.
        crowd: (m,) bool. Intersection over union where False, intersection over the *box's* area
            where True, which is what a region that absorbs detections is compared by.

    Returns:
        (n, m) float64 in [0, 1]; 0 where the divisor is 0.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 1, 4)
    objects = np.asarray(objects, np.float64).reshape(1, -1, 4)
    shared = np.minimum(boxes[..., 2:], objects[..., 2:]) - np.maximum(
        boxes[..., :2], objects[..., :2]
    )
    shared = np.prod(np.maximum(shared, 0), axis=-1)
    own = np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)
    other = np.prod(np.maximum(objects[..., 2:] - objects[..., :2], 0), axis=-1)
    divisor = np.where(crowd, own, own + other - shared)
    return np.divide(shared, divisor, out=np.zeros_like(shared), where=divisor > 0)


def match(overlap, ignored, crowd, thresholds):
    """Greedy matching of one photo's detections with its objects, as COCO and Caltech do it.

    Detections choose in the order of their scores. Each takes the free object that it overlaps
    most, if by at least the threshold; an ignored object is taken only where no other object will
    do. A crowd object can be taken any number of times, others once. Of equal overlaps the later
    object wins, as in pycocotools.

    With overlaps [[.9, .6], [.8, .55]] and threshold .5 the first detection takes object 0 and the
    second, whose best is gone, object 1; at threshold .6 the second gets nothing.

    Args:
        overlap: (n, m) float, detections in falling order of score.
        ignored: (m,) bool, objects that count neither as found nor as missed.
        crowd: (m,) bool.
        thresholds: (t,) float.

    Returns:
        (t, n) int64, the index of each detection's object, -1 for none.
    """
    matched = np.full((len(thresholds), overlap.shape[0]), -1, np.int64)
    limits = [min(threshold, 1 - 1e-10) for threshold in thresholds]
    # Most detections are near no object at all: only the pairs that can match are walked through.
    rows, columns = np.nonzero(overlap >= min(limits))
    candidates = {}
    for row, column, value in zip(
        rows.tolist(), columns.tolist(), overlap[rows, columns].tolist(), strict=True
    ):
        candidates.setdefault(row, []).append((not ignored[column], value, column))
    for options in candidates.values():
        options.sort(reverse=True)  # counted before ignored, then by overlap, then the later
    for t, limit in enumerate(limits):
        taken = set()
        for row, options in candidates.items():
            for _, value, column in options:
                if value >= limit and (column not in taken or crowd[column]):
                    taken.add(column)
                    matched[t, row] = column
                    break
    return matched


def _listed(names):
    return ", ".join(repr(name) for name in names) or "no class"
