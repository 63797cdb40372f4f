"""A run's folder: its settings, its log, its curves, and the weights that are kept."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import math
import os
import platform
from pathlib import Path

import keras

from kerasdet.metrics import CocoMetrics
from kerasdet.metrics.compare import SCORES, write_scores
from kerasdet.training.curves import draw_curves

MONITOR = "val_AP"
CONFIG, LOG, CURVES = "config.json", "log.csv", "curves.png"
_VERSIONS = ("kerasdet", "keras", "tensorflow", "tensorflow_cpu", "jax", "numpy", "grain")


class Keep(keras.callbacks.Callback):
    """Saves `last.keras` after every epoch, and `best.keras` if its figure is the highest so far.

    With the best weights goes `scores.json`, all that their evaluation found.

    Args:
        folder: of the files.
        evaluation: the `CocoMetrics` that stands before this one.
        best: the highest figure of epochs before, None if there were none.
    """

    def __init__(self, folder: Path, evaluation: CocoMetrics, best: float | None = None):
        super().__init__()
        self.folder, self.evaluation, self.best = folder, evaluation, best

    def on_epoch_end(self, epoch, logs=None):
        figure = float(logs[MONITOR])
        names = ["last.keras"]
        # nan, where there is nothing to find on the validation photos, is never higher.
        if self.best is None or figure > self.best or math.isnan(self.best):
            self.best = figure
            names.append("best.keras")
        for name in names:
            partial = self.folder / f"partial_{name}"
            self.model.save(partial)
            os.replace(partial, self.folder / name)
        if "best.keras" in names:
            found = self.evaluation
            write_scores(self.folder / SCORES, found.metrics, found.dataset, epoch=epoch + 1)


class Curves(keras.callbacks.Callback):
    """Draws `log.csv` into `curves.png` after every epoch; put it behind the `CSVLogger`.

    Args:
        folder: of both files.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch, logs=None):
        draw_curves(read_log(self.folder / LOG)).savefig(self.folder / CURVES)


def check_folder(out: Path, resume: bool):
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: is a file; give a folder for the run")
    if resume and not (out / CONFIG).is_file():
        raise FileNotFoundError(f"{out}: holds no run to go on with; start one without resume")
    if not resume and out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out}: is not empty; give a new folder, or resume the run in it")


def settle_config(path: Path, settings: dict, resume: bool):
    """Writes what the run is made with; a run that goes on has to be made with the same."""
    if resume:
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8"))["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: not the settings of a run ({type(error).__name__}: {error}); give another folder"
            ) from error
        # As json has them: lists for tuples.
        for key, value in json.loads(json.dumps(settings)).items():
            if before.get(key) != value:
                raise ValueError(
                    f"{path}: the run began with {key} {before.get(key)!r}, now it is {value!r}; "
                    "give the same again, or start a new folder"
                )
        return
    text = json.dumps({"settings": settings, "versions": versions()}, indent=1, ensure_ascii=False)
    _replace(path, text + "\n")


def _replace(path: Path, text: str):
    """Writes a file whole or not at all."""
    partial = path.with_name(f"partial_{path.name}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def versions() -> dict[str, str]:
    """Of Python and the libraries that training hangs on; and Keras' backend."""
    found = {"python": platform.python_version(), "backend": keras.backend.backend()}
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a `log.csv`, one dict an epoch."""

    def number(key, value):
        if key == "epoch":
            return int(value)
        return math.nan if value == "NA" else float(value)  # Keras' word for columns without a figure

    with path.open(newline="") as file:
        return [
            {key: number(key, value) for key, value in row.items()} for row in csv.DictReader(file)
        ]


def trim_log(path: Path, epochs: int) -> None:
    """Cuts off epochs that the checkpoint does not know."""
    if path.is_file():
        lines = path.read_text().splitlines(keepends=True)
        if len(lines) > epochs + 1:
            _replace(path, "".join(lines[: epochs + 1]))


def best_of(path: Path) -> float | None:
    """The best figure in a log; nan if all are, None if there is none."""
    figures = [row[MONITOR] for row in read_log(path)] if path.is_file() else []
    known = [figure for figure in figures if not math.isnan(figure)]
    return max(known, default=math.nan) if figures else None
