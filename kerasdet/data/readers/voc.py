"""PASCAL VOC: one xml a photo, beside it or in `Annotations/` with the photos in `JPEGImages/`."""

from __future__ import annotations

import collections
import os
import re
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from kerasdet.data.readers.source import (
    PHOTO_SUFFIXES,
    Annotations,
    Record,
    Source,
    canonical_split,
    inside,
    is_name,
    ordinary,
    photo_folders,
    pixels_if_said,
    read_text,
    root_of,
    split_folders,
)

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def find(folder: Path) -> list[Source]:
    """Sources for `folder`: from the lists of `ImageSets/Main`, the split folders, or all xml.

    The document of one whose photos nothing lists is the folder of which every xml is taken.
    """
    sources = []
    for place in split_folders(folder):
        files = _xml_files(place) or _xml_files(place / "Annotations")
        if files:
            folders = photo_folders(place, files[0].parent, place.name)
            folders += [f for f in photo_folders(folder, folder, place.name) if f not in folders]
            sources.append(Source(canonical_split(place.name), folder, files, folders, document=place))
    for place in (folder, folder / "Annotations", folder / "annotations"):
        files = _xml_files(place)
        if not files:
            continue
        root = root_of(place)
        folders = photo_folders(root, place, root.name)
        lists = ordinary(root / "ImageSets" / "Main", ".txt")
        # "cat_train.txt" lists the photos for one class's classifier, "train.txt" all of them.
        lists = [file for file in lists if "_" not in file.stem]
        for file in lists:
            listed = [_listed(place, _stem(place, line.strip()), file) for line in _lines(file)]
            if not listed:
                raise ValueError(f"{file}: lists no photos; write their names, or take it away")
            sources.append(Source(canonical_split(file.stem), root, listed, folders))
        if not lists:
            sources.append(Source("all", root, files, folders, document=root))
        break
    return sources


def _stem(place: Path, line: str) -> str:
    """The name in a line: "name", or "name 1" with whether the class is in it; names may end so too."""
    return line if os.path.isfile(place / f"{line}.xml") else re.sub(r"\s+-?[01]$", "", line)


def read(source: Source) -> Annotations:
    """The photos of the xml files; objects marked `difficult` become ignore regions.

    A photo without an xml is not part of the set, of which there is a warning where no list says what is; one
    whose xml holds no object is a photo without objects. Coordinates are taken as they are written.

    Raises:
        FileNotFoundError: a list names an xml that is not there.
        ValueError: not VOC xml, or an object without name or box.
    """
    records, names, claimed = [], set(), collections.Counter()
    for file in source.files:
        try:
            root = ElementTree.parse(file).getroot()
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{file}: this annotation is listed in ImageSets/Main but is not there"
            ) from None
        except (ElementTree.ParseError, ValueError, LookupError) as error:  # of an unknown encoding too
            raise ValueError(f"{file}: not valid xml ({error}); is the file complete?") from error
        if root.tag != "annotation":
            raise ValueError(f"{file}: not PASCAL VOC, it is <{root.tag}> and not <annotation>")
        record = Record(
            photo=(root.findtext("filename") or file.stem).strip(),
            spare=file.stem,
            file=str(file),
            image_id=file.stem,
            width=pixels_if_said(root.findtext("size/width")),
            height=pixels_if_said(root.findtext("size/height")),
        )
        for position, thing in enumerate(root.iterfind("object")):
            name = (thing.findtext("name") or "").strip()
            texts = [thing.findtext(f"bndbox/{corner}") for corner in _CORNERS]
            try:
                box = [float(text) for text in texts]
            except (TypeError, ValueError):
                box = None
            if not name or box is None:
                raise ValueError(
                    f"{file}: object {position} has name {name!r} and bndbox {str(texts)[:80]}; it needs "
                    f"a <name> and a <bndbox> with {', '.join(_CORNERS)}"
                )
            if (thing.findtext("difficult") or "0").strip().lower() in ("1", "true", "yes"):
                # A region for every class, as `writers` write it, is one region.
                if box not in record.ignore:
                    record.ignore.append(box)
            else:
                record.boxes.append(box)
                record.names.append(name)
            names.add(name)
        records.append(record)
        claimed[record.photo] += 1
    if source.document is not None:
        _warn_of_others(source, records)
    for record in records:
        # A name that several say is stale, as copies of an xml leave it: the xml's own is not.
        if claimed[record.photo] > 1:
            record.photo, record.spare = record.spare, record.photo
    return Annotations(records, dict.fromkeys(names))


def _warn_of_others(source: Source, records: list[Record]) -> None:
    """Who adds photos without objects means them to be learned from; some tools write no xml of those."""
    known = {Path(name).stem for record in records for name in (record.photo, record.spare)}
    others = sorted(
        photo.name for folder in source.folders if folder.is_relative_to(source.document)
        for photo in ordinary(folder, "") if photo.suffix in PHOTO_SUFFIXES and photo.stem not in known
    )
    if others:
        warnings.warn(
            f"{source.document}: {len(others)} photos have no xml, such as {others[0]}, and are left out; "
            "for a photo without objects write an xml that holds none",
            stacklevel=2,
        )


def join_classes(classes: list[dict[str, object]]) -> tuple[str, ...]:
    """The union over the splits, by name."""
    return tuple(sorted(set().union(*classes)))


def _xml_files(folder: Path) -> list[Path]:
    """The folder's xml files, if the first is an annotation."""
    files = ordinary(folder, ".xml")
    if not files:
        return []
    with files[0].open("rb") as first:
        return files if b"<annotation" in first.read(1000) else []


def _lines(file: Path) -> list[str]:
    return [line for line in read_text(file).splitlines() if line.strip()]


def _listed(place: Path, name: str, file: Path) -> Path:
    """The xml that a list of `ImageSets/Main` names."""
    path = place / f"{name}.xml"
    if not is_name(path.name) or not inside(path.absolute(), place.absolute()):
        raise ValueError(f"{file}: {name[:80]!r} lies outside of {place}; write the names of its xml files")
    return path
