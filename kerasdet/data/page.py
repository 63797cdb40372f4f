"""Many photos on one page: with what is labelled on them, or in pairs that show the same."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from kerasdet import photo as photo_
from kerasdet.drawing import draw_labels, draw_notes

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
    return _page(cells, _columns(cells))


def draw_notes_page(photos: Sequence[tuple[str, Sequence]]):
    """Draws photos in rows, each with boxes that say something, see `kerasdet.drawing.draw_notes`.

    Args:
        photos: pairs of a file and its notes, in pixels of the photo; one or more.

    Returns:
        PIL.Image, RGB, about as wide as high.
    """
    cells = []
    for path, notes in photos:
        pixels, scale = _fitted(path, 2)
        scaled = [
            (box * scale, text, colour, None if other is None else other * scale)
            for box, text, colour, other in notes
        ]
        cells.append((draw_notes(pixels, scaled), os.path.basename(path)))
    return _page(cells, _columns(cells), 2)


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


def _fitted(path: str, times: int = 1) -> tuple[np.ndarray, float]:
    """A photo made to fit a place that is `times` as wide and high, and the scale."""
    import cv2

    pixels = photo_.read(path)
    height, width = pixels.shape[:2]
    scale = times * min(WIDTH / width, HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(pixels, size, interpolation=way), scale


def _columns(cells: list) -> int:
    """As many as make the page about square."""
    side = (len(cells) * WIDTH * (HEIGHT + CAPTION)) ** 0.5
    return max(1, round(side / WIDTH))


def _page(cells: list, columns: int, times: int = 1):
    from PIL import Image, ImageDraw, ImageFont

    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    width, height = times * WIDTH, times * HEIGHT
    across, down = width + GAP, height + CAPTION + GAP
    page = Image.new("RGB", (columns * across + GAP, rows * down + GAP), "white")
    canvas, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for place, (picture, caption) in enumerate(cells):
        x, y = GAP + place % columns * across, GAP + place // columns * down
        page.paste(picture, (x + (width - picture.width) // 2, y + (height - picture.height) // 2))
        while font.getlength(caption) > width:  # the end tells photos apart, and says the number
            caption = "..." + caption.removeprefix("...")[1:]
        canvas.text((x + width / 2, y + height + 3), caption, fill=(60, 64, 72), font=font, anchor="ma")
    return page
