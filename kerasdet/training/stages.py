"""Training in stages: first on small photos, which go fast, then on the size that is shipped."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import operator
import pathlib
from collections.abc import Callable, Mapping, Sequence

import keras

from kerasdet.ema import EMA
from kerasdet.nan_guard import NaNGuard
from kerasdet.training.checkpoint import Checkpoint
from kerasdet.training.folder import CONFIG, LOG, Curves, settle_config, trim_log
from kerasdet.training.optimizer import adamw
from kerasdet.training.progress import RichProgress
from kerasdet.training.schedules import schedule as rate_schedule


@dataclasses.dataclass(frozen=True)
class Stage:
    """Some epochs at one size.

    Attributes:
        image_size: side of the network's square in pixels.
        epochs: how many.
        batch_size: photos a batch.
        phase: what is trained, for detectors that have a `train_only` (see `OverFeat.train_only`); None
            trains all.
        restart: begins a schedule of its own, from the averaged weights of the stage before (a warm restart;
            SGDR, Loshchilov and Hutter, ICLR 2017).
        peak: how high a schedule that begins with this stage climbs, as a share of the rates, above 0.
        batches: further arguments of `Dataset.batches` for this stage; they go before those for all.
        repeat_rare: see `Dataset.repeat_rare`; None takes the photos as they are.
    """

    image_size: int
    epochs: int
    batch_size: int = 16
    phase: str | None = None
    restart: bool = False
    peak: float = 1.0
    batches: Mapping | None = None
    repeat_rare: float | None = None


def train_in_stages(
    build: Callable[[int, bool], keras.Model], stages: Sequence[Stage], train, folder, *,
    rate: float = 1e-3, backbone_rate: float | None = None, batches: Mapping | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (), steps_per_epoch: int | None = None,
    schedule: str = "cosine", settings: Mapping | None = None,
):
    """Trains a detector at one size after another, under one schedule from each start on.

    A detector is convolutional: its weights, the optimizer's state and the weight average go on from
    one size to the next. A stage of another phase than the one before, or one that says `restart`, starts
    from the averaged weights, with a schedule, an optimizer and an average of its own. When the run is
    killed, the same call goes on after the last whole epoch.

    Args:
        build: (image_size, fresh) -> detector; fresh says whether to load starting weights.
        stages: what to train.
        train: the `Dataset`.
        folder: gets a checkpoint a stage, `log.csv`, `curves.png`, and `config.json` with these arguments: a
            call that goes on has to have the same.
        rate: highest learning rate of AdamW, after a linear warm-up of 300 steps, or of a tenth of them
            all if that is less.
        backbone_rate: that of the backbone, see `optimizer.adamw`; None takes `rate`.
        callbacks: further callbacks, such as `CocoMetrics`; they see the averaged weights.
        steps_per_epoch: fewer steps than the set has, to try a recipe out.
        batches: further arguments of `Dataset.batches`, for every stage.
        schedule: what becomes of the rate then, see `schedules.schedule`.
        settings: what else the run hangs on, such as the folder of the data: values that json can hold.

    Returns:
        The last stage's detector with the averaged weights.

    Raises:
        ValueError: a phase or a backbone that the detector does not have, or no such schedule; a `peak` that
            is not above 0, or of a stage that begins no schedule; or the run in the folder began with other
            arguments.
        TypeError: `batches`, of a stage or of all, has an argument that `Dataset.batches` has not.
    """
    arguments = [{**(batches or {}), **(stage.batches or {})} for stage in stages]
    for given in arguments:
        # Said now: the stage may be hours away.
        inspect.signature(train.batches).bind(1, None, training=True, epoch=0, **given)
    _check_peaks(stages)
    sets = [train if stage.repeat_rare is None else train.repeat_rare(stage.repeat_rare) for stage in stages]
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made_with = {
        **(settings or {}), "photos": len(train), "steps": steps_per_epoch, "rate": rate,
        "backbone_rate": backbone_rate, "schedule": schedule,
        "stages": [_told(stage) for stage in stages], "batches": _told_batches(batches),
    }
    settle_config(folder / CONFIG, made_with, resume=(folder / CONFIG).is_file())
    done, previous, model = 0, None, None
    counts = [len(photos) for photos in sets]
    rates, backbone_rates = (
        _schedules(schedule, highest, counts, stages) for highest in (rate, backbone_rate)
    )
    for number, stage in enumerate(stages, 1):
        before, model = model, build(stage.image_size, previous is None)
        if before is None:
            _check_phases(model, stages)
        if stage.phase is not None:
            model.train_only(stage.phase)
        goes_on = before is not None and not _starts(stage, stages[number - 2])
        model.compile(adamw(rates[number - 1], model, backbone_rates[number - 1]))
        average = EMA()
        checkpoint = Checkpoint(folder / f"checkpoint_{number}.npz", average)
        start = checkpoint.restore(model)
        if start == 0 and goes_on:
            start = Checkpoint(previous, average).restore(model)
        elif start == 0 and before is not None:
            model.set_weights(before.get_weights())
            start = done
        end = done + stage.epochs
        photos = sets[number - 1].batches(
            stage.batch_size, model, training=True, epoch=start, **arguments[number - 1]
        )
        if start < end:
            trim_log(folder / LOG, start)
            log = keras.callbacks.CSVLogger(folder / LOG, append=True)
            with RichProgress() as progress:
                model.fit(
                    photos, epochs=end, initial_epoch=start, steps_per_epoch=steps_per_epoch, verbose=0,
                    # The checkpoint comes after the log: an epoch that it holds is in there.
                    callbacks=[
                        NaNGuard(photos), average, *callbacks, log, Curves(folder), checkpoint, progress,
                    ],
                )
        elif average.averages is not None:
            # The stage was complete when the run was killed.
            average.set_model(model)
            average.take_images(photos.some_images)
            average.on_train_end()
        done, previous = end, checkpoint.path
    return model


def _starts(stage: Stage, before: Stage) -> bool:
    """Whether a stage has a schedule, an optimizer and an average of its own."""
    return stage.restart or stage.phase != before.phase


def _told(stage: Stage) -> dict:
    """What a run's settings say of a stage; of what was added later, only where it is used."""
    told = {name: getattr(stage, name) for name in ("image_size", "epochs", "batch_size", "phase")}
    if stage.restart:
        told["restart"] = True
    if stage.peak != 1:
        told["peak"] = stage.peak
    if stage.batches:
        told["batches"] = _told_batches(stage.batches)
    if stage.repeat_rare is not None:
        told["repeat_rare"] = stage.repeat_rare
    return told


