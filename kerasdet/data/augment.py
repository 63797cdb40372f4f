"""What training does to a photo: one affine warp (zoom, crop, aspect, flip) and a change of light."""

from __future__ import annotations

import dataclasses

import numpy as np

from kerasdet import photo
from kerasdet.data.sample import Sample


@dataclasses.dataclass(frozen=True)
class Augment:
    """How far training photos are changed. `Augment.none()` changes nothing.

    Attributes:
        zoom: lowest and highest scale of the photo in the network's square, drawn log-uniformly;
            below 1 the photo is pasted on mean colour, above 1 it is cropped.
        aspect: largest factor by which width over height is changed, either way. Phones stretch
            photos to the square, so the network has to bear wrong aspect ratios.
        flip: probability of a left-right flip.
        brightness: largest shift of all values, as a fraction of 255.
        contrast, saturation: largest relative change, either way.
        min_visible: an object of which a smaller fraction than this stays in the picture is neither
            object nor background: it becomes an ignore region (CSP's rule for WIDER FACE).
        min_side: objects of which a side is shorter than this, in pixels of the square, are ignored.
    """

    zoom: tuple[float, float] = (0.6, 1.6)
    aspect: float = 1.25
    flip: float = 0.5
    brightness: float = 0.15
    contrast: float = 0.4
    saturation: float = 0.5
    min_visible: float = 0.5
    min_side: float = 4.0

    @classmethod
    def none(cls) -> Augment:
        return cls((1.0, 1.0), 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def matrix(self, sample: Sample, base: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        """The map (2, 3) from photo to square: `base` followed by a random zoom, crop and flip."""
        zoom = np.exp(rng.uniform(*np.log(self.zoom)))
        stretch = np.exp(rng.uniform(-1, 1) * np.log(self.aspect) / 2)
        scale = np.array([zoom * stretch, zoom / stretch])
        # Where the scaled photo may lie: inside the square if smaller, covering it if larger.
        slack = size * (1 - scale)
        shift = rng.uniform(np.minimum(slack, 0), np.maximum(slack, 0))
        if len(sample.boxes) and rng.random() < 0.5:
            # As CSP does, half of the crops are drawn around an object, so that zooming in does not
            # leave mostly background.
            box = photo.transform_boxes(sample.boxes[rng.integers(len(sample.boxes))], base)
            centre = (box[:2] + box[2:]) / 2 * scale
            around = rng.uniform(0.25, 0.75, 2) * size - centre
            shift = np.clip(around, np.minimum(slack, 0), np.maximum(slack, 0))
        matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
        if rng.random() < self.flip:
            matrix[0] = [-matrix[0, 0], 0, size - matrix[0, 2]]
        return matrix @ np.vstack([base, [0, 0, 1]])

    def light(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Brightness, contrast and saturation of a uint8 picture, changed by random amounts."""
        import cv2

        if self.saturation:
            keep = float(1 + rng.uniform(-1, 1) * self.saturation)
            grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            image = cv2.addWeighted(image, keep, grey, 1 - keep, 0)
        if self.contrast or self.brightness:
            gain = 1 + rng.uniform(-1, 1) * self.contrast
            shift = rng.uniform(-1, 1) * self.brightness * 255
            table = np.clip((np.arange(256) - 128) * gain + 128 + shift, 0, 255).astype(np.uint8)
            image = cv2.LUT(image, table)
        return image


def place(
    sample: Sample, matrix: np.ndarray, size: int, augment: Augment
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What is labelled on a photo, moved into the network's square by `matrix` (2, 3).

    Returns:
        boxes (n, 4) and labels (n,) of what is still there, ignore (m, 4), parts (n, P, 4),
        part_weights (n, P); all boxes float32 xyxy pixels of the square, clipped to it.
    """
    moved = photo.transform_boxes(sample.boxes, matrix)
    clipped = np.clip(moved, 0, size)
    whole = _area(moved)
    visible = _area(clipped) / np.maximum(whole, 1e-6)
    side = np.min(clipped[:, 2:] - clipped[:, :2], -1, initial=np.inf)
    keep = (visible >= augment.min_visible) & (side >= augment.min_side) & (_area(clipped) > 0)
    ignore = np.clip(photo.transform_boxes(sample.ignore, matrix), 0, size)
    ignore = np.concatenate([ignore, clipped[~keep]])
    ignore = ignore[_area(ignore) > 0]
    # A sample without parts says so by empty arrays, whatever the number of its boxes.
    columns = sample.parts.shape[1]
    parts = photo.transform_boxes(sample.parts.reshape(len(keep), columns, 4)[keep], matrix)
    parts_clipped = np.clip(parts, 0, size)
    seen = _area(parts_clipped) >= 0.5 * np.maximum(_area(parts), 1e-6)
    part_weights = sample.part_weights.reshape(len(keep), columns)[keep] * seen
    return clipped[keep], sample.labels[keep], ignore, parts_clipped, part_weights.astype(np.float32)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[..., 2] - boxes[..., 0], 0) * np.maximum(boxes[..., 3] - boxes[..., 1], 0)
