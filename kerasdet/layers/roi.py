"""Regions of a feature map, each brought to the same few cells: RoI pooling and RoI align.

One is a gather at places that are computed from the boxes, the other a product with matrices that are, so
shapes are fixed, and an exported graph needs nothing but LiteRT's builtin operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from keras import ops

from kerasdet.boxes.iou import area
from kerasdet.boxes.rows import at_rows

# Side of the box that goes to P4: ImageNet's photos, on photos with a short side of 800 px.
CANONICAL_SIDE = 224.0


def roi_levels(boxes, first: int = 2, last: int = 5, canonical: float = CANONICAL_SIDE):
    """The level of a pyramid that each box is looked at on.

    Args:
        boxes: (batch, n, 4) float32 xyxy pixels.
        first, last: numbers of the finest and the coarsest level.
        canonical: side of a box, in pixels, that belongs to P4.

    Returns:
        (batch, n) int32, `first` to `last`; empty boxes are on the finest.

    Source: FPN (Lin et al. 2017), equation 1: k = floor(4 + log2(sqrt(w h) / 224)).

    Example: a box of 112 x 112 px is looked at on P3, one of 448 x 448 on P5.
    """
    side = ops.sqrt(ops.maximum(area(boxes), 1e-6))
    level = ops.floor(4.0 + ops.log(side / canonical) / math.log(2.0) + 1e-6)
    return ops.cast(ops.clip(level, first, last), "int32")


def roi_align(maps: Sequence, strides: Sequence[int], boxes, size: int = 7, samples: int = 2, levels=None):
    """Features of boxes, interpolated at regular places: nothing is rounded.

    A box is divided into size x size bins, a bin's value is the mean of samples x samples places in it, and
    each of these is interpolated between the four cells about it.

    Args:
        maps: one feature map (batch, h, w, c), or several of a pyramid.
        strides: pixels a cell of each.
        boxes: (batch, n, 4) float32 xyxy pixels.
        size: bins along each side.
        samples: places along each side of a bin.
        levels: (batch, n) int32, which of the maps each box is looked at on; None takes the first.

    Returns:
        (batch, n, size, size, c). Places more than a cell beyond the map count as 0, those nearer take the
        border's values.

    Source: Mask R-CNN (He et al. 2017), section 3, "RoIAlign", with cell centres at half-integers
    ("aligned").
    """
    if levels is None:
        maps, strides = maps[:1], strides[:1]
    found = 0.0
    for k, (features, stride) in enumerate(zip(maps, strides, strict=True)):
        _, height, width, channels = features.shape
        down = _shares(boxes[..., 1], boxes[..., 3], stride, height, size, samples)
        across = _shares(boxes[..., 0], boxes[..., 2], stride, width, size, samples)
        if levels is not None:
            down = down * ops.cast(ops.equal(levels, k), "float32")[..., None, None]
        count = boxes.shape[1] * size
        # Two products of matrices: gathers of every place's four cells took 3 to 20 times as long to train.
        rows = ops.matmul(
            ops.reshape(down, (-1, count, height)), ops.reshape(features, (-1, height, width * channels))
        )
        found += _columns(across, ops.reshape(rows, (-1, boxes.shape[1], size, width, channels)))
    return found


def _columns(across, rows):
    """Each box's columns (batch, n, size, width) of its rows (batch, n, size, width, c)."""
    _, count, size, width, channels = rows.shape
    if size > channels:
        # Of few channels, such as a photo's, all rows at once: what follows would fill the memory.
        side_by_side = ops.reshape(ops.transpose(rows, (0, 1, 3, 2, 4)), (-1, width, size * channels))
        found = ops.matmul(ops.reshape(across, (-1, size, width)), side_by_side)
        return ops.transpose(ops.reshape(found, (-1, count, size, size, channels)), (0, 1, 3, 2, 4))
    across = ops.reshape(ops.repeat(across, size, axis=1), (-1, size, width))
    found = ops.matmul(across, ops.reshape(rows, (-1, width, channels)))
    return ops.reshape(found, (-1, count, size, size, channels))


