"""From a photo and what is labelled on it to what a detector learns from: the square and padded targets."""

from __future__ import annotations

import dataclasses
import itertools

import grain
import numpy as np

from kerasdet import outlines, photo
from kerasdet.data.augment import Augment, place, place_proposals
from kerasdet.data.mixing import CAPACITY, OTHERS, PhotoBuffer, Picture


class Prepare(grain.transforms.RandomMap):
    """`mixing.Picture` -> (image, targets) with static shapes. Arguments as of `loader.batches`."""

    def __init__(
        self, size, resize, max_boxes, max_ignore, part_columns, augment, proposals=0, mask_size=0,
    ):
        self.size, self.resize = size, resize
        self.max_boxes, self.max_ignore = max_boxes, max_ignore
        self.part_columns, self.augment = part_columns, augment
        self.proposals, self.mask_size = proposals, mask_size
        # A photo that is in no other picture is not read again.
        self.buffer = PhotoBuffer(CAPACITY if augment.photos > 1 else 0)

    def one_photo(self) -> Prepare:
        """The same without mixup and mosaic."""
        return Prepare(
            self.size, self.resize, self.max_boxes, self.max_ignore, self.part_columns,
            self.augment.one_photo, self.proposals, self.mask_size,
        )

    def random_map(self, picture: Picture, rng: np.random.Generator):
        sample, size = picture.sample, picture.size or self.size
        augment = self.augment if picture.others else self.augment.one_photo
        if augment == Augment.none():
            square, matrix = photo.to_square(photo.read(sample.path), size, self.resize)
            return square, self._targets(self._placed(sample, matrix, size))
        if augment.mosaic and rng.random() < augment.mosaic:
            square, labelled = self._mosaic(picture, size, rng)
        else:
            share = augment.share(rng) if augment.mixup else 1.0
            square, labelled = self._overlaid(picture, size, share, rng)
        return augment.light(square, rng), self._targets(labelled)

    def _overlaid(self, picture, size, share, rng):
        """A photo as strong as `share` and, if that is less than 1, another one laid over it.

        Both lie in the upper left corner of a canvas that holds either, and are not resized: what is done
        to the canvas is done to both.
        """
        import cv2

        sample = picture.sample
        samples = [sample] if share >= 1 else [sample, picture.others[0]]
        images = [self.buffer.read(each.path) for each in samples]
        height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
        base = photo.square_matrix(height, width, size, self.resize)
        objects = np.concatenate([each.boxes for each in samples])
        matrix = self.augment.matrix(dataclasses.replace(sample, boxes=objects), base, size, rng)
        squares = [photo.warp(image, matrix, size) for image in images]
        labelled = [
            self._placed(each, matrix, size, weight)
            for each, weight in zip(samples, (share, 1 - share), strict=False)
        ]
        if len(samples) == 1:
            return squares[0], labelled[0]
        return cv2.addWeighted(squares[0], share, squares[1], 1 - share, 0), _together(labelled)

    def _mosaic(self, picture, size, rng):
        """Parts of four photos about a point in the middle half of the square."""
        middle = np.rint(size * rng.uniform(0.25, 0.75, 2)).astype(int)
        square, labelled = np.empty((size, size, 3), np.uint8), []
        samples = [picture.sample, *itertools.islice(itertools.cycle(picture.others), OTHERS)]
        for tile, sample in enumerate(samples):
            image = self.buffer.read(sample.path)
            at = np.array([tile % 2, tile // 2])
            low, high = at * middle, np.where(at, size, middle)
            sides = high - low
            base = photo.square_matrix(*image.shape[:2], size, self.resize)
            matrix = self.augment.tile(base, size, sides, rng)
            part = tuple(int(side) for side in sides)
            square[low[1] : high[1], low[0] : high[0]] = photo.warp(image, matrix, part)
            placed = self._placed(sample, matrix, part)
            for key in ("boxes", "ignore", "parts", "proposals"):
                placed[key] = placed[key] + np.tile(low, 2).astype(np.float32)
            labelled.append(placed)
        return square, _together(labelled)

    def _placed(self, sample, matrix, size, weight: float = 1.0) -> dict:
        """What `place` gives, with the model's parts, and each object's weight."""
        boxes, labels, ignore, parts, part_weights, rows = place(sample, matrix, size, self.augment)
        n, columns = len(boxes), self.part_columns
        proposals = sample.proposals[: self.proposals]
        # A part that the set does not label gets weight 0 in every row.
        nowhere, unknown = np.zeros((n, 4), np.float32), np.zeros(n, np.float32)
        return {
            "boxes": boxes, "labels": labels.astype(np.int32),
            "weights": np.full(n, weight, np.float32), "ignore": ignore,
            "parts": np.stack([parts[:, c] if c >= 0 else nowhere for c in columns], 1)
            if columns else np.zeros((n, 0, 4), np.float32),
            "part_weights": np.stack([part_weights[:, c] if c >= 0 else unknown for c in columns], 1)
            if columns else np.zeros((n, 0), np.float32),
            "proposals": place_proposals(proposals, matrix, size),
        } | (self._masks(sample, matrix, boxes, rows) if self.mask_size else {})

    def _masks(self, sample, matrix, boxes, rows) -> dict:
        """Of the sample's `rows`, in the square at `boxes`, the cells that they fill."""
        masks = np.zeros((len(rows), self.mask_size, self.mask_size), np.uint8)
        weights = np.zeros(len(rows), np.float32)
        for number, (row, box) in enumerate(zip(rows, boxes, strict=True)):
            outline = sample.masks[row] if sample.masks else ()
            if outline:
                moved = [points @ matrix[:, :2].T + matrix[:, 2] for points in outline]
                masks[number] = outlines.grid_of(moved, box, self.mask_size)
                weights[number] = 1
        return {"masks": masks, "mask_weights": weights}

    def _targets(self, labelled: dict) -> dict:
        """What is labelled, padded to fixed numbers of rows."""
        labelled = dict(labelled)
        ignore, proposals, boxes = labelled.pop("ignore"), labelled.pop("proposals"), labelled["boxes"]
        if len(boxes) > self.max_boxes:
            sides = boxes[:, 2:] - boxes[:, :2]
            order = np.argsort(-sides.prod(-1), kind="stable")
            largest, rest = order[: self.max_boxes], order[self.max_boxes :]
            ignore = np.concatenate([ignore, boxes[rest]])
            labelled = {key: rows[largest] for key, rows in labelled.items()}
        padding = {"labels": -1}
        targets = {
            key: _pad(rows, self.max_boxes, padding.get(key, 0)) for key, rows in labelled.items()
            if self.part_columns or not key.startswith("part")
        }
        if self.proposals:
            targets["proposals"] = _pad(proposals[: self.proposals], self.proposals)
        return targets | {"ignore": _pad(ignore[: self.max_ignore], self.max_ignore)}


def _together(labelled: list[dict]) -> dict:
    joined = {key: np.concatenate([each[key] for each in labelled]) for key in labelled[0]}
    # The best of every photo, then the second best: there may be room for some only.
    rank = np.concatenate([np.arange(len(each["proposals"])) for each in labelled])
    joined["proposals"] = joined["proposals"][np.argsort(rank, kind="stable")]
    return joined


def _pad(rows: np.ndarray, count: int, value=0) -> np.ndarray:
    padded = np.full((count, *rows.shape[1:]), value, rows.dtype)
    padded[: len(rows)] = rows
    return padded
