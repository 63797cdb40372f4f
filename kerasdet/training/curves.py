"""Pictures of trainings, by matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

# Figures of an evaluation that a curve is drawn of, where a run has them.
SHOWN = ("AP", "AP50", "AP75", "MR")


def draw_curves(rows: Sequence[Mapping[str, float]]):
    """Losses and figures, epoch by epoch.

    Args:
        rows: of a run's log, one a epoch: "epoch" (from 0), "loss", its parts .._loss, "val_AP" and so on.

    Returns:
        matplotlib.figure.Figure: losses on the left; on the right, if there are any, average precisions and
        the miss rate.
    """
    from matplotlib.figure import Figure

    epochs = [row["epoch"] + 1 for row in rows]
    losses = [name for name in rows[0] if name == "loss" or name.endswith("_loss")]
    losses = [name for name in losses if not name.startswith("val_")]
    figures = [f"val_{name}" for name in SHOWN]
    figures = [
        name for name in figures if name in rows[0] and not all(math.isnan(row[name]) for row in rows)
    ]
    figure = Figure(figsize=(11, 4) if figures else (6, 4), dpi=100, layout="constrained")
    panels = figure.subplots(1, 2 if figures else 1, squeeze=False)[0]
    # A marker, or a run of one epoch would show nothing.
    for panel, names in zip(panels, (losses, figures), strict=False):
        for name in names:
            width = 2 if name in ("loss", "val_AP") else 1
            panel.plot(epochs, [row[name] for row in rows], marker=".", linewidth=width, label=name)
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        panel.legend()
    panels[0].set_ylim(bottom=0)
    if figures:
        panels[1].set_ylim(0, 1)
    return figure
