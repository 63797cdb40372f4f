"""The command line: detect, train, lr-find, evaluate, mistakes, compare, export, report, benchmark, demo,
zoo, data.

What is imported here is light; each command imports what it needs, so that `kerasdet zoo` answers
at once and a `.tflite` is run without Keras.
"""

from __future__ import annotations

import enum
import functools
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from kerasdet import cli_data, cli_demo, cli_detect, cli_device, cli_evaluate, cli_train
from kerasdet import zoo as zoo_
from kerasdet.cli_says import check_new, error_console, say, sentence, warn

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")

data_app = typer.Typer(rich_markup_mode="rich", help="Looks into photos with boxes, and converts them.")
app.add_typer(data_app, name="data", no_args_is_help=True)

GREETING = """[bold]kerasdet[/] finds objects on photos, learns yours, and writes them for a phone.

People on a photo, drawn into found/:
  [bold]kerasdet detect[/] street.jpg --out found

A detector of your own, from photos with boxes:
  [bold]kerasdet train[/] my_photos/ --out runs/mine

A file for a phone:
  [bold]kerasdet export[/] runs/mine/best.keras -o mine.tflite \\
      --precision int8 --calibration my_photos/

[bold]kerasdet zoo[/] lists the presets; [bold]kerasdet COMMAND --help[/] explains a command."""

_state = {"debug": False}


class Precision(enum.StrEnum):
    float32 = enum.auto()
    float16 = enum.auto()
    int8 = enum.auto()
    int8_weights = enum.auto()


class Outputs(enum.StrEnum):
    detections = enum.auto()
    boxes = enum.auto()
    raw = enum.auto()


class InputDtype(enum.StrEnum):
    uint8 = enum.auto()
    float32 = enum.auto()


class OnParity(enum.StrEnum):
    error = enum.auto()
    warn = enum.auto()


# === What all commands share ===


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
):
    """Object detectors in Keras that end on a phone."""
    _state["debug"] = debug
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    if not debug:
        _hush()
    if context.invoked_subcommand is None:
        Console().print(GREETING, highlight=False)


