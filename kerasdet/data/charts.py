"""Pictures of a set's figures: its boxes' sizes and shapes beside a detector's, and its classes."""

from __future__ import annotations

import math

import numpy as np

from kerasdet.drawing import PALETTE

_INK, _RULE = (60, 64, 72), (200, 203, 208)
_SIDE, _MARGIN = 480, 56
# Of aspect ratios, width / height: bins from 1/8 to 8, four to a doubling.
_RATIO_BINS = np.linspace(-3, 3, 25)


def anchor_sides(anchors) -> np.ndarray:
    """A detector's different anchors.

    Args:
        anchors: as detectors have them: (k, 2) widths and heights, or (n, 4) xyxy boxes, of one map or
            of several, in pixels of the square.

    Returns:
        (k, 2) float64 widths and heights.
    """
    rows = [np.reshape(level, (-1, np.shape(level)[-1])) for level in anchors]
    rows = np.concatenate(rows).astype(np.float64)
    sides = rows if rows.shape[-1] == 2 else rows[:, 2:] - rows[:, :2]
    return np.unique(np.round(sides, 2), axis=0)


def draw_sizes(
    sizes: np.ndarray, size: int, stride: float | None = None, anchors: np.ndarray | None = None
):
    """Draws all boxes by width and height, both doubling from line to line, and by aspect ratio.

    Args:
        sizes: (n, 2) widths and heights above 0, pixels of the square.
        size: side of the square.
        stride: pixels of a cell of the detector's finest map; smaller boxes stand in a shaded field.
        anchors: (k, 2), the detector's; None where it has none.

    Returns:
        PIL.Image, RGB: sizes on the left, with the anchors as squares; on the right how many boxes have
        which aspect ratio, with those of the anchors as marks.
    """
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (2 * _SIDE + 3 * _MARGIN, _SIDE + 2 * _MARGIN), "white")
    canvas, font = ImageDraw.Draw(image, "RGBA"), ImageFont.load_default(13)
    left, right, bottom = _MARGIN, _SIDE + 2 * _MARGIN, _MARGIN + _SIDE
    least = min(sizes.min(initial=size / 2), size if stride is None else stride / 2)
    low = math.floor(math.log2(max(1, least)))

    def along(values):
        """Where lengths in pixels lie on an axis, from its beginning."""
        share = (np.log2(np.maximum(values, 2**low)) - low) / (math.log2(size) - low)
        return share * _SIDE

    if stride is not None:
        edge = float(along(stride))
        canvas.rectangle((left, _MARGIN, left + edge, bottom), fill=(*PALETTE[0], 40))
        canvas.rectangle((left + edge, bottom - edge, left + _SIDE, bottom), fill=(*PALETTE[0], 40))
    for power in range(low, int(math.log2(size)) + 1):
        at, text = float(along(2**power)), str(2**power)
        canvas.line((left + at, _MARGIN, left + at, bottom), fill=_RULE)
        canvas.line((left, bottom - at, left + _SIDE, bottom - at), fill=_RULE)
        canvas.text((left + at, bottom + 6), text, fill=_INK, font=font, anchor="ma")
        canvas.text((left - 7, bottom - at), text, fill=_INK, font=font, anchor="rm")
    canvas.rectangle((left, _MARGIN, left + _SIDE, bottom), outline=_INK)
    # Many boxes on one place get darker, few stay visible.
    faint = int(np.clip(255 * 20 / math.sqrt(max(1, len(sizes))), 40, 200))
    for x, y in along(sizes):
        x, y = left + x, bottom - y
        canvas.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(*PALETTE[1], faint))
    # Of some detectors they are larger than the square.
    for x, y in [] if anchors is None else along(np.minimum(anchors, size)):
        x, y = left + x, bottom - y
        canvas.rectangle((x - 4, y - 4, x + 4, y + 4), fill=PALETTE[2], outline=_INK, width=1)
    text = f"height, px: {len(sizes)} boxes in the square of {size} px"
    canvas.text((left, _MARGIN - 8), text, fill=_INK, font=font, anchor="ls")
    canvas.text((left + _SIDE / 2, bottom + 28), "width, px", fill=_INK, font=font, anchor="ma")
    if stride is not None:
        text = f"under {stride:g} px, a cell"
        canvas.text((left + _SIDE - 6, bottom - 4), text, fill=_INK, font=font, anchor="rs")
    _draw_ratios(canvas, font, right, bottom, sizes, anchors)
    return image


