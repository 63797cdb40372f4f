"""Greedy merging: many boxes of one object become their mean (OverFeat)."""

from __future__ import annotations

import numpy as np

# Two boxes further apart than this, see `match_scores`, are of two objects.
MERGE_BELOW = 0.6


def match_scores(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How far boxes are from being the same: 0 for equal ones, 1 and more for such that do not overlap.

    The paper adds "the distance between centers of the two bounding boxes and the intersection area". A
    larger intersection would then speak against a match, and pixels would be added to square pixels; so the
    distance counts as a fraction of the mean of both diagonals, and of the intersection counts what is
    missing of it, 1 - IoU.

    Args:
        boxes: (n, 4) float xyxy.
        others: (m, 4) float xyxy in the same unit.

    Returns:
        (n, m) float64.

    Example: 10 x 10 px and the same moved by 5: 5 / 14.14 + 1 - 1 / 3 = 1.02.
    """
    a, b = boxes[:, None].astype(np.float64), others[None].astype(np.float64)
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    sides_a, sides_b = a[..., 2:] - a[..., :2], b[..., 2:] - b[..., :2]
    union = sides_a.prod(-1) + sides_b.prod(-1) - shared
    centres = (a[..., :2] + a[..., 2:] - b[..., :2] - b[..., 2:]) / 2
    diagonal = (np.linalg.norm(sides_a, axis=-1) + np.linalg.norm(sides_b, axis=-1)) / 2
    distance = np.linalg.norm(centres, axis=-1)
    return distance / np.maximum(diagonal, 1e-9) + 1 - shared / np.maximum(union, 1e-9)


def greedy_merge(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, threshold: float = MERGE_BELOW
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merges boxes of a class, the two that match best first, until none match.

    Unlike non-maximum suppression it rewards boxes that many windows agree on, and takes something of each
    of them.

    Args:
        boxes: (n, 4) float xyxy, in any order.
        scores: (n,) float above 0.
        labels: (n,) int; boxes of different classes are not merged.
        threshold: pairs whose `match_scores` are above this are left apart.

    Returns:
        boxes (m, 4) float32, the means of those merged, each counted by its score; scores (m,) float32,
        their sums, which fall and can be above 1; labels (m,) int32.

    Source: OverFeat (Sermanet et al. 2013), section 4.3, "Combining predictions". The paper takes plain
    means of two, which leaves those merged first with little say.
    """
    found = [
        _merge(boxes[labels == label], scores[labels == label], threshold) for label in np.unique(labels)
    ]
    names = [np.full(len(s), label) for (_, s), label in zip(found, np.unique(labels), strict=True)]
    if not found:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
    merged, sums, names = (
        np.concatenate(values) for values in ([b for b, _ in found], [s for _, s in found], names)
    )
    order = np.argsort(-sums, kind="stable")
    return merged[order].astype(np.float32), sums[order].astype(np.float32), names[order].astype(np.int32)


def _merge(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Of one class."""
    boxes, scores = boxes.astype(np.float64), scores.astype(np.float64)
    alive = np.ones(len(boxes), bool)
    apart = match_scores(boxes, boxes)
    np.fill_diagonal(apart, np.inf)
    # Each box's nearest other, so that a merge looks at few rows anew.
    nearest, least = apart.argmin(1), apart.min(1, initial=np.inf)
    while len(boxes):
        first = int(least.argmin())
        second = int(nearest[first])
        if not least[first] <= threshold:
            break
        total = scores[first] + scores[second]
        boxes[first] = (scores[first] * boxes[first] + scores[second] * boxes[second]) / total
        scores[first] = total
        alive[second] = False
        row = np.where(alive, match_scores(boxes[first : first + 1], boxes)[0], np.inf)
        row[first] = np.inf
        apart[second] = apart[:, second] = np.inf
        apart[first] = apart[:, first] = row
        changed = np.flatnonzero((nearest == first) | (nearest == second) | (row < least))
        changed = np.union1d(changed, [first, second])
        nearest[changed], least[changed] = apart[changed].argmin(1), apart[changed].min(1)
    return boxes[alive], scores[alive]
