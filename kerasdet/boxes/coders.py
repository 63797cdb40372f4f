"""Box coders: boxes as differences from anchors, which is what networks predict."""

from __future__ import annotations

import math

from keras import ops

from kerasdet.boxes.iou import EPSILON

# Differences are multiplied by these, for x, y and for width, height (SSD's variances .1 and .2).
WEIGHTS = (10.0, 5.0)
# No box becomes more than this many times as long as its anchor: exp must not overflow.
MAX_STRETCH = 60.0


def encode(boxes, anchors, weights: tuple[float, float] = WEIGHTS):
    """Boxes relative to their anchors.

    Args:
        boxes, anchors: (..., 4) float32 xyxy in one unit, of sides above 0.
        weights: what differences of centres, and of sides, are multiplied by.

    Returns:
        (..., 4) float32: 10 (x - xa) / wa, 10 (y - ya) / ha, 5 log(w / wa), 5 log(h / ha), where x and y
        are centres and 10 and 5 the weights.

    Source: Faster R-CNN (Ren et al. 2015), equation 2; SSD, equation 2.

    Example: [10, 10, 30, 50] on the anchor [10, 20, 30, 40] is [0, 0, 0, 5 log 2].
    """
    centre, sides = _centre_sides(boxes)
    anchor_centre, anchor_sides = _centre_sides(anchors)
    shift = weights[0] * (centre - anchor_centre) / anchor_sides
    stretch = weights[1] * ops.log(ops.maximum(sides, EPSILON) / anchor_sides)
    return ops.concatenate([shift, stretch], -1)


def decode(deltas, anchors, weights: tuple[float, float] = WEIGHTS):
    """The inverse of `encode`.

    Args:
        deltas: (..., 4) float32.
        anchors: (..., 4) float32 xyxy.
        weights: as in `encode`.

    Returns:
        (..., 4) float32 xyxy, in the anchors' unit.
    """
    anchor_centre, anchor_sides = _centre_sides(anchors)
    centre = anchor_centre + deltas[..., :2] / weights[0] * anchor_sides
    stretch = ops.minimum(deltas[..., 2:] / weights[1], math.log(MAX_STRETCH))
    half = ops.exp(stretch) * anchor_sides / 2
    return ops.concatenate([centre - half, centre + half], -1)


def _centre_sides(boxes):
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
