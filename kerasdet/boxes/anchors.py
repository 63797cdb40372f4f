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
        boxes.append(_around_cells(count, step, step / 2, sides))
    return np.concatenate(boxes)


def boxes_per_cell(ratios: Sequence[float]) -> int:
    """How many default boxes a cell has: two squares, and two for each ratio."""
    return 2 + 2 * len(ratios)


def rpn_anchors(
    cells: Sequence[int], steps: Sequence[float], sizes: Sequence[Sequence[float]],
    ratios: Sequence[float] = (0.5, 1.0, 2.0), firsts: Sequence[float] | None = None,
) -> list[np.ndarray]:
    """The anchors of a region proposal network, around the middle of every cell of every map.

    Args:
        cells: cells a side of each of the maps.
        steps: pixels between two cells of each map.
        sizes: sides in pixels of each map's squares: one a map in FPN, all on the single map of C4.
        ratios: height over width; boxes of one size have one area.
        firsts: pixels from the border to the middle of each map's first cell; None takes half a step. FPN's
            P6 needs it: every second cell of P5 as it is, it starts where P5 does.

    Returns:
        one array (n, 4) float32 xyxy pixels a map: row by row, cell by cell, size by size, ratio by ratio.
        Boxes near the border reach over it.

    Source: Faster R-CNN (Ren et al. 2015), section 3.1.1; FPN (Lin et al. 2017), section 4.1.

    Example: one cell of 32 px, size 16, ratios 1 and 4 give sides (w, h) 16 x 16 and 8 x 32 around (16, 16).
    """
    found = []
    firsts = [step / 2 for step in steps] if firsts is None else firsts
    for count, step, squares, first in zip(cells, steps, sizes, firsts, strict=True):
        sides = [(side / np.sqrt(ratio), side * np.sqrt(ratio)) for side in squares for ratio in ratios]
        found.append(_around_cells(count, step, first, sides))
    return found


def _around_cells(count: int, step: float, first: float, sides: Sequence[tuple[float, float]]) -> np.ndarray:
    """Boxes of these sides (w, h) around the middle of every cell, the first of which is `first` pixels from
    the border; (count * count * sides, 4) float32."""
    middle = np.arange(count) * step + first
    y, x = np.meshgrid(middle, middle, indexing="ij")
    centre = np.stack([x, y], -1)[:, :, None]
    half = np.array(sides) / 2
    return np.concatenate([centre - half, centre + half], -1).reshape(-1, 4).astype(np.float32)
