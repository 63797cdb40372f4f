"""Log-average miss rate (MR^-2), the pedestrian benchmarks' figure."""

from __future__ import annotations

import numpy as np

from kerasdet.metrics.matching import dataset_labels, match, overlaps, pair

FPPI = 10.0 ** np.linspace(-2, 0, 9)  # .01 .0178 .0316 .0562 .1 .1778 .3162 .5623 1

# Caltech's scales, by the height of the box in the photo's pixels: lowest <= height < highest.
HEIGHTS = {"near": (80, np.inf), "medium": (30, 80), "far": (0, 30)}

_MAX_DETECTIONS = 1000
_HEIGHT_SLACK = 1.25
_LOWEST = 1e-10


def log_average_miss_rate(dataset, detections, iou=0.5, height=None, label=None):
    """Geometric mean of the miss rate at nine rates of false positives per image (FPPI).

    Along falling scores the share of missed objects falls while false positives gather. The miss
    rate at a reference FPPI is that of the last point of this curve at or below it, and 1 where the
    curve has no such point (the very first false positive already costs more). It does not rise
    again beyond the curve's end: a detector without false positives keeps its last miss rate.
    Logarithms are taken of at least 1e-10, which is what a perfect detector scores.

    An ignore region absorbs any number of detections that lie in it by at least `iou` of *their*
    area; they are neither found nor false. With `height`, objects outside the range become ignore
    regions and detections outside the range widened by 1.25 either way are dropped. The aspect
    ratio of boxes is left as it is, and there is no filter by visibility.

    Args:
        dataset: sequence of `Sample` with `.classes`.
        detections: iterable of `Detections`, one a photo, in the set's order. The 1000 best of a
            photo count.
        iou: least overlap of a detection with the object that it finds.
        height: (lowest, highest) of the objects that count, photo pixels, lowest <= h < highest;
            None for all. Photos all count for FPPI, whatever is on them.
        label: the data set's label of the class that counts; None takes all classes as one.

    Returns:
        dict: "MR" float in [1e-10, 1], nan where no object counts; "fppi" (9,) float64, .01 to 1;
        "miss_rate" (9,) float64; "objects" int, how many count.

    Raises:
        ValueError: empty set, lengths that differ, a class that the detector does not know.

    Source: Dollár et al., Pedestrian Detection: An Evaluation of the State of the Art, PAMI 2012,
    section 3 (the widened range of heights is its "expanded filtering").

    Example: one photo, two people, found in order of score: person, stray, person. The curve
    (FPPI, miss rate) is (0, 1/2), (1, 1/2), (1, 0), so eight points see 1/2 and the last sees 0.
    """
    found = pair(dataset, detections)
    lowest, highest = height if height is not None else (-np.inf, np.inf)
    hits, scores, objects = [], [], 0
    for sample, detected in zip(dataset, found, strict=True):
        wanted = sample.labels >= 0 if label is None else sample.labels == label
        truth = np.concatenate([sample.boxes[wanted], sample.ignore])
        tall = truth[:, 3] - truth[:, 1]
        ignored = (tall < lowest) | (tall >= highest)
        ignored[np.count_nonzero(wanted) :] = True
        objects += np.count_nonzero(~ignored)

        labels = dataset_labels(detected, dataset.classes)
        rows = np.flatnonzero(labels >= 0 if label is None else labels == label)[:_MAX_DETECTIONS]
        tall = detected.boxes[rows, 3] - detected.boxes[rows, 1]
        rows = rows[(tall >= lowest / _HEIGHT_SLACK) & (tall < highest * _HEIGHT_SLACK)]

        overlap = overlaps(detected.boxes[rows], truth, ignored)
        (matched,) = match(overlap, ignored, ignored, [iou])
        # The last column stands for no object, which is not ignored: a false positive.
        counts = ~np.append(ignored, False)[matched]
        hits.append(matched[counts] >= 0)
        scores.append(detected.scores[rows][counts])

    miss_rate = _at_fppi(np.concatenate(hits), np.concatenate(scores), objects, len(dataset))
    mean = np.exp(np.mean(np.log(np.maximum(miss_rate, _LOWEST))))
    return {"MR": float(mean), "fppi": FPPI.copy(), "miss_rate": miss_rate, "objects": objects}


def _at_fppi(hits, scores, objects, photos):
    """Miss rates (9,) at the reference points, from hits (n,) bool and scores (n,); nan if none."""
    if objects == 0:
        return np.full(len(FPPI), np.nan)
    hits = hits[np.argsort(-scores, kind="stable")]
    # Point 0 of the curve is before the first detection: nothing found, nothing false.
    recall = np.concatenate([[0.0], np.cumsum(hits) / objects])
    fppi = np.concatenate([[0.0], np.cumsum(~hits) / photos])
    return 1 - recall[np.searchsorted(fppi, FPPI, side="right") - 1]
