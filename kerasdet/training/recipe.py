"""What every recipe of the shelf does: read its arguments, train in stages, save, print scores.

A recipe, `zoo/<preset>/recipe.py`, holds what is its own:

- its docstring, whose second paragraph is the command that trains it, and whose last one says how long that
  takes and what it scores;
- `CARD`, what a card says that no run can know, and `STAGES`;
- `sets(folder)` -> training set, {name: held-back set}; the first of these is watched while training;
- `build(size, weights)` -> detector.

`zoo/publish.py` reads the same names. `kerasdet train DATA --recipe PRESET` runs it too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence

import keras

from kerasdet.metrics import CocoMetrics
from kerasdet.training.folder import CONFIG, LOG, Keep, best_of, check_folder
from kerasdet.training.stages import Stage, train_in_stages

# What a folder of --out has of an ablation.
ABLATION = "ablation.json"
# Files that --backbone takes, as cards name them.
MOBILENET_V2 = {
    "name": "MobileNetV2 1.0, ImageNet", "source": "TF-slim, as in keras.applications",
    "licence": "Apache-2.0",
}
RESNET50V2 = {
    "name": "ResNet50V2, ImageNet", "source": "keras.applications", "licence": "Apache-2.0",
}
CENTERNET = {
    "name": "centernet_mobilenet_v2_320_voc12",
    # The recipes that take it were run with those; with the ones of today they give other weights.
    "source": "this shelf, as it was after 42 epochs (weights of sha256 134ddf5f4792 in its history); "
    "MobileNetV2 1.0 of TF-slim, ImageNet, then voc12",
    "licence": "Apache-2.0",
}
MOBILENET_V2_035 = {
    "name": "MobileNetV2 0.35, ImageNet", "source": "keras.applications", "licence": "Apache-2.0",
}


def run(
    doc: str, sets: Callable, build: Callable, stages: Sequence[Stage], *, rate: float,
    backbone_rate: float | None = None, every: int = 1, batches: Mapping | None = None,
    schedule: str = "cosine",
    ablation: tuple[Sequence[Stage], Mapping[str, Callable]] | None = None,
    own_start: bool = False, argv: Sequence[str] | None = None,
):
    """Trains as the command line says; this is what a recipe ends with.

    Arguments of the command: --data, the folder that `sets` reads; --backbone, the file of the starting
    weights, without which keras.applications' are taken; --out, the run's folder; --steps, an epoch's steps,
    to try a recipe out; and, with `ablation`, --ablation. The same command again goes on with a run that was
    killed. The folder then holds `model.keras`, with the averaged weights, and `best.keras`, those of the
    epoch with the highest AP, with all that they scored in `scores.json`; `log.csv` and, drawn, `curves.png`;
    and `config.json`, with the settings and versions. With --ablation, `ablation.json` and a folder for each
    arm, with its `model.keras`.

    Args:
        doc: the recipe's docstring.
        sets: folder -> training set, {name: held-back set}; the first is evaluated while training.
        build: (image_size, weights) -> detector; weights is the file of --backbone for the first
            stage's detector and None for the others, which take over what was learned.
        stages: what to train.
        rate, backbone_rate: highest learning rates, see `train_in_stages`.
        every: epochs from one evaluation to the next.
        batches: further arguments of `Dataset.batches`, such as an `augment` of its own.
        schedule: how the rate goes, see `schedules.schedule`.
        ablation: stages, and name of an arm -> its `build`. With --ablation every arm is trained from
            the same seed, and scored on the first held-back set.
        own_start: the command takes no --backbone: `build` finds starting weights itself, or has none.
        argv: the command's arguments; None takes the process's.

    Returns:
        The trained detector; None after --ablation.
    """
    options = _arguments(doc, argv, ablation is not None, own_start)
    train, held_back = sets(options.data)
    watched = next(iter(held_back.values()))

    def train_on(build, stages, folder, callbacks=()):
        keras.utils.set_random_seed(0)
        return train_in_stages(
            lambda size, fresh: build(size, options.backbone if fresh else None), stages, train, folder,
            rate=rate, backbone_rate=backbone_rate, callbacks=callbacks, steps_per_epoch=options.steps,
            batches=batches, schedule=schedule,
            settings={"data": str(options.data), "backbone": options.backbone},
        )

    if ablation and options.ablation:
        short, arms = ablation
        scores = {}
        for name, build_arm in arms.items():
            model = train_on(build_arm, short, options.out / _folder(name))
            model.save(options.out / _folder(name) / "model.keras")
            scores[name] = model.evaluate_detections(watched)
            print(name, scores[name], flush=True)
        (options.out / ABLATION).write_text(json.dumps(scores, indent=1))
        return None
    if not (options.out / CONFIG).is_file():
        _check_out(options.out, ablation[1] if ablation else ())
    evaluation = CocoMetrics(watched, every=every)
    keep = Keep(options.out, evaluation, best_of(options.out / LOG))
    model = train_on(build, stages, options.out, [evaluation, keep])
    model.save(options.out / "model.keras")
    for name, data in held_back.items():
        print(name, model.evaluate_detections(data), flush=True)
    return model


def _folder(arm: str) -> str:
    """Of the run of one arm of an ablation."""
    return arm.replace(" ", "_")


def _check_out(out: pathlib.Path, arms):
    """As `check_folder` of a new run; but what an ablation has left there is the recipe's own."""
    own = {ABLATION, *map(_folder, arms)}
    if not out.is_dir() or any(entry.name not in own for entry in out.iterdir()):
        check_folder(out, resume=False)


def read(path: str | os.PathLike):
    """A recipe's file as a module, without running it: its `STAGES`, `CARD`, `sets` and `build`."""
    spec = importlib.util.spec_from_file_location("recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def execute(path: str | os.PathLike, arguments: Sequence[str]):
    """Runs a recipe's file as `python FILE ARGUMENTS` does.

    Args:
        path: of the recipe.
        arguments: of its command, see `run`.
    """
    before = sys.argv
    sys.argv = [os.fspath(path), *arguments]
    try:
        runpy.run_path(os.fspath(path), run_name="__main__")
    finally:
        sys.argv = before


def _arguments(doc: str, argv, ablation: bool, own_start: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder of the data sets")
    if own_start:
        parser.add_argument("--backbone", help=argparse.SUPPRESS)
    else:
        parser.add_argument(
            "--backbone", default="imagenet",
            help="file of the backbone's ImageNet weights; without it those of keras.applications, which are "
            "downloaded",
        )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, help="stop every epoch after so many steps (to try it out)")
    if ablation:
        parser.add_argument(
            "--ablation", action="store_true", help="train the short runs of the ablation instead"
        )
    options = parser.parse_args(argv)
    if own_start and options.backbone is not None:
        raise ValueError(
            f"--backbone is {options.backbone}, and this recipe finds its own starting weights, or has none; "
            "leave it out"
        )
    return options
