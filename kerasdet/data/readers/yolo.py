"""YOLO: a txt in `labels/` for a photo in `images/`, a line a box: `class cx cy w h`, relative."""

from __future__ import annotations

import reprlib
from pathlib import Path

from kerasdet import photo as photo_
from kerasdet.data.readers import coco
from kerasdet.data.readers.source import (
    PHOTO_SUFFIXES,
    Annotations,
    Record,
    Source,
    canonical_split,
    read_text,
    split_folders,
)

NAMES = "classes.txt"
YAML = (".yaml", ".yml")
join_classes = coco.join_classes


def find(folder: Path) -> list[Source]:
    """Sources for `labels/`, `labels/<split>/`, `<split>/labels/` or, beside the photos, `folder`.

    The last needs a `classes.txt` there, as LabelImg writes it.
    """
    sources = []
    labels, images = folder / "labels", folder / "images"
    if _label_files(labels):
        inner = [place for place in sorted(labels.iterdir()) if place.is_dir()]
        if list(labels.glob("*.txt")) in ([], [labels / NAMES]):
            sources = [_source(folder, place, images / place.name, place.name) for place in inner]
        else:
            sources = [_source(folder, labels, images, "all")]
    for place in split_folders(folder):
        sources.append(_source(folder, place / "labels", place / "images", place.name))
    if not sources and (folder / NAMES).is_file() and any(map(_has_photo, folder.glob("*.txt"))):
        sources = [_source(folder, folder, folder, "all")]
    return [source for source in sources if source is not None]


def from_file(file: Path) -> list[Source]:
    """Sources beside a file that names the classes: a yaml, or `classes.txt`."""
    folder = file.parent.parent if file.parent.name == "labels" else file.parent
    sources = find(folder)
    if not sources:
        raise ValueError(f"{file}: no labels of photos beside it; there should be {folder / 'labels'}")
    for source in sources:
        source.files[0] = file
    return sources


def read(source: Source) -> Annotations:
    """The photos of one folder; one without a txt, or with an empty one, is a photo without objects.

    Raises:
        FileNotFoundError: there is no folder of photos.
        ValueError: classes without names, or a line that is not a box.
    """
    labels, images = source.document, source.folders[0]
    if not images.is_dir():
        raise FileNotFoundError(f"{labels}: its photos are not there; they should be in {images}")
    names = _names(source.files[0], source.root)
    files = {_stem(file, labels): file for file in _label_files(labels)}
    photos = photo_.within(images)
    records = []
    for photo in photos:
        name = photo.relative_to(images).as_posix()
        file = files.get(_stem(photo, images))
        records.append(Record(photo=name, file=str(file or labels), image_id=name))
        if file is not None:
            _read_boxes(records[-1], file, names)
    if labels != images:
        # Whoever looks for the photo of a txt without one will say that it is not there. Beside photos, it
        # may be any text.
        alone = sorted(files.keys() - {_stem(photo, images) for photo in photos})
        records += [Record(photo=stem, file=str(files[stem]), image_id=stem) for stem in alone]
    return Annotations(records, {name: number for number, name in names.items()}, relative=True)


def _read_boxes(record: Record, file: Path, names: dict[int, str]) -> None:
    for number, line in enumerate(read_text(file).splitlines(), 1):
        cells = line.split()
        if not cells:
            continue
        try:
            label, x, y, width, height = map(float, cells)
        except ValueError:
            raise ValueError(
                f"{file}, line {number}: {line.strip()[:80]!r} is not a box; write class cx cy w h, as "
                "fractions of the photo (polygons and keypoints are not read)"
            ) from None
        if label not in names:
            known = ", ".join(f"{index} {name}" for index, name in names.items())
            raise ValueError(
                f"{file}, line {number}: class {cells[0][:40]} has no name; those that have one: {known}"
            )
        record.boxes.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        record.names.append(names[label])


def _source(folder: Path, labels: Path, images: Path, split: str) -> Source | None:
    files = _label_files(labels)
    if not files:
        return None
    named = [
        place / NAMES for place in (labels, folder / "labels", folder) if (place / NAMES).is_file()
    ]
    named += [file for file in _yaml_files(folder) if _yaml_names(file) is not None]
    return Source(canonical_split(split), folder, [(named or files)[0]], [images], document=labels)


def _label_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*.txt") if file.name != NAMES and file.is_file())


def _has_photo(file: Path) -> bool:
    """Whether there is a photo beside a txt."""
    return any(file.with_suffix(suffix).exists() for suffix in PHOTO_SUFFIXES)


def _stem(file: Path, folder: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


# === Names ===


def _names(file: Path, root: Path) -> dict[int, str]:
    """Number -> name of the classes."""
    if file.suffix in YAML:
        names = _yaml_names(file)
        if names is None:
            raise ValueError(f"{file}: there are no names of classes; write names: [cat, dog]")
        pairs = dict(enumerate(names)) if isinstance(names, list) else names
        try:
            # Lists in lists, which yaml repeats by name, are texts without end.
            if any(isinstance(name, (list, dict, set)) for name in pairs.values()):
                raise TypeError
            return {int(number): str(name) for number, name in pairs.items()}
        except (AttributeError, TypeError, ValueError, OverflowError):
            raise ValueError(
                f"{file}: names is {reprlib.repr(names)[:200]}; write a list, or number: name for each class"
            ) from None
    if file.name != NAMES:
        raise ValueError(
            f"{root}: the classes have no names; write them into {root / NAMES}, one a line, or into "
            "data.yaml as names: [cat, dog]"
        )
    lines = (line.strip() for line in read_text(file).splitlines())
    return dict(enumerate(filter(None, lines)))


def _yaml_files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.suffix in YAML and file.is_file())
    return sorted(files, key=lambda file: file.stem not in ("data", "dataset"))


def _yaml_names(file: Path) -> list | dict | None:
    import yaml

    try:
        document = yaml.safe_load(file.read_bytes())
    # It makes dates and numbers of texts that look so, and sets of what has no place in one.
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{file}: not valid yaml ({text}); mend it or take it away") from error
    return document.get("names") if isinstance(document, dict) else None