def _draw_ratios(canvas, font, left: int, bottom: int, sizes: np.ndarray, anchors) -> None:
    ratios = np.clip(np.log2(sizes[:, 0] / sizes[:, 1]), _RATIO_BINS[0], _RATIO_BINS[-1])
    counts, _ = np.histogram(ratios, _RATIO_BINS)
    wide = _SIDE / len(counts)
    for place, count in enumerate(counts):
        x, high = left + place * wide, count / max(1, counts.max()) * (_SIDE - 20)
        canvas.rectangle((x + 1, bottom - high, x + wide - 1, bottom), fill=PALETTE[1])
    for power in range(-3, 4):
        x = left + (power + 3) / 6 * _SIDE
        text = f"1/{2**-power}" if power < 0 else str(2**power)
        canvas.line((x, bottom, x, bottom + 4), fill=_INK)
        canvas.text((x, bottom + 6), text, fill=_INK, font=font, anchor="ma")
    if anchors is not None:
        for ratio in np.unique(np.round(np.log2(anchors[:, 0] / anchors[:, 1]), 2)):
            x = left + (float(np.clip(ratio, -3, 3)) + 3) / 6 * _SIDE
            canvas.polygon([(x, _MARGIN + 12), (x - 5, _MARGIN + 2), (x + 5, _MARGIN + 2)], fill=PALETTE[2],
                           outline=_INK)
    canvas.rectangle((left, _MARGIN, left + _SIDE, bottom), outline=_INK)
    text = f"boxes, {counts.max()} at most in a bar"
    canvas.text((left, _MARGIN - 8), text, fill=_INK, font=font, anchor="ls")
    canvas.text((left + _SIDE / 2, bottom + 28), "width / height", fill=_INK, font=font, anchor="ma")


def draw_classes(counts: dict[str, dict[str, tuple[int, int]]]):
    """Draws how many objects each class has, a bar for each split.

    Args:
        counts: class -> split -> (objects, photos that have one); see `doctor.count_objects`.

    Returns:
        PIL.Image, RGB.
    """
    from PIL import Image, ImageDraw, ImageFont

    font, line = ImageFont.load_default(13), 15
    splits = list(next(iter(counts.values())))
    rows = sorted(counts, key=lambda name: -sum(objects for objects, _ in counts[name].values()))
    most = max(objects for row in counts.values() for objects, _ in row.values())
    names = math.ceil(max(font.getlength(name) for name in rows)) + 16
    high = len(splits) * line + 8
    image = Image.new("RGB", (names + _SIDE + 90, 40 + len(rows) * high), "white")
    canvas, x = ImageDraw.Draw(image), names
    for place, split in enumerate(splits):
        canvas.rectangle((x, 10, x + 11, 21), fill=PALETTE[place % len(PALETTE)])
        canvas.text((x + 17, 16), split, fill=_INK, font=font, anchor="lm")
        x += 17 + math.ceil(font.getlength(split)) + 20
    for row, name in enumerate(rows):
        y = 34 + row * high
        canvas.text((names - 8, y + len(splits) * line / 2), name, fill=_INK, font=font, anchor="rm")
        for place, split in enumerate(splits):
            objects = counts[name][split][0]
            end, top = names + objects / max(1, most) * _SIDE, y + place * line
            canvas.rectangle((names, top + 1, end, top + line - 2), fill=PALETTE[place % len(PALETTE)])
            canvas.text((end + 5, top + line / 2), str(objects), fill=_INK, font=font, anchor="lm")
    return image
