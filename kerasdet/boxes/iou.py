"""Overlap of boxes. All boxes are xyxy in one and the same unit."""

from __future__ import annotations

import math

from keras import ops

EPSILON = 1e-7


def area(boxes):
    """Areas (...) of boxes (..., 4); boxes turned inside out have area 0."""
    sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]


def intersection(a, b):
    """Areas (...) that boxes a and b share, (..., 4) each, of shapes that go together."""
    low = ops.maximum(a[..., :2], b[..., :2])
    high = ops.minimum(a[..., 2:], b[..., 2:])
    sides = ops.maximum(high - low, 0.0)
    return sides[..., 0] * sides[..., 1]


def pairwise_intersection(a, b):
    """Areas (..., n, m) that every box of a (..., n, 4) shares with every one of b (..., m, 4), float32."""
    # Coordinate by coordinate, with boxes along the innermost axis: LiteRT takes 15 times as long for pairs
    # whose innermost axis is x and y. A relu it takes in one with the subtraction, a maximum it does not.
    def side(axis):
        low = ops.maximum(column(a[..., axis]), row(b[..., axis]))
        high = ops.minimum(column(a[..., axis + 2]), row(b[..., axis + 2]))
        return ops.relu(high - low)

    return side(0) * side(1)


def pairwise_iou(a, b):
    """Intersection over union of every box with every other.

    Args:
        a: (..., n, 4) float32.
        b: (..., m, 4) float32.

    Returns:
        (..., n, m) float32 in [0, 1]; 0 where both boxes are empty.

    Example: [0, 0, 2, 2] and [1, 1, 3, 3] share 1 of 7, so 0.142857.
    """
    shared = pairwise_intersection(a, b)
    # By subtractions alone: inside a model, Keras on TensorFlow takes the sum of (1, n, 1) and (1, 1, n)
    # for a bias, and adds it along the wrong axis.
    return shared / ops.maximum(column(area(a)) - (shared - row(area(b))), EPSILON)


def column(values):
    """(..., n) as (..., n, 1)."""
    return ops.expand_dims(values, -1)


def row(values):
    """(..., m) as (..., 1, m)."""
    return ops.expand_dims(values, -2)


def giou(a, b):
    """Generalised IoU of boxes row by row (Rezatofighi et al., CVPR 2019, algorithm 1).

    Args:
        a, b: (..., 4) float32.

    Returns:
        (...) float32 in (-1, 1]: IoU less the part of the enclosing box that neither covers.

    Example: [0, 0, 1, 1] and [2, 0, 3, 1] do not touch, a third of their hull is empty: -1/3.
    """
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    hull_low = ops.minimum(a[..., :2], b[..., :2])
    hull_high = ops.maximum(a[..., 2:], b[..., 2:])
    hull = area(ops.concatenate([hull_low, hull_high], -1))
    return shared / ops.maximum(union, EPSILON) - (hull - union) / ops.maximum(hull, EPSILON)


def iou(a, b):
    """Intersection over union of boxes row by row.

    Args:
        a, b: (..., 4) float32.

    Returns:
        (...) float32 in [0, 1]; 0 where both boxes are empty.
    """
    shared = intersection(a, b)
    return shared / ops.maximum(area(a) + area(b) - shared, EPSILON)


def diou(a, b):
    """Distance IoU of boxes row by row (Zheng et al., AAAI 2020, equations 6 and 7).

    Args:
        a, b: (..., 4) float32.

    Returns:
        (...) float32 in (-1, 1]: IoU less the squared distance of the centres, as a fraction of the
        squared diagonal of the enclosing box.

    Example: [0, 0, 1, 1] and [2, 0, 3, 1] do not touch; their centres are 2 apart in a hull of 3 x 1:
    -4/10.
    """
    hull = ops.maximum(a[..., 2:], b[..., 2:]) - ops.minimum(a[..., :2], b[..., :2])
    diagonal = ops.sum(ops.square(hull), axis=-1)
    apart = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    return iou(a, b) - ops.sum(ops.square(apart), axis=-1) / ops.maximum(diagonal, EPSILON)


def ciou(a, b):
    """Complete IoU of boxes row by row (Zheng et al., AAAI 2020, equations 8 to 11).

    Args:
        a: (..., 4) float32, what is predicted.
        b: (..., 4) float32, what is right.

    Returns:
        (...) float32, at most 1: distance IoU less alpha v, where v in [0, 1] is how much the aspect
        ratios differ and alpha = v / (1 - IoU + v), through which no gradient goes, how much it counts.

    Example: [0, 0, 2, 1] and [0, 0, 1, 2] share 1 of 3 and a centre distance of 0.5 in a diagonal of 8;
    v = 4 / pi^2 (atan 2 - atan 1/2)^2 = 0.1678, alpha 0.2011: 1/3 - 0.0625 - 0.0337 = 0.2371.
    """
    def angle(boxes):
        sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], EPSILON)
        return ops.arctan2(sides[..., 0], sides[..., 1])

    v = 4 / math.pi**2 * ops.square(angle(b) - angle(a))
    alpha = ops.stop_gradient(v / ops.maximum(1 - iou(a, b) + v, EPSILON))
    return diou(a, b) - alpha * v
