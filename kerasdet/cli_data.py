"""The command line's `kerasdet data ...`: anchors, convert, doctor, show.

Plain functions; `cli` registers them. What is imported here is light, as there.
"""

from __future__ import annotations

import enum
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kerasdet import photo as photo_
from kerasdet.cli_says import PLOTS, check_new, say

_DATA = "Folder of photos with boxes, annotation file, or a set such as tfds:voc/2007."
Data = Annotated[str, typer.Argument(help=_DATA)]
FAULTS_SHOWN, CLASSES_SHOWN, PAIRS_DRAWN = 5, 40, 24
# How the clean copy of a set is written.
_WRITTEN_AS = {
    "COCO json": "coco", "PASCAL VOC xml": "voc", "YOLO txt": "yolo", "CSV": "csv", "ODGT": "odgt",
    "WIDER FACE txt": "wider", "TensorFlow Datasets": "coco",
}
# In which an anchor fits a box: below, no detector counts it as its own.
_FIT_IOU = 0.5


Resize = enum.StrEnum("Resize", photo_.RESIZES)


class Format(enum.StrEnum):
    coco = enum.auto()
    voc = enum.auto()
    yolo = enum.auto()
    csv = enum.auto()
    odgt = enum.auto()
    wider = enum.auto()


Link = Annotated[
    bool,
    typer.Option("--link", help="Link to the photos instead of copying them; they have to stay then."),
]


def held_back(data: str, split: str | None):
    """The set to score on: a split, or 'val' or 'test' where none is given and there are several."""
    from kerasdet import data as data_
    from kerasdet.data import readers

    if split is None:
        known = data_.splits(data)
        split = readers.held_back(known)
        if split is None and not {"val", "test"} & set(known):
            say(
                f"note: {data} has no splits, so all of it is scored; a model is better on photos that it "
                "learned from than on others"
            )
    return data_.load(data, split=split)


def photos_of(path: str):
    """A data set where there are annotations, photos otherwise."""
    from kerasdet import data as data_

    if Path(path).suffix.lower() not in photo_.SUFFIXES and data_.splits(path):
        return data_.load(path)
    return photo_.find([path])


# === anchors ===


def anchors(
    data: Data,
    count: Annotated[int, typer.Option(min=1, help="How many; YOLOv3 has 9.")] = 9,
    size: Annotated[int, typer.Option(min=32, help="Side of the network's square in pixels.")] = 320,
    resize: Annotated[
        Resize, typer.Option(help="How a photo becomes the square, as the detector's `resize` says.")
    ] = Resize.stretch,
    plot: Annotated[
        Path | None, typer.Option(help="A picture to draw: the boxes' sizes and the anchors.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the k-means' beginnings.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture.")] = False,
):
    """Finds anchors: sizes that the boxes of a set cluster around, by k-means of 1 - IoU."""
    if overwrite and plot is None:
        raise ValueError("--overwrite is for the picture of --plot; name it, or leave --overwrite out")
    check_new("--plot", plot, PLOTS, overwrite)
    import numpy as np

    from kerasdet import data as data_
    from kerasdet.boxes.kmeans import kmeans_anchors, size_iou
    from kerasdet.data.anchors import box_sizes
    from kerasdet.data.charts import draw_anchors

    dataset = data_.load(data)
    sizes = box_sizes(dataset, size, resize.value)
    found = kmeans_anchors(sizes, count, seed)
    overlap = size_iou(sizes, found)
    best, owner = overlap.max(1), overlap.argmax(1)
    table = Table("width", "height", "share of boxes", "mean IoU")
    for i, (width, height) in enumerate(found):
        own = best[owner == i]
        mean = f"{own.mean():.3f}" if len(own) else ""
        table.add_row(f"{width:.1f}", f"{height:.1f}", f"{len(own) / len(sizes):.1%}", mean)
    square = f"the square of {size} px ({resize.value})"
    say(
        f"{dataset.name}: {len(sizes)} boxes in {square}, mean IoU {best.mean():.3f}, "
        f"{(best >= 0.5).mean():.1%} of them with an IoU of .5 or more"
    )
    Console().print(table)
    # Rounded, two of nearly one area may change places, and YOLOv3 wants them by rising area.
    rounded = sorted(np.maximum(found.round(1), 0.1).tolist(), key=lambda pair: pair[0] * pair[1])
    pairs = ", ".join(f"({width:g}, {height:g})" for width, height in rounded)
    say(f"anchors=({pairs})")
    if plot is not None:
        draw_anchors(sizes, found, owner, size).savefig(plot)
        say(f"drawn into {plot}")


