"""What training does to a photo: one affine warp (crop, zoom, aspect, flip) and a change of light."""

from __future__ import annotations

import dataclasses

import numpy as np

from kerasdet import photo
from kerasdet.data.sample import Sample

# SSD's crops (Liu et al. 2016, section 2.2): sides as fractions of the picture, aspect, and how often to try.
# The paper draws sides from .1 on; parts that small show more blur than photo.
CROP_SIDES, CROP_ASPECT, CROP_TRIALS = (0.3, 1.0), 2.0, 50


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
        expand: with probability 1/2 the photo is first laid somewhere on a canvas of mean colour, up to
            this many times as wide and high.
        overlaps: then one of these is picked, and a part of the picture is cut out that overlaps an
            object by this IoU or more: 0 stands for any part, 1 for the whole picture. () cuts nothing.
        hue: largest turn of all colours, in degrees.
        by_centre: an object is kept if its centre stays in the picture, as SSD has it, in place of
            `min_visible`.
        mixup: two photos are laid over one another, one as strong as lambda and the other as
            1 - lambda, and their objects count as much; lambda is drawn from Beta(mixup, mixup), inf
            makes it 1/2. 0 mixes none (Zhang et al. 2019, "Bag of Freebies", section 3.1: 1.5). Each is
            warped first as if alone: what it does not fill is mean colour, and black in the paper's code.
        mosaic: probability that a picture is put together of parts of four photos (Bochkovskiy et al.
            2020, YOLOv4, section 3.3). Each is shrunk as far as it still fills its part: `zoom`, `expand`
            and `overlaps` do nothing to it, and it is not mixed up as well.
    """

    zoom: tuple[float, float] = (0.6, 1.6)
    aspect: float = 1.25
    flip: float = 0.5
    brightness: float = 0.15
    contrast: float = 0.4
    saturation: float = 0.5
    min_visible: float = 0.5
    min_side: float = 4.0
    expand: float = 1.0
    overlaps: tuple[float, ...] = ()
    hue: float = 0.0
    by_centre: bool = False
    mixup: float = 0.0
    mosaic: float = 0.0

    def __post_init__(self):
        if not self.mixup >= 0:
            raise ValueError(f"mixup is {self.mixup}; give 0 for none, or Beta's parameter, such as 1.5")
        for name in ("flip", "mosaic"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give a probability, 0 to 1")
        for name, least, what in (
            ("aspect", 1, "a factor, 1 for none"), ("expand", 1, "a factor, 1 for none"),
            ("brightness", 0, "a fraction"), ("contrast", 0, "a fraction"), ("saturation", 0, "a fraction"),
            ("hue", 0, "degrees"), ("min_side", 0, "pixels"),
        ):
            if not least <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; give {what}, {least} or more")
        if not 0 <= self.min_visible <= 1:
            raise ValueError(f"min_visible is {self.min_visible}; give a fraction, 0 to 1")
        scales = np.asarray(self.zoom, float)
        if scales.shape != (2,) or not 0 < scales[0] <= scales[1] < np.inf:
            raise ValueError(f"zoom is {self.zoom}; give the lowest and highest scale, such as (0.6, 1.6)")
        picked = np.asarray(self.overlaps, float)
        if picked.ndim != 1 or not ((picked >= 0) & (picked <= 1)).all():
            raise ValueError(f"overlaps is {self.overlaps}; give a tuple of IoUs, 0 to 1, or ()")

    @property
    def photos(self) -> int:
        """How many photos a picture may be made of."""
        return 4 if self.mosaic else 2 if self.mixup else 1

    @property
    def one_photo(self) -> Augment:
        """The same without mixup and mosaic."""
        return dataclasses.replace(self, mixup=0.0, mosaic=0.0)

    def share(self, rng: np.random.Generator) -> float:
        """How strong the first of two photos is."""
        return 0.5 if np.isinf(self.mixup) else float(rng.beta(self.mixup, self.mixup))

    @classmethod
    def none(cls) -> Augment:
        return cls((1.0, 1.0), 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

    @classmethod
    def ssd(cls) -> Augment:
        """SSD's own: light, expansion, crops that overlap an object, flip (section 2.2 and 3.6)."""
        return cls(
            zoom=(1.0, 1.0), aspect=1.0, brightness=0.125, contrast=0.5, saturation=0.5, hue=36.0,
            expand=4.0, overlaps=(0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0), by_centre=True,
        )

    def matrix(self, sample: Sample, base: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        """The map (2, 3) from photo to square: `base`, then SSD's crop, a zoom and a flip by chance."""
        if self.expand > 1 or self.overlaps:
            base = _fill(self.window(photo.transform_boxes(sample.boxes, base), size, rng), size) @ np.vstack(
                [base, [0, 0, 1]]
            )
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
        return self._moved(base, scale, shift, size, rng)

    def tile(
        self, base: np.ndarray, size: int, sides: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """The map (2, 3) from photo to a tile of a mosaic: `base`, zoomed out as far as it fills the tile.

        Args:
            base: the map (2, 3) from photo to square.
            size: side of the square in pixels.
            sides: (2,) width and height of the tile in pixels.
            rng: decides.
        """
        stretch = np.exp(rng.uniform(-1, 1) * np.log(self.aspect) / 2)
        zoom = np.exp(rng.uniform(np.log(sides.max() / size), 0))
        scale = np.maximum(zoom * np.array([stretch, 1 / stretch]), sides / size)
        shift = rng.uniform(np.minimum(sides - size * scale, 0), 0)
        return self._moved(base, scale, shift, sides[0], rng)

    def _moved(self, base, scale, shift, width, rng) -> np.ndarray:
        """`base`, then a zoom (2,), a shift (2,) and, by chance, a flip of what is `width` px wide."""
        matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
        if rng.random() < self.flip:
            matrix[0] = [-matrix[0, 0], 0, width - matrix[0, 2]]
        return matrix @ np.vstack([base, [0, 0, 1]])

    def window(self, boxes: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        """The part of the square, reaching beyond it perhaps, that is to fill the square.

        Args:
            boxes: (n, 4) xyxy pixels of the square.
            size: its side.
            rng: decides.

        Returns:
            (4,) float64 xyxy pixels of the square.

        Source: SSD (Liu et al. 2016), sections 2.2 "Data augmentation" and 3.6. The part's sides are .3
        to 1 of the picture's, its aspect 1/2 to 2. The centre of an object lies in it, if there is one.
        """
        window = np.array([0.0, 0.0, size, size])
        if self.expand > 1 and rng.random() < 0.5:
            side = size * rng.uniform(1, self.expand)
            low = -rng.uniform(0, side - size, 2)
            window = np.concatenate([low, low + side])
        overlap = rng.choice(self.overlaps) if self.overlaps else 1.0
        if overlap >= 1 or (overlap > 0 and not len(boxes)):
            return window
        for _ in range(CROP_TRIALS):
            part = _part(window, rng)
            if not len(boxes) or _fits(part, boxes, overlap):
                return part
        return window

    def light(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Hue, saturation, contrast and brightness of a uint8 picture, changed by random amounts."""
        import cv2

        if self.hue:
            turned = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
            # OpenCV's hues are of 2 degrees, 0..179.
            turn = round(rng.uniform(-1, 1) * self.hue / 2)
            turned[..., 0] = cv2.LUT(turned[..., 0], ((np.arange(256) + turn) % 180).astype(np.uint8))
            image = cv2.cvtColor(turned, cv2.COLOR_HSV2RGB)
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
    sample: Sample, matrix: np.ndarray, size: int | tuple[int, int], augment: Augment
) -> tuple[np.ndarray, ...]:
    """What is labelled on a photo, moved into the network's square by `matrix` (2, 3).

    `size` is the square's side, or the width and height of the part of it that the photo fills.

    Returns:
        boxes (n, 4) and labels (n,) of what is still there, ignore (m, 4), parts (n, P, 4),
        part_weights (n, P); all boxes float32 xyxy pixels of the square, clipped to it; and the sample's
        rows (n,) that they come from.
    """
    size = np.broadcast_to(np.float32(size), 2)
    edges = np.tile(size, 2)
    moved = photo.transform_boxes(sample.boxes, matrix)
    clipped = np.clip(moved, 0, edges)
    whole = _area(moved)
    visible = _area(clipped) / np.maximum(whole, 1e-6)
    side = np.min(clipped[:, 2:] - clipped[:, :2], -1, initial=np.inf)
    stays = visible >= augment.min_visible
    if augment.by_centre:
        centre = (moved[:, :2] + moved[:, 2:]) / 2
        stays = ((centre >= 0) & (centre < size)).all(-1)
    keep = stays & (side >= augment.min_side) & (_area(clipped) > 0)
    ignore = np.clip(photo.transform_boxes(sample.ignore, matrix), 0, edges)
    ignore = np.concatenate([ignore, clipped[~keep]])
    ignore = ignore[_area(ignore) > 0]
    # A sample without parts says so by empty arrays, whatever the number of its boxes.
    columns = sample.parts.shape[1]
    parts = photo.transform_boxes(sample.parts.reshape(len(keep), columns, 4)[keep], matrix)
    parts_clipped = np.clip(parts, 0, edges)
    seen = _area(parts_clipped) >= 0.5 * np.maximum(_area(parts), 1e-6)
    part_weights = sample.part_weights.reshape(len(keep), columns)[keep] * seen
    weights = part_weights.astype(np.float32)
    return clipped[keep], sample.labels[keep], ignore, parts_clipped, weights, np.flatnonzero(keep)


def place_proposals(boxes: np.ndarray, matrix: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Boxes (n, 4) of a photo, moved and clipped as `place` does; without those under 1 px wide or high."""
    moved = np.clip(photo.transform_boxes(boxes, matrix), 0, np.tile(np.broadcast_to(np.float32(size), 2), 2))
    return moved[np.min(moved[:, 2:] - moved[:, :2], -1, initial=np.inf) >= 1]


def _part(window: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random part (4,) of a window (4,), by SSD's rules."""
    scale = rng.uniform(*CROP_SIDES)
    # So that neither side exceeds the window's.
    widest = min(CROP_ASPECT, 1 / scale**2)
    stretch = np.sqrt(rng.uniform(1 / widest, widest))
    sides = np.array([scale * stretch, scale / stretch])
    low = rng.uniform(0, 1 - sides)
    whole = window[2:] - window[:2]
    return np.concatenate([window[:2] + low * whole, window[:2] + (low + sides) * whole])


def _fits(part: np.ndarray, boxes: np.ndarray, overlap: float) -> bool:
    """Whether a part holds the centre of an object, and overlaps one by an IoU of `overlap` or more."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    if not ((centre >= part[:2]) & (centre < part[2:])).all(-1).any():
        return False
    low, high = np.maximum(boxes[:, :2], part[:2]), np.minimum(boxes[:, 2:], part[2:])
    shared = np.prod(np.maximum(high - low, 0), -1)
    union = _area(boxes) + _area(part) - shared
    return bool((shared >= overlap * union).any())


def _fill(window: np.ndarray, size: int) -> np.ndarray:
    """The map (2, 3) that makes a window (4,) fill the square."""
    scale = size / (window[2:] - window[:2])
    shift = -window[:2] * scale
    return np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.maximum(boxes[..., 2] - boxes[..., 0], 0) * np.maximum(boxes[..., 3] - boxes[..., 1], 0)
