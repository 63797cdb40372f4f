"""The commands around training, which `kerasdet.cli` registers."""

from __future__ import annotations

import ast
import enum
import importlib.util
import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kerasdet import zoo
from kerasdet.cli_data import Data
from kerasdet.cli_says import PLOTS, check_new, say

# What the switches stand for: Beta's parameter, and the share of pictures made of four photos.
MIXUP, MOSAIC = 1.5, 0.5
OF_RECIPES = ("backbone", "steps")
OF_CHECK = ("data", "model", "batch_size", "image_size", "rate", "seed")

Model = Annotated[str, typer.Option("--model", "-m", help="A preset or a .keras file.")]


class Schedule(enum.StrEnum):
    cosine = enum.auto()
    step = enum.auto()
    constant = enum.auto()


# === train ===


def train(
    context: typer.Context,
    data: Data,
    model: Model = "csp",
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder.")] = Path("runs/mine"),
    val: Annotated[
        str | None, typer.Option(help="Photos to evaluate on; else DATA's split val, or a tenth of DATA.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 20,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the network's square in pixels; else the model's.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 3e-4,
    schedule: Annotated[Schedule, typer.Option(help="What becomes of the rate.")] = Schedule.cosine,
    warmup: Annotated[
        float | None,
        typer.Option(min=0, help="Epochs in which the rate first rises; else a tenth, 300 steps at most."),
    ] = None,
    mixup: Annotated[
        bool, typer.Option("--mixup", help="Lay photos over one another, with boxes of both.")
    ] = False,
    mosaic: Annotated[
        bool, typer.Option("--mosaic", help="Put half of the pictures together of four photos.")
    ] = False,
    mix_until: Annotated[
        int | None, typer.Option(min=0, help="Epochs with mixup and mosaic; else nine of ten.")
    ] = None,
    repeat_rare: Annotated[
        float | None,
        typer.Option(help="Show classes more often that a smaller part of the photos has, such as 0.3."),
    ] = None,
    label_smoothing: Annotated[
        str | None,
        typer.Option(help="How soft classes are learned, such as 0.1, or 'yolo' for YOLOv3."),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Sides of the square to change between, such as 256,320,384. For YOLOv3, CenterNet and CSP."
        ),
    ] = None,
    anchors: Annotated[
        str | None,
        typer.Option(help="For YOLOv3: the (width, height) pairs that kerasdet data anchors prints."),
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, given the same options.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write logs for TensorBoard too, into OUT/tensorboard.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Only see if a few photos can be learned by heart; writes nothing."),
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(help="Run a preset's recipe, by its name or file. DATA holds its sets."),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Of a recipe: file of the weights to start from.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of a recipe: fewer steps an epoch, to try it out.")
    ] = None,
):
    """Fine-tunes a detector on photos with boxes; keeps the best in best.keras."""
    if recipe is not None:
        return _train_recipe(context, data, recipe, out, backbone, steps)
    if given := _given(context, OF_RECIPES):
        raise ValueError(f"{given[0]} is for --recipe; leave it out, or name a recipe")
    if check:
        return _check(context, data, model, batch_size, image_size, rate, seed)
    smoothing, sides, pairs = _smoothing(label_smoothing), _sides(sizes), _pairs(anchors)
    from kerasdet import training
    from kerasdet.training.progress import RichProgress

    more = []
    if tensorboard:
        import keras

        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError("--tensorboard needs a package: pip install 'kerasdet[tensorboard]'")
        more.append(keras.callbacks.TensorBoard(out / "tensorboard"))
    with RichProgress() as progress:
        rows = training.train(
            data, model, out, val=val, epochs=epochs, batch_size=batch_size, image_size=image_size,
            rate=rate, schedule=schedule.value, warmup=warmup, mixup=MIXUP if mixup else 0.0,
            mosaic=MOSAIC if mosaic else 0.0, mix_until=mix_until, repeat_rare=repeat_rare,
            label_smoothing=smoothing, sizes=sides, anchors=pairs, seed=seed, resume=resume,
            callbacks=[progress, *more],
        )
    measured = [row for row in rows if not math.isnan(row["val_AP"])]
    if not measured:
        say(f"no figure could be measured: the validation photos have no object; see {out / 'last.keras'}")
        return
    best = max(measured, key=lambda row: row["val_AP"])
    Console().print(
        f"best: epoch {best['epoch'] + 1}, val_AP {best['val_AP']:.3f}, "
        f"val_AP50 {best['val_AP50']:.3f}, in {out / 'best.keras'}", highlight=False, markup=False,
    )


def _train_recipe(context, data, recipe, out, backbone, steps):
    if given := _given(context, set(context.params) - {"data", "out", "recipe", *OF_RECIPES}):
        raise ValueError(
            f"{given[0]} does not go with --recipe: a recipe says itself how it trains, and goes on with a "
            "run that was killed"
        )
    path = zoo.recipe(recipe)
    arguments = ["--data", data, "--out", str(out)]
    for name, value in (("--backbone", backbone), ("--steps", steps)):
        arguments += [] if value is None else [name, str(value)]
    from kerasdet.training.recipe import execute

    execute(path, arguments)


def _check(context, data, model, batch_size, image_size, rate, seed):
    if given := _given(context, set(context.params) - {"check", *OF_CHECK}):
        raise ValueError(f"{given[0]} does not go with --check, which takes one batch of plain photos")
    import keras

    from kerasdet import data as data_
    from kerasdet.training.check import GOAL, PHOTOS, overfit
    from kerasdet.training.run import detector_of

    dataset = data_.load(data)
    keras.utils.set_random_seed(seed)
    detector = detector_of(model, dataset.classes, image_size)
    console = Console()

    def report(steps, loss, ap):
        console.print(f"{steps} steps: loss {loss:.4g}, AP {ap:.3f}", highlight=False)

    # The rate of `train` is for many epochs, and too low for so few steps; its batches are of more photos.
    given = {"rate": rate} if _given(context, ["rate"]) else {}
    photos = batch_size if _given(context, ["batch_size"]) else PHOTOS
    with console.status("Learning a few photos by heart"):
        result = overfit(detector, dataset, photos=photos, report=report, **given)
    if result.passed:
        console.print(f"learned by heart after {result.steps} steps, AP {result.metrics['AP']:.3f}")
        return
    console.print(f"AP {result.metrics['AP']:.3f} after {result.steps} steps, not {GOAL}. Probably:")
    for reason in result.reasons:
        console.print(f"- {reason}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def _given(context: typer.Context, names) -> list[str]:
    """Those of some options that stand on the command line."""
    given = [name for name in sorted(names) if context.get_parameter_source(name).name == "COMMANDLINE"]
    return [f"--{name.replace('_', '-')}" for name in given]


def _smoothing(text: str | None) -> float | str | None:
    try:
        return text if text in (None, "yolo") else float(text)
    except ValueError:
        raise ValueError(f"--label-smoothing is {text!r}; give a number such as 0.1, or yolo") from None


def _sides(text: str | None) -> tuple[int, ...] | None:
    try:
        return text and tuple(int(side) for side in text.split(","))
    except ValueError:
        raise ValueError(f"--sizes is {text!r}; give sides in pixels, such as 256,320,384") from None


def _pairs(text: str | None) -> list | None:
    """What `kerasdet data anchors` prints, such as ((9, 12), (20, 31)), with or without "anchors="."""
    if text is None:
        return None
    try:
        pairs = ast.literal_eval(text.removeprefix("anchors="))
        if all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
            return [tuple(map(float, pair)) for pair in pairs]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    raise ValueError(
        f"--anchors is {text!r}; give what kerasdet data anchors prints, such as ((9, 12), (20, 31), ...)"
    )


# === lr-find ===


def lr_find(
    data: Data,
    model: Model = "csp",
    plot: Annotated[Path, typer.Option(help="The picture to draw, loss against rate.")] = Path("lr.png"),
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the network's square in pixels; else the model's.")
    ] = None,
    lowest: Annotated[float, typer.Option(help="The first rate.")] = 1e-6,
    highest: Annotated[float, typer.Option(help="The last rate, if the loss bears it.")] = 1.0,
    steps: Annotated[int, typer.Option(min=10, help="Batches from the first rate to the last.")] = 100,
    seed: Annotated[int, typer.Option()] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture.")] = False,
):
    """Finds the learning rates at which a detector's loss falls, by a rate that rises batch by batch."""
    check_new("--plot", plot, PLOTS, overwrite)
    import keras

    from kerasdet import data as data_
    from kerasdet import training
    from kerasdet.training.run import detector_of

    dataset = data_.load(data)
    keras.utils.set_random_seed(seed)
    detector = detector_of(model, dataset.classes, image_size)
    batches = dataset.batches(batch_size, detector, training=True, seed=seed)
    console = Console()
    found = training.lr_find(
        detector, batches, lowest=lowest, highest=highest, steps=steps, progress=console.is_terminal
    )
    if found.falls:
        low, high = found.falls
        text = f"the loss falls at rates from {low:.1e} to {high:.1e}: give train a --rate between them"
    else:
        text = f"the loss falls at no rate from {lowest:.1e} to {found.rates[-1]:.1e}; give more --steps"
    if found.exploded:
        text += f"; it explodes at {found.rates[-1]:.1e}"
    say(text)
    found.draw().savefig(plot)
    say(f"drawn into {plot}")


# === compare ===


def compare(
    before: Annotated[str, typer.Argument(help="A run's folder, or what evaluate --out has written.")],
    after: Annotated[str, typer.Argument(help="Another, scored on the same photos.")],
    plot: Annotated[Path, typer.Option(help="The picture to draw, two bars a class.")] = Path("compare.png"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture.")] = False,
):
    """Says what a change did to every class: the AP before and after it."""
    check_new("--plot", plot, PLOTS, overwrite)
    from kerasdet.metrics.compare import compare as set_beside

    found = set_beside(before, after)
    table = Table("class", escape(before), escape(after), "change")
    everything = "all that both know" if found.left_out else "all"
    for name, one, other in [*found.rows, (everything, *found.all)]:
        table.add_row(escape(name), f"{one:.3f}", f"{other:.3f}", f"{other - one:+.3f}")
    Console().print(table)
    if found.left_out:
        say(f"scored in one of the two only: {', '.join(found.left_out)}")
    found.draw().savefig(plot)
    say(f"drawn into {plot}")
