"""Proposals: what a region proposal network takes for objects, as a fixed number of boxes."""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from kerasdet.boxes import coders
from kerasdet.boxes.suppression import greedy_keep

# Differences from anchors are learned as they are; those from proposals have `coders.WEIGHTS`.
RPN_WEIGHTS = (1.0, 1.0)
# Shorter sides, in pixels, are no proposals.
MIN_SIDE = 1.0


def propose(
    logits, deltas, anchors: Sequence, image_size: int, *, before: int, after: int,
    iou_threshold: float | None = 0.7, per_level: bool = True,
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

    Returns:
        boxes (batch, after, 4) xyxy pixels and scores (batch, after) in [0, 1], falling; where fewer are
        left, rows of zeros fill up. No gradient goes through either.

    Source: Faster R-CNN (Ren et al. 2015), section 3.3; suppression level by level as in detectron2.
    """
    found, start = [], 0
    for level in anchors:
        count = level.shape[0]
        here = slice(start, start + count)
        start += count
        scores, rows = ops.top_k(ops.sigmoid(logits[:, here]), min(before, count))
        moved = ops.take_along_axis(deltas[:, here], rows[..., None], axis=1)
        places = ops.take(ops.convert_to_tensor(level), rows, axis=0)
        boxes = ops.clip(coders.decode(moved, places, RPN_WEIGHTS), 0.0, float(image_size))
        shortest = ops.min(boxes[..., 2:] - boxes[..., :2], axis=-1)
        found.append((boxes, ops.where(shortest >= MIN_SIDE, scores, 0.0)))
    if not per_level:
        boxes, scores = (ops.concatenate(each, axis=1) for each in zip(*found, strict=True))
        scores, rows = ops.top_k(scores, scores.shape[1])
        found = [(ops.take_along_axis(boxes, rows[..., None], axis=1), scores)]
    if iou_threshold is not None:
        found = [(boxes, scores * _kept(boxes, scores, iou_threshold)) for boxes, scores in found]
    boxes, scores = (ops.concatenate(each, axis=1) for each in zip(*found, strict=True))
    best, rows = ops.top_k(scores, min(after, scores.shape[1]))
    boxes = ops.take_along_axis(boxes, rows[..., None], axis=1)
    boxes = boxes * ops.cast(best > 0, "float32")[..., None]
    missing = after - best.shape[1]
    if missing > 0:
        boxes, best = ops.pad(boxes, ((0, 0), (0, missing), (0, 0))), ops.pad(best, ((0, 0), (0, missing)))
    return ops.stop_gradient(boxes), ops.stop_gradient(best)


def _kept(boxes, scores, iou_threshold: float):
    labels = ops.cast(ops.zeros_like(scores), "int32")
    return greedy_keep(boxes, scores, labels, iou_threshold)
