"""Readers of annotated photo sets: one file a format, and `load`, which recognises the format."""

from __future__ import annotations

import collections
import dataclasses
import os
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from kerasdet.data.dataset import Dataset, unknown_name
from kerasdet.data.readers import coco, csv, odgt, tfds, voc, wider_face, yolo
from kerasdet.data.readers.checks import to_dataset
from kerasdet.data.readers.source import Annotations, Source, canonical_split, photo_folders, root_of

FORMATS = {
    "COCO json": coco,
    "ODGT": odgt,
    "PASCAL VOC xml": voc,
    "CSV": csv,
    "YOLO txt": yolo,
    "WIDER FACE txt": wider_face,
}
# Sets by name, "tfds:voc/2007"; not looked for in folders.
TFDS = "TensorFlow Datasets"
_BY_SUFFIX = {".json": coco, ".odgt": odgt, ".xml": voc, ".csv": csv, ".yaml": yolo, ".yml": yolo}
_LOOKED_FOR = (
    "COCO json (*.json with 'images' and 'annotations', here or in annotations/), "
    "ODGT (*.odgt), PASCAL VOC xml (*.xml beside the photos or in Annotations/), "
    "CSV (*.csv with image,xmin,ymin,xmax,ymax,label), each also in train/, val/, test/; "
    "YOLO txt (labels/ beside images/, with data.yaml or classes.txt), "
    "WIDER FACE txt (*_bbx_gt.txt, here or in wider_face_split/)"
)


@dataclasses.dataclass
class Reading:
    """What the annotation files of a set say, all splits of it, unchecked.

    Attributes:
        path: what was read.
        format: key of `FORMATS`, or `TFDS`.
        sources, annotations: of each split.
        classes: the union over the splits, in the format's order.
        joined: splits left out, since each is some of the others together: "trainval" -> ("train", "val").
    """

    path: str | os.PathLike
    format: str
    sources: dict[str, Source]
    annotations: dict[str, Annotations]
    classes: tuple[str, ...]
    joined: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def dataset(
        self, split: str, on_bad_box: str = "error", classes: Iterable[str] | None = None
    ) -> Dataset:
        """One split, checked; see `load`."""
        path = Path(self.path)
        name = tfds.name_of(self.path) or (path.stem if path.is_file() else path.resolve().name)
        if len(self.sources) > 1:
            name = f"{name}/{split}"
        classes = self.classes if classes is None else tuple(classes)
        return to_dataset(self.annotations[split], self.sources[split], classes, on_bad_box, name)


def load(
    path: str | os.PathLike,
    split: str | None = None,
    on_bad_box: str = "error",
    classes: Iterable[str] | None = None,
) -> Dataset:
    """Reads a folder of photos with boxes, one annotation file, or a set of TensorFlow Datasets.

    COCO json, ODGT (CrowdHuman), PASCAL VOC xml, CSV, YOLO txt (Ultralytics) and WIDER FACE txt
    are recognised by what is there. Boxes become xyxy pixels of the photo, cut at its edges. The
    classes are the union over all splits of the folder, so that every split gives the same label
    the same index: in the order of their ids for COCO and YOLO, by name otherwise. Where something
    is marked as crowd, difficult, invalid or to be ignored, it becomes an ignore region.

    Args:
        path: folder, or annotation file (then the classes come from this file alone); for YOLO, the
            data.yaml or classes.txt; or "tfds:" and a set's name, such as "tfds:voc/2007", see `from_tfds`.
        split: "train", "val", "test" or another that the set has ("valid" and "val2017" count
            as "val"); of TFDS, a slice too. None takes the only split there is,
            or "train" where there are several.
        on_bad_box: "error" raises at the first impossible box (no area, outside of the photo, not
            a number); "drop" leaves such boxes out and warns with their number.
        classes: the classes to use, in this order. None takes those of the set.

    Raises:
        FileNotFoundError: `path` or an annotated photo is not there.
        ValueError: nothing recognised, an unknown split or class, a bad box, an empty set, boxes
            that look relative, or a photo's path that leads out of the folder.
    """
    if on_bad_box not in ("error", "drop"):
        raise ValueError(f"on_bad_box={on_bad_box!r}; choose 'error' or 'drop'")
    if isinstance(classes, str):
        raise ValueError(f"classes={classes!r} is one text; give a list, such as [{classes!r}]")
    if name := tfds.name_of(path):
        # Only this split's photos are written out.
        split = split or _choose(path, tfds.find(name), None)
        return tfds.from_tfds(name, split, None, on_bad_box, classes, progress=sys.stdout.isatty())
    found = _find(path)
    split = _choose(path, found[1], split)
    return _read(path, *found).dataset(split, on_bad_box, classes)


