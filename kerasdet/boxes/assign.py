"""Assigners: which anchors learn which objects, and which of the others learn to be background."""

from __future__ import annotations

from keras import ops

from kerasdet.boxes.iou import pairwise_iou
from kerasdet.boxes.rows import at_rows
from kerasdet.boxes.slots import inside


def match(boxes, labels, anchors, threshold: float = 0.5):
    """The object that each anchor learns.

    Every object first gets an anchor of its own: of all pairs, the one that overlaps most is taken, then
    the one that overlaps most among the objects and anchors left, and so on. Each other anchor learns the
    object that it overlaps most, if by `threshold` or more.

    Objects choose at once rather than in that order: each claims the anchor it overlaps most, and the
    loser of two claims turns to its next best, until none loses. That ends in the same pairs.

    Args:
        boxes: (batch, n, 4) float32 xyxy.
        labels: (batch, n) int32; rows with -1 are padding.
        anchors: (k, 4) float32 xyxy in the same unit.
        threshold: of intersection over union.

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

    def claim(left):
        choice, bid = ops.cast(ops.argmax(left, axis=-1), column.dtype), ops.max(left, axis=-1)
        same = ops.equal(choice[..., :, None], choice[..., None, :])
        # beats[b, i, j]: object j has more right to the anchor that both want than i has.
        ahead = bid[..., None, :] - bid[..., :, None]
        tie = ops.logical_and(ops.equal(ahead, 0.0), earlier)
        beats = ops.logical_and(same, ops.logical_or(ahead > 0, tie))
        # Who overlaps no anchor that is left wants none.
        lost = ops.logical_and(ops.any(beats, axis=-1), bid > 0)
        return choice, bid, lost

    def turn(left, choice, bid, lost):
        refused = ops.logical_and(lost[..., None], ops.equal(column, choice[..., None]))
        left = ops.where(refused, 0.0, left)
        return (left, *claim(left))

    # Mostly none or one; crowds of small objects, which overlap few anchors, take a dozen.
    _, choice, bid, _ = ops.while_loop(lambda *state: ops.any(state[-1]), turn, (overlap, *claim(overlap)))
    own = claimed(choice, ops.cast(bid > 0, "float32"), count)
    return ops.where(own >= 0, own, matched)


def by_overlap(
    boxes, labels, places, positive: float, negative: tuple[float, float], best: bool = False
):
    """The object that each anchor or proposal learns, by overlap alone.

    Args:
        boxes: (batch, n, 4) float32 xyxy.
        labels: (batch, n) int32; rows with -1 are padding.
        places: (k, 4) or (batch, k, 4) float32 xyxy in the same unit.
        positive: places that overlap an object by this IoU or more learn the one that they overlap most.
        negative: places whose highest IoU is from the first of these up to under the second are background.
        best: the places that overlap an object more than all others do learn it too, however little.

    Returns:
        owner: (batch, k) int32, row of the object, or -1.
        background: (batch, k) bool. Places that are neither teach nothing.

    Source: Faster R-CNN (Ren et al. 2015), section 3.1.2 (.7, .3, best); Fast R-CNN (Girshick 2015),
    section 2.3 (.5, from .1 to .5).

    Example: places that overlap the one object by .6, .4 and .1, with positive .7 and negative (0, .3): the
    first learns it if `best`, the second nothing, the third is background.
    """
    overlap = pairwise_iou(boxes, places if len(places.shape) == 3 else places[None])
    overlap = ops.where(ops.expand_dims(labels >= 0, -1), overlap, 0.0)
    highest = ops.max(overlap, axis=1)
    nearest = ops.cast(ops.argmax(overlap, axis=1), "int32")
    taught = highest >= positive
    if best:
        most = ops.max(overlap, axis=2, keepdims=True)
        # Of equal places all learn it; an object that overlaps none has no best place.
        is_best = ops.logical_and(overlap >= most * (1 - 1e-6), most > 0)
        wanted = ops.any(is_best, axis=1)
        by_whom = ops.cast(ops.argmax(ops.where(is_best, overlap, -1.0), axis=1), "int32")
        nearest = ops.where(wanted, by_whom, nearest)
        taught = ops.logical_or(taught, wanted)
    between = ops.logical_and(highest >= negative[0], highest < negative[1])
    return ops.where(taught, nearest, -1), ops.logical_and(between, ops.logical_not(taught))


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
        places: (k, 4) or (batch, k, 4) float32 xyxy in the same unit.

    Returns:
        positive (batch, k) bool, those that learn an object; negative (batch, k) bool, those that may learn
        to be background: neither positive nor with their middle in an ignore region; label (batch, k) int32
        and weight (batch, k) float32 of the object, 0 where there is none; boxes (batch, k, 4), the object's,
        or the place itself, since a padding row's logarithms are infinite.
    """
    positive = owner >= 0
    owner = ops.maximum(owner, 0)
    ignored = inside((places[..., :2] + places[..., 2:]) / 2, targets["ignore"])
    boxes, label, weight = (at_rows(targets[key], owner) for key in ("boxes", "labels", "weights"))
    return {
        "positive": positive,
        "negative": ops.logical_not(ops.logical_or(positive, ignored)),
        "label": ops.where(positive, label, 0), "weight": ops.where(positive, weight, 0.0),
        "boxes": ops.where(positive[..., None], boxes, places),
    }


