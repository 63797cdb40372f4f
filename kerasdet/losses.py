"""Losses that several detectors share. All run in float32."""

from __future__ import annotations

from keras import ops

from kerasdet.boxes import assign, gaussians
from kerasdet.boxes.iou import giou
from kerasdet.distribution import batch_sum


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
    return loss / ops.maximum(batch_sum(goal["positive"]), 1.0)


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
    return loss / ops.maximum(batch_sum(weight), 1.0)


def soft_targets(labels, count: int, smoothing: float | str, others: bool = False):
    """What a classifier is to say of each label: nearly all for it, and a little for every class.

    `soft_targets([0], 3, 0.1, others=True)` is [[.9, .05, .05]]; `soft_targets([0], 4, 0.1)` is
    [[.925, .025, .025, .025]].

    Args:
        labels: (...) int32; a row of -1 is of no class.
        count: of the classes, K.
        smoothing: what is taken from the label, e, and spread evenly over all classes, itself included:
            q' = (1 - e) q + e / K. 0 takes nothing. "yolo" is for a logistic loss of every class alone: w
            for no and 1 - w for yes, with w = min(1 / K, 1 / 40).
        others: spread over the K - 1 others only, e / (K - 1) each. It is the same as e K / (K - 1) over all.

    Returns:
        (..., K) float32.

    Raises:
        ValueError: see `check_smoothing`; or others, where there are none.

    Source: Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7; Zhang et al. 2019,
    "Bag of Freebies", section 3.2, and its published code for "yolo".
    """
    check_smoothing(smoothing, yolo=not others)
    if others and count < 2:
        raise ValueError(f"others=True, and there are {count} classes; give 2 or more, or leave it out")
    if smoothing == "yolo":
        low = min(1 / count, 1 / 40)
        high = 1 - low
    elif others:
        low, high = smoothing / (count - 1), 1 - smoothing
    else:
        low = smoothing / count
        high = 1 - smoothing + low
    return low + (high - low) * ops.one_hot(labels, count, dtype="float32")


def check_smoothing(smoothing, yolo: bool = False) -> None:
    """Raises ValueError unless label smoothing is from 0 up to 1, without it, or, with `yolo`, "yolo"."""
    if yolo and smoothing == "yolo":
        return
    if isinstance(smoothing, str) or not 0 <= smoothing < 1:
        also = ', or "yolo"' if yolo else ""
        raise ValueError(f"label_smoothing is {smoothing!r}; give 0 for none, or a part of 1, as .1{also}")


def class_cross_entropy(labels, logits, smoothing: float = 0.0):
    """Cross-entropy of one class among all, row by row.

    Args:
        labels: (...) int32.
        logits: (..., K) float32.
        smoothing: see `soft_targets`.

    Returns:
        (...) float32.
    """
    if not smoothing:
        return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    wanted = soft_targets(labels, logits.shape[-1], smoothing)
    return ops.categorical_crossentropy(wanted, logits, from_logits=True)


def background_cross_entropy(logits, smoothing: float = 0.0):
    """As `class_cross_entropy`, of rows that are all background, the class 0."""
    return class_cross_entropy(ops.zeros_like(logits[..., 0], dtype="int32"), logits, smoothing)


def hard_background(logits, goal: dict, ratio: int, smoothing: float = 0.0):
    """The loss of the negatives that are taken for objects most, summed.

    Args:
        logits: (batch, N, 1 + classes), background first.
        goal: weight (batch, N) of positives, 0 elsewhere; negative (batch, N).
        ratio: negatives for each positive of a photo; a photo without objects has as many as one with one,
            since whoever adds photos against false alarms means them to be learned.
        smoothing: see `soft_targets`.

    Returns:
        () float32.

    Source: SSD (Liu et al. 2016), section 2.2, "Hard negative mining".
    """
    learned = ops.sum(ops.cast(goal["weight"] > 0, "int32"), axis=-1)
    # Smoothed, the loss of what is surely background would be high too.
    hard = assign.highest(
        background_cross_entropy(logits), goal["negative"], ratio * ops.maximum(learned, 1)
    )
    # Of photos that are mixed, objects weigh less: so does their share of background.
    hard = hard * assign.mean_weight(goal["weight"])[:, None]
    return ops.sum(hard * background_cross_entropy(logits, smoothing))


def smooth_l1(error, delta: float = 1.0):
    """0.5 e^2 / delta up to |e| = delta and |e| - delta / 2 beyond, element by element."""
    error = ops.abs(error)
    return ops.where(error < delta, 0.5 * ops.square(error) / delta, error - 0.5 * delta)