def _hush():
    """Keeps TensorFlow's and LiteRT's start-up talk off the terminal; our own words stay."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def one_line(message, category, filename, lineno, file=None, line=None):
        # Of all the libraries below, only what is said to the user.
        # Not by the name alone: a checkout called kerasdet holds all libraries in its .venv/.
        if issubclass(category, UserWarning) and Path(__file__).parent in Path(filename).parents:
            warn("warning", str(message))

    warnings.showwarning = one_line
    try:
        real = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        return
    if real == 2:
        # C++ libraries write to the file descriptor, past sys.stderr and any setting of Python's.
        # With a way to write names of files that are no text, as Python's own has.
        sys.stderr = os.fdopen(
            os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace"
        )
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def _command(function, group=app):
    """Registers a command; an error becomes one line, exit code 2 (1 for failed parity)."""

    @group.command()
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt:
            _fail("stopped", 130)
        except typer.Exit:  # a RuntimeError, though none
            raise
        except Exception as error:
            if _state["debug"] or not _of_the_world(error):
                raise
            parity = type(error).__name__ == "ParityError"
            _fail(sentence(error), 1 if parity else 2)

    return wrapped


def _of_the_world(error: Exception) -> bool:
    """Whether an error is of what was given or of the machine, and not a fault of ours."""
    kinds = (ValueError, OSError, ImportError, RuntimeError, FloatingPointError, MemoryError)
    # TensorFlow's own are of no kind of Python's.
    return isinstance(error, kinds) or type(error).__module__.startswith("tensorflow")


def _fail(text: str, code: int):
    error_console().print(f"[red]error:[/] {escape(text)}", highlight=False)
    raise typer.Exit(code)


# === detect ===


_command(cli_detect.detect)


# === train ===

_command(cli_train.train)
_command(cli_train.lr_find)


# === evaluate, mistakes, compare ===

_command(cli_evaluate.evaluate)
_command(cli_evaluate.mistakes)
_command(cli_train.compare)


# === export ===


@_command
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A preset or a .keras file.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A name ending in .tflite, or a SavedModel folder.")
    ],
    precision: Annotated[Precision, typer.Option()] = Precision.float32,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Photos like those of the device: int8 takes its ranges from them (100 or more are best), "
            "and the file is compared with Keras on them; else on drawn scenes."
        ),
    ] = None,
    outputs: Annotated[Outputs, typer.Option(help="Where the graph ends.")] = Outputs.detections,
    image_size: Annotated[
        int | None,
        typer.Option(help="Side of the network's square in pixels, else the model's; smaller is faster, and "
                     "finds less. Evaluate the file: best is the size that was trained at."),
    ] = None,
    input_dtype: Annotated[
        InputDtype, typer.Option(help="float32 is for GPU delegates.")
    ] = InputDtype.uint8,
    keep_float: Annotated[
        str | None,
        typer.Option(
            help="For int8: layers left in float, a regular expression; see report. '' leaves none, where "
            "the detector brings its own."
        ),
    ] = None,
    on_parity: Annotated[
        OnParity, typer.Option(help="Where the file and Keras disagree: write nothing, or warn and write.")
    ] = OnParity.error,
    report: Annotated[
        bool, typer.Option("--report", help="Say what a phone's accelerators take of the file.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
):
    """Writes a detector for a device, and checks it against Keras."""
    if model.lower().endswith(".tflite"):
        raise ValueError(
            f"{model}: is exported already; give the .keras file or preset it was made from"
        )
    if precision is Precision.int8 and calibration is None:
        raise ValueError("int8 needs --calibration: photos like those the device will see")
    if report and out.suffix.lower() != ".tflite":
        raise ValueError(f"--report is of .tflite files, and {out} is a SavedModel folder; leave it out")
    photos = None if calibration is None else cli_data.photos_of(calibration)
    detector = zoo_.load_file(model)
    if image_size is not None:
        detector = zoo_.adapt(detector, image_size=image_size)
    with error_console().status(f"Converting {escape(model)}, and comparing the file with Keras"):
        found = detector.export(
            out, precision=precision.value, calibration=photos, outputs=outputs.value,
            input_dtype=input_dtype.value, keep_float=keep_float, overwrite=overwrite,
            on_parity=on_parity.value,
        )
    Console().print(str(found), highlight=False, markup=False)
    if report:
        cli_device.delegates(out)


# === Files for devices ===

_command(cli_device.report)
_command(cli_device.benchmark)


# === demo ===

_command(cli_demo.demo)


# === zoo ===


@_command
def zoo(
    name: Annotated[str | None, typer.Argument(help="A preset to tell all about.")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The README's tables, from the cards.")
    ] = False,
    page: Annotated[
        Path | None, typer.Option("--html", help="A page to write: cards, pictures, AP against latency.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option("--plots", help="A folder for the page's plots, as the README has them.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page or the plots.")] = False,
):
    """Lists the presets, or tells all about one."""
    from kerasdet import card

    if markdown and (page is not None or plots is not None):
        raise ValueError("--markdown prints the tables; leave it out, or --html and --plots")
    if overwrite and page is None and plots is None:
        raise ValueError("--overwrite is for the files of --html and --plots; name one, or leave it out")
    if page is not None:
        _say_page(page, name, overwrite)
    if plots is not None:
        _draw_plots(plots, name, overwrite)
    if page is not None or plots is not None:
        return
    presets = zoo_.presets(name)
    cards = [made for made, _ in presets]
    if markdown:
        print(card.markdown(presets))
    elif name is not None:
        Console().print(card.card_tables(cards[0]))
    elif cards:
        Console().print(card.shelf_table(cards))
    else:
        Console().print(f"there are no presets; name a folder of them in {zoo_.SHELVES}")


def _draw_plots(folder: Path, name: str | None, overwrite: bool):
    from kerasdet import zoo_page

    peers = zoo_page.read_peers(zoo_.shelves())
    if peers is None:
        raise ValueError(f"no shelf has a {zoo_page.PEERS}, which says what to draw; see the one in zoo/")
    files = {folder / zoo_page.PLOT.format(data): data for data in peers["sets"]}
    for file in files:
        check_new("--plots", file, (".svg",), overwrite)
    drawn = zoo_page.drawings([card for card, _ in zoo_.presets(name)], peers)
    for file, data in files.items():
        file.write_text(drawn[data], encoding="utf-8")
        say(f"see {file}")


def _say_page(path: Path, name: str | None, overwrite: bool):
    from kerasdet import zoo_page

    check_new("--html", path, (".html", ".htm"), overwrite)
    text = zoo_page.page(zoo_.presets(name), zoo_page.read_peers(zoo_.shelves()))
    path.write_text(text, encoding="utf-8")
    say(f"see {path}")


# === data ===

for _function in (cli_data.anchors, cli_data.convert, cli_data.doctor, cli_data.show):
    _command(_function, group=data_app)
