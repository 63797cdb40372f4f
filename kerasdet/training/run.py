"""train: a whole training in a folder, which can be killed and taken up again."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import keras

from kerasdet import data as data_
from kerasdet import zoo
from kerasdet.data.augment import Augment
from kerasdet.data.readers import held_back
from kerasdet.ema import EMA
from kerasdet.metrics import CocoMetrics
from kerasdet.metrics.matching import class_map
from kerasdet.nan_guard import NaNGuard
from kerasdet.training.checkpoint import Checkpoint
from kerasdet.training.folder import (
    CONFIG,
    LOG,
    Curves,
    Keep,
    best_of,
    check_folder,
    read_log,
    settle_config,
    trim_log,
)
from kerasdet.training.optimizer import adamw
from kerasdet.training.schedules import schedule as rate_schedule

# Share of the photos that are trained on where the set has no validation split.
TRAIN_SHARE = 0.9


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
    schedule: str = "cosine",
    warmup: float | None = None,
    mixup: float = 0.0,
    mosaic: float = 0.0,
    mix_until: int | None = None,
    repeat_rare: float | None = None,
    label_smoothing: float | str | None = None,
    sizes=None,
    anchors=None,
    seed: int = 0,
    resume: bool = False,
    callbacks=(),
) -> list[dict[str, float]]:
    """Fine-tunes a detector on a set of photos with boxes.

    AdamW with warm-up and cosine; the moving average of the weights (`EMA`) is what is evaluated
    after each epoch and what is kept. The folder then holds:

    - `best.keras`, from the epoch with the highest AP on the validation photos, and `last.keras`;
    - `scores.json`, all that the best one scored, class by class;
    - `log.csv`, losses and figures of each epoch, and `curves.png`, the same as a picture;
    - `config.json`, the settings, sets and versions;
    - `checkpoint.npz`, with which a killed run goes on.

    Args:
        data: `kerasdet.data.Dataset`, or a path for `kerasdet.data.load` (its split "train", where
            it has several).
        model: a detector, the name of a preset or a `.keras` file; it gets the classes of `data`. A detector
            that has them and the size is trained itself, and of any other a copy.
        out: the run's folder.
        val: a set or path to evaluate on. None takes the split "val" of `data` where that is a path
            that has one, and otherwise keeps a tenth of the photos of `data` for it.
        epochs, batch_size: as usual.
        image_size: side of the network's square in pixels; None takes the model's.
        rate: highest learning rate.
        schedule: what becomes of it: "cosine", "step" or "constant", see `schedules.schedule`.
        warmup: epochs, or parts of one, in which the rate first rises; None takes a tenth of all steps,
            300 at most.
        mixup, mosaic: how photos are mixed, see `Augment`; 1.5 and 0.5 are usual, 0 mixes none.
        mix_until: epochs with mixing; those after them see photos as they are. None leaves the last tenth
            of all epochs unmixed.
        repeat_rare: classes that a smaller part of the training photos shows come more often, see
            `Dataset.repeat_rare`; None takes the photos as they are.
        label_smoothing: how soft the classes are learned, see `losses.soft_targets`; None as the model has
            it.
        anchors: of YOLOv3, in place of the model's, see `kerasdet.zoo.load`.
        sizes: sides of the square in pixels to change between while training, for a model that can.
        seed: of the order of photos, augmentation and new weights.
        resume: go on with the run in `out`. Every other argument has to be what the run began with:
            it then ends as if it had not been interrupted.
        callbacks: further Keras callbacks; they come after the evaluation of an epoch.

    Returns:
        The rows of `log.csv`, one dict an epoch: "epoch" (from 0), "loss", "val_AP" ...

    Raises:
        FileExistsError: `out` holds something and `resume` is False.
        FileNotFoundError: no such data, model or, with `resume`, no run.
        ValueError: empty or unfit data, a setting out of range or not for this model, or one that differs
            from the run's.
        FloatingPointError: a loss that is not finite, with its part and photos.
    """
    if epochs < 1 or batch_size < 1 or not rate > 0:
        raise ValueError(
            f"epochs={epochs}, batch_size={batch_size}, rate={rate}: all have to be above 0"
        )
    mixing = _mixing(mixup, mosaic, mix_until, epochs)
    out = Path(out)
    check_folder(out, resume)
    training, validation = _sets(data, val, seed)
    if repeat_rare is not None:
        training = training.repeat_rare(repeat_rare, seed)
    keras.utils.set_random_seed(seed)
    # Names that Keras gives count up in a process: a run goes on in another one.
    named = isinstance(model, (str, os.PathLike))
    model_name = model if named else re.sub(r"_\d+$", "", model.name)
    detector = detector_of(model, training.classes, image_size, label_smoothing, anchors)
    class_map(detector.classes, validation.classes)  # a class that cannot be scored is told now
    batches = training.batches(batch_size, detector, training=True, seed=seed, sizes=sizes, **mixing)
    steps = len(batches) * epochs
    rates = rate_schedule(schedule, rate, steps, None if warmup is None else round(warmup * len(batches)))
    settings = {
        "model": os.fspath(model_name), "epochs": epochs, "batch_size": batch_size,
        "image_size": detector.image_size, "rate": rate, "schedule": schedule, "warmup": warmup,
        "mixup": mixup, "mosaic": mosaic, "mix_until": mixing.get("mix_until"), "repeat_rare": repeat_rare,
        "label_smoothing": label_smoothing, "sizes": sizes and list(sizes), "seed": seed,
        "anchors": None if anchors is None else [list(map(float, pair)) for pair in anchors],
        "classes": list(training.classes), "train": _describe(training),
        "val": _describe(validation),
    }
    # Everything that can be wrong with what was given has been said by now.
    out.mkdir(parents=True, exist_ok=True)
    settle_config(out / CONFIG, settings, resume)

    detector.compile(adamw(rates))
    ema = EMA()
    checkpoint = Checkpoint(out / "checkpoint.npz", ema)
    start = checkpoint.restore(detector)
    trim_log(out / LOG, start)
    if start < epochs:
        batches.epoch = start
        evaluation = CocoMetrics(validation, batch_size=batch_size)
        detector.fit(
            batches, epochs=epochs, initial_epoch=start, verbose=0,
            callbacks=[
                NaNGuard(batches),
                ema,
                evaluation,
                Keep(out, evaluation, best_of(out / LOG)),
                keras.callbacks.CSVLogger(out / LOG, append=True),
                Curves(out),
                # Last but for the user's own: the run goes on from here with all files written.
                checkpoint,
                *callbacks,
            ],
        )
    return read_log(out / LOG)


def _mixing(mixup: float, mosaic: float, mix_until: int | None, epochs: int) -> dict:
    """Arguments of `Dataset.batches` that mix photos; none where nothing is mixed."""
    augment = dataclasses.replace(Augment(), mixup=mixup, mosaic=mosaic)
    if augment.photos == 1:
        if mix_until is not None:
            raise ValueError(f"mix_until is {mix_until}, but nothing is mixed; give mixup or mosaic too")
        return {}
    if mix_until is None:
        # The last 20 of 200 (Zhang et al. 2019, "Bag of Freebies"); of few the last, but no only one.
        mix_until = epochs - max(epochs // 10, int(epochs > 1))
    if not 0 <= mix_until <= epochs:
        raise ValueError(f"mix_until is {mix_until} of {epochs} epochs; give 0 to {epochs}")
    return {"augment": augment, "mix_until": mix_until}


def _sets(data, val, seed):
    """The training and the validation set."""
    is_path = isinstance(data, (str, os.PathLike))
    training = data_.load(data) if is_path else data
    splits = data_.splits(data) if is_path and val is None else ()
    # A set that is called val alone is what there is to train on.
    if "val" in splits and len(splits) > 1:
        validation = data_.load(data, split="val")
    elif val is None:
        training, validation = training.split(TRAIN_SHARE, seed=seed)
    elif isinstance(val, (str, os.PathLike)):
        validation = data_.load(val, split=held_back(data_.splits(val)))
    else:
        validation = val
    for name, dataset in (("training", training), ("validation", validation)):
        if not len(dataset):
            raise ValueError(f"the {name} set {dataset.name!r} holds no photos")
    return training, validation


def detector_of(model, classes, image_size: int | None = None, label_smoothing=None, anchors=None):
    """The detector that a training begins with; arguments as of `train`."""
    if isinstance(model, (str, os.PathLike)):
        if os.fspath(model).endswith(".tflite"):
            raise ValueError(
                f"{model}: a .tflite can not be trained; give the .keras file or the preset it was "
                "exported from"
            )
        model = zoo.load_file(model)
    return zoo.adapt(model, classes, image_size, label_smoothing, anchors=anchors)


def _describe(dataset) -> dict:
    boxes = sum(len(sample.boxes) for sample in dataset)
    return {"name": dataset.name, "photos": len(dataset), "boxes": boxes}
