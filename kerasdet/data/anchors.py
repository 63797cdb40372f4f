"""How large a set's objects are in a network's square."""

from __future__ import annotations

import numpy as np

from kerasdet import photo
from kerasdet.data.sample import sides


def box_sizes(dataset, size: int, resize: str = "stretch") -> np.ndarray:
    """Widths and heights of all objects of a set.

    Args:
        dataset: sequence of `Sample`.
        size: side of the network's square in pixels.
        resize: how a photo becomes the square, see `photo.square_matrix`.

    Returns:
        (n, 2) float64, pixels of the square; boxes without width or height are left out.
    """
    found = [np.zeros((0, 2))]
    for sample in dataset:
        if len(sample.boxes):
            width, height = sides(sample)
            matrix = photo.square_matrix(height, width, size, resize)
            boxes = photo.transform_boxes(sample.boxes, matrix)
            found.append(boxes[:, 2:] - boxes[:, :2])
    sizes = np.concatenate(found).astype(np.float64)
    return sizes[(sizes > 0).all(-1)]
