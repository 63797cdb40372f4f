"""Anchors for a set: k-means of its boxes' sizes under the distance 1 - IoU. Pure NumPy."""

from __future__ import annotations

import numpy as np

RESTARTS, ROUNDS = 10, 300


def size_iou(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes that share their centre.

    Args:
        sizes: (n, 2), widths and heights.
        anchors: (k, 2), in the same unit.

    Returns:
        (n, k) float64.

    Example: 2 x 4 and 4 x 2 share 4 of 12.
    """
    shared = np.minimum(sizes[:, None], anchors[None]).prod(-1)
    return shared / (sizes.prod(-1)[:, None] + anchors.prod(-1)[None] - shared)


def kmeans_anchors(sizes, count: int, seed: int = 0) -> np.ndarray:
    """Sizes that a set's boxes cluster around.

    Each box goes to the anchor that overlaps it best, each anchor to the mean of its boxes, until no box
    changes sides; of several beginnings the one with the highest mean IoU is kept. The same seed gives the
    same anchors.

    Args:
        sizes: (n, 2), widths and heights above 0, in any unit.
        count: how many anchors.
        seed: of the beginnings.

    Returns:
        (count, 2) float64, widths and heights by rising area.

    Raises:
        ValueError: fewer different sizes than anchors, or one that is not above 0.

    Source: YOLOv2 (Redmon and Farhadi 2017, arXiv 1612.08242), section 2, "Dimension Clusters"; the
    beginnings as in k-means++ (Arthur and Vassilvitskii 2007).
    """
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    different = len(np.unique(sizes, axis=0))
    if count < 1 or different < count:
        raise ValueError(f"{count} anchors of {different} different box sizes; give 1 to {different}")
    if not (sizes > 0).all():
        row = int(np.argmin((sizes > 0).all(-1)))
        raise ValueError(f"sizes[{row}] is {sizes[row].tolist()}; leave out boxes without width or height")
    rng = np.random.default_rng(seed)
    found = [_lloyd(sizes, _spread(sizes, count, rng)) for _ in range(RESTARTS)]
    best = max(found, key=lambda anchors: size_iou(sizes, anchors).max(1).mean())
    return best[np.lexsort((best[:, 0], best.prod(-1)))]


def _spread(sizes, count, rng):
    """First anchors: boxes drawn one after the other, the likelier the farther from those before."""
    chosen = [sizes[rng.integers(len(sizes))]]
    while len(chosen) < count:
        distance = 1 - size_iou(sizes, np.array(chosen)).max(1)
        distance[distance < 1e-12] = 0
        chosen.append(sizes[rng.choice(len(sizes), p=distance / distance.sum())])
    return np.array(chosen)


def _lloyd(sizes, anchors):
    owner = None
    for _ in range(ROUNDS):
        now = size_iou(sizes, anchors).argmax(1)
        if owner is not None and (now == owner).all():
            break
        owner = now
        # An anchor without boxes stays where it is.
        anchors = np.array([
            sizes[owner == i].mean(0) if (owner == i).any() else anchor
            for i, anchor in enumerate(anchors)
        ])
    return anchors