def read_all(path: str | os.PathLike) -> Reading:
    """What the annotation files at `path` say, before anything is checked; each photo once.

    Raises:
        FileNotFoundError: `path` is not there.
        ValueError: nothing recognised, or a file that cannot be read.
    """
    name, sources = _find(path)
    joined = _joined(sources)
    found = _read(path, name, {split: each for split, each in sources.items() if split not in joined})
    found.joined = joined
    return found


def _joined(sources: dict[str, Source]) -> dict[str, tuple[str, ...]]:
    """The splits that are others together, as PASCAL VOC's trainval is, and which."""
    files = {split: set(source.files) for split, source in sources.items()}
    found = {}
    for split, own in files.items():
        parts = [other for other, theirs in files.items() if theirs < own]
        if len(parts) > 1 and set().union(*(files[part] for part in parts)) == own:
            found[split] = tuple(parts)
    return found


def splits(path: str | os.PathLike) -> tuple[str, ...]:
    """Names of the splits that `load` finds at `path`; empty where there are no annotations.

    Raises FileNotFoundError for a missing `path`, ValueError for annotations in several formats.
    """
    if name := tfds.name_of(path):
        return tuple(tfds.find(name))
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder or annotation file")
    if path.is_dir() and not any(reader.find(path) for reader in FORMATS.values()):
        return ()
    return tuple(source.split for source in _recognise(path)[1])


def held_back(known: Collection[str]) -> str | None:
    """Of a set's splits the one to score on: "val", or "test"; None where there is no other beside it."""
    return next((name for name in ("val", "test") if name in known and len(known) > 1), None)


def _find(path: str | os.PathLike) -> tuple[str, dict[str, Source]]:
    """The format at `path`, and each split's source."""
    if name := tfds.name_of(path):
        return TFDS, tfds.find(name)
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such folder or annotation file (looked from {os.getcwd()})"
        )
    name, sources = _recognise(path)
    by_split: dict[str, Source] = {}
    for source in sources:
        if source.split in by_split:
            raise ValueError(
                f"{path}: both {by_split[source.split].files[0]} and {source.files[0]} are split "
                f"{source.split!r}; pass the one that you mean instead of the folder"
            )
        by_split[source.split] = source
    return name, by_split


def _read(path: str | os.PathLike, name: str, sources: dict[str, Source]) -> Reading:
    reader = tfds if name == TFDS else FORMATS[name]
    read = {split: reader.read(source) for split, source in sources.items()}
    classes = reader.join_classes([annotations.classes for annotations in read.values()])
    return Reading(path, name, sources, read, classes)


def _recognise(path: Path) -> tuple[str, list[Source]]:
    """The format of `path` and the sources (one a split) that were found there."""
    if path.is_file():
        reader = _reader_of(path)
        if reader is None:
            raise ValueError(f"{path}: not an annotation file; looked for {_LOOKED_FOR}")
        name = next(name for name, other in FORMATS.items() if other is reader)
        if reader in (yolo, wider_face):
            return name, reader.from_file(path)
        root = root_of(path.parent)
        split = canonical_split(path.stem)
        folders = photo_folders(root, path.parent, path.stem)
        source = Source(split=split, root=root, files=[path], folders=folders)
        return name, [source]
    found = {name: reader.find(path) for name, reader in FORMATS.items()}
    found = {name: sources for name, sources in found.items() if sources}
    if not found:
        raise ValueError(
            f"{path}: no annotations recognised. Looked for {_LOOKED_FOR}. Found {_contents(path)}"
        )
    if len(found) > 1:
        files = {name: sources[0].files[0] for name, sources in found.items()}
        listed = ", ".join(f"{name} ({file})" for name, file in files.items())
        raise ValueError(
            f"{path}: annotations in more than one format: {listed}; pass the file or the folder "
            f"that you mean, such as load('{next(iter(files.values()))}')"
        )
    return next(iter(found.items()))


def _reader_of(file: Path):
    """The reader of an annotation file; None for any other."""
    if file.suffix.lower() == ".txt":
        return yolo if file.name == yolo.NAMES else wider_face if wider_face.is_one(file) else None
    return _BY_SUFFIX.get(file.suffix.lower())


def _choose(path: str | os.PathLike, sources: dict[str, Source], split: str | None) -> str:
    if split is None:
        if len(sources) == 1:
            return next(iter(sources))
        if "train" in sources:
            return "train"
        raise ValueError(
            f"{path}: choose a split: {', '.join(map(repr, sources))}; or, where there is nothing to choose "
            "one by, give the annotation file of one"
        )
    for candidate in (split, canonical_split(split)):
        if candidate in sources:
            return candidate
    raise ValueError(unknown_name("split", split, sources, str(path)))


def _contents(folder: Path) -> str:
    """What is in `folder`, in a few words."""
    kinds: collections.Counter[str] = collections.Counter()
    for entry in os.scandir(folder):
        kinds["folders" if entry.is_dir() else Path(entry.name).suffix or entry.name] += 1
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(8)) or "nothing"
