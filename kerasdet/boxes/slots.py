"""Slots: places of a network's output that teach one object each, and who gets them."""

from __future__ import annotations

from keras import ops


def winners(slots, sizes, real):
    """Which objects have their slot: where several claim one, the smallest; the last of equals.

    Args:
        slots: (batch, n) int32, the place that each object claims.
        sizes: (batch, n) float32, areas.
        real: (batch, n) bool, False in padding rows.

    Returns:
        (batch, n) float32, 1 for objects that have their slot, 0 for those that lost it and padding.

    Example: slots 3, 3, 5 with areas 9, 4, 7: the second and the third win.
    """
    order = ops.arange(slots.shape[1])
    size, other = sizes[..., :, None], sizes[..., None, :]
    later = order[None, :] > order[:, None]
    better = ops.logical_or(other < size, ops.logical_and(ops.equal(other, size), later))
    same = ops.equal(slots[..., :, None], slots[..., None, :])
    rivals = ops.logical_and(ops.logical_and(same, better), real[..., None, :])
    lost = ops.any(rivals, axis=-1)
    return ops.cast(ops.logical_and(real, ops.logical_not(lost)), "float32")


def inside(points, regions):
    """Which points lie in a region.

    Args:
        points: (p, 2) float32, x and y, or (batch, p, 2), points of each photo.
        regions: (batch, m, 4) float32 xyxy in the same unit; empty ones hold nothing.

    Returns:
        (batch, p) bool.
    """
    x, y = points[..., None, :, 0], points[..., None, :, 1]
    x1, y1, x2, y2 = (regions[..., i, None] for i in range(4))
    across, down = ops.logical_and(x >= x1, x < x2), ops.logical_and(y >= y1, y < y2)
    return ops.any(ops.logical_and(across, down), axis=1)
