"""The command that looks at photos, one or a hundred thousand, which `kerasdet.cli` registers."""

from __future__ import annotations

import collections
import hashlib
import itertools
import os
import re
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image, PngImagePlugin
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kerasdet import photo as photo_
from kerasdet import zoo
from kerasdet.cli_says import sentence, warn
from kerasdet.results import ResultsFile

ROWS_SHOWN = 20
# Photos that go through the network together, and those that are read ahead. Two such batches are held at
# most: a photo of twelve megapixels takes 36 MB.
BATCH, AHEAD = 8, 4
# What drawings say of themselves in their first bytes, as a comment that viewers do not show.
DRAWN, HEADER = b"drawn by kerasdet detect", 256


def detect(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTOS...", help="Photos, folders or patterns.")
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A preset, a .keras or a .tflite file.")
    ] = "csp",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("out"),
    score: Annotated[float, typer.Option(help="Leave out what scores lower.", min=0, max=1)] = 0.3,
    draw: Annotated[bool, typer.Option(help="Draw what is found; else write the numbers alone.")] = True,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Look at one part of N only, such as 3/16; others do the rest."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what the same command began in --out, if it did.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew in --out.")] = False,
):
    """Finds objects on photos; draws them into a folder and writes detections.json.

    The file is written as photos are looked at, and whole after every few of them: a command that was
    stopped goes on with --resume. Shards write a file each, detections-3-of-16.json; their image ids are
    those of all photos.
    """
    if resume and overwrite:
        raise ValueError("--resume goes on with what is in --out, --overwrite begins anew; give one of them")
    number, count = _part(shard)
    # What was drawn before, or by another shard, is no photo of the list that all runs share.
    paths = _without_drawings(photo_.find(photos), out)
    todo = list(enumerate(paths, 1))[number - 1 :: count]
    name = "detections" if shard is None else f"detections-{number}-of-{count}"
    results = ResultsFile(
        out / f"{name}.json", _settings(model, score, draw, shard, paths), resume=resume, overwrite=overwrite
    )
    rest, before = todo[results.done :], results.done
    targets = picture_names(paths, out) if draw else None
    if draw:
        _check_targets([targets[image_id - 1] for image_id, _ in rest], paths, resume or overwrite)
    detector = zoo.load_file(model) if rest else None
    table = Table("photo", "found", "best score")
    with results, _bar() as bar:
        task = bar.add_task("Detecting", total=len(todo), completed=before)
        for some, found in _batches(detector, rest, score, min(BATCH, len(todo))):
            rows = []
            for (image_id, path), each in zip(some, found, strict=True):
                if isinstance(each, Exception):
                    warn("skipped", sentence(each))
                    continue
                if draw:
                    _save(each.draw(), targets[image_id - 1])
                rows += _coco_rows(each, image_id, path)
                if table.row_count < ROWS_SHOWN:
                    best = f"{each.scores[0]:.2f}" if len(each) else ""
                    table.add_row(escape(str(path)), _counted(each.names), best)
            results.add(rows, len(some), sum(isinstance(each, Exception) for each in found))
            bar.advance(task, len(some))
    console = Console()
    if table.row_count:
        console.print(table)
    if before:
        console.print(f"{before} of {len(todo)} photos had been looked at before")
    if len(rest) > ROWS_SHOWN:
        console.print(f"... and {len(rest) - ROWS_SHOWN} more photos")
    console.print(f"{results.objects} objects; see {escape(str(out))}/ with {name}.json")
    if results.unreadable:
        raise ValueError(f"{results.unreadable} of {len(todo)} photos could not be read")


def _part(shard: str | None) -> tuple[int, int]:
    """3/16 as numbers; 1/1 for all."""
    match = re.fullmatch(r"(\d+)/(\d+)", shard or "1/1")
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"--shard is {shard}; give a part and of how many, from 1/16 to 16/16 for example")
    return number, count


