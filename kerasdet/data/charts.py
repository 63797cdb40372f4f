"""Pictures of a set's figures, by matplotlib: its boxes' sizes beside a detector's, and its classes."""

from __future__ import annotations

import math

import numpy as np

from kerasdet.drawing import PALETTE

BOXES, ANCHORS = (tuple(channel / 255 for channel in colour) for colour in (PALETTE[1], PALETTE[0]))
# Of aspect ratios, width / height: bins from 1/8 to 8, four to a doubling.
_RATIO_BINS = 2.0 ** np.linspace(-3, 3, 25)


def anchor_sides(anchors) -> np.ndarray:
    """A detector's different anchors.

    Args:
        anchors: as detectors have them: (k, 2) widths and heights, or (n, 4) xyxy boxes, of one map or
            of several, in pixels of the square.

    Returns:
        (k, 2) float64 widths and heights.
    """
    rows = [np.reshape(level, (-1, np.shape(level)[-1])) for level in anchors]
    rows = np.concatenate(rows).astype(np.float64)
    sides = rows if rows.shape[-1] == 2 else rows[:, 2:] - rows[:, :2]
    return np.unique(np.round(sides, 2), axis=0)


def draw_sizes(
    sizes: np.ndarray, size: int, stride: float | None = None, anchors: np.ndarray | None = None
):
    """Draws all boxes by width and height, both doubling from line to line, and by aspect ratio.

    Args:
        sizes: (n, 2) widths and heights above 0, pixels of the square.
        size: side of the square.
        stride: pixels of a cell of the detector's finest map; smaller boxes stand in a shaded field.
        anchors: (k, 2), the detector's; None where it has none.

    Returns:
        matplotlib.figure.Figure: sizes on the left, with the anchors as squares; on the right how many boxes
        have which aspect ratio, with those of the anchors as marks above.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.2), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    least = min(sizes.min(initial=size / 2), size if stride is None else stride / 2)
    low = 2 ** math.floor(math.log2(max(1, least)))
    if stride is not None:
        for span in (left.axvspan, left.axhspan):
            span(low, stride, color="0.92", linewidth=0)
        left.text(0.98, 0.02, f"under {stride:g} px, a cell", ha="right", transform=left.transAxes)
    # Many boxes on one place get darker, few stay visible.
    faint = float(np.clip(20 / math.sqrt(max(1, len(sizes))), 0.15, 0.8))
    left.plot(*np.maximum(sizes, low).T, ".", color=BOXES, alpha=faint, label="boxes")
    if anchors is not None:
        # Of some detectors they are larger than the square.
        _draw_anchors(left, np.minimum(anchors, size))
        left.legend(loc="upper left")
    left.set(
        xlim=(low, size), ylim=(low, size), aspect="equal", xlabel="width, px", ylabel="height, px",
        title=f"{len(sizes)} boxes in the square of {size} px",
    )
    _double(left.xaxis)
    _double(left.yaxis)
    _draw_ratios(right, sizes, anchors)
    return figure


def _draw_anchors(axes, sides: np.ndarray) -> None:
    axes.plot(
        *sides.T, "s", color=ANCHORS, markeredgecolor="black", clip_on=False, zorder=3, label="anchors"
    )


def _double(axis) -> None:
    """Ticks at the powers of two, written as numbers."""
    axis.axes.set_xscale("log", base=2) if axis.axis_name == "x" else axis.axes.set_yscale("log", base=2)
    axis.set_major_formatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}")
    axis.grid(alpha=0.4)


def _draw_ratios(axes, sizes: np.ndarray, anchors: np.ndarray | None) -> None:
    ratios = np.clip(sizes[:, 0] / sizes[:, 1], _RATIO_BINS[0], _RATIO_BINS[-1])
    axes.hist(ratios, _RATIO_BINS, color=BOXES, edgecolor="white")
    if anchors is not None:
        marks = np.unique(np.clip(anchors[:, 0] / anchors[:, 1], _RATIO_BINS[0], _RATIO_BINS[-1]))
        axes.plot(
            marks, np.full(len(marks), 0.97), "v", color=ANCHORS, markeredgecolor="black",
            transform=axes.get_xaxis_transform(),
        )
    axes.set(xlabel="width / height", ylabel="boxes", title="Aspect ratios")
    _double(axes.xaxis)
    axes.margins(x=0.02, y=0.12)
    axes.yaxis.get_major_locator().set_params(integer=True)


def draw_anchors(sizes: np.ndarray, anchors: np.ndarray, owner: np.ndarray, size: int):
    """Draws every box's width and height as a dot in its anchor's colour, and the anchors as boxes.

    Args:
        sizes: (n, 2), pixels of the square.
        anchors: (k, 2), in the same unit.
        owner: (n,), the anchor of each box.
        size: side of the square.

    Returns:
        matplotlib.figure.Figure: sizes on the left, anchors around one middle on the right.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(11, 5.8), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (width, height) in enumerate(anchors):
        colour = tuple(channel / 255 for channel in PALETTE[i % len(PALETTE)])
        left.plot(*sizes[owner == i].T, ".", color=colour, alpha=0.4)
        left.plot(width, height, "s", color=colour, markeredgecolor="black", markersize=9, zorder=3)
        corner = (size - width) / 2, (size - height) / 2
        right.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=2.5))
    for axes in (left, right):
        axes.set(xlim=(0, size), ylim=(0, size), aspect="equal", xlabel="width, px")
        axes.grid(alpha=0.4)
    left.set(ylabel="height, px", title=f"{len(sizes)} boxes, by the anchor that fits best")
    right.set(title=f"{len(anchors)} anchors in the square of {size} px")
    return figure


def draw_classes(counts: dict[str, dict[str, tuple[int, int]]]):
    """Draws how many objects each class has, a bar for each split.

    Args:
        counts: class -> split -> (objects, photos that have one); see `doctor.count_objects`.

    Returns:
        matplotlib.figure.Figure, with the class of most objects on top.
    """
    from matplotlib.figure import Figure

    splits = list(next(iter(counts.values())))
    names = sorted(counts, key=lambda name: -sum(objects for objects, _ in counts[name].values()))
    thick = 0.8 / len(splits)
    inches = 1.2 + 0.22 * len(names) * max(1.5, len(splits))
    figure = Figure(figsize=(8, inches), dpi=100, layout="constrained")
    axes = figure.subplots()
    for place, split in enumerate(splits):
        colour = tuple(channel / 255 for channel in PALETTE[place % len(PALETTE)])
        bars = axes.barh(
            np.arange(len(names)) + (place + 0.5) * thick - 0.4, [counts[name][split][0] for name in names],
            thick, color=colour, label=split,
        )
        axes.bar_label(bars, padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.08, y=0.01)
    axes.set_xlabel("objects")
    axes.legend()
    return figure
