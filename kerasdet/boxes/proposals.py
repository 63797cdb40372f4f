"""Proposals: what a region proposal network takes for objects, as a fixed number of boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from keras import ops

from kerasdet.boxes import coders
from kerasdet.boxes.rows import at_rows
from kerasdet.boxes.suppression import greedy_keep

# Differences from anchors are learned as they are; those from proposals have `coders.WEIGHTS`.
RPN_WEIGHTS = (1.0, 1.0)
# Shorter sides, in pixels, are no proposals.
MIN_SIDE = 1.0
# Log-odds of what is no proposal.
NONE = -1e4


def propose(
    logits, deltas, anchors: Sequence, image_size: int, *, before: int, after: int,
    iou_threshold: float | None = 0.7, per_level: bool = True, fits: Callable | None = None,
):
    """The boxes that look most like objects.

    Of every level the best `before` anchors are moved to where they belong, cut at the borders, and
    suppressed among themselves; of what all levels keep, the best `after` are the proposals.

    Args:
        logits: (batch, N) float32, log-odds of an object at each anchor, level by level.
        deltas: (batch, N, 4) float32, see `coders.encode`, with `RPN_WEIGHTS`.
        anchors: of each level (n, 4) float32 xyxy pixels, N in all.
        image_size: side of the network's square in pixels.
        before: boxes of each level that go into suppression.
        after: boxes that come out.
        iou_threshold: above which the lower of two boxes is dropped; None drops none.
        per_level: False suppresses the boxes of all levels together.
        fits: boxes (batch, n, 4) -> (batch, n) bool, which of them may be proposals at all; None lets all.

    Returns:
        boxes (batch, after, 4) xyxy pixels and scores (batch, after) in [0, 1], falling; where fewer are
        left, rows of zeros fill up. No gradient goes through either.

    Source: Faster R-CNN (Ren et al. 2015), section 3.3; suppression level by level as in detectron2.
    """
    # Ordered by logits: sigmoids of sure ones are all 1, and equal ones have no order.
    found, start = [], 0
    for level in anchors:
        count = level.shape[0]
        here = slice(start, start + count)
        start += count
        sure = logits[:, here]
        if fits is not None:
            # Asked of all, so that those which may not be take no place of those which may.
            every = coders.decode(deltas[:, here], ops.convert_to_tensor(level)[None], RPN_WEIGHTS)
            sure = ops.where(fits(ops.clip(every, 0.0, float(image_size))), sure, NONE)
        best, rows = ops.top_k(sure, min(before, count))
        moved = at_rows(deltas[:, here], rows)
        places = ops.take(ops.convert_to_tensor(level), rows, axis=0)
        boxes = ops.clip(coders.decode(moved, places, RPN_WEIGHTS), 0.0, float(image_size))
        shortest = ops.min(boxes[..., 2:] - boxes[..., :2], axis=-1)
        found.append((boxes, ops.where(shortest >= MIN_SIDE, best, NONE)))
    if not per_level:
        boxes, best = (ops.concatenate(each, axis=1) for each in zip(*found, strict=True))
        best, rows = ops.top_k(best, best.shape[1])
        found = [(at_rows(boxes, rows), best)]
    if iou_threshold is not None:
        found = [(boxes, _suppressed(boxes, best, iou_threshold)) for boxes, best in found]
    boxes, best = (ops.concatenate(each, axis=1) for each in zip(*found, strict=True))
    best, rows = ops.top_k(best, min(after, best.shape[1]))
    real = ops.cast(best > NONE, "float32")
    boxes, scores = at_rows(boxes, rows) * real[..., None], ops.sigmoid(best) * real
    missing = after - scores.shape[1]
    if missing > 0:
        boxes = ops.pad(boxes, ((0, 0), (0, missing), (0, 0)))
        scores = ops.pad(scores, ((0, 0), (0, missing)))
    return ops.stop_gradient(boxes), ops.stop_gradient(scores)


def _suppressed(boxes, logits, iou_threshold: float):
    """The logits, NONE where a better box overlaps."""
    alive = ops.cast(logits > NONE, "float32")
    kept = greedy_keep(boxes, alive, ops.cast(ops.zeros_like(alive), "int32"), iou_threshold)
    return ops.where(kept > 0, logits, NONE)