def _told_batches(batches: Mapping | None) -> dict:
    return {name: _in_words(value) for name, value in (batches or {}).items()}


def _in_words(value) -> str:
    """The same for the same, in every process; of what has no words of its own, its kind."""
    told = str(value)
    return told if " at 0x" not in told else type(value).__name__


def _schedules(kind: str, rate: float | None, counts: Sequence[int], stages: Sequence[Stage]) -> list:
    """Each stage's; one over all stages from one that starts to the next."""
    if rate is None:
        return [None] * len(stages)
    starts = [i > 0 and _starts(stage, stages[i - 1]) for i, stage in enumerate(stages)]
    numbers = itertools.accumulate(starts)
    found = []
    for _, run in itertools.groupby(zip(numbers, stages, counts, strict=True), key=operator.itemgetter(0)):
        run = list(run)
        total = sum(max(1, count // stage.batch_size) * stage.epochs for _, stage, count in run)
        found += [rate_schedule(kind, rate * run[0][1].peak, total)] * len(run)
    return found


def _check_peaks(stages: Sequence[Stage]):
    for i, stage in enumerate(stages):
        if not stage.peak > 0:
            raise ValueError(f"peak is {stage.peak} in {stage}; it is a share of the rates, above 0")
        if stage.peak != 1 and i > 0 and not _starts(stage, stages[i - 1]):
            raise ValueError(
                f"peak is {stage.peak} in {stage}, which goes on with the schedule of the stage before it; "
                "add restart=True"
            )


def _check_phases(model, stages: Sequence[Stage]):
    """Says before the first stage what would only fail in a later one."""
    with_phase = [stage for stage in stages if stage.phase is not None]
    if with_phase and not hasattr(model, "train_only"):
        raise ValueError(f"{with_phase[0]} has a phase, and {type(model).__name__} has none; leave phase out")
    for stage in with_phase:
        model.train_only(stage.phase)
    if with_phase:
        model.train_only("all")
