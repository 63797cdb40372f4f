"""Writers of sets: COCO json, VOC xml, YOLO txt, CSV, ODGT and WIDER FACE txt, each as `load` reads it."""

from __future__ import annotations

import collections
import csv
import dataclasses
import json
import os
import re
import shutil
import tempfile
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from kerasdet.data.dataset import Dataset, unknown_name
from kerasdet.data.readers import wider_face
from kerasdet.data.readers.source import SPLITS
from kerasdet.data.sample import Sample, sides

# What each format has a place for, of what not every format has.
HOLDS = {
    "coco": ("ignore", "classes", "fractions", "masks"),
    "voc": ("ignore",),
    "yolo": ("classes", "fractions"),
    "csv": ("fractions",),
    "odgt": ("ignore", "fractions", "head"),
    "wider": ("ignore", "classes"),
}
# Folders of the photos, where they are not in images/<split>/.
_PLACES = {"voc": "JPEGImages", "wider": "WIDER_{}/images"}


def write(
    sets: dict[str, Dataset],
    folder: str | os.PathLike,
    to: str,
    link: bool = False,
    progress: bool = False,
) -> None:
    """Writes a set, all its splits, into a folder of its own.

    The photos are copied into `images/<split>/` (VOC: `JPEGImages/`, WIDER FACE: `WIDER_<split>/images/`);
    where two have one name, the second gets a number. What the format has no place for is left out, and a
    warning says how much that is. An ignore region is for all classes: COCO and VOC, which know only regions
    of a class, get one for each. `load` puts the classes into alphabetical order again for VOC, CSV and ODGT,
    which do not number them.

    Args:
        sets: split -> `Dataset`, with the same classes. The one split of a set without splits
            is called "train".
        folder: must not be there yet, or be empty.
        to: "coco", "voc", "yolo", "csv", "odgt" or "wider".
        link: True puts symbolic links in the place of copies: they take no room, and no longer work
            when the photos or the folder move.
        progress: show a progress bar.

    Raises:
        FileExistsError: there is something in `folder`.
        ValueError: an unknown format, sets that do not belong together, a class "mask" for ODGT, where
            that means an ignore region, or other classes than "face" alone for WIDER FACE.
    """
    folder = Path(folder)
    if to not in HOLDS:
        raise ValueError(unknown_name("format", to, HOLDS))
    refuse_full(folder)
    kinds = {dataset.classes for dataset in sets.values()}
    if len(kinds) != 1 or not all(map(len, sets.values())):
        raise ValueError(
            f"cannot write {', '.join(map(repr, sets.values())) or 'no set'}: a set needs one split or more, "
            "photos in each, and the same classes in all"
        )
    sets = {split: _with_sides(dataset) for split, dataset in sets.items()}
    if to == "wider" and kinds != {("face",)}:
        raise ValueError(
            f"WIDER FACE has faces and no other class, and the set has {', '.join(*kinds)}; join them with "
            "dataset.as_one_class('face'), or write --to coco"
        )
    if to == "odgt" and "mask" in kinds.pop():
        raise ValueError("ODGT reads the class 'mask' as ignore regions; rename it, or write --to coco")
    if len(sets) == 1:
        sets = {split if split in SPLITS.values() else "train": data for split, data in sets.items()}
    # VOC takes "cat_train" for the list of one class.
    sets = {split.replace("_", "-"): data for split, data in sets.items()}
    _warn_of_losses(sets, to)
    names = _photo_names(sets)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written elsewhere and then moved, so that a full disk leaves no half set under the name. An empty folder
    # may be where one stands, or another disk's: it is filled, not replaced.
    there = folder.exists()
    with tempfile.TemporaryDirectory(dir=folder if there else folder.parent) as work:
        unfinished = Path(work) / "set"
        _write_photos(unfinished, sets, names, _PLACES.get(to, "images/{}"), link, progress)
        _WRITERS[to](unfinished, sets, names)
        if there:
            for entry in unfinished.iterdir():
                os.replace(entry, folder / entry.name)
        else:
            os.replace(unfinished, folder)


