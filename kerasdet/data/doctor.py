"""What is wrong with a set of photos with boxes, photo by photo, and what is left without that."""

from __future__ import annotations

import collections
import csv
import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from kerasdet import photo as photo_
from kerasdet.data.dataset import Dataset
from kerasdet.data.likeness import NEAR, fingerprint, nearest
from kerasdet.data.readers import Reading, read_all
from kerasdet.data.readers.checks import bad_box, refuse_wrong_unit
from kerasdet.data.readers.source import PhotoFinder, Record

KINDS = (
    "missing photo",
    "broken photo",
    "wrong size",
    "repeated photo",
    "bad box",
    "duplicate box",
    "near-duplicate",
    "absent class",
)
# Two boxes of one class that overlap by this much are the same object twice.
DUPLICATE_IOU = 0.9
THREADS = 2


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        kind: one of `KINDS`.
        split: where.
        photo: the photo's name as written; empty for an absent class.
        what: in words.
        path: the photo's file, and `other` that of the photo it is a near-duplicate of, where there is one.
    """

    kind: str
    split: str
    photo: str
    what: str
    path: str = ""
    other: str = ""


@dataclasses.dataclass
class Report:
    """What was found.

    Attributes:
        format: what the set is written in, see `readers.FORMATS`.
        photos: split -> number of photos that the annotations name.
        faults: in the order of `KINDS`.
        sets: split -> `Dataset` of what is sound; without the splits that nothing is left of.
        joined: splits that are others together and were left out, see `Reading`.
    """

    format: str
    photos: dict[str, int]
    faults: list[Fault]
    sets: dict[str, Dataset]
    joined: dict[str, tuple[str, ...]]

    def of(self, kind: str) -> list[Fault]:
        """The faults of one kind."""
        return [fault for fault in self.faults if fault.kind == kind]

    def save(self, file: str | os.PathLike) -> None:
        """Writes the faults as a CSV table."""
        with open(file, "w", newline="", encoding="utf-8") as lines:
            rows = csv.writer(lines)
            rows.writerow(("kind", "split", "photo", "what"))
            rows.writerows((f.kind, f.split, f.photo, f.what) for f in self.faults)


def examine(path: str | os.PathLike, progress: bool = False) -> Report:
    """Looks at every photo and box of a set, in all its splits.

    Named are photos that are missing or cannot be read; sizes written that are not the photo's; photos that
    are annotated twice, of which the first stays; boxes without area, outside of the photo or not finite;
    boxes of one class that overlap by IoU 0.9; photos that show the same as one of another split (see
    `likeness`); and classes with objects elsewhere but none to train on. `Report.sets` is the set without all
    that: of near-duplicates the one in "test", else in "val" stays, so that what is measured there compares
    with what others measured.

    Args:
        path: folder or annotation file, see `load`.
        progress: show a progress bar.

    Raises:
        FileNotFoundError, ValueError: annotations that cannot be read at all, see `load`.
    """
    reading = read_all(path)
    for read in reading.annotations.values():
        refuse_wrong_unit(read)
    photos = {split: len(read.records) for split, read in reading.annotations.items()}
    faults: list[Fault] = []
    seen = _look_at_photos(reading, faults, progress)
    for split, kept in seen.items():
        _check_boxes(split, kept, reading.annotations[split].relative, faults)
        reading.annotations[split].relative = False
    _compare_splits(seen, faults)
    twins = {(fault.split, fault.photo) for fault in faults if fault.kind == "near-duplicate"}
    sets = {}
    for split, kept in seen.items():
        read = reading.annotations[split]
        read.records = [look.record for look in kept if (split, look.record.photo) not in twins]
        if read.records:
            sets[split] = reading.dataset(split)
    _compare_classes(sets, faults)
    faults.sort(key=lambda fault: KINDS.index(fault.kind))
    return Report(reading.format, photos, faults, sets, reading.joined)


@dataclasses.dataclass
class _Look:
    """A photo that could be read."""

    record: Record
    path: str
    width: int
    height: int
    bits: np.ndarray


# === Photos ===


def _look_at_photos(
    reading: Reading, faults: list[Fault], progress: bool
) -> dict[str, list[_Look]]:
    """The photos of each split that can be read, their records with the size that they have."""
    jobs = [
        (split, record, finder)
        for split, read in reading.annotations.items()
        for finder in [PhotoFinder(reading.sources[split])]
        for record in read.records
    ]
    seen: dict[str, list[_Look]] = {split: [] for split in reading.annotations}
    firsts: dict[tuple[str, str], _Look] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        looks = pool.map(lambda job: _look(*job), jobs)
        if progress:
            from rich.progress import track

            looks = track(looks, "Looking at photos", len(jobs), transient=True)
        for (split, record, _), look in zip(jobs, looks, strict=True):
            if isinstance(look, Fault):
                faults.append(look)
                continue
            size = (look.width, look.height)
            written = (record.width, record.height)
            if all(written) and written != size:
                turned = " (turned upright, as the camera's note in it says)" if written == size[::-1] else ""
                what = f"written as {written[0]} x {written[1]}, is {size[0]} x {size[1]}{turned}"
                faults.append(Fault("wrong size", split, record.photo, what, look.path))
                continue  # of which photo its boxes speak, nobody knows
            record.width, record.height = size
            first = firsts.setdefault((split, look.path), look)
            if first is not look:
                what = f"the same photo as {first.record.photo!r} of {first.record.file}"
                faults.append(Fault("repeated photo", split, record.photo, what, look.path, first.path))
                continue
            seen[split].append(look)
    return seen


def _look(split: str, record: Record, finder: PhotoFinder) -> _Look | Fault:
    try:
        path = finder.find(record)
    except (FileNotFoundError, ValueError) as error:
        return Fault("missing photo", split, record.photo, str(error))
    try:
        pixels = photo_.read(path)
    except (ValueError, OSError) as error:
        return Fault("broken photo", split, record.photo, str(error), path)
    height, width = pixels.shape[:2]
    return _Look(record, path, width, height, fingerprint(pixels))


# === Boxes ===


def _check_boxes(split: str, seen: list[_Look], relative: bool, faults: list[Fault]) -> None:
    """Takes impossible and repeated boxes out of the photos' records, and names them; pixels after that."""
    for look in seen:
        record = look.record
        if relative:
            sides = np.array([record.width, record.height] * 2)
            record.boxes = [(np.array(box) * sides).tolist() for box in record.boxes]
            record.ignore = [(np.array(box) * sides).tolist() for box in record.ignore]
        wrong: dict[int, tuple[str, str]] = {}
        for row, box in enumerate(record.boxes):
            reason = bad_box(box, record.width, record.height)
            if reason is not None:
                wrong[row] = "bad box", reason
        sound = [row for row in range(len(record.boxes)) if row not in wrong]
        for row, first in _repeated(record, sound):
            wrong[row] = "duplicate box", f"the same {record.names[row]} as box {first}"
        for row, (kind, reason) in sorted(wrong.items()):
            box = [round(value, 2) for value in record.boxes[row]]
            what = f"box {row} is {box} as xyxy ({reason})"
            faults.append(Fault(kind, split, record.photo, what, look.path))
        keep = [row for row in range(len(record.boxes)) if row not in wrong]
        record.boxes = [record.boxes[row] for row in keep]
        record.names = [record.names[row] for row in keep]
        if record.parts:
            record.parts = [record.parts[row] for row in keep]
        if record.masks:
            record.masks = [record.masks[row] for row in keep]


