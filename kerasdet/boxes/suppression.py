"""Non-maximum suppression with fixed shapes, in operations that every backend and LiteRT have."""

from __future__ import annotations

import numpy as np
from keras import ops

from kerasdet.boxes.iou import area, column, pairwise_intersection, pairwise_iou, row

# Boxes that are decided together, and rounds that this takes. Smaller blocks have less to do, but threads
# that share so little work wait for each other.
BLOCK, ROUNDS = 128, 16


def greedy_keep(boxes, scores, labels, iou_threshold: float, rounds: int = ROUNDS):
    """Which boxes greedy non-maximum suppression keeps.

    A box is dropped if a box that is kept, stands before it and has its class overlaps it by more than the
    threshold. 128 boxes are decided at a time, best first: those kept before drop some, and among the
    others that rule is applied to all at once, again and again; after k rounds every box is right whose fate
    hangs on a chain of fewer than k others of these. Such chains are short, since each link has to overlap
    the next but not the one after it (3 to 5 in crowds drawn at random), so a fixed number of rounds, without
    a loop in the graph, gives what the sequential algorithm gives.

    Args:
        boxes: (batch, n, 4) float32 xyxy, ordered by falling score.
        scores: (batch, n) float32; rows with score 0 neither are kept nor drop others.
        labels: (batch, n) int32; boxes of different classes do not drop each other.
        iou_threshold: boxes that overlap a kept one by more than this are dropped.
        rounds: longest chain that is resolved exactly.

    Returns:
        (batch, n) float32, 1 where kept and 0 where dropped.
    """
    count = boxes.shape[1]
    alive = ops.cast(scores > 0, "float32")
    # Arithmetic in place of comparisons, for which LiteRT takes many times as long, and no division: boxes
    # overlap by more than t where they share more than t / (1 + t) of the sum of their areas.
    part = area(boxes) * (iou_threshold / (1.0 + iou_threshold))
    # Label and place in one whole number: those of two boxes differ by 1 .. count - 1 just where the labels
    # are the same and the second box stands before the first. The minimum is 0: without it the converter
    # knows the numbers of boxes of one class beforehand, and the file holds all their differences.
    place = 2.0 * count * ops.cast(labels, "float32") + np.arange(count, dtype=np.float32)
    place = place + ops.minimum(alive, 0.0)

    def drops(some, others):
        """(batch, i, j): 1 or more where box j of the others, if it is kept, drops box i of some, else 0."""
        shared = pairwise_intersection(boxes[:, some], boxes[:, others])
        overlaps = ops.relu(shared - column(part[:, some]) - row(part[:, others]))
        behind = column(place[:, some]) - row(place[:, others])
        return ops.ceil(overlaps * ops.relu(behind) * ops.relu(count - behind))

    def left(among, drops, keep):
        # Less the number of kept boxes that drop each. LiteRT sums faster than it multiplies matrices or
        # finds maxima, and takes the relu in one with the subtraction.
        return ops.relu(among - ops.sum(drops * row(keep), axis=-1))

    kept = []
    for first in range(0, count, BLOCK):
        block = slice(first, min(first + BLOCK, count))
        among = alive[:, block]
        if kept:
            before = drops(block, slice(0, first))
            among = left(among, before, ops.concatenate(kept, axis=1))
        inside, keep = drops(block, block), among
        for _ in range(rounds):
            keep = left(among, inside, keep)
        kept.append(keep)
    return ops.concatenate(kept, axis=1)


def soft_nms(boxes, scores, labels, method: str = "gaussian", sigma: float = 0.5, iou_threshold: float = 0.3):
    """Soft-NMS: boxes that overlap a better one of their class lose score, in place of being dropped.

    The best box is taken, the scores of those left decay by their overlap with it, the best of those left
    is taken, and so on (Bodla et al., ICCV 2017, figure 2).

    Args:
        boxes: (batch, n, 4) float32 xyxy, in any order.
        scores: (batch, n) float32.
        labels: (batch, n) int32; boxes of different classes leave each other alone.
        method: "gaussian", times exp(-IoU^2 / sigma), or "linear", times 1 - IoU where that overlap is
            above the threshold.
        sigma: of the Gaussian; twice TensorFlow's `soft_nms_sigma`.
        iou_threshold: of the linear decay.

    Returns:
        (batch, n) float32, the decayed scores, box by box as they came.

    Raises:
        ValueError: another method.

    Example: two boxes of a class with scores .9 and .8 and IoU .5: the second gets .8 * exp(-.25 / .5) =
    .485 by the Gaussian, .8 * (1 - .5) = .4 by the linear decay.
    """
    if method not in ("gaussian", "linear"):
        raise ValueError(f"method is {method!r}; give 'gaussian' or 'linear'")
    count = boxes.shape[1]
    overlap = pairwise_iou(boxes, boxes)
    if method == "gaussian":
        decay = ops.exp(-ops.square(overlap) / sigma)
    else:
        decay = ops.where(overlap > iou_threshold, 1.0 - overlap, 1.0)
    same = ops.equal(column(labels), row(labels))
    decay = ops.where(same, decay, 1.0)

    def take_best(_, state):
        left, scores = state
        best = ops.argmax(ops.where(left > 0, scores, -1.0), axis=-1)
        left = left * (1.0 - ops.one_hot(best, count))
        factor = ops.squeeze(ops.take_along_axis(decay, best[:, None, None], axis=1), 1)
        # What has been taken keeps the score that it was taken with.
        return left, ops.where(left > 0, scores * factor, scores)

    _, scores = ops.fori_loop(0, count, take_best, (ops.ones_like(scores), scores))
    return scores
