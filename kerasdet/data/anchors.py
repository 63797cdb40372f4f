"""How large a set's objects are in a network's square, and a picture of it with anchors."""

from __future__ import annotations

import math

import numpy as np

from kerasdet import photo
from kerasdet.drawing import PALETTE


def box_sizes(dataset, size: int, resize: str = "stretch") -> np.ndarray:
    """Widths and heights of all objects of a set.

    Args:
        dataset: sequence of `Sample`.
        size: side of the network's square in pixels.
        resize: how a photo becomes the square, see `photo.square_matrix`.

    Returns:
        (n, 2) float64, pixels of the square; boxes without width or height are left out.
    """
    found = [np.zeros((0, 2))]
    for sample in dataset:
        if len(sample.boxes):
            width, height = sample.width, sample.height
            if not width or not height:  # not every annotation says it
                height, width = photo.read(sample.path).shape[:2]
            matrix = photo.square_matrix(height, width, size, resize)
            boxes = photo.transform_boxes(sample.boxes, matrix)
            found.append(boxes[:, 2:] - boxes[:, :2])
    sizes = np.concatenate(found).astype(np.float64)
    return sizes[(sizes > 0).all(-1)]


def draw_anchors(sizes: np.ndarray, anchors: np.ndarray, owner: np.ndarray, size: int):
    """Draws every box's width and height as a dot in its anchor's colour, and the anchors as boxes.

    Args:
        sizes: (n, 2), pixels of the square.
        anchors: (k, 2), in the same unit.
        owner: (n,), the anchor of each box.
        size: side of the square.

    Returns:
        PIL.Image, RGB: sizes on the left, anchors around one middle on the right.
    """
    from PIL import Image, ImageDraw, ImageFont

    side, margin, ink = 480, 48, (60, 64, 72)
    scale = side / size
    image = Image.new("RGB", (2 * side + 3 * margin, side + 2 * margin), "white")
    canvas = ImageDraw.Draw(image, "RGBA")
    font = ImageFont.load_default(13)
    left, right, bottom = margin, side + 2 * margin, margin + side
    for x in (left, right):
        canvas.rectangle((x, margin, x + side, bottom), outline=(200, 203, 208), width=1)
    step = 2 ** round(math.log2(size / 5))
    for value in range(0, size + 1, step):
        at = value * scale
        canvas.line((left + at, bottom, left + at, bottom + 4), fill=ink)
        canvas.line((left - 4, bottom - at, left, bottom - at), fill=ink)
        canvas.text((left + at, bottom + 6), str(value), fill=ink, font=font, anchor="ma")
        canvas.text((left - 7, bottom - at), str(value), fill=ink, font=font, anchor="rm")
    canvas.text((left + side / 2, bottom + 26), "width, px", fill=ink, font=font, anchor="ma")
    canvas.text((left, margin - 8), "height, px", fill=ink, font=font, anchor="ls")
    text = f"{len(anchors)} anchors in the square of {size} px"
    canvas.text((right, margin - 8), text, fill=ink, font=font, anchor="ls")
    for (w, h), i in zip(sizes * scale, owner, strict=True):
        x, y = left + w, bottom - h
        canvas.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(*PALETTE[i % len(PALETTE)], 120))
    middle = right + side / 2, margin + side / 2
    for i, (w, h) in reversed(list(enumerate(anchors * scale))):
        colour, x, y = PALETTE[i % len(PALETTE)], left + w, bottom - h
        canvas.rectangle((x - 5, y - 5, x + 5, y + 5), fill=colour, outline=ink, width=2)
        box = (middle[0] - w / 2, middle[1] - h / 2, middle[0] + w / 2, middle[1] + h / 2)
        canvas.rectangle(box, outline=colour, width=3)
    return image
