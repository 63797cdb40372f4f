"""From what an annotation file says to samples that can be relied on."""

from __future__ import annotations

import os
import warnings

import numpy as np

from kerasdet import photo as photo_
from kerasdet.data.dataset import Dataset, unknown_name
from kerasdet.data.readers.source import Annotations, PhotoFinder, Record, Source
from kerasdet.data.sample import Sample
from kerasdet.names import with_control


def to_dataset(
    annotations: Annotations,
    source: Source,
    classes: tuple[str, ...],
    on_bad_box: str,
    name: str,
) -> Dataset:
    """Checks the records and makes a `Dataset` of them; see `load` for what it raises."""
    records, file = annotations.records, source.files[0]
    if not records:
        raise ValueError(f"{file}: the set is empty, it lists no photos")
    if not classes:
        raise ValueError(
            f"{file}: no class is named in {len(records)} photos; label some objects or say "
            "what they would be with classes=[...]"
        )
    if len(set(classes)) != len(classes):
        raise ValueError(f"{file}: a class occurs twice in {classes}; each must have its own name")
    if (odd := with_control(classes)) is not None:
        raise ValueError(
            f"{file}: the class {odd!r} has a line break or another control character in it; take it out"
        )
    refuse_wrong_unit(annotations)
    finder = PhotoFinder(source)
    paths = [finder.find(record) for record in records]
    _refuse_one_twice(records, paths)
    sizes = np.array([photo_.size_of(path) for path in paths], np.int64)
    _refuse_other_sizes(records, paths, sizes)
    owner = np.repeat(np.arange(len(records)), [len(record.boxes) for record in records])
    boxes = _array([record.boxes for record in records])
    labels = _labels(records, classes)
    ignore = _array([record.ignore for record in records])
    ignore_owner = np.repeat(np.arange(len(records)), [len(record.ignore) for record in records])
    if annotations.relative:
        boxes *= np.tile(sizes[owner], 2)
        ignore *= np.tile(sizes[ignore_owner], 2)
    clipped = _clip(boxes, sizes[owner])
    keep = _check(boxes, clipped, sizes, records, owner, on_bad_box)
    parts, weights = _parts(annotations, sizes[owner])
    _refuse_unsaid(ignore, records, ignore_owner)
    ignore = _clip(ignore, sizes[ignore_owner])
    ignore_keep = _has_area(ignore)

    def rows(array: np.ndarray, kept: np.ndarray, owners: np.ndarray) -> list[np.ndarray]:
        return np.split(array[kept], np.searchsorted(owners[kept], np.arange(1, len(records))))

    outlined = any(any(record.masks) for record in records)
    masks = np.empty(len(boxes), object)
    for row, outline in enumerate(o for r in records for o in (r.masks or [()] * len(r.boxes))):
        masks[row] = outline
    columns = zip(
        records,
        paths,
        sizes.tolist(),
        rows(clipped, keep, owner),
        rows(labels, keep, owner),
        rows(ignore, ignore_keep, ignore_owner),
        rows(parts, keep, owner),
        rows(weights, keep, owner),
        rows(masks, keep, owner),
        strict=True,
    )
    samples = [
        Sample(
            path=path,
            boxes=b.astype(np.float32),
            labels=n,
            ignore=i.astype(np.float32),
            parts=p,
            part_weights=w,
            masks=tuple(m) if outlined else (),
            width=size[0],
            height=size[1],
            image_id=record.image_id,
        )
        for record, path, size, b, n, i, p, w, m in columns
    ]
    return Dataset(samples, classes, annotations.parts, name, source.root)


def refuse_wrong_unit(annotations: Annotations) -> None:
    """Raises ValueError if all boxes look like fractions in a format in pixels, or the other way round."""
    boxes = _array([record.boxes for record in annotations.records])
    if not len(boxes):
        return
    record = next(record for record in annotations.records if record.boxes)
    x1, y1, x2, y2 = boxes[0].tolist()
    if annotations.relative and np.all(boxes[:, 2:] - boxes[:, :2] > 1):
        raise ValueError(
            f"{record.file}: all {len(boxes)} boxes are larger than their photos, such as width "
            f"{x2 - x1:g} and height {y2 - y1:g} of image {record.photo!r}: they look like pixels; divide x "
            "by the photo's width and y by its height, this format is in fractions"
        )
    if not annotations.relative and np.all(boxes >= 0) and np.all(boxes <= 1):
        raise ValueError(
            f"{record.file}: all {len(boxes)} boxes lie within 0..1, such as "
            f"{[x1, y1, x2, y2]} of image {record.photo!r}: they look relative; multiply x by the "
            "photo's width and y by its height, this format is in pixels"
        )


def _refuse_one_twice(records: list[Record], paths: list[str]) -> None:
    """Raises ValueError where two records are of one photo: each lacks the other's objects."""
    seen: dict[str, Record] = {}
    for record, path in zip(records, paths, strict=True):
        other = seen.setdefault(path, record)
        if other is not record:
            files = " and ".join(dict.fromkeys((other.file, record.file)))
            raise ValueError(
                f"{files}: images {other.photo!r} and {record.photo!r} are one photo, {path}: the objects of "
                "each would be background in the other; write all of them with one image, or let "
                "`kerasdet data doctor` write a copy with the first"
            )


