"""How good a detector is, and what it does wrong: `kerasdet evaluate` and `kerasdet mistakes`.

What is imported here is light; a `.tflite` is measured without Keras.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kerasdet import cli_data, zoo
from kerasdet.cli_data import Data
from kerasdet.cli_says import check_new, say, warn

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A preset, a .keras file or a .tflite file.")]
Split = Annotated[str | None, typer.Option(help="Which split; else 'val', 'test' or what there is.")]
OneClass = Annotated[
    str | None, typer.Option("--as-one-class", help="Take all boxes for one class, such as face.")
]


def _open(model: str, data: str, split: str | None, as_one_class: str | None):
    """The detector, and the set with the classes that it knows; says which it leaves out."""
    dataset = cli_data.held_back(data, split)
    if as_one_class is not None:
        dataset = dataset.as_one_class(as_one_class)
    detector = zoo.load_file(model)
    known = dataset.known_to(detector)
    if known is None and getattr(detector, "unnamed", False):
        raise ValueError(
            f"{model}: the file does not name its classes, so they cannot be held against those of {data}; "
            "in Python, kerasdet.deploy.LiteRTDetector(path, classes=[...]) is told them"
        )
    if known is None:  # said by what it is given to
        return detector, dataset
    if others := [name for name in dataset.classes if name not in known.classes]:
        text = f"the model does not know {', '.join(others)}; only {', '.join(known.classes)} counts"
        warn("note", text)
    return detector, known


# === evaluate ===


def evaluate(
    model: Model,
    data: Data,
    split: Split = None,
    as_one_class: OneClass = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A json file to write, for kerasdet compare.")
    ] = None,
    voc: Annotated[
        bool, typer.Option("--voc", help="Add PASCAL VOC's average precision, of 2010 and of 2007.")
    ] = False,
):
    """Scores a detector on photos with boxes."""
    if out is not None and out.exists():
        raise FileExistsError(f"{out} exists; give another --out")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    from kerasdet import metrics
    from kerasdet.metrics.compare import write_scores

    detector, dataset = _open(model, data, split, as_one_class)
    found = metrics.evaluate(detector, dataset, progress=sys.stdout.isatty(), voc=voc)
    table = Table("figure", "value")
    for name, value in found.items():
        if not math.isnan(value):
            table.add_row(escape(name), f"{value:.4f}")
    say(f"{model} on {dataset.name}, {len(dataset)} photos")
    Console().print(table)
    if out is not None:
        write_scores(out, found, dataset, model=model)


# === mistakes ===


def mistakes(
    model: Model,
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to draw, a .jpg or .png.")],
    split: Split = None,
    as_one_class: OneClass = None,
    score: Annotated[
        float, typer.Option(min=0, max=1, help="Boxes below it are neither counted nor drawn.")
    ] = 0.3,
    count: Annotated[int, typer.Option(min=1, max=100, help="Photos to draw, those with most wrong.")] = 12,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture.")] = False,
):
    """Names, counts and draws what a detector does wrong, and what AP50 each kind costs.

    The kinds are those of TIDE (Bolya et al. 2020). The gain is what AP50 would
    rise by if all mistakes of a kind were mended, those of low scores too; the
    gains do not add up, since mistakes hide each other.
    """
    check_new("--out", out, (".jpg", ".jpeg", ".png"), overwrite)
    from kerasdet import metrics
    from kerasdet.metrics.evaluation import detect_all
    from kerasdet.metrics.mistakes import KINDS

    detector, dataset = _open(model, data, split, as_one_class)
    found = list(detect_all(detector, dataset, progress=sys.stdout.isatty()))
    wrong = metrics.find_mistakes(dataset, found, score)
    costs = metrics.mistakes_cost(dataset, found)
    say(f"{model} on {dataset.name}, {len(dataset)} photos: AP50 {costs['AP50']:.3f}")
    table = Table("mistake", "what it is", f"number\n(from {score:g})", "AP50\ngain")
    for kind, text in KINDS.items():
        number = sum(mistake.kind == kind for mistake in wrong)
        table.add_row(kind, text, str(number), f"{costs[kind]:+.3f}")
    Console().print(table)
    if not wrong:
        say(f"nothing is wrong from a score of {score:g} on, so nothing is drawn")
        return
    metrics.draw_mistakes(dataset, wrong, count).save(out, quality=90)
    say(f"drawn into {out}")
