"""Gaussians on a grid of cells, the targets of centre detectors."""

from __future__ import annotations

from keras import ops


def places(cells):
    """0, 1, 2 ... as float32, as many as there are cells: a number or a tensor."""
    return ops.cast(ops.arange(cells, dtype="int32"), "float32")


def profile(cells: int, centre, sigma, low, high):
    """One axis of a Gaussian, cut off outside [low, high].

    Args:
        cells: length of the axis, a number or, where squares are of several sizes, a tensor.
        centre, sigma, low, high: (...) float32 in cells; low and high are the first and last cell
            that the Gaussian reaches.

    Returns:
        (..., cells) float32, exp(-d^2 / 2 sigma^2) inside and 0 outside.
    """
    position = places(cells)
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
    batch, height, width = ops.shape(labels)[0], ops.shape(profile_y)[-1], ops.shape(profile_x)[-1]
    rows = profile_y * ops.cast(labels >= 0, "float32")[..., None]
    each = ops.reshape(rows[..., :, None] * profile_x[..., None, :], (-1, height, width))
    maps = largest(each, class_of(labels, classes), batch * classes)
    return ops.transpose(ops.reshape(maps, (batch, classes, height, width)), (0, 2, 3, 1))


def class_of(labels, classes: int):
    """Number of the photo and class of each object, (batch * n,) int32: photo * classes + label.

    Padding, labels (batch, n) of -1, counts with the first class.
    """
    photo = ops.arange(ops.shape(labels)[0], dtype="int32")[:, None] * classes
    return ops.reshape(photo + ops.maximum(ops.cast(labels, "int32"), 0), (-1,))


def largest(values, places, count):
    """The largest of the values at each place, 0 where there is none above it.

    Args:
        values: (n, ...) float32.
        places: (n,) int32, from 0.
        count: of places.

    Returns:
        (count, ...) float32.
    """
    return ops.maximum(ops.segment_max(values, places, count), 0.0)


def region_mask(boxes, height: int, width: int):
    """Cells whose middle lies in any of the boxes.

    Args:
        boxes: (batch, n, 4) float32 xyxy in cells; empty boxes cover nothing.

    Returns:
        (batch, height, width) bool.
    """
    x, y = places(width) + 0.5, places(height) + 0.5
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


def exact_radius(height, width, overlap: float = 0.7):
    """How far both corners of a box may be off until boxes overlap less than asked for.

    The least of three: of a box moved by r along both axes, one smaller by r on every side, and one
    larger by r on every side.

    Args:
        height, width: (...) float32, of the box, in cells.
        overlap: the IoU that is left.

    Returns:
        (...) float32 in cells.

    Example: a box of n x n at an overlap of .7 gives n (1 - sqrt(.7)) / 2 = .0817 n.

    Source: CornerNet (Law & Deng 2018), section 3.2; the roots are those of its three cases.
    """
    total, product = height + width, height * width

    def root(a, b, c):
        """The r nearest to 0 of a r^2 - b r + c = 0, without a difference of near terms."""
        return 2 * c / ops.maximum(b + _root(ops.square(b) - 4 * a * c), 1e-6)

    moved = root(1, total, product * (1 - overlap) / (1 + overlap))
    smaller = root(4, 2 * total, product * (1 - overlap))
    larger = root(-4 * overlap, 2 * overlap * total, product * (1 - overlap))
    return ops.minimum(moved, ops.minimum(smaller, larger))


def original_radius(height, width, overlap: float = 0.7):
    """The radius that CornerNet and CenterNet were published with.

    It means to be `exact_radius`, but divides the roots by 2 where they want 2 a, and takes the larger
    root of each. Of its three values the third is always the least, and the only one computed here.

    Args, returns: as `exact_radius`.

    Example: a box of n x n at an overlap of .7 gives (sqrt(11.2) - 2.8) / 2 n = .273 n.
    """
    b = 2 * overlap * (height + width)
    return (_root(ops.square(b) + 16 * overlap * (1 - overlap) * height * width) - b) / 2


def _root(x):
    """The square root; rounding must not bring it below zero."""
    return ops.sqrt(ops.maximum(x, 0.0))
