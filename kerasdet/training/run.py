"""train: a whole training in a folder, which can be killed and taken up again."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import math
import os
import platform
from pathlib import Path

import keras

from kerasdet import data as data_
from kerasdet import zoo
from kerasdet.ema import EMA
from kerasdet.metrics import CocoMetrics
from kerasdet.training.checkpoint import Checkpoint

# Share of the photos that are trained on where the set has no validation split.
TRAIN_SHARE = 0.9
# The rate rises over this share of the steps, at most so many of them, and then falls as a cosine.
WARM_UP, MOST_WARM_UP = 0.1, 300
MONITOR = "val_AP"
_VERSIONS = ("kerasdet", "keras", "tensorflow", "tensorflow_cpu", "jax", "numpy", "grain")


def train(
    data,
    model="csp",
    out: str | os.PathLike = "runs/mine",
    *,
    val=None,
    epochs: int = 20,
    batch_size: int = 16,
    image_size: int | None = None,
    rate: float = 3e-4,
    seed: int = 0,
    resume: bool = False,
    callbacks=(),
) -> list[dict[str, float]]:
    """Fine-tunes a detector on a set of photos with boxes.

    AdamW with warm-up and cosine; the moving average of the weights (`EMA`) is what is evaluated
    after each epoch and what is kept. The folder then holds:

    - `best.keras`, from the epoch with the highest AP on the validation photos, and `last.keras`;
    - `log.csv`, losses and figures of each epoch;
    - `config.json`, the settings, sets and versions;
    - `checkpoint.npz`, with which a killed run goes on.

    Args:
        data: `kerasdet.data.Dataset`, or a path for `kerasdet.data.load` (its split "train", where
            it has several).
        model: a detector, the name of a preset or a `.keras` file; it gets the classes of `data`.
        out: the run's folder.
        val: a set or path to evaluate on. None takes the split "val" of `data` where that is a path
            that has one, and otherwise keeps a tenth of the photos of `data` for it.
        epochs, batch_size: as usual.
        image_size: side of the network's square in pixels; None takes the model's.
        rate: highest learning rate.
        seed: of the order of photos, augmentation and new weights.
        resume: go on with the run in `out`. Every other argument has to be what the run began with:
            it then ends as if it had not been interrupted.
        callbacks: further Keras callbacks; they come after the evaluation of an epoch.

    Returns:
        The rows of `log.csv`, one dict an epoch: "epoch" (from 0), "loss", "val_AP" ...

    Raises:
        FileExistsError: `out` holds something and `resume` is False.
        FileNotFoundError: no such data, model or, with `resume`, no run.
        ValueError: empty or unfit data, a setting out of range, or one that differs from the run's.
    """
    if epochs < 1 or batch_size < 1 or not rate > 0:
        raise ValueError(
            f"epochs={epochs}, batch_size={batch_size}, rate={rate}: all have to be above 0"
        )
    out = Path(out)
    _check_folder(out, resume)
    training, validation = _sets(data, val, seed)
    keras.utils.set_random_seed(seed)
    model_name = model if isinstance(model, (str, os.PathLike)) else model.name
    detector = _detector(model, training.classes, image_size)
    settings = {
        "model": os.fspath(model_name), "epochs": epochs, "batch_size": batch_size,
        "image_size": detector.image_size, "rate": rate, "seed": seed,
        "classes": list(training.classes), "train": _describe(training),
        "val": _describe(validation),
    }
    batches = training.batches(batch_size, detector, training=True, seed=seed)
    # Everything that can be wrong with what was given has been said by now.
    out.mkdir(parents=True, exist_ok=True)
    _settle_config(out / "config.json", settings, resume)

    detector.compile(keras.optimizers.AdamW(
        _schedule(rate, len(batches) * epochs), weight_decay=1e-3, clipnorm=10.0
    ))
    ema = EMA()
    checkpoint = Checkpoint(out / "checkpoint.npz", ema)
    start = checkpoint.restore(detector)
    best = _trim_log(out / "log.csv", start)
    if start < epochs:
        batches.epoch = start
        detector.fit(
            batches, epochs=epochs, initial_epoch=start, verbose=0,
            callbacks=[
                ema,
                CocoMetrics(validation, batch_size=batch_size),
                Keep(out, best),
                keras.callbacks.CSVLogger(out / "log.csv", append=True),
                # Last but for the user's own: the run goes on from here with all files written.
                checkpoint,
                *callbacks,
            ],
        )
    return _read_log(out / "log.csv")


class Keep(keras.callbacks.Callback):
    """Saves `last.keras` after every epoch, and `best.keras` if its figure is the highest so far.

    Args:
        folder: of the two files.
        best: the highest figure of epochs before, None if there were none.
    """

    def __init__(self, folder: Path, best: float | None = None):
        super().__init__()
        self.folder, self.best = folder, best

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


def _check_folder(out: Path, resume: bool):
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: is a file; give a folder for the run")
    if resume and not (out / "config.json").is_file():
        raise FileNotFoundError(f"{out}: holds no run to go on with; start one without resume")
    if not resume and out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out}: is not empty; give a new folder, or resume the run in it")


def _sets(data, val, seed):
    """The training and the validation set."""
    is_path = isinstance(data, (str, os.PathLike))
    training = data_.load(data) if is_path else data
    if val is None and is_path and "val" in data_.splits(data):
        validation = data_.load(data, split="val")
    elif val is None:
        training, validation = training.split(TRAIN_SHARE, seed=seed)
    elif isinstance(val, (str, os.PathLike)):
        splits = data_.splits(val)
        validation = data_.load(val, split="val" if "val" in splits else None)
    else:
        validation = val
    for name, dataset in (("training", training), ("validation", validation)):
        if not len(dataset):
            raise ValueError(f"the {name} set {dataset.name!r} holds no photos")
    return training, validation


def _detector(model, classes, image_size):
    if isinstance(model, (str, os.PathLike)):
        if os.fspath(model).endswith(".tflite"):
            raise ValueError(
                f"{model}: a .tflite can not be trained; give the .keras file or the preset it was "
                "exported from"
            )
        model = zoo.load_file(model)
    return zoo.adapt(model, classes, image_size)


def _schedule(rate: float, steps: int):
    warm_up = max(1, min(MOST_WARM_UP, int(steps * WARM_UP)))
    return keras.optimizers.schedules.CosineDecay(
        rate / 100, max(1, steps - warm_up), alpha=0.01, warmup_target=rate, warmup_steps=warm_up
    )


def _describe(dataset) -> dict:
    boxes = sum(len(sample.boxes) for sample in dataset)
    return {"name": dataset.name, "photos": len(dataset), "boxes": boxes}


# === The folder ===


def _settle_config(path: Path, settings: dict, resume: bool):
    """Writes what the run is made with; a run that goes on has to be made with the same."""
    if resume:
        before = json.loads(path.read_text(encoding="utf-8"))["settings"]
        for key, value in settings.items():
            if before.get(key) != value:
                raise ValueError(
                    f"{path}: the run began with {key} {before.get(key)!r}, now it is {value!r}; "
                    "give the same again, or start a new folder"
                )
        return
    versions = {"python": platform.python_version(), "backend": keras.backend.backend()}
    for name in _VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    text = json.dumps({"settings": settings, "versions": versions}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _read_log(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [
            {key: int(value) if key == "epoch" else float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def _trim_log(path: Path, epochs: int) -> float | None:
    """Cuts off epochs that the checkpoint does not know; returns the best figure before them."""
    if not path.is_file():
        return None
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: epochs + 1]))
    figures = [row[MONITOR] for row in _read_log(path)]
    known = [figure for figure in figures if not math.isnan(figure)]
    return max(known, default=math.nan) if figures else None
