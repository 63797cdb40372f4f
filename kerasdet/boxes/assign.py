"""Assigners: which anchors learn which objects, and which of the others learn to be background."""

from __future__ import annotations

from keras import ops

from kerasdet.boxes.iou import pairwise_iou
from kerasdet.boxes.slots import inside


def match(boxes, labels, anchors, threshold: float = 0.5, rounds: int = 4):
    """The object that each anchor learns.

    Every object first gets an anchor of its own: of all pairs, the one that overlaps most is taken, then
    the one that overlaps most among the objects and anchors left, and so on. Each other anchor learns the
    object that it overlaps most, if by `threshold` or more.

    Objects choose at once rather than in that order: each claims the anchor it overlaps most, and the
    loser of two claims turns to its next best. That ends in the same pairs. After `rounds` rounds
    those who still lose have no anchor of their own; such crowds are rare.

    Args:
        boxes: (batch, n, 4) float32 xyxy.
        labels: (batch, n) int32; rows with -1 are padding.
        anchors: (k, 4) float32 xyxy in the same unit.
        threshold: of intersection over union.
        rounds: how often an object may claim.

    Returns:
        (batch, k) int32, row of the object in `boxes`, or -1.

    Source: SSD (Liu et al. 2016), section 2.2, "Matching strategy".
    """
    n, count = boxes.shape[1], anchors.shape[0]
    overlap = pairwise_iou(boxes, anchors)
    overlap = ops.where(ops.expand_dims(labels >= 0, -1), overlap, 0.0)
    nearest = ops.cast(ops.argmax(overlap, axis=1), "int32")
    matched = ops.where(ops.max(overlap, axis=1) >= threshold, nearest, -1)

    row, column = ops.arange(n), ops.arange(count)
    earlier = row[None, :] < row[:, None]
    left = overlap
    for _ in range(rounds):
        choice, bid = ops.cast(ops.argmax(left, axis=-1), column.dtype), ops.max(left, axis=-1)
        same = ops.equal(choice[..., :, None], choice[..., None, :])
        # beats[b, i, j]: object j has more right to the anchor that both want than i has.
        ahead = bid[..., None, :] - bid[..., :, None]
        tie = ops.logical_and(ops.equal(ahead, 0.0), earlier)
        beats = ops.logical_and(same, ops.logical_or(ahead > 0, tie))
        lost = ops.any(beats, axis=-1)
        refused = ops.logical_and(lost[..., None], ops.equal(column, choice[..., None]))
        left = ops.where(refused, 0.0, left)
    won = ops.cast(ops.logical_and(ops.logical_not(lost), bid > 0), "float32")
    own = claimed(choice, won, count)
    return ops.where(own >= 0, own, matched)


def claimed(choice, won, count: int):
    """Who has each anchor.

    Args:
        choice: (batch, n) int, the anchor that each object wants.
        won: (batch, n) float32, 1 for objects that have it, of whom no two want the same; 0 for others.
        count: number k of anchors.

    Returns:
        (batch, k) int32, row of the object, or -1.

    Example: objects that want the anchors 2, 0 and 2, of whom the first lost: 1, -1, 2.
    """
    # One row at most has an anchor, so the sum over rows is that row's number.
    claims = ops.one_hot(choice, count, dtype="float32")
    number = ops.cast(ops.arange(choice.shape[1]) + 1, "float32")
    return ops.cast(ops.round(ops.einsum("bnk,bn->bk", claims, won * number)), "int32") - 1


def taught(owner, targets: dict, places) -> dict:
    """What anchors (or windows) learn of the objects that own them.

    Args:
        owner: (batch, k) int32, row of the object, or -1.
        targets: boxes (batch, n, 4) float32 xyxy, labels (batch, n) int32, weights (batch, n), ignore
            (batch, m, 4).
        places: (k, 4) float32 xyxy in the same unit.

    Returns:
        positive (batch, k) bool, those that learn an object; negative (batch, k) bool, those that may learn
        to be background: neither positive nor with their middle in an ignore region; label (batch, k) int32
        and weight (batch, k) float32 of the object, 0 where there is none; boxes (batch, k, 4), the object's,
        or the place itself, since a padding row's logarithms are infinite.
    """
    positive = owner >= 0
    owner = ops.maximum(owner, 0)
    ignored = inside((places[:, :2] + places[:, 2:]) / 2, targets["ignore"])
    boxes = ops.take_along_axis(targets["boxes"], owner[..., None], axis=1)
    label = ops.take_along_axis(targets["labels"], owner, axis=1)
    weight = ops.take_along_axis(targets["weights"], owner, axis=1)
    return {
        "positive": positive,
        "negative": ops.logical_not(ops.logical_or(positive, ignored)),
        "label": ops.where(positive, label, 0), "weight": ops.where(positive, weight, 0.0),
        "boxes": ops.where(positive[..., None], boxes, places),
    }


def hard_negatives(loss, negative, count):
    """The negatives with the highest losses, in every photo on its own.

    Args:
        loss: (batch, k) float32, at least 0: what each anchor costs as background.
        negative: (batch, k) bool, which may be chosen.
        count: (batch,) int32, how many to choose; where there are fewer negatives, all are.

    Returns:
        (batch, k) float32, 1 for those chosen. Of equal losses the first ones are.

    Source: SSD (Liu et al. 2016), section 2.2, "Hard negative mining".

    Example: losses .1 .9 .5 .7, of which the second is no negative, count 2: 0 0 1 1.
    """
    order = ops.argsort(ops.where(negative, -loss, 1.0), axis=-1)
    rank = ops.argsort(order, axis=-1)
    chosen = ops.logical_and(negative, rank < ops.expand_dims(ops.cast(count, rank.dtype), -1))
    return ops.cast(chosen, "float32")
