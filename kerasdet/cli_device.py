"""The commands around files for devices: `kerasdet benchmark` and `kerasdet report`.

Plain functions; `cli` registers them. What is imported here is light, as there.
"""

from __future__ import annotations

import math
import shlex
import types
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kerasdet import cli_data
from kerasdet.cli_says import PLOTS, check_new

TABLES = (".json", ".csv")
NAME_WIDTH = 12
KINDS_SHOWN, LAYERS_SHOWN, NOISE_SHOWN, NOISE_PHOTOS = 6, 3, 15, 20


# === benchmark ===


def benchmark(
    files: Annotated[
        list[str], typer.Argument(metavar="FILES...", help="Exported detectors: A.tflite B.tflite ...")
    ],
    data: Annotated[
        str | None, typer.Option(help="Labelled photos to score on: a folder, or an annotation file.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Which split; else 'val', 'test' or what there is.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Score these only, such as cat,dog; else all of the data's.")
    ] = None,
    threads: Annotated[str, typer.Option(help="Numbers of CPU threads, such as 1,2,4.")] = "2",
    rounds: Annotated[int, typer.Option(min=1, help="Turns each file gets; the more, the surer.")] = 30,
    reference: Annotated[
        str | None, typer.Option(help="The file to hold times against, or part of its name; else the first.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="A json of detectors that cannot be run here; see bench/README.md.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="A picture to draw: accuracy against latency.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A .json or .csv file to write.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture and the file.")] = False,
):
    """Measures exported detectors beside each other: speed, accuracy, size and memory.

    The files take turns on the CPU, A B A B, since a machine's speed changes
    from minute to minute. Compare the ratios, not the milliseconds: a ratio of
    0.50 is twice as fast as the reference. In brackets stand the quartiles;
    the closer together they are, the surer is the figure.

    With --data, each file is also scored on labelled photos (AP and AP50, more
    is better). Take photos that none of the detectors was trained on.

    A file that you give twice shows how much two measurements of one thing differ.
    """
    check_new("--plot", plot, PLOTS, overwrite)
    check_new("--out", out, TABLES, overwrite)
    if data is None and (split, classes) != (None, None):
        raise ValueError("--split and --classes are of the photos to score on; give --data too")
    if plot is not None and data is None:
        raise ValueError("--plot draws accuracy against latency, and needs --data to score on; give both")
    counts = _counts(threads)
    from kerasdet.deploy import benchmark as bench
    from kerasdet.deploy import timing

    console = Console()
    disturbed = timing.disturbance()  # asked for now, since measuring is work too
    if table is not None:  # what is wrong with it is said before the work
        names = [(Path(file).stem, count) for file in files for count in counts]
        bench.scaled(table, [bench.Row(*name, bench.MEASURED, 0.0) for name in names])
    dataset = None if data is None else cli_data.held_back(data, split)
    if dataset is not None and classes is not None:
        dataset = dataset.select(*(name.strip() for name in classes.split(",")))
    rows = bench.benchmark(files, dataset, counts, rounds, reference, progress=console.is_terminal)
    if table is not None:
        rows += bench.scaled(table, rows)
    console.print(_benchmark_table(rows, dataset))
    console.print(f"on {timing.machine()}", markup=False, highlight=False, soft_wrap=True)
    if disturbed:
        console.print(f"[yellow]note:[/] {disturbed}", highlight=False, soft_wrap=True)
    if dataset is not None:
        console.print(f"scored on {dataset.name}, {len(dataset)} photos", markup=False, highlight=False)
        if len({row.classes for row in rows if row.classes}) > 1:
            text = "not all know the same classes, so their AP cannot be compared; give --classes"
            console.print(text, highlight=False, soft_wrap=True)
    if plot is not None:
        bench.draw(rows).savefig(plot)
        console.print(f"drawn into {plot}", markup=False, highlight=False, soft_wrap=True)
    if out is not None:
        bench.write(rows, out)
        console.print(f"written to {out}", markup=False, highlight=False, soft_wrap=True)


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(count) for count in text.split(","))
    except ValueError:
        raise ValueError(f"--threads is {text!r}; give numbers, such as 1,2,4") from None


def _benchmark_table(rows, dataset) -> Table:
    several = len({row.threads for row in rows}) > 1
    scored = dataset is not None
    head = ["detector", *(["threads"] if several else []), "ms\n(quartiles)", "ratio\n(quartiles)"]
    head += [*(["AP", "AP50", "classes"] if scored else []), "MB", "memory,\nMB"]
    found = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    found.add_column(head[0], overflow="fold", min_width=NAME_WIDTH)
    for column in head[1:]:
        found.add_column(column, justify="right", overflow="fold")
    for row in rows:
        cells = [escape(row.name), *([str(row.threads)] if several else [])]
        cells.append(_spread(row.milliseconds, row.low, row.high, 2))
        cells.append(_spread(row.ratio, row.ratio_low, row.ratio_high, 2))
        if scored:
            cells += [_figure(row.AP, 3), _figure(row.AP50, 3), str(len(row.classes) or "")]
        if math.isnan(row.megabytes):
            cells[0] += " [dim](scaled from a table)[/]"
        found.add_row(*cells, _figure(row.megabytes, 2), _figure(row.memory, 1))
    return found


