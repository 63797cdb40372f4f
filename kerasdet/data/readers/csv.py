"""CSV: a line a box, `image,xmin,ymin,xmax,ymax,label`, with or without that header.

Cells may be parted by `;` or a tab as well, as spreadsheets of many countries do, with decimal commas.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from kerasdet.data.readers.source import (
    Annotations,
    Record,
    Source,
    find_files,
    pixels_if_said,
    read_text,
)

DELIMITERS = ",;\t"
MAX_LINE = 100_000  # characters of the first line, of a file that may be anything
COLUMNS = ("image", "xmin", "ymin", "xmax", "ymax", "label")
# Of the photo (or of the box), where a table has them, as TensorFlow's object detection does.
SIZES = ("width", "height")
_ALIASES = {
    "filename": "image",
    "file_name": "image",
    "file": "image",
    "path": "image",
    "image_id": "image",
    "x1": "xmin",
    "y1": "ymin",
    "x2": "xmax",
    "y2": "ymax",
    "class": "label",
    "class_name": "label",
    "name": "label",
}


def find(folder: Path) -> list[Source]:
    """Sources for the CSV files in `folder` that have the columns; others are passed over."""
    return [source for source in find_files(folder, ".csv") if _columns(source.files[0])]


def read(source: Source) -> Annotations:
    """The photos of one file; a row with an empty box is a photo without objects.

    Raises:
        ValueError: missing columns, or a row that is not numbers and a label.
    """
    file = source.files[0]
    columns = _columns(file)
    if columns is None:
        raise ValueError(f"{file}: the columns {','.join(COLUMNS)} are needed")
    positions, header, delimiter = columns
    records: dict[str, Record] = {}
    names = set()
    boxes_own = []  # whether a row's width and height are its box's
    try:
        rows = list(csv.reader(io.StringIO(read_text(file), newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"{file}: not a table ({error}); write {','.join(COLUMNS)} a line") from error
    for number, row in enumerate(rows, 1):
        if (header and number == 1) or not any(cell.strip() for cell in row):
            continue
        cells = [row[p].strip() if p is not None and p < len(row) else "" for p in positions]
        photo, *corners, name, width, height = cells
        if not photo:
            raise ValueError(f"{file}, line {number}: no photo is named in {row}")
        record = records.get(photo)
        if record is None:
            record = records[photo] = Record(photo=photo, file=str(file), image_id=photo)
            record.width, record.height = pixels_if_said(width), pixels_if_said(height)
        if not any(corners):
            continue
        try:
            box = [_number(corner, delimiter) for corner in corners]
        except ValueError:
            box = None
        if box is None or not name:
            raise ValueError(
                f"{file}, line {number}: {row} is not a box with a label; write four numbers "
                "and a name, or leave the box empty for a photo without objects"
            )
        record.boxes.append(box)
        record.names.append(name)
        names.add(name)
        if width and height:
            said = pixels_if_said(width), pixels_if_said(height)
            sides = box[2] - box[0], box[3] - box[1]
            boxes_own.append(all(abs(a - b) < 2 for a, b in zip(said, sides, strict=True)))
    # Some tables have the boxes' own sizes there.
    if sum(boxes_own) > len(boxes_own) / 2:
        for each in records.values():
            each.width = each.height = 0
    return Annotations(list(records.values()), dict.fromkeys(names))


def join_classes(classes: list[dict[str, object]]) -> tuple[str, ...]:
    """The union over the splits, by name."""
    return tuple(sorted(set().union(*classes)))


def _columns(file: Path) -> tuple[list[int | None], bool, str] | None:
    """Where each of `COLUMNS` and `SIZES` is, whether there is a header, and what parts cells; None if it is
    another table."""
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        line = lines.readline(MAX_LINE)
    for delimiter in DELIMITERS:
        try:
            cells = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            return None
        if found := _places(cells, delimiter):
            return *found, delimiter
    return None


def _places(first: list[str], delimiter: str) -> tuple[list[int | None], bool] | None:
    """As `_columns`, of the cells of the first line."""
    cells = [cell.strip().lower() for cell in first]
    names = [_ALIASES.get(cell, cell) for cell in cells]
    if all(column in names for column in COLUMNS):
        sizes = [names.index(column) if column in names else None for column in SIZES]
        return [*(names.index(column) for column in COLUMNS), *sizes], True
    if len(cells) == len(COLUMNS) and all(_number_or_empty(cell, delimiter) for cell in cells[1:5]):
        return [*range(len(COLUMNS)), None, None], False
    return None


def _number_or_empty(text: str, delimiter: str) -> bool:
    try:
        _number(text or "0", delimiter)
    except ValueError:
        return False
    return True


def _number(text: str, delimiter: str) -> float:
    """Raises ValueError where it is none. Where commas part no cells, one is the decimal point."""
    return float(text if delimiter == "," else text.replace(",", "."))
