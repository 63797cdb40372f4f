"""Losses that several detectors share. All run in float32."""

from __future__ import annotations

from keras import ops

from kerasdet.boxes import gaussians
from kerasdet.boxes.iou import giou


def penalty_reduced_focal(logits, heat, positive, valid, alpha: float = 2.0, beta: float = 4.0):
    """The focal loss of centre heat-maps, summed over all cells.

    Positive cells cost -(1 - p)^alpha log p; all others -(1 - heat)^beta p^alpha log(1 - p), so that
    cells near a centre are hardly blamed for being high.

    Args:
        logits: (batch, height, width, classes); p is their sigmoid.
        heat: the same shape, the Gaussians in [0, 1].
        positive: the same shape, the weight of each centre cell and 0 elsewhere.
        valid: broadcastable to it, 0 in cells that are not to be learned.
        alpha, beta: the exponents.

    Returns:
        () float32.

    Source: CornerNet equation 1; CSP equations 3 and 4; CenterNet equation 1.
    """
    logits = ops.cast(logits, "float32")
    p = ops.sigmoid(logits)
    # log p and log(1 - p) by softplus: exact where p runs into 0 or 1.
    log_p, log_not_p = -ops.softplus(-logits), -ops.softplus(logits)
    is_positive = ops.cast(positive > 0, "float32")
    hit = positive * ops.power(1 - p, alpha) * log_p
    miss = (1 - is_positive) * ops.power(1 - heat, beta) * ops.power(p, alpha) * log_not_p
    return -ops.sum(valid * (hit + miss))


def center_loss(logits, goal: dict):
    """`penalty_reduced_focal` divided by the number of objects (or 1, where there are none).

    Args:
        logits: (batch, height, width, classes).
        goal: heat, positive and valid, as `centers.dense_targets` gives them.

    Returns:
        () float32.
    """
    loss = penalty_reduced_focal(logits, goal["heat"], goal["positive"], goal["valid"])
    return loss / ops.maximum(ops.sum(goal["positive"]), 1.0)


def dense_box_loss(predicted, boxes, goal: dict):
    """Mean of 1 - GIoU over the cells that learn an object's box, by their weights.

    Args:
        predicted: (batch, height, width, 4) float32 xyxy, the box that every cell predicts.
        boxes: (batch, n, 4) float32 xyxy, the objects', in the same unit.
        goal: owner and weight, as `centers.dense_targets` gives them.

    Returns:
        () float32; 0 where there are no objects.

    Source: TTFNet (Liu et al., AAAI 2020), equations 5 to 7.
    """
    weight = ops.sum(goal["weight"], axis=1)
    loss = ops.sum(weight * (1 - giou(predicted, gaussians.paint(goal["owner"], boxes))))
    return loss / ops.maximum(ops.sum(weight), 1.0)


def smooth_l1(error, delta: float = 1.0):
    """0.5 e^2 / delta up to |e| = delta and |e| - delta / 2 beyond, element by element."""
    error = ops.abs(error)
    return ops.where(error < delta, 0.5 * ops.square(error) / delta, error - 0.5 * delta)
