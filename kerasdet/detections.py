"""Detections: what a detector found on one photo, as plain arrays."""

from __future__ import annotations

import collections
import dataclasses
import os

import numpy as np


@dataclasses.dataclass(eq=False, repr=False)
class Detections:
    """The objects found on one photo, best first. Boxes are xyxy in the photo's own pixels.

    Attributes:
        boxes: (n, 4) float32.
        scores: (n,) float32, falling; rows given in another order are sorted.
        labels: (n,) int32, index into `classes`.
        classes: the detector's class names.
        parts: name -> (n, 4) float32, further boxes of the same objects, such as a person's head,
            row for row with `boxes`.
        masks: n outlines as COCO's run lengths, row for row with `boxes`, or None of a detector that finds
            none; `mask` has one as pixels.
        photo: (H, W, 3) uint8 RGB, or None where it was not kept.
        path: the photo's file, or None for an array.

    Raises:
        ValueError: arrays that do not fit together, or a label without a class.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    parts: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    masks: tuple[dict, ...] | None = None
    photo: np.ndarray | None = None
    path: str | None = None

    def __post_init__(self):
        self.boxes = np.asarray(self.boxes, np.float32)
        self.scores = np.asarray(self.scores, np.float32)
        self.labels = np.asarray(self.labels, np.int32)
        self.classes = tuple(self.classes)
        self.parts = {name: np.asarray(box, np.float32) for name, box in self.parts.items()}
        if self.boxes.size == 0:
            self.boxes = self.boxes.reshape(0, 4)
        n = len(self.boxes)
        shapes = {"boxes": (n, 4), "scores": (n,), "labels": (n,)}
        shapes.update({f"parts[{name!r}]": (n, 4) for name in self.parts})
        arrays = [self.boxes, self.scores, self.labels, *self.parts.values()]
        for (name, shape), array in zip(shapes.items(), arrays, strict=True):
            if array.shape != shape:
                raise ValueError(
                    f"{name} has shape {array.shape}, expected {shape} for {n} boxes xyxy"
                )
        if self.masks is not None and len(self.masks) != n:
            raise ValueError(f"masks are {len(self.masks)}, expected {n}: one a box")
        for label in self.labels:
            if not 0 <= label < len(self.classes):
                raise ValueError(
                    f"label {label} has no name among {len(self.classes)} classes; "
                    "give the names of all of the detector's classes, in its order"
                )
        if n and np.any(np.diff(self.scores) > 0):
            self._take(np.argsort(-self.scores, kind="stable"))

    def _take(self, rows):
        self.boxes, self.scores = self.boxes[rows], self.scores[rows]
        self.labels = self.labels[rows]
        self.parts = {name: boxes[rows] for name, boxes in self.parts.items()}
        if self.masks is not None:
            self.masks = tuple(self.masks[row] for row in np.arange(len(self.masks))[rows])

    @property
    def names(self):
        """list of str, the class name of each row."""
        return [self.classes[label] for label in self.labels]

    def __len__(self):
        return len(self.boxes)

    def __repr__(self):
        counts = ", ".join(
            f"{count} {name}" for name, count in collections.Counter(self.names).most_common()
        )
        best = f", best score {self.scores[0]:.2f}" if len(self) else ""
        where = f" on {os.path.basename(self.path)}" if self.path else ""
        return f"<Detections{where}: {counts or 'nothing found'}{best}>"

    def mask(self, row: int) -> np.ndarray:
        """The pixels of the object of a row: (H, W) bool. Raises ValueError if no outlines were found."""
        from kerasdet import outlines
        from kerasdet import photo as photos_

        if self.masks is None:
            raise ValueError("there are no masks: this detector finds boxes alone; MaskRCNN finds both")
        return outlines.decode(self.masks[row], photos_.MAX_SIDE).astype(bool)

    def above(self, score):
        """The detections that score at least `score`, as new `Detections` of the same photo."""
        kept = dataclasses.replace(self)
        kept._take(self.scores >= np.float32(score))
        return kept

    def draw(self):
        """The photo with its boxes, names and scores.

        Colours tell classes apart, or the objects where all are of one class. Parts are drawn thin
        in the colour of their object, and its pixels, if they were found, are tinted. Lines and letters
        grow with the photo.

        Returns:
            PIL.Image, RGB, of the photo's size.

        Raises:
            ValueError: neither the photo nor its path is at hand.
        """
        from kerasdet.drawing import draw

        photo = self.photo
        if photo is None:
            if self.path is None:
                raise ValueError(
                    "there is no photo to draw on: detect with keep_photo=True, or set .photo to "
                    "the (H, W, 3) uint8 RGB array"
                )
            from kerasdet.photo import read

            photo = read(self.path)
        return draw(photo, self)

    def to_coco(self, image_id):
        """The rows of a COCO results file.

        Args:
            image_id: the photo's id there.

        Returns:
            list of {"image_id", "category_id": label + 1, "bbox": [x, y, width, height], "score"} and, with
            masks, "segmentation" as run lengths; plain Python, ready for `json.dump`.
        """
        rows = [
            {
                "image_id": image_id,
                "category_id": int(label) + 1,
                "bbox": [float(x1), float(y1), float(x2) - float(x1), float(y2) - float(y1)],
                "score": float(score),
            }
            for (x1, y1, x2, y2), label, score in zip(
                self.boxes, self.labels, self.scores, strict=True
            )
        ]
        for row, mask in zip(rows, self.masks or (), strict=False):
            row["segmentation"] = mask | {"counts": mask["counts"].decode("ascii")}
        return rows
