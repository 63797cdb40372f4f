"""Readers of annotated photo sets: one file a format, and `load`, which recognises the format."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable
from pathlib import Path

from kerasdet.data.dataset import Dataset, unknown_name
from kerasdet.data.readers import coco, csv, odgt, voc
from kerasdet.data.readers.checks import to_dataset
from kerasdet.data.readers.source import Source, canonical_split, photo_folders, root_of

FORMATS = {"COCO json": coco, "ODGT": odgt, "PASCAL VOC xml": voc, "CSV": csv}
_BY_SUFFIX = {".json": coco, ".odgt": odgt, ".xml": voc, ".csv": csv}
_LOOKED_FOR = (
    "COCO json (*.json with 'images' and 'annotations', here or in annotations/), "
    "ODGT (*.odgt), PASCAL VOC xml (*.xml beside the photos or in Annotations/), "
    "CSV (*.csv with image,xmin,ymin,xmax,ymax,label); each also in train/, val/, test/"
)


def load(
    path: str | os.PathLike,
    split: str | None = None,
    on_bad_box: str = "error",
    classes: Iterable[str] | None = None,
) -> Dataset:
    """Reads a folder of photos with boxes, or one annotation file.

    COCO json, ODGT (CrowdHuman), PASCAL VOC xml and CSV are recognised by what is there. Boxes
    become xyxy pixels of the photo, cut at its edges. The classes are the union over all splits
    of the folder, so that every split gives the same label the same index: in the order of
    their ids for COCO, by name otherwise. Where something is marked as crowd, difficult or to be
    ignored, it becomes an ignore region.

    Args:
        path: folder, or annotation file (then the classes come from this file alone).
        split: "train", "val", "test" or another that the folder has ("valid" and "val2017" count
            as "val"). None takes the only split there is, or "train" where there are several.
        on_bad_box: "error" raises at the first impossible box (no area, outside of the photo, not
            a number); "drop" leaves such boxes out and warns with their number.
        classes: the classes to use, in this order. None takes those of the set.

    Raises:
        FileNotFoundError: `path` or an annotated photo is not there.
        ValueError: nothing recognised, an unknown split or class, a bad box, an empty set, boxes
            that look relative, or a photo's path that leads out of the folder.
    """
    path = Path(path)
    if on_bad_box not in ("error", "drop"):
        raise ValueError(f"on_bad_box={on_bad_box!r}; choose 'error' or 'drop'")
    if isinstance(classes, str):
        raise ValueError(f"classes={classes!r} is one text; give a list, such as [{classes!r}]")
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such folder or annotation file (looked from {os.getcwd()})"
        )
    reader, sources = _recognise(path)
    source = _choose(path, sources, split)
    read = {other.split: reader.read(other) for other in sources}
    if classes is None:
        classes = reader.join_classes([annotations.classes for annotations in read.values()])
    name = path.stem if path.is_file() else path.resolve().name
    if len(sources) > 1:
        name = f"{name}/{source.split}"
    return to_dataset(read[source.split], source, tuple(classes), on_bad_box, name)


def splits(path: str | os.PathLike) -> tuple[str, ...]:
    """Names of the splits that `load` finds at `path`; empty where there are no annotations.

    Raises FileNotFoundError for a missing `path`, ValueError for annotations in several formats.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder or annotation file")
    if path.is_dir() and not any(reader.find(path) for reader in FORMATS.values()):
        return ()
    return tuple(source.split for source in _recognise(path)[1])


def _recognise(path: Path):
    """The reader for `path` and the sources (one a split) that it found there."""
    if path.is_file():
        reader = _BY_SUFFIX.get(path.suffix.lower())
        if reader is None:
            raise ValueError(f"{path}: not an annotation file; looked for {_LOOKED_FOR}")
        root = root_of(path.parent)
        split = canonical_split(path.stem)
        folders = photo_folders(root, path.parent, path.stem)
        source = Source(split=split, root=root, files=[path], folders=folders)
        return reader, [source]
    found = {name: (reader, reader.find(path)) for name, reader in FORMATS.items()}
    found = {name: pair for name, pair in found.items() if pair[1]}
    if not found:
        raise ValueError(
            f"{path}: no annotations recognised. Looked for {_LOOKED_FOR}. Found {_contents(path)}"
        )
    if len(found) > 1:
        files = {name: sources[0].files[0] for name, (_, sources) in found.items()}
        listed = ", ".join(f"{name} ({file})" for name, file in files.items())
        raise ValueError(
            f"{path}: annotations in more than one format: {listed}; pass the file or the folder "
            f"that you mean, such as load('{next(iter(files.values()))}')"
        )
    return next(iter(found.values()))


def _choose(path: Path, sources: list[Source], split: str | None) -> Source:
    by_split: dict[str, Source] = {}
    for source in sources:
        if source.split in by_split:
            raise ValueError(
                f"{path}: both {by_split[source.split].files[0]} and {source.files[0]} are split "
                f"{source.split!r}; pass the one that you mean instead of the folder"
            )
        by_split[source.split] = source
    if split is None:
        if len(sources) == 1:
            return sources[0]
        if "train" in by_split:
            return by_split["train"]
        raise ValueError(f"{path}: choose a split: {', '.join(map(repr, by_split))}")
    for candidate in (split, canonical_split(split)):
        if candidate in by_split:
            return by_split[candidate]
    raise ValueError(unknown_name("split", split, by_split, str(path)))


def _contents(folder: Path) -> str:
    """What is in `folder`, in a few words."""
    kinds: collections.Counter[str] = collections.Counter()
    for entry in os.scandir(folder):
        kinds["folders" if entry.is_dir() else Path(entry.name).suffix or entry.name] += 1
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(8)) or "nothing"