def _refuse_other_sizes(records: list[Record], paths: list[str], sizes: np.ndarray) -> None:
    """Raises ValueError where an annotation speaks of a photo of another size: its boxes lie elsewhere."""
    written = np.array([(record.width, record.height) for record in records], np.int64)
    wrong = np.flatnonzero((written > 0).all(1) & (written != sizes).any(1))
    if not len(wrong):
        return
    first = wrong[0]
    record, (width, height), size = records[first], written[first], tuple(sizes[first])
    turned = " once turned upright, as the camera's note in it says" if size == (height, width) else ""
    others = f" (and {len(wrong) - 1} photos more)" if len(wrong) > 1 else ""
    raise ValueError(
        f"{record.file}: image {record.photo!r} is written as {width} x {height}, and {paths[first]} has "
        f"{size[0]} x {size[1]}{turned}{others}, so its boxes may lie elsewhere: `kerasdet data doctor` names"
        " all such photos and writes a copy without them; if the boxes are right, take the sizes out"
    )


def bad_box(box, width: int, height: int) -> str | None:
    """Why an xyxy box in pixels is impossible on a photo of that size; None where it is not."""
    x1, y1, x2, y2 = box
    if not np.isfinite(box).all():
        return "not finite numbers"
    if x2 <= x1 or y2 <= y1:
        return f"no area: width {x2 - x1:g}, height {y2 - y1:g}"
    if min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0):
        return f"outside of the photo, which is {width} x {height}"
    return None


def _array(rows: list[list]) -> np.ndarray:
    """All rows' boxes as one (n, 4) float64 array."""
    return np.array([box for row in rows for box in row], np.float64).reshape(-1, 4)


def _has_area(boxes: np.ndarray) -> np.ndarray:
    """Whether each box is wider and higher than 0; False for NaN."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def _clip(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(n, 4) xyxy boxes cut at the edges of photos of (n, 2) width and height; NaN stays."""
    return np.clip(boxes, 0, np.concatenate([sizes, sizes], axis=1))


def _labels(records: list[Record], classes: tuple[str, ...]) -> np.ndarray:
    index = {name: position for position, name in enumerate(classes)}
    try:
        return np.array([index[name] for r in records for name in r.names], np.int32)
    except KeyError as error:
        unknown = error.args[0]
        record = next(record for record in records if unknown in record.names)
        where = f"{record.file}: image {record.photo!r}"
        raise ValueError(
            unknown_name("class", unknown, classes, where)
            + "; name it in classes=[...], or load without and use .select(...)"
        ) from None


def _check(
    boxes: np.ndarray,
    clipped: np.ndarray,
    sizes: np.ndarray,
    records: list[Record],
    owner: np.ndarray,
    on_bad_box: str,
) -> np.ndarray:
    """(n,) bool, which boxes to keep. Raises at the first bad one if that is asked for."""
    good = np.isfinite(boxes).all(axis=1) & _has_area(boxes) & _has_area(clipped)
    bad = np.flatnonzero(~good)
    if not len(bad):
        return good
    first = int(bad[0])
    record = records[owner[first]]
    reason = bad_box(boxes[first], *sizes[owner[first]])
    position = first - int(np.searchsorted(owner, owner[first]))
    text = (
        f"{os.path.basename(record.file)}: image {record.photo!r} box {position} is "
        f"{boxes[first].tolist()} as xyxy ({reason})"
    )
    if on_bad_box == "error":
        raise ValueError(
            f'{text}; fix it, load with on_bad_box="drop", or let `kerasdet data doctor` write a clean copy'
        )
    count = f"{len(bad)} bad {'box' if len(bad) == 1 else 'boxes'} of {len(boxes)}"
    warnings.warn(f"dropped {count}; the first: {text}", stacklevel=5)
    return good


def _refuse_unsaid(ignore: np.ndarray, records: list[Record], owner: np.ndarray) -> None:
    """Raises ValueError at an ignore region that is not finite: where it is, nobody knows."""
    bad = np.flatnonzero(~np.isfinite(ignore).all(axis=1))
    if len(bad):
        record = records[owner[bad[0]]]
        raise ValueError(
            f"{record.file}: image {record.photo!r} has an ignore region {ignore[bad[0]].tolist()} as xyxy "
            "(not finite numbers); fix it or take it out"
        )


def _parts(annotations: Annotations, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Part boxes (n, P, 4) and weights (n, P), both float32; weight 0 where nothing is visible."""
    count = len(annotations.parts)
    if not count:
        return np.zeros((len(sizes), 0, 4), np.float32), np.zeros((len(sizes), 0), np.float32)
    nothing = [np.nan] * 4
    rows = [
        [box or nothing for box in row] for record in annotations.records for row in record.parts
    ]
    boxes = np.array(rows, np.float64).reshape(-1, count, 4)
    for column in range(count):
        boxes[:, column] = _clip(boxes[:, column], sizes)
    weights = (boxes[..., 2] > boxes[..., 0]) & (boxes[..., 3] > boxes[..., 1])
    boxes[~weights] = 0
    return boxes.astype(np.float32), weights.astype(np.float32)
