"""What a training shows in the terminal: a bar for the running epoch, a line for those done."""

from __future__ import annotations

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class RichProgress(keras.callbacks.Callback):
    """A bar with the loss while an epoch runs; after it, its figures on a line.

    Train in a `with` of it: a training that is stopped ends no epoch, and the bar has taken the terminal's
    cursor away.

    Args:
        console: where to; None takes the terminal.
    """

    def __init__(self, console: Console | None = None):
        super().__init__()
        self.console = console or Console()
        self._bar = None

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_epoch_begin(self, epoch, logs=None):
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"), BarColumn(), MofNCompleteColumn(),
            TimeRemainingColumn(), TextColumn("loss {task.fields[loss]}"),
            console=self.console, transient=True, disable=not self.console.is_terminal,
        )
        self._name = f"{epoch + 1}/{self.params['epochs']}"
        self._task = self._bar.add_task("", total=self.params.get("steps"), loss="", epoch=self._name)
        self._bar.start()

    def on_train_batch_end(self, batch, logs=None):
        # Other callbacks evaluate next; this one is the last.
        over = batch + 1 == self.params.get("steps")
        self._bar.update(
            self._task, completed=batch + 1, loss=f"{(logs or {}).get('loss', 0):.4g}",
            epoch=f"{self._name} evaluating" if over else self._name,
        )

    def on_epoch_end(self, epoch, logs=None):
        self._bar.stop()
        self._bar = None
        shown = [name for name in ("loss", "val_AP", "val_AP50", "val_MR") if name in (logs or {})]
        figures = ", ".join(f"{name} {logs[name]:.4g}" for name in shown)
        self.console.print(f"epoch {epoch + 1}/{self.params['epochs']}: {figures}", highlight=False)
