"""COCO average precision and recall through pycocotools, from samples and detections."""

from __future__ import annotations

import contextlib
import functools
import io

import numpy as np

from kerasdet.metrics.matching import dataset_labels, match, pair

# pycocotools' own order of area ranges and of detections a photo.
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
_MAX_1, _MAX_10, _MAX_100 = range(3)
MOST = 1, 10, 100


def coco_metrics(dataset, detections, per_class=True):
    """Average precision and recall as COCO defines them.

    Photos are told apart by their place in the set. The set's ignore regions are crowd boxes of
    every class: a detection that lies in one by at least the IoU threshold, measured over the
    detection's own area, counts neither for nor against. Sizes are those of the boxes in the
    photo's pixels (small under 32², large from 96²); COCO itself takes the outline's area where
    there is one. Classes are compared by name.

    Args:
        dataset: sequence of `Sample` with `.classes`.
        detections: iterable of `Detections`, one a photo, in the set's order. The 100 best of a
            class and photo count.
        per_class: add "AP/<class>" and "AP50/<class>" for every class of the set.

    Returns:
        dict of float in [0, 1]: "AP" (mean over IoU .50 to .95), "AP50", "AP75", "AP_small",
        "AP_medium", "AP_large", "AR" (100 detections a photo), "AR_1", "AR_10", "AR_small",
        "AR_medium", "AR_large". nan where the set has no object of that size or class.

    Raises:
        ValueError: empty set, lengths that differ, a class that the detector does not know.

    Source: cocodataset.org, detection evaluation.
    """
    found = pair(dataset, detections)
    precision, recall = score_annotations(len(dataset), len(dataset.classes), *annotations(dataset, found))
    metrics = summary(precision, recall)
    if per_class:
        for label, name in enumerate(dataset.classes):
            metrics[f"AP/{name}"] = _mean(precision[:, :, label, _ALL, _MAX_100])
            metrics[f"AP50/{name}"] = _mean(precision[0, :, label, _ALL, _MAX_100])
    return metrics


def annotations(dataset, found):
    """COCO annotations of a set's objects, and of what was found: `Detections`, one a photo."""
    regions = range(len(dataset.classes))
    objects, results = _Rows(), _Rows()
    for image, (sample, detected) in enumerate(zip(dataset, found, strict=True), start=1):
        for box, label in zip(sample.boxes, sample.labels, strict=True):
            objects.add(image, label, box)
        for box in sample.ignore:
            for label in regions:
                objects.add(image, label, box, iscrowd=1)
        labels = dataset_labels(detected, dataset.classes)
        for box, label, score in zip(detected.boxes, labels, detected.scores, strict=True):
            if label >= 0:
                results.add(image, label, box, score=float(score))
    return objects, results


def part_metrics(dataset, detections, part):
    """Average precision of a part's boxes, such as heads, as if they were a class of their own.

    Every detection of a class of the set puts its part forward with its own score. Where an object
    has no labelled part, its whole box becomes an ignore region, so that finding the part there is
    no fault; the set's own ignore regions are ignored too.

    Args:
        dataset: sequence of `Sample` with `.classes` and `.parts`.
        detections: iterable of `Detections` with `parts[part]`, one a photo, in the set's order.
        part: name of the part.

    Returns:
        dict: "<part>_AP" and "<part>_AP50" in [0, 1], nan where the set labels no such part.

    Raises:
        ValueError: the set or a detection has no such part, or as in `coco_metrics`.
    """
    if part not in dataset.parts:
        raise ValueError(f"the data set has no part {part!r}; its parts are {list(dataset.parts)}")
    column = list(dataset.parts).index(part)
    objects, results = _Rows(), _Rows()
    found = pair(dataset, detections)
    for image, (sample, detected) in enumerate(zip(dataset, found, strict=True), start=1):
        if part not in detected.parts:
            raise ValueError(
                f"{sample.path}: the detections have no part {part!r}, only {list(detected.parts)}"
            )
        labelled = sample.part_weights[:, column] > 0
        for box in sample.parts[labelled, column]:
            objects.add(image, 0, box)
        for box in (*sample.boxes[~labelled], *sample.ignore):
            objects.add(image, 0, box, iscrowd=1)
        scored = dataset_labels(detected, dataset.classes) >= 0
        for box, score in zip(detected.parts[part][scored], detected.scores[scored], strict=True):
            results.add(image, 0, box, score=float(score))
    precision, recall = score_annotations(len(dataset), 1, objects, results)
    figures = summary(precision, recall)
    return {f"{part}_{key}": figures[key] for key in ("AP", "AP50")}


