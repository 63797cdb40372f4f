"""COCO json: `images`, `annotations` with xywh boxes, `categories`."""

from __future__ import annotations

import json
import math
import reprlib
import warnings
from pathlib import Path

import numpy as np

from kerasdet import outlines, photo
from kerasdet.data.readers.source import Annotations, PhotoFinder, Record, Source, find_files, pixels

# Of all masks of a file that are unpacked from run lengths, since a few bytes may promise any size: on the
# mean of all objects a photo of 16 megapixels, and of few objects more.
MAX_PIXELS, PIXELS_EACH = 2**34, 2**24
# What COCO's own folder holds of the same photos beside their instances.
_OF_COCO = "captions_", "image_info_", "panoptic_", "person_keypoints_", "stuff_"


def find(folder: Path) -> list[Source]:
    """Sources for the COCO files in `folder`; other json files are passed over."""
    sources = find_files(folder, ".json")
    instances = [s for s in sources if s.files[0].name.startswith("instances_")]
    if instances:
        known = {source.split for source in instances}
        sources = instances + [
            s for s in sources if s.split not in known and not s.files[0].name.startswith(_OF_COCO)
        ]
    found = []
    for source in sources:
        try:
            source.document = _parse(source.files[0])
        except ValueError:
            # A cut set is to be named; settings with comments, or a json a line, are none.
            if source in instances or b'"annotations"' in source.files[0].read_bytes():
                raise
            continue
        if _is_coco(source.document):
            found.append(source)
    return found


def read(source: Source) -> Annotations:
    """The photos of one file; `iscrowd` (and `ignore`) annotations become ignore regions.

    An outline that cannot be read is left out, its box stays, and a warning counts them.

    Raises:
        ValueError: not COCO, a repeated image id, one category id of two names, or an annotation of an
            unknown image or category, or without a box.
    """
    file = source.files[0]
    document = source.document if source.document is not None else _parse(file)
    if not _is_coco(document):
        raise ValueError(f"{file}: not COCO json; it needs 'images' and 'annotations'")
    try:
        categories = {c["id"]: str(c["name"]) for c in document.get("categories", ())}
        order = {name: number for number, name in sorted(categories.items())}
        photos = [
            Record(
                photo=str(image["file_name"]),
                file=str(file),
                image_id=image["id"],
                width=pixels(image.get("width")),
                height=pixels(image.get("height")),
            )
            for image in document["images"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"{file}: an entry of 'images' or 'categories' is incomplete ({type(error).__name__}: "
            f"{error}); images need id and file_name, categories id and name"
        ) from error
    for category in document.get("categories", ()):
        if categories[category["id"]] != str(category["name"]):
            raise ValueError(
                f"{file}: category id {category['id']!r} is both {str(category['name'])[:60]!r} and "
                f"{categories[category['id']][:60]!r}; make it unique"
            )
    records: dict[int | str, Record] = {}
    for record in photos:
        if not isinstance(record.image_id, (int, str)):
            raise ValueError(
                f"{file}: image id {str(record.image_id)[:60]!r} is neither a number nor a text; make it one"
            )
        if record.image_id in records:
            raise ValueError(f"{file}: image id {record.image_id!r} occurs twice; make it unique")
        records[record.image_id] = record
    odd: list[str] = []
    sizes = _Sizes(source, max(MAX_PIXELS, PIXELS_EACH * len(document["annotations"])))
    for position, annotation in enumerate(document["annotations"]):
        if not isinstance(annotation, dict):
            raise ValueError(f"{file}: annotation {position} is {str(annotation)[:60]!r} and not an object")
        where = f"{file}: annotation {str(annotation.get('id'))[:60]}"
        image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
        record = records.get(image_id) if isinstance(image_id, (int, str)) else None
        if record is None:
            raise ValueError(
                f"{where} belongs to image id {str(image_id)[:60]}, which is not among "
                "'images'; remove the annotation or add the image"
            )
        try:
            x, y, width, height = map(float, annotation["bbox"])
            box = [x, y, x + width, y + height]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ValueError(
                f"{where} has bbox {str(annotation.get('bbox'))[:80]}; write [x, y, width, height]"
            ) from None
        if annotation.get("iscrowd") or annotation.get("ignore"):
            # A region for every class, as `Dataset.to_coco` writes it, is one region.
            if box not in record.ignore:
                record.ignore.append(box)
            continue
        name = categories.get(category_id) if isinstance(category_id, (int, float, str)) else None
        if name is None:
            raise ValueError(
                f"{where} has category_id {str(category_id)[:60]}, which is not among "
                f"'categories' {reprlib.repr(categories)}"
            )
        record.boxes.append(box)
        record.names.append(name)
        try:
            record.masks.append(_outline(annotation.get("segmentation"), record, sizes))
        except (TypeError, ValueError, OverflowError) as error:
            record.masks.append(())
            odd.append(f"{where} ({error})")
    if odd:
        warnings.warn(
            f"{len(odd)} objects keep their box and lose their outline, which cannot be read; the first: "
            f"{odd[0]}. Write polygons [[x1, y1, x2, y2, x3, y3, ...]]",
            stacklevel=5,
        )
    return Annotations(list(records.values()), order)


def join_classes(classes: list[dict[str, object]]) -> tuple[str, ...]:
    """The union over the splits, in the order of the category ids."""
    order = {}
    try:
        for split in classes:
            for name, number in split.items():
                order[name] = min(number, order.get(name, number))
        return tuple(sorted(order, key=lambda name: (order[name], name)))
    except TypeError as error:
        raise ValueError(
            f"ids of categories are numbers in one split and texts in another ({error}); make them numbers"
        ) from error


class _Sizes:
    """Photos' heights and widths, and how many pixels of masks may be unpacked.

    A mask is of its photo's size. What a file says of that is no limit: the run lengths of a mask of any size
    are a few bytes.
    """

    def __init__(self, source: Source, most: int):
        self._finder, self._known, self._left = PhotoFinder(source), {}, most

    def of(self, record: Record) -> list[int]:
        """[height, width] of a photo that is there, else as it is written, [0, 0] where it is not."""
        if record.image_id not in self._known:
            try:
                width, height = photo.size_of(self._finder.find(record))
            except (ValueError, FileNotFoundError):  # said by who needs the photo
                width, height = record.width, record.height
            self._known[record.image_id] = [height, width]
        return self._known[record.image_id]

    def spend(self, size: list[int]):
        self._left -= math.prod(size)
        if self._left < 0:
            raise ValueError("masks of more pixels in all than so many objects have")


def _outline(segmentation, record: Record, sizes: _Sizes) -> tuple[np.ndarray, ...]:
    """An object's polygons, or those around its run lengths; errors of many kinds where it has none."""
    if not segmentation:
        return ()
    if isinstance(segmentation, dict):
        size = sizes.of(record)
        if list(segmentation.get("size") or ()) != size:
            raise ValueError(f"its size is not the photo's, {size}")
        sizes.spend(size)
        return outlines.outline_of(outlines.decode(segmentation))
    polygons = [np.array(numbers, np.float32).reshape(-1, 2) for numbers in segmentation]
    if min(len(points) for points in polygons) < 3:
        raise ValueError("a polygon has fewer than 3 corners")
    return tuple(polygons)


def _parse(file: Path) -> object:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:  # a number of too many digits among it
        raise ValueError(f"{file}: not valid json ({error}); is the file complete?") from error


def _is_coco(document: object) -> bool:
    return (
        isinstance(document, dict)
        and isinstance(document.get("images"), list)
        and isinstance(document.get("annotations"), list)
    )
