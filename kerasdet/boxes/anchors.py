"""Anchors: the boxes that an anchor-based detector places on its maps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def default_boxes(
    cells: Sequence[int], steps: Sequence[float], sizes: Sequence[float],
    ratios: Sequence[Sequence[float]],
) -> np.ndarray:
    """The default boxes of SSD, around the middle of every cell of every map.

    A cell of map k has a square of side sizes[k], one of side sqrt(sizes[k] * sizes[k + 1]), and for each
    ratio r a box of the first one's area that is r times as wide as high and one as much higher. Boxes
    near the border reach over it.

    Args:
        cells: cells a side of each of the maps.
        steps: pixels between two cells of each map.
        sizes: side in pixels of each map's squares, and of one map more.
        ratios: of each map, such as (2, 3).

    Returns:
        (n, 4) float32 xyxy pixels: map by map, row by row, cell by cell, box by box in the order above.

    Source: SSD (Liu et al., ECCV 2016), section 2.2, "Choosing scales and aspect ratios".

    Example: one cell of 32 px, sizes 8 and 18, ratio 4 give sides (w, h) 8 x 8, 12 x 12, 16 x 4, 4 x 16
    around (16, 16).
    """
    boxes = []
    for k, (count, step) in enumerate(zip(cells, steps, strict=True)):
        between = np.sqrt(sizes[k] * sizes[k + 1])
        sides = [(sizes[k], sizes[k]), (between, between)]
        for ratio in ratios[k]:
            long, short = sizes[k] * np.sqrt(ratio), sizes[k] / np.sqrt(ratio)
            sides += [(long, short), (short, long)]
        middle = (np.arange(count) + 0.5) * step
        y, x = np.meshgrid(middle, middle, indexing="ij")
        centre = np.stack([x, y], -1)[:, :, None]
        half = np.array(sides) / 2
        boxes.append(np.concatenate([centre - half, centre + half], -1).reshape(-1, 4))
    return np.concatenate(boxes).astype(np.float32)


def boxes_per_cell(ratios: Sequence[float]) -> int:
    """How many default boxes a cell has: two squares, and two for each ratio."""
    return 2 + 2 * len(ratios)
