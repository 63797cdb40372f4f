"""Rows of a network's output: how some of them are picked."""

from __future__ import annotations

from keras import ops


def at_rows(values, rows):
    """Some rows of each photo.

    Args:
        values: (batch, n) or (batch, n, channels).
        rows: (batch, count) int32.

    Returns:
        (batch, count) or (batch, count, channels).
    """
    return ops.take_along_axis(values, rows[..., None] if len(values.shape) == 3 else rows, axis=1)


def top_pairs(scores, count: int, lowest: float = 0.0):
    """The pairs of a row and a class that score highest.

    Args:
        scores: (batch, n, classes) float32, at least 0.
        count: how many pairs to return, at most n * classes.
        lowest: what scores less counts as 0.

    Returns:
        scores (batch, count) float32 in falling order; rows and labels (batch, count) int32.
    """
    n, classes = scores.shape[1:]
    flat = ops.reshape(scores, (-1, n * classes))
    if lowest > 0:
        flat = ops.where(flat >= lowest, flat, 0.0)
    best, index = ops.top_k(flat, count)
    if classes == 1:
        return best, index, ops.zeros_like(index)
    return best, index // classes, index % classes
