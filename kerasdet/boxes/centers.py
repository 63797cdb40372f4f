"""Targets on a grid of cells that all centre detectors share."""

from __future__ import annotations

from keras import ops

from kerasdet.boxes import gaussians
from kerasdet.boxes.iou import area

# Dense targets: a Gaussian reaches over this fraction of an object's box (TTFNet, section 3.2).
DENSE_REACH = 0.54


def middle_cells(boxes, cells: int):
    """Middles of boxes, and the cells that they lie in.

    Args:
        boxes: (batch, n, 4) float32 xyxy in cells.
        cells: side of the grid, a number or a tensor.

    Returns:
        middle (batch, n, 2) float32, y and x; cell (batch, n, 2) float32, its row and column, whole
        numbers within the grid.

    Example: [2.5, 1, 7.5, 2] has its middle at (1.5, 5), in the cell (1, 5).
    """
    middle = (boxes[..., :2] + boxes[..., 2:])[..., ::-1] / 2
    return middle, ops.clip(ops.floor(middle), 0.0, ops.cast(cells - 1, "float32"))


def positives(cell, targets: dict, cells: int, classes: int):
    """(batch, cells, cells, classes): each object's weight in its middle's cell (batch, n, 2)."""
    labels, batch = targets["labels"], ops.shape(cell)[0]
    row, column = (ops.reshape(ops.cast(cell[..., axis], "int32"), (-1,)) for axis in (0, 1))
    places = (gaussians.class_of(labels, classes) * cells + row) * cells + column
    weights = ops.reshape(targets["weights"] * ops.cast(labels >= 0, "float32"), (-1,))
    maps = gaussians.largest(weights, places, batch * classes * cells * cells)
    return ops.transpose(ops.reshape(maps, (batch, classes, cells, cells)), (0, 2, 3, 1))


def learned_cells(targets: dict, stride: int, cells: int):
    """Cells that are learned: all but those in ignore regions, save where an object lies.

    The cell of an object's middle is learned even where the object is smaller than a cell.

    Args:
        targets: boxes and ignore in pixels, labels; as `dense_targets`.

    Returns:
        (batch, cells, cells, 1) float32, 1 or 0.
    """
    real = ops.cast(targets["labels"] >= 0, "float32")[..., None]
    boxes = targets["boxes"] / stride
    ignored = gaussians.region_mask(targets["ignore"] / stride, cells, cells)
    corner = middle_cells(boxes, cells)[1][..., ::-1]
    grown = ops.concatenate(
        [ops.minimum(boxes[..., :2], corner), ops.maximum(boxes[..., 2:], corner + 1)], axis=-1
    )
    inside = gaussians.region_mask(grown * real, cells, cells)
    return ops.cast(ops.logical_or(ops.logical_not(ignored), inside), "float32")[..., None]


def dense_targets(targets: dict, stride: int, cells: int, classes: int) -> dict:
    """Every cell under an object's Gaussian learns its box.

    Args:
        targets: boxes (batch, n, 4) float32 xyxy pixels, labels (batch, n) int32 with -1 in padding
            rows, weights (batch, n), ignore (batch, m, 4).
        stride: pixels a cell.
        cells: side of the grid, a number or a tensor.
        classes: number of classes.

    Returns:
        heat (batch, cells, cells, classes), Gaussians about the middle's cell that reach r = floor(0.54 *
        side / 2) cells along each axis, sigma = (2 r + 1) / 6, the larger one where two overlap (of sides
        below 3.7 cells r is 0: such an object is learned in the cell of its middle alone); positive (the
        same shape), the weight of each middle's cell; valid (batch, cells, cells, 1), 0 in ignored cells
        outside every object; owner (batch, n, cells, cells), 1 where a cell belongs to an object (the smaller
        one where two overlap); weight (batch, n, cells, cells), how much the cell's box counts: the Gaussian,
        normalised to sum to log(1 + area) over the object's cells, the area in square pixels.

    Source: TTFNet (Liu et al., AAAI 2020), sections 3.2 and 3.3, where sigma is 0.54 * side / 6, and the
    importance log(area): as here but for the smallest objects.
    """
    boxes, labels = targets["boxes"] / stride, targets["labels"]
    _, cell = middle_cells(boxes, cells)
    radius = ops.floor((boxes[..., 2:] - boxes[..., :2])[..., ::-1] / 2 * DENSE_REACH)
    sigma = (2 * radius + 1) / 6
    low, high = cell - radius, cell + radius
    down, across = (
        gaussians.profile(cells, cell[..., axis], sigma[..., axis], low[..., axis], high[..., axis])
        for axis in (0, 1)
    )
    each = down[..., :, None] * across[..., None, :]
    each = each * ops.cast(labels >= 0, "float32")[..., None, None]
    owner = gaussians.owners(each, area(boxes))
    mass = each * owner
    total = ops.maximum(ops.sum(mass, axis=(2, 3), keepdims=True), 1e-6)
    importance = targets["weights"] * ops.log(1 + area(targets["boxes"]))
    return {
        "heat": gaussians.splat(down, across, labels, classes),
        "positive": positives(cell, targets, cells, classes),
        "valid": learned_cells(targets, stride, cells),
        "owner": owner, "weight": mass / total * importance[..., None, None],
    }