def mask_metrics(dataset, detections):
    """Average precision of outlines: as `coco_metrics`, with the overlap of pixels in place of boxes'.

    Objects without an outline are ignore regions, and so are those of the set.

    Args:
        dataset: sequence of `Sample` with `.classes`; some have masks.
        detections: iterable of `Detections` with masks, one a photo, in the set's order.

    Returns:
        dict: "mask_AP" and "mask_AP50" in [0, 1], nan where no object has an outline.

    Raises:
        ValueError: as in `coco_metrics`.
    """
    from kerasdet import outlines
    from kerasdet.data.sample import sides

    objects, results = _Rows(), _Rows()
    found = pair(dataset, detections)
    for image, (sample, detected) in enumerate(zip(dataset, found, strict=True), start=1):
        size = sides(sample)[::-1]
        for row, (box, label) in enumerate(zip(sample.boxes, sample.labels, strict=True)):
            outline = sample.masks[row] if sample.masks else ()
            code = outlines.encode_outline(outline or (_corners(box),), *size)
            objects.add(image, label, box, iscrowd=int(not outline), segmentation=code)
        for box in sample.ignore:
            for label in range(len(dataset.classes)):
                code = outlines.encode_outline((_corners(box),), *size)
                objects.add(image, label, box, iscrowd=1, segmentation=code)
        labels = dataset_labels(detected, dataset.classes)
        for box, label, score, code in zip(
            detected.boxes, labels, detected.scores, detected.masks, strict=True
        ):
            if label >= 0:
                results.add(image, label, box, score=float(score), segmentation=code)
    precision, recall = score_annotations(len(dataset), len(dataset.classes), objects, results, "segm")
    figures = summary(precision, recall)
    return {f"mask_{key}": figures[key] for key in ("AP", "AP50")}


def _corners(box):
    x1, y1, x2, y2 = (float(value) for value in box)
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])


class _Rows(list):
    """COCO annotations, with ids from 1."""

    def add(self, image, label, box, **more):
        x1, y1, x2, y2 = (float(value) for value in box)
        self.append(
            {
                "id": len(self) + 1,
                "image_id": image,
                "category_id": int(label) + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                **more,
            }
        )


def score_annotations(photos, classes, objects, results, kind="bbox"):
    """pycocotools' precision (T, R, K, A, M) and recall (T, K, A, M); -1 where undefined."""
    evaluation = matched(photos, classes, objects, results, kind)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def matched(photos, classes, objects, results, kind="bbox", most=MOST):
    """pycocotools' evaluation with `evalImgs`, what was matched on each photo.

    Args:
        photos, classes: how many.
        objects, results: as `annotations` gives them.
        kind: "bbox" or "segm".
        most: numbers of detections of a class and photo that recall is counted at, rising.
    """
    from pycocotools.coco import COCO

    frame = {
        # Run lengths say their size themselves, but pycocotools asks for the photos' too.
        "images": [{"id": image, "height": 0, "width": 0} for image in range(1, photos + 1)],
        "categories": [{"id": label, "name": str(label)} for label in range(1, classes + 1)],
    }
    sides = []
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        for annotations in (objects, results):
            side = COCO()
            side.dataset = {**frame, "annotations": list(annotations)}
            side.createIndex()
            sides.append(side)
        evaluation = _fast_evaluation()(*sides, kind)
        evaluation.params.maxDets = list(most)
        evaluation.evaluate()
    return evaluation


@functools.cache
def _fast_evaluation():
    """COCOeval with its innermost loop replaced by `match`, for the same numbers in less time.

    The original walks every detection against every object for ten thresholds and four sizes in
    Python, although few pairs overlap at all.
    """
    from pycocotools.cocoeval import COCOeval

    class FastEvaluation(COCOeval):
        def evaluateImg(self, imgId, catId, aRng, maxDet):  # noqa: N802, N803 (their names)
            truth = self._gts[imgId, catId]
            order = np.argsort([-d["score"] for d in self._dts[imgId, catId]], kind="stable")
            found = [self._dts[imgId, catId][i] for i in order[:maxDet]]
            if not truth and not found:
                return None

            def outside(rows):
                area = np.array([row["area"] for row in rows], np.float64)
                return (area < aRng[0]) | (area > aRng[1])

            crowd = np.array([row["iscrowd"] for row in truth], bool)
            ignored = crowd | outside(truth)
            overlap = np.asarray(self.ious[imgId, catId], np.float64)
            matched = match(
                overlap.reshape(len(found), len(truth)), ignored, crowd, self.params.iouThrs
            )
            hit = matched >= 0
            # The last column stands for no object: a stray detection outside the range of sizes.
            not_counted = np.append(ignored, False)[matched] | (~hit & outside(found))
            return {
                "dtMatches": hit,
                "dtIgnore": not_counted,
                "dtScores": [row["score"] for row in found],
                "gtIgnore": ignored,
            }

    return FastEvaluation


def summary(precision, recall):
    """The figures of `coco_metrics` over all classes, from what `score_annotations` gives."""
    metrics = {
        "AP": _mean(precision[:, :, :, _ALL, _MAX_100]),
        "AP50": _mean(precision[0, :, :, _ALL, _MAX_100]),
        "AP75": _mean(precision[5, :, :, _ALL, _MAX_100]),
        "AP_small": _mean(precision[:, :, :, _SMALL, _MAX_100]),
        "AP_medium": _mean(precision[:, :, :, _MEDIUM, _MAX_100]),
        "AP_large": _mean(precision[:, :, :, _LARGE, _MAX_100]),
        "AR": _mean(recall[:, :, _ALL, _MAX_100]),
        "AR_1": _mean(recall[:, :, _ALL, _MAX_1]),
        "AR_10": _mean(recall[:, :, _ALL, _MAX_10]),
        "AR_small": _mean(recall[:, :, _SMALL, _MAX_100]),
        "AR_medium": _mean(recall[:, :, _MEDIUM, _MAX_100]),
        "AR_large": _mean(recall[:, :, _LARGE, _MAX_100]),
    }
    return metrics


def _mean(values):
    values = values[values > -1]  # -1: no object of that class and size
    return float(values.mean()) if values.size else float("nan")
