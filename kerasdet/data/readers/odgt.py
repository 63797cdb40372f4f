"""ODGT, the format of CrowdHuman: one json object a line, a photo with its people."""

from __future__ import annotations

import json
from pathlib import Path

from kerasdet.data.readers.source import Annotations, Record, Source, find_files, read_text


def find(folder: Path) -> list[Source]:
    """Sources for the `.odgt` files in `folder`."""
    return find_files(folder, ".odgt")


def read(source: Source) -> Annotations:
    """The photos of one file, with `fbox` (full body) as box and `hbox` as part "head".

    What is tagged "mask" or has `extra.ignore` becomes an ignore region; a head with
    `head_attr.ignore` (or none) gets weight 0.

    Raises:
        ValueError: a line that is not json, or an object without the fields above.
    """
    file = source.files[0]
    records, tags, heads = [], set(), False
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            photo = str(entry["ID"])
            record = Record(photo=photo, file=str(file), image_id=photo)
            for thing in entry.get("gtboxes", ()):
                box = _xyxy(thing["fbox"])
                if thing["tag"] == "mask" or thing.get("extra", {}).get("ignore") == 1:
                    record.ignore.append(box)
                    continue
                tag = str(thing["tag"])
                tags.add(tag)
                head = None
                if "hbox" in thing and thing.get("head_attr", {}).get("ignore") != 1:
                    head = _xyxy(thing["hbox"])
                    heads = True
                record.boxes.append(box)
                record.names.append(tag)
                record.parts.append([head])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(
                f"{file}, line {number}: not an ODGT photo ({type(error).__name__}: {error}); "
                'write {"ID": ..., "gtboxes": [{"tag": "person", "fbox": [x, y, w, h]}]}'
            ) from error
        records.append(record)
    if not heads:
        for record in records:
            record.parts = []
    return Annotations(records, dict.fromkeys(tags), ("head",) if heads else ())


def join_classes(classes: list[dict[str, object]]) -> tuple[str, ...]:
    """The union over the splits, by name."""
    # A set of empty photos is still one of persons: that is what the format is for.
    return tuple(sorted(set().union(*classes))) or ("person",)


def _xyxy(box: list) -> list:
    x, y, width, height = map(float, box)
    return [x, y, x + width, y + height]
