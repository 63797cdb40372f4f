"""YOLO: a txt in `labels/` for a photo in `images/`, a line a box: `class cx cy w h`, relative."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
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
    inside,
    ordinary,
    read_text,
    split_folders,
)

NAMES = "classes.txt"
YAML = (".yaml", ".yml")
# What a yaml may say of where photos are: folders, or texts that list them.
SPLITS = "train", "val", "test"
join_classes = coco.join_classes


@dataclasses.dataclass
class Place:
    """Where labels are, and the photos that a list takes of those beside them; None for all."""

    labels: Path
    listed: frozenset[str] | None = None


def find(folder: Path, file: Path | None = None) -> list[Source]:
    """Sources for `labels/`, `labels/<split>/`, `<split>/labels/` or, beside the photos, `folder`.

    The last needs a `classes.txt` there, as LabelImg writes it. Where a yaml (`file`, or the first that does)
    says which folders, or which lists of photos, are train, val and test, it is taken at its word.

    Raises:
        FileNotFoundError: a list names a photo that is not there.
    """
    sources = []
    labels, images = folder / "labels", folder / "images"
    if _label_files(labels):
        inner = [place for place in sorted(labels.iterdir()) if place.is_dir() and place.name[0] != "."]
        if ordinary(labels, ".txt") in ([], [labels / NAMES]):
            sources = [_source(folder, place, images / place.name, place.name) for place in inner]
        else:
            sources = [_source(folder, labels, images, "all")]
    for place in split_folders(folder):
        sources.append(_source(folder, place / "labels", place / "images", place.name))
    if not sources and (folder / NAMES).is_file() and any(map(_has_photo, ordinary(folder, ".txt"))):
        sources = [_source(folder, folder, folder, "all")]
    sources = [source for source in sources if source is not None]
    if not sources:
        return sources
    given = file is not None and file.suffix in YAML
    # Others, such as a training's settings, say nothing of splits.
    for yaml in [file] if given else _yaml_files(folder):
        said = _yaml(yaml)
        if isinstance(said, dict) and any(split in said for split in SPLITS):
            return _as_said(sources, said, yaml, folder)
    return sources


def _as_said(sources: list[Source], said: dict, file: Path, folder: Path) -> list[Source]:
    """The sources by the names that a yaml gives their folders; or one of all photos, by its lists."""
    entries = {
        split: found for split in SPLITS if (found := _entries(said, split, file, folder))
    }
    if not entries:
        return sources
    lists = {split: [place for place in found if place.is_file()] for split, found in entries.items()}
    if len(sources) == 1 and sources[0].split == "all" and any(lists.values()):
        (whole,) = sources
        return [
            dataclasses.replace(whole, split=split, files=list(whole.files), document=dataclasses.replace(
                whole.document, listed=_listed(found, whole.folders[0])
            ))
            for split, found in lists.items() if found
        ]
    # A folder that stands for two splits, as in sets to try things out with, is one here.
    claims = [(os.path.realpath(place), split) for split, found in entries.items() for place in found]
    counts = collections.Counter(place for place, _ in claims)
    names = {place: split for place, split in claims if counts[place] == 1}
    for source in sources:
        source.split = names.get(os.path.realpath(source.folders[0]), source.split)
    return sources


def _entries(said: dict, split: str, file: Path, folder: Path) -> list[Path]:
    """What a yaml says of a split, as far as it is there: it may be of another machine."""
    value = said.get(split)
    found = []
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, str):
            continue
        # Roboflow writes ../train/images of what lies beside the yaml.
        inner = re.sub(r"^(\.\./)+", "", entry.replace("\\", "/"))
        base = said.get("path") if isinstance(said.get("path"), str) else ""
        places = (file.parent / base / entry, folder / entry, folder / inner)
        found += [place for place in places if _lies_in(place, folder) and os.path.exists(place)][:1]
    return found


def _listed(files: list[Path], images: Path) -> frozenset[str]:
    """The photos of lists, a path a line, by their names in the folder of photos."""
    names = set()
    for file in files:
        for number, line in enumerate(read_text(file).splitlines(), 1):
            line = line.strip().replace("\\", "/")
            if not line:
                continue
            # A path of another machine is known by what follows the folder.
            tail = line.rpartition(f"{images.name}/")[2]
            places = [file.parent / line, images / tail]
            found = [place for place in places if _lies_in(place, images) and os.path.isfile(place)]
            if not found:
                raise FileNotFoundError(
                    f"{file}, line {number}: photo {line[:200]!r} is not in {images}; copy it there or take "
                    "out the line"
                )
            path = os.path.normpath(found[0].absolute())
            names.add(os.path.relpath(path, os.path.normpath(images.absolute())).replace(os.sep, "/"))
    return frozenset(names)


def _lies_in(place: Path, folder: Path) -> bool:
    return inside(place.absolute(), folder.absolute())


def from_file(file: Path) -> list[Source]:
    """Sources beside a file that names the classes: a yaml, or `classes.txt`."""
    folder = file.parent.parent if file.parent.name == "labels" else file.parent
    sources = find(folder, file)
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
    labels, images = source.document.labels, source.folders[0]
    if not images.is_dir():
        raise FileNotFoundError(f"{labels}: its photos are not there; they should be in {images}")
    names = _names(source.files[0], source.root)
    files = {_stem(file, labels): file for file in _label_files(labels)}
    photos = photo_.within(images)
    # Disks of macOS and Windows, where sets come from, take A.txt and a.jpg for one name.
    loosely = {stem.casefold(): stem for stem in files.keys() - {_stem(photo, images) for photo in photos}}
    records, used = [], set()
    for photo in photos:
        name = photo.relative_to(images).as_posix()
        stem = _stem(photo, images)
        # Some tools write a.jpg.txt for a.jpg.
        stem = next((each for each in (stem, name, loosely.get(stem.casefold())) if each in files), None)
        used.add(stem)
        if source.document.listed is not None and name not in source.document.listed:
            continue
        records.append(Record(photo=name, file=str(files.get(stem, labels)), image_id=name))
        if stem is not None:
            _read_boxes(records[-1], files[stem], names)
    if labels != images:
        # Whoever looks for the photo of a txt without one will say that it is not there. Beside photos, it
        # may be any text.
        for stem in sorted(files.keys() - used):
            records.append(Record(photo=stem, file=str(files[stem]), image_id=stem))
            _read_boxes(records[-1], files[stem], names)
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
    return Source(canonical_split(split), folder, [(named or files)[0]], [images], document=Place(labels))


def _label_files(folder: Path) -> list[Path]:
    return [file for file in photo_.files_within(folder) if file.suffix == ".txt" and file.name != NAMES]


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
    files = [file for suffix in YAML for file in ordinary(folder, suffix)]
    return sorted(sorted(files), key=lambda file: file.stem not in ("data", "dataset"))


def _yaml_names(file: Path) -> list | dict | None:
    document = _yaml(file)
    return document.get("names") if isinstance(document, dict) else None


def _yaml(file: Path) -> object:
    import yaml

    try:
        return yaml.safe_load(file.read_bytes())
    # It makes dates and numbers of texts that look so, and sets of what has no place in one.
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, RecursionError) as error:
        text = " ".join(str(error).split())[:200]
        raise ValueError(f"{file}: not valid yaml ({text}); mend it or take it away") from error