# === convert ===


def convert(
    data: Annotated[str, typer.Argument(metavar="IN", help=_DATA)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; a new or empty one.")],
    to: Annotated[Format, typer.Option("--to", help="What to write.")],
    link: Link = False,
):
    """Writes a set in another format, with all its splits.

    The photos are copied along, so that OUT is whole by itself and IN stays
    as it is. What the format has no place for (ignore regions in YOLO and CSV,
    boxes of parts in all but ODGT, ...) is left out, and said.
    """
    from kerasdet.data.readers import read_all
    from kerasdet.data.writers import refuse_full, write

    refuse_full(out)
    reading = read_all(data)
    sets = {split: reading.dataset(split) for split in reading.sources}
    _say_joined(reading.joined)
    write(sets, out, to.value, link=link, progress=sys.stdout.isatty())
    photos, boxes = sum(map(len, sets.values())), sum(len(s.boxes) for d in sets.values() for s in d)
    text = f"{reading.format} to {to.value}: {photos} photos with {boxes} boxes in {', '.join(sets)}"
    say(f"{text}, see {out}/")


def _say_joined(joined: dict[str, tuple[str, ...]]) -> None:
    for split, parts in joined.items():
        say(f"left out: {split}, which is {' and '.join(parts)} together")


# === show ===


def show(
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to draw.")],
    split: Annotated[
        str | None, typer.Option(help="Which split; else 'train', or the only one there is.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=200, help="Photos, drawn by lot.")] = 20,
    seed: Annotated[int, typer.Option(help="Another one draws other photos.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the picture.")] = False,
):
    """Draws a page of photos with their boxes. Ignore regions are crossed out in grey."""
    check_new("--out", out, (".jpg", ".jpeg", ".png"), overwrite)
    import numpy as np

    from kerasdet import data as data_
    from kerasdet.data.page import draw_page

    dataset = data_.load(data, split, on_bad_box="drop")
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:count]
    page = draw_page(dataset.subset(sorted(chosen)), progress=sys.stdout.isatty())
    page.save(out, quality=90)
    text = f"{len(chosen)} of {len(dataset)} photos, see {out}"
    say(text)


# === doctor ===


def doctor(
    data: Data,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="A preset or .keras file to hold the boxes' sizes against."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A new folder for faults.csv and pictures of sizes and classes."),
    ] = None,
    write: Annotated[
        Path | None, typer.Option("--write", help="A new folder for a copy of the set without the faults.")
    ] = None,
    link: Link = False,
):
    """Looks for what is wrong with a set; exit code 1 if there is something.

    Photos: missing, broken, of another size than written, or nearly the same
    in two splits (of those, the clean copy keeps the one in test, else in val).
    Boxes: without area, outside of the photo, not finite, or twice the same.
    Classes: none in train, but elsewhere.
    """
    from kerasdet.data.doctor import examine
    from kerasdet.data.writers import refuse_full
    from kerasdet.data.writers import write as write_set

    if link and write is None:
        raise ValueError("--link is for the copy that --write makes; name its folder, or leave --link out")
    for folder in (out, write):
        if folder is not None:
            refuse_full(folder)
    detector = None
    if model is not None:
        from kerasdet import zoo

        detector = zoo.load_file(model)
    progress = sys.stdout.isatty()
    report = examine(data, progress)
    photos = ", ".join(f"{count} photos in {split}" for split, count in report.photos.items())
    say(f"{data}: {report.format}, {photos}")
    _say_joined(report.joined)
    _print_faults(report)
    _print_classes(report)
    sizes = _print_sizes(report, detector)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        _draw(report, out, *sizes)
        say(f"see {out}/ with faults.csv and pictures")
    if write is not None:
        write_set(report.sets, write, _WRITTEN_AS[report.format], link=link, progress=progress)
        left = ", ".join(f"{len(dataset)} photos in {split}" for split, dataset in report.sets.items())
        say(f"clean copy in {write}/: {left}")
    if report.faults:
        sys.exit(1)


def _print_faults(report) -> None:
    from kerasdet.data.doctor import KINDS

    console = Console()
    for kind in KINDS:
        faults = report.of(kind)
        if not faults:
            continue
        console.print(f"[red]{kind}[/]: {len(faults)}", highlight=False)
        for fault in faults[:FAULTS_SHOWN]:
            where = " ".join(filter(None, (fault.split, fault.photo)))
            say(f"  {where}: {fault.what}")
        if len(faults) > FAULTS_SHOWN:
            more = len(faults) - FAULTS_SHOWN
            say(f"  ... and {more} more; --out lists them all")
    if not report.faults:
        console.print("[green]nothing wrong[/] with photos or boxes")


def _print_classes(report) -> None:
    from kerasdet.data.doctor import count_objects

    table = Table("class", *(f"{split}: objects (photos)" for split in report.sets))
    counts = count_objects(report.sets)
    for name, row in list(counts.items())[:CLASSES_SHOWN]:
        table.add_row(escape(name), *(f"{objects} ({photos})" for objects, photos in row.values()))
    empty = sum(not len(sample.boxes) for dataset in report.sets.values() for sample in dataset)
    Console().print(table)
    if len(counts) > CLASSES_SHOWN:
        say(f"... and {len(counts) - CLASSES_SHOWN} more classes")
    say(f"photos without objects: {empty}")


def _print_sizes(report, detector):
    """Says how large the boxes are for the detector; (sizes, side of the square, stride, anchors)."""
    import numpy as np

    from kerasdet.boxes.kmeans import size_iou
    from kerasdet.data.anchors import box_sizes
    from kerasdet.data.charts import anchor_sides

    size, resize = 320, "stretch"
    stride = anchors = None
    if detector is not None:
        size, resize = detector.image_size, detector.resize
        stride = getattr(detector, "stride", None)
        if getattr(detector, "anchors", None) is not None:
            anchors = anchor_sides(detector.anchors)
    sizes = np.concatenate([np.zeros((0, 2)), *(box_sizes(d, size, resize) for d in report.sets.values())])
    if len(sizes):
        width, height = np.median(sizes, axis=0)
        text = f"in the square of {size} px: a box is {width:.0f} x {height:.0f} px in the middle"
        if stride is not None:
            text += f"; {(sizes.min(1) < stride).mean():.1%} are less than a cell ({stride} px) wide or high"
        if anchors is not None:
            misfits = size_iou(sizes, anchors).max(1) < _FIT_IOU
            text += f"; {misfits.mean():.1%} fit no anchor by IoU {_FIT_IOU}"
        say(text)
    return sizes, size, stride, anchors


def _draw(report, out: Path, sizes, size, stride, anchors) -> None:
    from kerasdet.data.charts import draw_classes, draw_sizes
    from kerasdet.data.doctor import count_objects
    from kerasdet.data.page import draw_pairs

    report.save(out / "faults.csv")
    if report.sets:
        draw_classes(count_objects(report.sets)).savefig(out / "classes.png")
        draw_sizes(sizes, size, stride, anchors).savefig(out / "sizes.png")
    twins = [(fault.path, fault.other) for fault in report.of("near-duplicate")]
    if twins:
        draw_pairs(twins[:PAIRS_DRAWN]).save(out / "near_duplicates.jpg", quality=90)
