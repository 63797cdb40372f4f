"""Outlines of objects: polygons, the cells of a grid that they fill, and COCO's run lengths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# OpenCV takes corners of polygons in parts of a pixel: 2^-4.
_SHIFT = 4
# Cells are filled so many times finer along each side.
_FINER = 8
# Pixels of a mask's side that is read.
MAX_SIDE = 8192


def grid_of(outline: Sequence[np.ndarray], box: np.ndarray, size: int) -> np.ndarray:
    """Which cells of a grid laid over a box an object fills.

    Args:
        outline: its polygons, (k, 2) float32 x and y each.
        box: (4,) xyxy in the same pixels.
        size: cells along each side.

    Returns:
        (size, size) uint8, 1 in cells of which its polygons fill half or more.

    Example: a square that is the left half of its box fills the left half of the grid.
    """
    import cv2

    # OpenCV fills what an edge touches too, which would make objects half a cell wider on each side.
    fine = size * _FINER
    scale = fine / np.maximum(box[2:] - box[:2], 1e-6)
    grid = np.zeros((fine, fine), np.uint8)
    for points in outline:
        # The middle of cell 0 is OpenCV's pixel 0.
        corners = np.rint(((points - box[:2]) * scale - 0.5) * 2**_SHIFT).astype(np.int32)
        # One by one: where polygons of one call overlap, OpenCV leaves a hole.
        cv2.fillPoly(grid, [corners], 1, shift=_SHIFT)
    filled = grid.reshape(size, _FINER, size, _FINER).mean((1, 3), dtype=np.float32)
    return (filled >= 0.5).astype(np.uint8)


def paste(grid: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """A grid of probabilities laid over a box of a photo.

    Args:
        grid: (m, m) float32 in [0, 1].
        box: (4,) xyxy in the photo's pixels.
        height, width: of the photo.

    Returns:
        (height, width) uint8, 1 where the probability, interpolated between cells, is 1/2 or more.

    Source: Mask R-CNN (He et al. 2017), section 3.1, "Inference".
    """
    import cv2

    mask = np.zeros((height, width), np.uint8)
    low = np.maximum(np.floor(box[:2]), 0).astype(int)
    high = np.minimum(np.ceil(box[2:]), (width, height)).astype(int)
    if (high <= low).any():
        return mask
    cells = (box[2:] - box[:2]) / len(grid)
    # From the middle of a pixel of this part to its place among the middles of cells.
    scale = 1 / np.maximum(cells, 1e-6)
    shift = (low + 0.5 - box[:2]) * scale - 0.5
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    part = cv2.warpAffine(
        grid, matrix, tuple(int(side) for side in high - low),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )
    mask[low[1] : high[1], low[0] : high[0]] = part >= 0.5
    return mask


def encode(mask: np.ndarray) -> dict:
    """A mask (height, width) uint8 as COCO's compressed run lengths."""
    from pycocotools import mask as runs

    return runs.encode(np.asfortranarray(mask))


def decode(code: dict, most: int = MAX_SIDE) -> np.ndarray:
    """COCO's run lengths, compressed or not, as a mask (height, width) uint8.

    Args:
        code: {"size": [height, width], "counts": ...}.
        most: pixels of a side; what a stranger's file promises has a limit.

    Raises:
        ValueError: they are no run lengths.
    """
    from pycocotools import mask as runs

    try:
        height, width = map(int, code["size"])
        if not (0 < height <= most and 0 < width <= most):
            raise ValueError(f"size is {code['size']}, and each side is 1 to {most}")
        counts = code["counts"]
        counts = list(map(int, counts)) if isinstance(counts, list) else _unpacked(counts)
        # pycocotools writes where the runs lead, inside of the mask or not.
        if min(counts, default=0) < 0 or sum(counts) != height * width:
            raise ValueError(f"the runs are {sum(counts)} pixels in all, and the mask has {height * width}")
        return runs.decode(runs.frPyObjects({"counts": counts, "size": [height, width]}, height, width))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{str(code)[:60]} are no run lengths of COCO ({error})") from error


def _unpacked(text: str | bytes) -> list[int]:
    """The runs that COCO's compressed text stands for; pycocotools reads beyond the end of one that is cut.

    Six bits a character, from "0" on: five of the number, the lowest first, and whether more follow. The last
    one's highest bit is the sign. From the third run on it is the difference to the run two before.
    """
    if not isinstance(text, (str, bytes)):  # `bytes` of a number would be that many
        raise TypeError(f"counts is a {type(text).__name__}")
    codes = np.frombuffer(text.encode("ascii") if isinstance(text, str) else text, np.uint8)
    counts: list[int] = []
    number, shift = 0, 0
    for code in (codes.astype(int) - 48).tolist():
        if not 0 <= code < 64 or shift > 30:
            raise ValueError("a character that has no place there")
        number |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            number -= 1 << shift
        counts.append(number + counts[-2] if len(counts) > 2 else number)
        number, shift = 0, 0
    if shift:
        raise ValueError("the text is cut off")
    return counts


def encode_outline(outline: Sequence[np.ndarray], height: int, width: int) -> dict:
    """An object's polygons on a photo as COCO's compressed run lengths."""
    from pycocotools import mask as runs

    polygons = [np.asarray(points, float).ravel().tolist() for points in outline]
    return runs.merge(runs.frPyObjects(polygons, height, width))


def outline_of(mask: np.ndarray) -> tuple[np.ndarray, ...]:
    """The polygons (k, 2) float32 around the parts of a mask (height, width) uint8; holes are filled."""
    import cv2

    x, y, width, height = cv2.boundingRect(np.ascontiguousarray(mask, np.uint8))
    part = np.pad(mask[y : y + height, x : x + width], 1)
    # Borders of pixels, not their middles: each pixel becomes 2 x 2, and the border runs through between.
    large = part.repeat(2, axis=0).repeat(2, axis=1)
    found, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    # A border pixel p of the large picture is half a pixel; its outer side is rounded away from the middle.
    polygons = [np.ceil((contour[:, 0] - 2) / 2) + (x, y) for contour in found if len(contour) > 2]
    return tuple(points.astype(np.float32) for points in polygons)
