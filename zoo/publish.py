"""Measures a trained preset and writes its folder on the shelf; or measures a published one again.

    python zoo/publish.py csp_mobilenet_v2_320_people --data DATA --run runs/people --hours 1.4
    python zoo/publish.py csp_mobilenet_v2_320_people --data DATA

The first writes weights, card and picture from a run of the preset's recipe, and takes its figures over
into the recipe's docstring and the README. The second prints what the published preset scores, which is
what its card says. Both evaluate the preset as it is loaded, with its float16 weights, and its .tflite
files at three precisions, on the sets that the recipe holds back.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import math
import operator
import os
import pathlib
import re
import shutil
import tempfile
import textwrap

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console

import kerasdet
from kerasdet import zoo_page
from kerasdet.card import card_tables, in_words, markdown
from kerasdet.deploy import timing
from kerasdet.training.folder import read_log
from kerasdet.training.recipe import ABLATION, read
from kerasdet.views import six_sizes

SHELF = pathlib.Path(__file__).parent
README, PLOTS = SHELF.parent / "README.md", SHELF.parent / "docs"
FIGURES = (
    "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR", "MR", "MR_near", "MR_medium",
    "head_AP", "head_AP50",
)
PRECISIONS = ("float32", "float16", "int8")
CALIBRATION_PHOTOS, THREADS, ROUNDS = 200, 2, 100


def measure(preset: str, train, held_back: dict, on_parity: str) -> tuple[list[dict], list[dict]]:
    """Score rows and latency rows of a preset's card; on_parity is of its int8 file."""
    command = f"python zoo/publish.py {preset} --data DATA"
    model = kerasdet.zoo.load(preset)
    detectors, sizes = {"keras": model}, {}
    every = max(1, len(train) // CALIBRATION_PHOTOS)
    photos = train.subset(range(0, len(train), every)[:CALIBRATION_PHOTOS])
    with tempfile.TemporaryDirectory() as work:
        for precision in PRECISIONS:
            path = pathlib.Path(work) / f"{precision}.tflite"
            report = model.export(
                path, precision=precision, calibration=photos, check_photos=functools.reduce(
                    operator.add, held_back.values()
                ), on_parity=on_parity if precision == "int8" else "error",
            )
            Console().print(report)
            detectors[precision] = kerasdet.load(path)
            sizes[precision] = report.size
        # Precisions take turns: the speed of a shared machine drifts.
        square = np.zeros((model.image_size, model.image_size, 3), np.uint8)
        times = timing.interleave(
            {p: timing.inference(pathlib.Path(work) / f"{p}.tflite", THREADS, square) for p in PRECISIONS},
            ROUNDS, settle=1,
        )
    speeds = [
        latency_row(p, sizes[p], float(np.median(times[p])), command) for p in PRECISIONS
    ]
    scores = []
    for name, data in held_back.items():
        for precision, detector in detectors.items():
            found = detector.evaluate_detections(data)
            figures = _figures(found)
            scores.append(
                {
                    "data": name, "photos": len(data), "precision": precision, "command": command,
                    "machine": timing.processor(), **figures,
                }
            )
            print(name, precision, figures, flush=True)
    return scores, speeds


def latency_row(precision: str, size: int, seconds: float, command: str) -> dict:
    """A card's row for a file of `size` bytes."""
    return {
        "precision": precision, "bytes": size, "milliseconds": round(1000 * seconds, 2), "threads": THREADS,
        "command": command, "machine": timing.processor(),
    }


def ablation(preset: str, run: pathlib.Path, recipe, held_back: dict) -> list[dict]:
    """Score rows of the recipe's short runs, one an arm; they are scored on the first held-back set."""
    stage = recipe.ABLATION[0]
    name, data = next(iter(held_back.items()))
    return [
        {
            "data": f"{name}, {arm}, {stage.epochs} epochs at {stage.image_size} px",
            "photos": len(data), "precision": "keras",
            "command": f"python zoo/{preset}/recipe.py --data DATA --out RUN --ablation",
            "machine": timing.processor(), **_figures(found),
        }
        for arm, found in json.loads((run / ABLATION).read_text()).items()
    ]


def _figures(found: dict) -> dict:
    """A card's figures; those of each class too, where there is more than one."""
    of_classes = [key for key in found if key.startswith("AP50/")]
    keys = [*FIGURES, *(of_classes if len(of_classes) > 1 else ())]
    return {k: round(found[k], 4) for k in keys if k in found and not math.isnan(found[k])}


def curve(log: pathlib.Path) -> list[dict]:
    """One row an epoch that was evaluated, from a run's log.csv."""
    points, last = [], None
    for row in read_log(log):
        # `CocoMetrics(every=2)` repeats its figures in the epochs between.
        if str(row["val_AP"]) == last:  # as text, in which nan equals nan
            continue
        last = str(row["val_AP"])
        figures = {key: row[f"val_{key}"] for key in ("AP", "AP50", "head_AP50") if f"val_{key}" in row}
        point = {"loss": row["loss"]} | figures
        points.append({"epoch": row["epoch"] + 1} | {key: round(value, 4) for key, value in point.items()})
    return points


def look(model):
    """Name of a photo of scikit-image, and what the preset finds there."""
    from skimage import data as photos

    if not getattr(model, "background", True):
        # It says of a photo what it shows, one thing, and where: so it is shown one.
        return "astronaut", model.localise(photos.astronaut()[:260, 80:380], sizes=six_sizes(model))
    picture = "chelsea" if "cat" in model.classes else "astronaut"
    return picture, model.detect(getattr(photos, picture)())


def with_last_paragraph(source: str, paragraph: str) -> str:
    """A recipe's source with another last paragraph in its docstring."""
    head, doc, rest = source.split('"""', 2)
    before = doc.rstrip().rpartition("\n\n")[0]
    return f'{head}"""{before}\n\n{textwrap.fill(paragraph, 105)}\n"""{rest}'


def with_tables(readme: str, tables: str) -> str:
    """The README with other tables of presets."""
    between = re.compile("(<!-- zoo:begin -->\n).*?(<!-- zoo:end -->)", re.DOTALL)
    if not between.search(readme):
        raise ValueError("README.md: it has no lines <!-- zoo:begin --> and <!-- zoo:end --> for the tables")
    return between.sub(lambda found: f"{found[1]}{tables}\n{found[2]}", readme)


def tell(preset: str):
    """What the cards say, in the preset's recipe, the README and its plots."""
    path = SHELF / preset / "recipe.py"
    path.write_text(with_last_paragraph(path.read_text(), in_words(kerasdet.zoo.card(preset))))
    README.write_text(with_tables(README.read_text(), markdown(kerasdet.zoo.presets())))
    peers = zoo_page.read_peers([SHELF])
    for data, svg in zoo_page.drawings(kerasdet.zoo.cards(), peers).items():
        (PLOTS / zoo_page.PLOT.format(data)).write_text(svg, encoding="utf-8")


@contextlib.contextmanager
def as_before_if_it_fails(folder: pathlib.Path):
    """Leaves a preset's folder as it was found where what it is published by fails, such as by parity."""
    with tempfile.TemporaryDirectory() as aside:
        kept = pathlib.Path(aside) / "kept"
        shutil.copytree(folder, kept)
        try:
            yield
        except BaseException:
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
            raise


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--run", type=pathlib.Path, help="folder of the recipe's run, to publish it")
    parser.add_argument("--hours", type=float, help="what the run took")
    options = parser.parse_args()
    folder = SHELF / options.preset
    recipe = read(folder / "recipe.py")
    train, held_back = recipe.sets(options.data)
    with as_before_if_it_fails(folder):
        card = publish(options, folder, recipe, train, held_back)
    Console().print(card_tables(card))


def publish(options, folder: pathlib.Path, recipe, train, held_back: dict):
    """The measured card; where there is a run, written, with all that says so."""
    if options.run:
        model = kerasdet.load(options.run / "model.keras")
        points = curve(options.run / "log.csv")
        card = dict(recipe.CARD, scores=[], latency=[], licence="Apache-2.0")
        card["training"] = dict(
            recipe.CARD["training"], device=timing.processor(), hours=options.hours,
            epochs=sum(stage.epochs for stage in recipe.STAGES), curve=points,
            command=" ".join(recipe.__doc__.split("\n\n")[1].split()),
        )
        kerasdet.zoo.save_preset(model, folder, card)
    # A recipe whose int8 file finds other boxes, and is none the worse for it, says so and why.
    scores, speeds = measure(options.preset, train, held_back, getattr(recipe, "ON_PARITY", "error"))
    card = dataclasses.replace(kerasdet.zoo.card(options.preset), scores=scores, latency=speeds)
    if options.run:
        if (options.run / ABLATION).exists():
            card = dataclasses.replace(card, scores=scores + ablation(
                options.preset, options.run, recipe, held_back
            ))
        card.write(folder)
        picture, found = look(kerasdet.zoo.load(options.preset))
        found.draw().save(folder / f"{picture}.jpg", quality=85)
        tell(options.preset)
    return card


if __name__ == "__main__":
    main()
