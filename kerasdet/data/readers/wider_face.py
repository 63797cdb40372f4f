"""WIDER FACE txt: a photo's name, the number of its faces, and a line `x y w h ...` for each."""

from __future__ import annotations

from pathlib import Path

from kerasdet.data.readers.source import (
    PHOTO_SUFFIXES,
    Annotations,
    Record,
    Source,
    canonical_split,
    ordinary,
    photo_folders,
    read_text,
)

# x, y, w, h, blur, expression, illumination, invalid, occlusion, pose.
INVALID = 7
# Pixels. The paper's three groups by scale begin at 10 (Yang et al., CVPR 2016); what is smaller is in none.
SMALLEST = 10


def find(folder: Path) -> list[Source]:
    """Sources for the files `*_bbx_gt.txt` in `folder` and in `wider_face_split/`."""
    places = folder, folder / "wider_face_split"
    files = sorted(file for place in places for file in ordinary(place, "_bbx_gt.txt"))
    return [source for file in files for source in from_file(file)]


def from_file(file: Path) -> list[Source]:
    """The source of one file."""
    root = file.parent.parent if file.parent.name == "wider_face_split" else file.parent
    split = canonical_split(file.stem.removeprefix("wider_face_").removesuffix("_bbx_gt"))
    own = root / f"WIDER_{split}"
    folders = [place for place in (own / "images", own) if place.is_dir()]
    return [Source(split, root, [file], folders + photo_folders(root, file.parent, file.stem))]


def is_one(file: Path) -> bool:
    """Whether a txt begins as these do: with a photo's name, and a number in the second line."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        name, count = lines.readline().strip(), lines.readline().strip()
    return name.endswith(PHOTO_SUFFIXES) and count.isdecimal()


def read(source: Source) -> Annotations:
    """The photos of one file, with the class "face".

    Faces that are marked invalid, or less than `SMALLEST` pixels wide or high, become ignore regions.
    A photo without faces has the number 0, and a line of zeros after it or none.

    Raises:
        ValueError: a number or a line of a face is missing or is something else.
    """
    file = source.files[0]
    lines = [line.split() for line in read_text(file).splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    records, at = [], 0
    while at < len(lines):
        # Some photos have spaces in their names.
        photo = " ".join(lines[at])
        record = Record(photo=photo, file=str(file), image_id=photo)
        at += 1
        if at == len(lines) or len(lines[at]) != 1 or not lines[at][0].isdecimal():
            raise ValueError(
                f"{file}, line {at + 1}: the number of faces on {photo!r} is missing; write it below its name"
            )
        # More than there are lines for is said at the first that is missing.
        count = min(int(lines[at][0][:9]), len(lines))
        at += 1
        for row in range(at, at + count):
            _add(record, lines[row] if row < len(lines) else [], f"{file}, line {row + 1}")
        at += count
        if count == 0 and at < len(lines) and set(lines[at]) == {"0"}:
            at += 1
        records.append(record)
    return Annotations(records, {"face": 0})


def join_classes(classes: list[dict[str, object]]) -> tuple[str, ...]:
    """There is the one."""
    return ("face",)


def _add(record: Record, cells: list[str], where: str) -> None:
    try:
        x, y, width, height = map(float, cells[:4])
        invalid = len(cells) > INVALID and int(cells[INVALID]) == 1
    except ValueError:
        raise ValueError(
            f"{where}: {' '.join(cells)[:80]!r} is not a face of {record.photo!r}; write x y w h and the six "
            "attributes, as many lines as the number above says"
        ) from None
    box = [x, y, x + width, y + height]
    if invalid or min(width, height) < SMALLEST:
        record.ignore.append(box)
    else:
        record.boxes.append(box)
        record.names.append("face")
