"""Pictures of trainings hold what the logs say."""

import math

from kerasdet.training.curves import draw_curves

ROWS = [
    {"epoch": 3, "loss": 4.0, "box_loss": 3.0, "val_AP": 0.1, "val_AP50": 0.3, "val_MR": math.nan},
    {"epoch": 4, "loss": 2.0, "box_loss": 1.5, "val_AP": 0.2, "val_AP50": 0.4, "val_MR": math.nan},
]


def lines(panel):
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in panel.lines}


def test_losses_and_figures_are_drawn_by_epoch():
    left, right = draw_curves(ROWS).axes
    assert lines(left) == {"loss": ([4, 5], [4.0, 2.0]), "box_loss": ([4, 5], [3.0, 1.5])}
    assert lines(right) == {"val_AP": ([4, 5], [0.1, 0.2]), "val_AP50": ([4, 5], [0.3, 0.4])}


def test_without_figures_there_are_losses_alone():
    (only,) = draw_curves([{"epoch": 0, "loss": 1.0, "val_AP": math.nan}]).axes
    assert lines(only) == {"loss": ([1], [1.0])}