def _shares(low, high, stride: int, cells: int, size: int, samples: int):
    """How much of each cell along one axis is in each bin of a box, (batch, n, size, cells).

    Bilinear interpolation is linear along either axis, and so is the mean over a bin's places.
    """
    places = (ops.arange(size * samples, dtype="float32") + 0.5) / (size * samples)
    # Cell 0 lies half a cell within the map.
    at = (low[..., None] + (high - low)[..., None] * places) / stride - 0.5
    near = ops.cast(ops.logical_and(at >= -1, at <= cells), "float32")
    at = ops.clip(at, 0.0, cells - 1.0)
    share = ops.maximum(1 - ops.abs(at[..., None] - ops.arange(cells, dtype="float32")), 0.0)
    share = share * near[..., None]
    return ops.mean(ops.reshape(share, (-1, low.shape[1], size, samples, cells)), axis=3)


def roi_pool(features, stride: int, boxes, size: int = 7):
    """Features of boxes by the highest value in each of size x size bins of whole cells.

    Args:
        features: (batch, h, w, c).
        stride: pixels a cell.
        boxes: (batch, n, 4) float32 xyxy pixels; what they have beyond the photo is cut off.
        size: bins along each side.

    Returns:
        (batch, n, size, size, c). A box takes all cells from the one that its first corner rounds to up to
        that of its last; bins of fewer than a cell share cells. A box that ends with the photo rounds to the
        cell after the map's last: bins have what there is of them in the map, 0 where there is nothing.

    Source: Fast R-CNN (Girshick 2015), section 2.1, and SPPnet's windows (He et al. 2014, appendix A).
    """
    _, height, width, channels = features.shape
    # A bin of the largest box, of one cell more than the map, and the cell that its rounded borders add.
    most = math.ceil((max(height, width) + 1) / size) + 1

    def bins(low, high, cells):
        """Rows (or columns) of each bin, (batch, n, size, most) int32, and which of them count."""
        low, high = (ops.clip(ops.floor(value / stride + 0.5), 0, cells) for value in (low, high))
        # Whole numbers: in floating-point some backends take 7 * 3 / 7 for a little more than 3.
        side = ops.cast(ops.maximum(high - low + 1, 1.0), "int32")[..., None]
        number = ops.arange(size, dtype="int32")
        begin = ops.cast(side * number // size, "float32") + low[..., None]
        end = ops.cast((side * (number + 1) + size - 1) // size, "float32") + low[..., None]
        at = begin[..., None] + ops.arange(most, dtype="float32")
        counts = ops.logical_and(at < end[..., None], at < cells)
        return ops.cast(ops.minimum(at, cells - 1.0), "int32"), counts

    def highest(lines, which, counts):
        """The highest of the lines (b, cells, c) that each bin (b, bins, most) has, (b, bins, c)."""
        found = at_rows(lines, ops.reshape(which, (-1, which.shape[1] * most)))
        found = ops.reshape(found, (-1, *which.shape[1:], lines.shape[-1]))
        best = ops.max(ops.where(counts[..., None], found, -1e30), axis=2)
        return ops.where(ops.any(counts, axis=2)[..., None], best, 0.0)

    count = boxes.shape[1]
    rows, columns = bins(boxes[..., 1], boxes[..., 3], height), bins(boxes[..., 0], boxes[..., 2], width)
    # Whole rows first: all cells of all bins at once would be three times as many.
    lines = ops.reshape(features, (-1, height, width * channels))
    bands = highest(lines, *(ops.reshape(value, (-1, count * size, most)) for value in rows))
    bands = ops.transpose(ops.reshape(bands, (-1, size, width, channels)), (0, 2, 1, 3))
    bands = ops.reshape(bands, (-1, width, size * channels))
    found = highest(bands, *(ops.reshape(value, (-1, size, most)) for value in columns))
    found = ops.transpose(ops.reshape(found, (-1, size, size, channels)), (0, 2, 1, 3))
    return ops.reshape(found, (-1, count, size, size, channels))
