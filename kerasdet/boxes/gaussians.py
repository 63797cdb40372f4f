"""Gaussians on a grid of cells, the targets of centre detectors."""

from __future__ import annotations

from keras import ops


def profile(cells: int, centre, sigma, low, high):
    """One axis of a Gaussian, cut off outside [low, high].

    Args:
        cells: length of the axis.
        centre, sigma, low, high: (...) float32 in cells; low and high are the first and last cell
            that the Gaussian reaches.

    Returns:
        (..., cells) float32, exp(-d^2 / 2 sigma^2) inside and 0 outside.
    """
    position = ops.arange(cells, dtype="float32")
    centre, sigma, low, high = (ops.expand_dims(x, -1) for x in (centre, sigma, low, high))
    value = ops.exp(-ops.square(position - centre) / (2 * ops.square(sigma)))
    inside = ops.logical_and(position >= low, position <= high)
    return ops.where(inside, value, 0.0)


def splat(profile_y, profile_x, labels, classes: int):
    """Draws objects' Gaussians class by class; where two overlap, the larger value stands.

    Args:
        profile_y: (batch, n, height) float32.
        profile_x: (batch, n, width) float32.
        labels: (batch, n) int32; rows with -1 are not drawn.
        classes: number of classes.

    Returns:
        (batch, height, width, classes) float32 in [0, 1].
    """
    maps = []
    for label in range(classes):
        rows = profile_y * ops.cast(ops.equal(labels, label), "float32")[..., None]
        maps.append(ops.max(rows[..., :, None] * profile_x[..., None, :], axis=1))
    return ops.stack(maps, -1)


def region_mask(boxes, height: int, width: int):
    """Cells whose middle lies in any of the boxes.

    Args:
        boxes: (batch, n, 4) float32 xyxy in cells; empty boxes cover nothing.

    Returns:
        (batch, height, width) bool.
    """
    x, y = ops.arange(width, dtype="float32") + 0.5, ops.arange(height, dtype="float32") + 0.5
    in_x = ops.logical_and(x >= boxes[..., 0:1], x < boxes[..., 2:3])
    in_y = ops.logical_and(y >= boxes[..., 1:2], y < boxes[..., 3:4])
    return ops.any(ops.logical_and(in_y[..., :, None], in_x[..., None, :]), axis=1)


def owners(reach, sizes):
    """Which object a cell belongs to where several reach it: the smallest.

    Args:
        reach: (batch, n, height, width), above 0 in the cells that an object reaches.
        sizes: (batch, n) float32, area of each object.

    Returns:
        (batch, n, height, width) float32, 1 in an object's own cells; at most one object a cell.
    """
    reached = reach > 0
    size = ops.where(reached, sizes[..., None, None], float("inf"))
    smallest = ops.argmin(size, axis=1)
    number = ops.arange(reach.shape[1], dtype=smallest.dtype)[None, :, None, None]
    return ops.cast(ops.logical_and(ops.equal(number, smallest[:, None]), reached), "float32")


def paint(owner, values):
    """Writes objects' values (batch, n, c) into their cells: (batch, height, width, c)."""
    return ops.einsum("bnhw,bnc->bhwc", owner, values)
