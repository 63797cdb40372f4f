"""Sample: one photo with its boxes, as every reader hands it on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from kerasdet import photo


@dataclasses.dataclass(frozen=True)
class Sample:
    """One photo and what is labelled on it. All boxes are xyxy in the photo's own pixels.

    Attributes:
        path: file of the photo.
        boxes: (n, 4) float32, one row an object.
        labels: (n,) int32, index into the set's `classes`.
        ignore: (m, 4) float32, regions where nothing is to be learned or scored.
        parts: (n, P, 4) float32, further boxes of the same objects, such as a person's head; rows
            follow `boxes`, columns the set's `parts`.
        part_weights: (n, P) float32, 1 where the part is labelled and 0 where it is not.
        masks: each object's outline, one polygon (k, 2) float32 of x and y or several, row for row with
            `boxes`; empty where it is not labelled. () where the set labels none.
        proposals: (r, 4) float32, boxes that may hold an object, the best first, for detectors that are given
            them (see `Dataset.with_proposals`).
        width, height: the photo's size in pixels, 0 where the annotation does not say.
        image_id: the set's own id of the photo, unique within the set.
    """

    path: str
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 4), np.float32))
    parts: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 4), np.float32))
    part_weights: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0), np.float32))
    masks: tuple[tuple[np.ndarray, ...], ...] = ()
    proposals: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 4), np.float32))
    width: int = 0
    height: int = 0
    image_id: int | str = 0


def sides(sample: Sample) -> tuple[int, int]:
    """Width and height of its photo: what the annotation says or, as not each does, the file's header."""
    return (sample.width, sample.height) if sample.width and sample.height else photo.size_of(sample.path)


def check_samples(samples: Iterable[Sample], classes: int) -> None:
    """Raises ValueError at a box of NaN or infinity or without area, a label that is no class, rows that do
    not match.

    Readers refuse such. Samples that are made by hand may have them: every comparison would pass over the
    first in silence, and an object with one of the others would be learned as background.
    """
    for sample in samples:
        labels = np.asarray(sample.labels)
        count = len(labels)
        if np.shape(sample.boxes) != (count, 4) or len(sample.masks) not in (0, count):
            raise ValueError(
                f"{sample.path}: boxes are of shape {np.shape(sample.boxes)}, and there are {count} labels "
                f"and {len(sample.masks)} masks; give (n, 4), n, and n or none"
            )
        wrong = np.flatnonzero((labels < 0) | (labels >= classes))
        if len(wrong):
            raise ValueError(
                f"{sample.path}: row {wrong[0]} has label {labels[wrong[0]]}, and there are {classes} "
                "classes; labels count from 0"
            )
        for kind in ("boxes", "ignore", "proposals"):
            rows = getattr(sample, kind)
            bad = np.flatnonzero(~np.isfinite(rows).all(-1))
            if len(bad):
                raise ValueError(
                    f"{sample.path}: row {bad[0]} of {kind} is {rows[bad[0]].tolist()}, not finite numbers; "
                    "fix it or take it out"
                )
        x1, y1, x2, y2 = np.reshape(sample.boxes, (-1, 4)).T
        bad = np.flatnonzero((x2 <= x1) | (y2 <= y1))
        if len(bad):
            raise ValueError(
                f"{sample.path}: row {bad[0]} of boxes is {sample.boxes[bad[0]].tolist()}; give x1, y1, x2, "
                "y2 with x1 < x2 and y1 < y2, not x, y, width, height"
            )
