"""Peaks of a heat-map, with fixed shapes."""

from __future__ import annotations

from keras import ops

from kerasdet.boxes.rows import at_rows, top_pairs


def top_peaks(heat, count: int):
    """The highest local maxima: cells that equal the maximum of their 3x3 neighbourhood.

    Args:
        heat: (batch, height, width, classes) float32 in [0, 1].
        count: how many to return; fewer than height * width * classes.

    Returns:
        scores (batch, count) float32 in falling order, 0 where there are no more peaks;
        classes (batch, count) int32; cells (batch, count) int32, row * width + column.

    Source: CenterNet (Zhou et al. 2019), section 4, "extract the peaks".
    """
    _, height, width, classes = heat.shape
    around = ops.max_pool(heat, 3, strides=1, padding="same")
    peaks = ops.where(heat >= around, heat, 0.0)
    scores, cells, labels = top_pairs(ops.reshape(peaks, (-1, height * width, classes)), count)
    return scores, labels, cells


def take(maps, cells):
    """Values of a map at some cells.

    Args:
        maps: (batch, height, width, channels).
        cells: (batch, count) int32, row * width + column.

    Returns:
        (batch, count, channels).
    """
    _, height, width, channels = ops.shape(maps)
    return at_rows(ops.reshape(maps, (-1, height * width, channels)), cells)