def _spread(middle: float, low: float, high: float, digits: int) -> str:
    text = _figure(middle, digits)
    return text if math.isnan(low) else f"{text}\n({low:.{digits}f}-{high:.{digits}f})"


def _figure(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


# === report ===


def report(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An exported detector, a .tflite.")],
    reference: Annotated[
        Path | None, typer.Option("--float", help="The float32 export of the same detector, if FILE is int8.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Photos to run both on: a folder, a photo, or a labelled set.")
    ] = None,
    photos: Annotated[
        int | None, typer.Option(min=1, help=f"How many of them; else {NOISE_PHOTOS}.")
    ] = None,
    layers: Annotated[
        int | None, typer.Option(min=1, help=f"How many layers to show; else {NOISE_SHOWN}.")
    ] = None,
    without: Annotated[
        bool, typer.Option("--without", help="Try each of these layers in float; a second or two a layer.")
    ] = False,
):
    """Says what a phone's accelerators take of a file, and where an int8 file loses accuracy.

    The first table: the share of the file's operators that the GPU, Android's
    NNAPI and the Edge TPU take, and what they leave to the CPU, with the reason
    and the layers it comes from; a name that is no layer's, such as TopKV2, is
    of the decoding behind the layers. For a GPU, export with --outputs raw
    --input-dtype float32: decoding is then left to your app.

    With --float and --data, the second: both files run on the photos, and each
    layer's output is compared. 20 dB is noise of 1 %, 10 dB of 10 %. The layers
    where most noise comes in stand first, but much of it may be gone where eight
    bits end. So --without tries each of them in float, and says what is left
    there; what the file leaves in float already stays so. The line below says
    what to give to export's --keep-float for the best of them.
    """
    if reference is None and (without or (photos, layers) != (None, None)):
        raise ValueError(
            "--photos, --layers and --without are of the layers of an int8 export; give --float and --data"
        )
    if (reference is None) != (data is None):
        raise ValueError("--float and --data go together: the float32 export, and photos to run both on")
    delegates(file)
    if reference is None:
        return
    from kerasdet.deploy.metadata import read_metadata
    from kerasdet.deploy.noise import in_float, last_noise, noise_without, quantisation_noise
    from kerasdet.deploy.parity import load_squares
    from kerasdet.deploy.trial import run_once

    for each in (reference, file):
        run_once(each)
    about, kept = read_metadata(reference), read_metadata(file).get("keep_float")
    if "image_size" not in about:
        raise ValueError(f"{reference}: is no export of kerasdet; only those are compared layer by layer")
    console = Console()
    with console.status("Comparing layer by layer"):
        network = types.SimpleNamespace(  # what is asked of a detector
            **{key: about[key] for key in ("image_size", "classes", "parts")},
            resize=about.get("resize", "stretch"),
        )
        squares = load_squares(network, cli_data.photos_of(data), photos or NOISE_PHOTOS, "data").squares
        rows = quantisation_noise(reference, file, squares)
    every, rows = rows, rows[: layers or NOISE_SHOWN]
    left = {}
    if without:
        names = [row.layer for row in rows]
        left = noise_without(reference, squares, names, kept, progress=console.is_terminal)
    title = f"noise of {len(every)} layers in eight bits, {len(squares)} photos"
    found = Table(title=title)
    found.add_column("layer", overflow="fold")
    found.add_column("operator")
    for column in ("dB", "noise", "comes in here", *(["end, in float"] if left else [])):
        found.add_column(column, justify="right")
    for row in rows:
        added = f"{row.added:.2%}" if row.added > 0 else ""
        end = [f"{left[row.layer]:.2%}"] if left else []
        found.add_row(escape(row.layer), row.operator, f"{row.decibels:.1f}", f"{row.noise:.2%}", added, *end)
    console.print(found)
    ends = ", ".join(row.layer for row in every if row.last)
    text = f"noise where eight bits end ({ends}): {last_noise(every):.2%}"
    if left:
        text += f"; calibrated on these photos only, as for the last column: {left['']:.2%}"
        best = min(left, key=left.get)
        text += f"\nto leave in float: --keep-float {shlex.quote(in_float(kept, best))}" if best else ""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def delegates(file: Path):
    """Prints what accelerators take of a file."""
    from kerasdet.deploy.delegates import delegate_report

    found = delegate_report(file)
    console = Console()
    console.print(f"{file}: {len(found.operations)} operators", markup=False, highlight=False, soft_wrap=True)
    shares = Table("accelerator", "takes", "leaves to the CPU", "because", "layers")
    for name, refused in found.refused.items():
        taken = "all" if not refused else f"{math.floor(100 * found.share(name))}%"
        for reason, operators, layers in found.causes(name) or [("", {}, [])]:
            kinds = [f"{kind} {count}" for kind, count in operators.items()]
            places = escape(_some(layers, LAYERS_SHOWN))
            shares.add_row(name, taken, _some(kinds, KINDS_SHOWN), reason, places)
            name = taken = ""
        shares.add_section()
    console.print(shares)


def _some(names: list[str], count: int) -> str:
    return ", ".join(names[:count]) + ", ..." * (len(names) > count)