def _without_drawings(paths: list[Path], out: Path) -> list[Path]:
    """The photos without what was drawn into the results' folder, or into one of an earlier run."""
    folder = out.resolve()
    # Folder by folder: of a hundred thousand photos, files would take half a minute.
    parents = {path.parent for path in paths}
    of_results = {each for each in parents if each.resolve() == folder or any(each.glob("detections*.json"))}
    kept = [path for path in paths if path.parent not in of_results or not _is_drawing(path)]
    if not kept:
        raise ValueError(f"{out}: all of the photos were drawn by an earlier run; give those it looked at")
    return kept


def _settings(model: str, score: float, draw: bool, shard: str | None, paths: list[Path]) -> dict:
    names = hashlib.sha256("\n".join(map(str, paths)).encode("utf-8", "surrogateescape"))
    return {
        "model": model, "weights (sha256)": zoo.fingerprint(model), "score": score, "draw": draw,
        "shard": shard or "1/1", "photos": len(paths), "list of photos (sha256)": names.hexdigest(),
    }


def picture_names(paths: list[Path], out: Path) -> list[Path]:
    """Where each photo's drawing goes; photos of one name in two folders get a number, and so do a.jpg and
    A.jpg, which are one to the disks of macOS and Windows."""
    taken: set[str] = set()
    copies: collections.Counter[str] = collections.Counter()
    targets = []
    for path in paths:
        suffix = path.suffix.lower() if path.suffix.lower() in (".jpg", ".jpeg", ".png") else ".jpg"
        name = f"{path.stem}{suffix}"
        while True:
            copies[name.casefold()] += 1
            number = copies[name.casefold()]
            drawing = name if number == 1 else f"{path.stem}_{number}{suffix}"
            if drawing.casefold() not in taken:
                break
        taken.add(drawing.casefold())
        targets.append(out / drawing)
    return targets


def _check_targets(targets: list[Path], paths: list[Path], again: bool):
    """Refuses to draw over anything, but for earlier drawings when a run goes on or begins anew."""
    for target in targets:
        if not target.exists() or (again and _is_drawing(target)):
            continue
        if any(path.exists() and path.samefile(target) for path in paths):
            raise ValueError(f"{target}: is one of the photos, and would be drawn over; give another --out")
        if _is_drawing(target):
            raise FileExistsError(f"{target} exists; give another --out, or --overwrite")
        raise FileExistsError(f"{target} exists, and was not drawn by this command; give another --out")


def _save(picture: Image.Image, path: Path):
    """Writes a drawing, whole or not at all, with a mark that tells it from the user's photos."""
    partial = path.with_name(path.name + ".partial")
    if path.suffix == ".png":
        note = PngImagePlugin.PngInfo()
        note.add_text("Software", DRAWN.decode())
        picture.save(partial, "PNG", pnginfo=note)
    else:
        picture.save(partial, "JPEG", quality=92, comment=DRAWN)
    os.replace(partial, path)


def _is_drawing(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return DRAWN in file.read(HEADER)
    except OSError:
        return False


def _bar() -> Progress:
    terminal = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=terminal, transient=True, disable=not terminal.is_terminal,
    )


def _batches(detector, rest: list[tuple[int, Path]], score: float, size: int):
    """Batch by batch, what is to be done, and for each photo its `Detections` or why it cannot be read."""
    pictures = photo_.read_ahead((path for _, path in rest), AHEAD)
    for start in range(0, len(rest), max(1, size)):
        some = rest[start : start + size]
        read = list(itertools.islice(pictures, len(some)))
        photos = [each for each in read if not isinstance(each, Exception)]
        found = iter(detector.detect(photos, score=score, batch_size=size))
        yield some, [each if isinstance(each, Exception) else next(found) for each in read]


def _counted(names: list[str]) -> str:
    kinds = {name: names.count(name) for name in sorted(set(names))}
    return ", ".join(f"{count} {escape(name)}" for name, count in kinds.items()) or "nothing"


def _coco_rows(found, image_id: int, path: Path) -> list[dict]:
    """COCO result rows; the further keys are for readers, pycocotools passes over them."""
    rows = found.to_coco(image_id)
    for i, row in enumerate(rows):
        row["file_name"], row["category"] = os.fspath(path), found.names[i]
        for part, boxes in found.parts.items():
            x1, y1, x2, y2 = map(float, boxes[i])
            row[part] = [x1, y1, x2 - x1, y2 - y1]
    return rows