def refuse_full(folder: str | os.PathLike) -> None:
    """Raises FileExistsError if there is something in `folder`, or it is a file."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not empty; give another folder")


# === Photos ===


def _photo_names(sets: dict[str, Dataset]) -> dict[str, list[str]]:
    """File names of each split's photos, without spaces, no stem twice in all of them, not even in capitals:
    to the disks of macOS and Windows a.jpg and A.jpg are one."""
    taken: set[str] = set()
    copies: collections.Counter = collections.Counter()
    names: dict[str, list[str]] = {}
    for split, dataset in sets.items():
        names[split] = []
        for sample in dataset:
            stem, suffix = os.path.splitext(re.sub(r"\s+", "_", os.path.basename(sample.path)))
            name, key = stem, stem.casefold()
            while name.casefold() in taken:
                copies[key] += 1
                name = f"{stem}_{copies[key] + 1}"
            taken.add(name.casefold())
            names[split].append(name + suffix)
    return names


def _write_photos(folder: Path, sets, names, place: str, link: bool, progress: bool) -> None:
    pairs = []
    for split, dataset in sets.items():
        inside = folder / place.format(split)
        inside.mkdir(parents=True, exist_ok=True)
        pairs += [(s.path, inside / name) for s, name in zip(dataset, names[split], strict=True)]
    if progress:
        from rich.progress import track

        pairs = track(pairs, description="Linking" if link else "Copying", transient=True)
    for source, target in pairs:
        if link:
            target.symlink_to(os.path.abspath(source))
        else:
            shutil.copyfile(source, target)


# === What is lost ===


def _warn_of_losses(sets: dict[str, Dataset], to: str) -> None:
    samples = [sample for dataset in sets.values() for sample in dataset]
    classes = next(iter(sets.values())).classes
    lost = []
    regions = sum(len(sample.ignore) for sample in samples)
    if regions and "ignore" not in HOLDS[to]:
        lost.append(f"ignore regions left out: {regions}; what is there counts as background")
    counts = collections.Counter()
    for dataset in sets.values():
        for sample in dataset:
            counts.update(dict(zip(dataset.parts, sample.part_weights.astype(int).sum(0), strict=True)))
    for part, count in counts.items():
        if part not in HOLDS[to]:
            lost.append(f"boxes of the part {part!r} left out: {count}")
    outlines = sum(bool(outline) for sample in samples for outline in sample.masks)
    if outlines and "masks" not in HOLDS[to]:
        lost.append(f"outlines of objects left out: {outlines}")
    if "classes" not in HOLDS[to]:
        used = {int(label) for sample in samples for label in sample.labels}
        unused = [name for label, name in enumerate(classes) if label not in used]
        # A region for every class names every class.
        if unused and not (to == "voc" and regions):
            lost.append(f"classes left out, since nothing is labelled so: {', '.join(unused)}")
    if "fractions" not in HOLDS[to]:
        boxes = np.concatenate([np.concatenate([sample.boxes, sample.ignore]) for sample in samples])
        moved = int((boxes != np.round(boxes)).any(1).sum())
        if moved:
            lost.append(f"boxes rounded to whole pixels: {moved} of {len(boxes)}")
    if to == "wider":
        sides = np.concatenate([_whole(sample.boxes, sample) for sample in samples])
        small = int(((sides[:, 2:] - sides[:, :2]).min(1) < wider_face.SMALLEST).sum())
        if small:
            lost.append(f"faces under {wider_face.SMALLEST} px, which are read as ignore regions: {small}")
    for text in lost:
        warnings.warn(f"{to}: {text}", stacklevel=3)


# === Formats ===


def _write_coco(folder: Path, sets, names) -> None:
    (folder / "annotations").mkdir()
    for split, dataset in sets.items():
        document = dataset.to_coco()
        for image, name in zip(document["images"], names[split], strict=True):
            image["file_name"] = name
        objects = (row for row in document["annotations"] if not row["iscrowd"])
        for outline in (o for sample in dataset for o in (sample.masks or [()] * len(sample.boxes))):
            row = next(objects)
            if outline:
                row["segmentation"] = [points.astype(float).ravel().tolist() for points in outline]
        file = folder / "annotations" / f"instances_{split}.json"
        file.write_text(json.dumps(document), encoding="utf-8")


def _with_sides(dataset: Dataset) -> Dataset:
    """The set with the sides of all photos, which an annotation, or a sample made by hand, need not say."""
    said = ((sample, *sides(sample)) for sample in dataset)
    samples = [dataclasses.replace(sample, width=width, height=height) for sample, width, height in said]
    return Dataset(samples, dataset.classes, dataset.parts, dataset.name, dataset.root)


def _write_voc(folder: Path, sets, names) -> None:
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (folder / "Annotations").mkdir()
    for split, dataset in sets.items():
        stems = [os.path.splitext(name)[0] for name in names[split]]
        (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
        for sample, name, stem in zip(dataset, names[split], stems, strict=True):
            root = ElementTree.Element("annotation")
            ElementTree.SubElement(root, "filename").text = name
            size = ElementTree.SubElement(root, "size")
            for side, value in (("width", sample.width), ("height", sample.height), ("depth", 3)):
                ElementTree.SubElement(size, side).text = str(value)
            for box, class_name in _named(sample, dataset.classes):
                _add_object(root, sample, box, class_name, difficult=0)
            for box in sample.ignore:
                for class_name in dataset.classes:
                    _add_object(root, sample, box, class_name, difficult=1)
            ElementTree.indent(root)
            tree = ElementTree.ElementTree(root)
            tree.write(folder / "Annotations" / f"{stem}.xml", encoding="utf-8")


def _add_object(root, sample: Sample, box: np.ndarray, class_name: str, difficult: int) -> None:
    thing = ElementTree.SubElement(root, "object")
    ElementTree.SubElement(thing, "name").text = class_name
    ElementTree.SubElement(thing, "difficult").text = str(difficult)
    place = ElementTree.SubElement(thing, "bndbox")
    for corner, value in zip(("xmin", "ymin", "xmax", "ymax"), _whole(box, sample), strict=True):
        ElementTree.SubElement(place, corner).text = str(int(value))


def _whole(boxes: np.ndarray, sample: Sample) -> np.ndarray:
    """Boxes (..., 4) in whole pixels; one thinner than a pixel still has an area, inside of the photo."""
    low = np.minimum(np.round(boxes[..., :2]), (sample.width - 1, sample.height - 1))
    return np.concatenate([low, np.maximum(np.round(boxes[..., 2:]), low + 1)], axis=-1)


def _write_yolo(folder: Path, sets, names) -> None:
    import yaml

    for split, dataset in sets.items():
        labels = folder / "labels" / split
        labels.mkdir(parents=True)
        for sample, name in zip(dataset, names[split], strict=True):
            lines = []
            sides = np.array([sample.width, sample.height], np.float64)
            for box, label in zip(sample.boxes.astype(np.float64), sample.labels, strict=True):
                middle, extent = (box[:2] + box[2:]) / 2 / sides, (box[2:] - box[:2]) / sides
                numbers = " ".join(f"{value:.8f}" for value in (*middle, *extent))
                lines.append(f"{label} {numbers}\n")
            file = labels / (os.path.splitext(name)[0] + ".txt")
            file.write_text("".join(lines), encoding="utf-8")
    document = {split: f"images/{split}" for split in sets}
    document["names"] = dict(enumerate(next(iter(sets.values())).classes))
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def _write_csv(folder: Path, sets, names) -> None:
    for split, dataset in sets.items():
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as lines:
            rows = csv.writer(lines)
            rows.writerow(("image", "xmin", "ymin", "xmax", "ymax", "label"))
            for sample, name in zip(dataset, names[split], strict=True):
                if not len(sample.boxes):
                    rows.writerow((name, "", "", "", "", ""))
                for box, class_name in _named(sample, dataset.classes):
                    numbers = (np.format_float_positional(value, trim="-") for value in box)
                    rows.writerow((name, *numbers, class_name))


def _write_odgt(folder: Path, sets, names) -> None:
    for split, dataset in sets.items():
        head = dataset.parts.index("head") if "head" in dataset.parts else None
        with (folder / f"annotation_{split}.odgt").open("w", encoding="utf-8") as lines:
            for sample, name in zip(dataset, names[split], strict=True):
                things = []
                for row, (box, class_name) in enumerate(_named(sample, dataset.classes)):
                    thing = {"tag": class_name, "fbox": _xywh(box)}
                    if head is not None and sample.part_weights[row, head]:
                        thing["hbox"] = _xywh(sample.parts[row, head])
                    things.append(thing)
                things += [
                    {"tag": "mask", "fbox": _xywh(box), "extra": {"ignore": 1}} for box in sample.ignore
                ]
                # CrowdHuman's ids leave out .jpg.
                entry = {"ID": name.removesuffix(".jpg"), "gtboxes": things}
                lines.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _write_wider(folder: Path, sets, names) -> None:
    (folder / "wider_face_split").mkdir()
    for split, dataset in sets.items():
        lines = []
        for sample, name in zip(dataset, names[split], strict=True):
            lines += [name, str(len(sample.boxes) + len(sample.ignore))]
            for boxes, invalid in ((sample.boxes, 0), (sample.ignore, 1)):
                for x1, y1, x2, y2 in _whole(boxes, sample).astype(int):
                    # blur, expression, illumination, invalid, occlusion, pose
                    lines.append(f"{x1} {y1} {x2 - x1} {y2 - y1} 0 0 0 {invalid} 0 0")
            if lines[-1] == "0":
                lines.append("0 0 0 0 0 0 0 0 0 0")
        file = folder / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


_WRITERS = {
    "coco": _write_coco,
    "voc": _write_voc,
    "yolo": _write_yolo,
    "csv": _write_csv,
    "odgt": _write_odgt,
    "wider": _write_wider,
}


def _named(sample: Sample, classes: tuple[str, ...]) -> Iterable[tuple[np.ndarray, str]]:
    return zip(sample.boxes, (classes[label] for label in sample.labels), strict=True)


def _xywh(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]