def highest(values, allowed, count):
    """The places with the highest values, in every photo on its own.

    With losses as values these are hard negatives (SSD, Liu et al. 2016, section 2.2, "Hard negative
    mining"); with random numbers, a random sample.

    Args:
        values: (batch, k) float32, at least 0: what each anchor costs as background, for instance.
        allowed: (batch, k) bool, which may be chosen.
        count: (batch,) int32, or a number: how many to choose; where fewer are allowed, all are.

    Returns:
        (batch, k) float32, 1 for those chosen. Of equal values the first ones are.

    Example: values .1 .9 .5 .7, of which the second is not allowed, count 2: 0 0 1 1.
    """
    order = ops.argsort(ops.where(allowed, -values, 1.0), axis=-1)
    rank = ops.argsort(order, axis=-1)
    count = ops.expand_dims(ops.cast(count, rank.dtype), -1)
    return ops.cast(ops.logical_and(allowed, rank < count), "float32")


def balanced(random, positive, negative, count: int, share: float):
    """A random sample of places, of which no more than a share are positive.

    Args:
        random: (batch, k) float32 in [0, 1), one number a place.
        positive, negative: (batch, k) bool; no place is both.
        count: places to choose in each photo.
        share: of the positives among them, at most, rounded down to a number of places; negatives fill the
            rest, as far as there are any.

    Returns:
        (batch, k) float32, 1 for the positives chosen, and the same for the negatives.

    Source: Faster R-CNN (Ren et al. 2015), section 3.1.3 (256, 1/2); Fast R-CNN (Girshick 2015), section
    2.3 (64, 1/4).

    Example: 2 positives, 9 negatives, count 8, share 1/2: both positives and 6 negatives.
    """
    chosen = highest(random, positive, int(count * share))
    left = count - ops.sum(chosen, axis=-1)
    return chosen, highest(random, negative, ops.cast(left, "int32"))


def mean_weight(weight):
    """Mean weight of what is learned on each photo.

    Args:
        weight: (batch, k) float32, 0 where nothing is learned.

    Returns:
        (batch,) float32, 1 where nothing is learned at all.

    Example: of weights .3, 0 and .5 it is .4.
    """
    learned = ops.sum(ops.cast(weight > 0, "float32"), axis=-1)
    return ops.where(learned > 0, ops.sum(weight, axis=-1) / ops.maximum(learned, 1.0), 1.0)