def _repeated(record: Record, rows: list[int]) -> list[tuple[int, int]]:
    """Pairs of a box among `rows` and the first one of its class that is nearly the same."""
    if len(rows) < 2:
        return []
    from pycocotools import mask

    boxes = np.array([record.boxes[row] for row in rows], np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    overlap = mask.iou(boxes, boxes, [0] * len(boxes))
    names = np.array([record.names[row] for row in rows])
    same = np.triu((overlap >= DUPLICATE_IOU) & (names[:, None] == names), 1)
    return [(rows[column], rows[int(same[:, column].argmax())]) for column in np.flatnonzero(same.any(0))]


# === Splits ===


def _compare_splits(seen: dict[str, list[_Look]], faults: list[Fault]) -> None:
    """Names the photos that show the same as one of a split that is kept rather than theirs."""
    # "test" is kept first, then "val", then what comes earlier.
    order = sorted(seen, key=lambda split: {"test": 0, "val": 1}.get(split, 2))
    for place, split in enumerate(order):
        kept = [(other, look) for other in order[:place] for look in seen[other]]
        if not kept or not seen[split]:
            continue
        found, bits = nearest(
            np.stack([look.bits for look in seen[split]]), np.stack([look.bits for _, look in kept])
        )
        for look, index, distance in zip(seen[split], found, bits, strict=True):
            if distance <= NEAR:
                other, twin = kept[index]
                what = f"shows the same as {twin.record.photo} in {other} ({distance} of 256 bits differ)"
                faults.append(
                    Fault("near-duplicate", split, look.record.photo, what, look.path, twin.path)
                )


def _compare_classes(sets: dict[str, Dataset], faults: list[Fault]) -> None:
    """Names the classes that have objects in other splits, but none in "train"."""
    if "train" not in sets:
        return
    counts = count_objects(sets)
    for name, row in counts.items():
        elsewhere = [f"{count} in {split}" for split, (count, _) in row.items() if count]
        if elsewhere and not row["train"][0]:
            what = f"{name}: {', '.join(elsewhere)}, none in train"
            faults.append(Fault("absent class", "train", "", what))


def count_objects(sets: dict[str, Dataset]) -> dict[str, dict[str, tuple[int, int]]]:
    """How many objects of each class there are: class -> split -> (objects, photos that have one)."""
    classes = next(iter(sets.values())).classes if sets else ()
    counts: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in classes}
    for split, dataset in sets.items():
        objects: collections.Counter[int] = collections.Counter()
        photos: collections.Counter[int] = collections.Counter()
        for sample in dataset:
            objects.update(sample.labels.tolist())
            photos.update(set(sample.labels.tolist()))
        for label, name in enumerate(classes):
            counts[name][split] = objects[label], photos[label]
    return counts
