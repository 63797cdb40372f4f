"""What a training leaves of its bar in the terminal."""

import io

import pytest
from rich.console import Console

from kerasdet.training.progress import RichProgress

HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"


def begun(text):
    progress = RichProgress(Console(file=text, force_terminal=True))
    progress.set_params({"epochs": 2, "steps": 3})
    return progress


def test_a_stopped_training_gives_the_cursor_back():
    text = io.StringIO()
    with pytest.raises(KeyboardInterrupt), begun(text) as progress:
        progress.on_epoch_begin(0)
        progress.on_train_batch_end(0, {"loss": 2.0})
        assert text.getvalue().rfind(HIDDEN) > text.getvalue().rfind(SHOWN)
        raise KeyboardInterrupt
    assert text.getvalue().rfind(SHOWN) > text.getvalue().rfind(HIDDEN)


def test_an_epoch_that_ends_leaves_a_line():
    text = io.StringIO()
    with begun(text) as progress:
        progress.on_epoch_begin(0)
        progress.on_epoch_end(0, {"loss": 0.51234, "val_AP": 0.25, "rate": 1.0})
        after = text.getvalue()
    assert "epoch 1/2: loss 0.5123, val_AP 0.25\n" in after
    assert text.getvalue() == after, "what is over is not stopped again"
