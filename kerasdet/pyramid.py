"""Testing at several scales: a detector that looks at every photo more than once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kerasdet import photo as photos_
from kerasdet.boxes.merging import MERGE_BELOW, greedy_merge
from kerasdet.detections import Detections

MERGES = ("nms", "soft_nms", "greedy")


def image_pyramid(detector, sizes: Sequence[int], merge: str = "nms", **options) -> ImagePyramid:
    """A detector that looks at photos at several sizes and joins what it finds.

    Small objects are found on large squares, and large ones on small squares. It costs as much time as all
    sizes together, and cannot be exported as one file.

    Args:
        detector: a `kerasdet.Detector` that takes squares of any size, as all but YOLOv1 do, and finds its
            own boxes, unlike Fast R-CNN and R-CNN.
        sizes: sides of the squares in pixels.
        merge: how boxes of one object from several sizes become one: "nms", non-maximum suppression;
            "soft_nms", as CenterNet (section 5) and others have it; "greedy", OverFeat's mean of all of
            them.
        options: see `ImagePyramid`.

    Example: `kerasdet.image_pyramid(model, (256, 320, 416)).detect("street.jpg")`
    """
    return ImagePyramid(detector, sizes, merge, **options)


class ImagePyramid:
    """See `image_pyramid`; `detect` and `evaluate_detections` are those of a detector.

    Args:
        detector, sizes, merge: see `image_pyramid`.
        flip: look at the mirror image at each size as well (see `Detector.detect`).
        top: at each size only the so many classes that score highest on a photo are kept (OverFeat,
            section 4.3); None keeps all.
        threshold: of `greedy_merge`.
        min_score: boxes that score lower take no part.

    Raises:
        ValueError: no sizes, another merge, a detector with parts where boxes are averaged, or one that is
            given proposals or draws outlines.
    """

    def __init__(
        self, detector, sizes: Sequence[int], merge: str = "nms", *, flip: bool = False,
        top: int | None = None, threshold: float = MERGE_BELOW, min_score: float = 0.01,
    ):
        from kerasdet import zoo

        if merge not in MERGES:
            raise ValueError(f"merge is {merge!r}; give one of {', '.join(MERGES)}")
        if not len(tuple(sizes)):
            raise ValueError("sizes is empty; give sides of squares in pixels, such as (256, 320, 416)")
        if detector.given_proposals or detector.mask_size:
            why = "is given the boxes to look at" if detector.given_proposals else "draws outlines"
            raise ValueError(
                f"{type(detector).__name__} {why}, which are not joined over several sizes; give a detector "
                "that finds boxes, such as a FasterRCNN"
            )
        if detector.parts and merge == "greedy":
            raise ValueError(
                f"greedy merging averages boxes, and leaves their parts {detector.parts} behind; "
                'give merge="nms"'
            )
        self.detectors = [zoo.adapt(detector, image_size=size) for size in sizes]
        self.merge, self.flip, self.top = merge, flip, top
        self.threshold, self.min_score = threshold, min_score

    classes = property(lambda self: self.detectors[0].classes, doc="Names of the classes.")
    parts = property(lambda self: self.detectors[0].parts, doc="Names of the parts of an object.")

    def detect(self, photos, score: float = 0.3, batch_size: int = 16, keep_photo: bool = True):
        """Finds objects on photos; arguments and result as of `Detector.detect`.

        Greedy merging adds the scores s of boxes up; what is returned is s / (1 + s), which orders them alike
        and stays below 1. No more than the detector's `max_detections` are returned.
        """
        todo, single = photos_.listed(photos)
        found = []
        batch_size = min([batch_size, *(detector.most_at_once for detector in self.detectors)])
        for start in range(0, len(todo), batch_size):
            some = todo[start : start + batch_size]
            pictures = [photos_.read(photo) for photo in some]
            looks = [self._look(detector, pictures, batch_size) for detector in self.detectors]
            for i, (photo, picture) in enumerate(zip(some, pictures, strict=True)):
                merged = self._merged([look[i] for look in looks])
                keep = np.flatnonzero((merged["scores"] > 0) & (merged["scores"] >= score))
                order = np.argsort(-merged["scores"][keep], kind="stable")
                keep = keep[order[: self.detectors[0].max_detections]]
                found.append(
                    Detections(
                        boxes=merged["boxes"][keep], scores=merged["scores"][keep],
                        labels=merged["labels"][keep], classes=self.classes,
                        parts={
                            name: merged["parts"][keep][:, column] for column, name in enumerate(self.parts)
                        },
                        photo=picture if keep_photo else None,
                        path=photos_.path_of(photo),
                    )
                )
        return found[0] if single else found

    def evaluate_detections(self, dataset, batch_size: int = 16) -> dict[str, float]:
        """As `Detector.evaluate_detections`."""
        from kerasdet import metrics

        return metrics.evaluate(self, dataset, batch_size=batch_size)

    def _look(self, detector, pictures: list, batch_size: int) -> list[dict[str, np.ndarray]]:
        """What one size has for each of some photos, in the photo's pixels; nothing suppressed."""
        images, matrices = detector.squares(pictures, batch_size)
        result = detector.infer(images, self.flip, suppress=False)
        found = []
        for i, (picture, matrix) in enumerate(zip(pictures, matrices, strict=True)):
            keep = result["scores"][i] >= self.min_score
            if self.top is not None:
                keep &= np.isin(result["labels"][i], self._top_classes(result, i))
            rows = {name: value[i][keep] for name, value in result.items()}
            for name in ("boxes", "parts"):
                if name in rows:
                    rows[name] = photos_.boxes_to_photo(rows[name], matrix, picture.shape[:2])
            found.append(rows)
        return found

    def _top_classes(self, result: dict, i: int) -> np.ndarray:
        """The classes of the boxes that score highest on photo i."""
        order = np.argsort(-result["scores"][i], kind="stable")
        labels = result["labels"][i][order]
        _, first = np.unique(labels, return_index=True)
        return labels[np.sort(first)[: self.top]]

    def _merged(self, looks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        found = {name: np.concatenate([look[name] for look in looks]) for name in looks[0]}
        if not len(found["scores"]):
            return found
        if self.merge == "greedy":
            boxes, sums, labels = greedy_merge(
                found["boxes"], found["scores"], found["labels"], self.threshold
            )
            return {"boxes": boxes, "scores": sums / (1 + sums), "labels": labels}
        order = np.argsort(-found["scores"], kind="stable")
        found = {name: value[order] for name, value in found.items()}
        return found | {"scores": self._suppressed(found)}

    def _suppressed(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """Scores after suppression, 0 where a box was dropped."""
        from keras import ops

        from kerasdet.boxes.suppression import greedy_keep, soft_nms

        # Whole hundreds of rows: every new number would be compiled anew.
        rows = -(-len(found["scores"]) // 100) * 100
        padding = rows - len(found["scores"])
        boxes = np.pad(found["boxes"], ((0, padding), (0, 0)))[None]
        scores = np.pad(found["scores"], (0, padding))[None]
        labels = np.pad(found["labels"], (0, padding))[None]
        if self.merge == "soft_nms":
            kept = soft_nms(boxes, scores, labels)
        else:
            # Detectors that suppress nothing by themselves see an object once at each size.
            limit = self.detectors[0].nms_iou or 0.5
            kept = scores * ops.convert_to_numpy(greedy_keep(boxes, scores, labels, limit))
        return ops.convert_to_numpy(kept)[0, : rows - padding]
