"""Many photos on one page: with what is labelled on them, or in pairs that show the same."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from kerasdet import photo as photo_
from kerasdet.drawing import draw_labels

# Of a photo's place on the page, and of the line with its name below.
WIDTH, HEIGHT, CAPTION, GAP = 320, 240, 20, 8


def draw_page(dataset, progress: bool = False):
    """Draws the photos of a set in rows, each with its boxes, and its name and number of boxes below.

    Args:
        dataset: sequence of `Sample`, with `classes`; one photo or more.
        progress: show a progress bar.

    Returns:
        PIL.Image, RGB, about as wide as high.
    """
    samples = iter(dataset)
    if progress:
        from rich.progress import track

        samples = track(dataset, "Drawing", transient=True)
    cells = []
    for sample in samples:
        pixels, scale = _fitted(sample.path)
        parts = [
            (row, box * scale)
            for row in range(len(sample.boxes))
            for box, weight in zip(sample.parts[row], sample.part_weights[row], strict=True)
            if weight
        ]
        masks = [[points * scale for points in outline] for outline in sample.masks]
        picture = draw_labels(
            pixels, sample.boxes * scale, sample.labels, dataset.classes, parts, sample.ignore * scale, masks
        )
        count = len(sample.boxes)
        boxes = {0: "no boxes", 1: "1 box"}.get(count, f"{count} boxes")
        cells.append((picture, f"{os.path.basename(sample.path)}: {boxes}"))
    # As many rows as make the page about square.
    side = (len(cells) * WIDTH * (HEIGHT + CAPTION)) ** 0.5
    return _page(cells, max(1, round(side / WIDTH)))


def draw_pairs(pairs: Sequence[tuple[str, str]]):
    """Draws pairs of photos side by side, two pairs a row.

    Args:
        pairs: files of the photos; one pair or more.

    Returns:
        PIL.Image, RGB.
    """
    from PIL import Image

    cells = [
        (Image.fromarray(_fitted(path)[0]), os.path.basename(path)) for pair in pairs for path in pair
    ]
    return _page(cells, 4)


def _fitted(path: str) -> tuple[np.ndarray, float]:
    """A photo made to fit its place, and the scale."""
    import cv2

    pixels = photo_.read(path)
    height, width = pixels.shape[:2]
    scale = min(WIDTH / width, HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(pixels, size, interpolation=way), scale


def _page(cells: list, columns: int):
    from PIL import Image, ImageDraw, ImageFont

    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    across, down = WIDTH + GAP, HEIGHT + CAPTION + GAP
    page = Image.new("RGB", (columns * across + GAP, rows * down + GAP), "white")
    canvas, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for place, (picture, caption) in enumerate(cells):
        x, y = GAP + place % columns * across, GAP + place // columns * down
        page.paste(picture, (x + (WIDTH - picture.width) // 2, y + (HEIGHT - picture.height) // 2))
        while font.getlength(caption) > WIDTH:  # the end tells photos apart, and says the number
            caption = "..." + caption.removeprefix("...")[1:]
        canvas.text((x + WIDTH / 2, y + HEIGHT + 3), caption, fill=(60, 64, 72), font=font, anchor="ma")
    return page
