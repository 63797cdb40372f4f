"""TensorFlow Datasets: public sets by name, their photos written out as files. No TensorFlow needed."""

from __future__ import annotations

import difflib
import os
import sys
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

from kerasdet.data.dataset import Dataset, unknown_name
from kerasdet.data.readers.checks import to_dataset
from kerasdet.data.readers.source import Annotations, Record, Source, canonical_split

# Of a set's name where `load` and the commands take a path.
PREFIX = "tfds:"
# What marks an object as an ignore region, in one set or another.
IGNORED = ("is_difficult", "is_crowd", "invalid")


def from_tfds(
    name: str,
    split: str = "train",
    data_dir: str | os.PathLike | None = None,
    on_bad_box: str = "error",
    classes: Iterable[str] | None = None,
    progress: bool = False,
) -> Dataset:
    """Reads a set of TensorFlow Datasets, such as `from_tfds("voc/2007", split="train")`.

    Downloads and prepares it where that is not done yet. Its photos are written out, once and as they are,
    into `photos/` in the set's own folder. Objects marked difficult, crowd or invalid become ignore regions.
    `load("tfds:voc/2007")` is the same, and `tfds:voc/2007` a DATA of every command.

    Args:
        name: the set's name there, with its configuration and version if it has some.
        split: name or slice, such as "train[:10%]" or "train+validation"; "val" means "validation".
        data_dir: where TFDS keeps its sets; None takes its own choice.
        on_bad_box, classes: see `load`. A set whose objects have no classes, such as "wider_face", needs
            one, such as `classes=["face"]`.
        progress: show a progress bar.

    Raises:
        ImportError: tensorflow-datasets is not installed.
        ValueError: no such set or split, a set without photos with boxes, or one that is prepared as
            something other than array_record, or a bad box.
    """
    classes = None if classes is None else tuple(classes)
    builder = _builder(name, data_dir)
    split = "+".join(_split(name, part, builder.info.splits) for part in split.split("+"))
    source = _source(builder, name, split)
    annotations = _read(source, classes, progress)
    return to_dataset(
        annotations, source, classes or tuple(annotations.classes), on_bad_box, f"{name}/{split}"
    )


def name_of(path: str | os.PathLike) -> str | None:
    """The set's name in "tfds:voc/2007"; None for a file or folder."""
    return path.removeprefix(PREFIX) if isinstance(path, str) and path.startswith(PREFIX) else None


def find(name: str) -> dict[str, Source]:
    """The splits of a set, under the names that `load` has for them. Raises as `from_tfds` does."""
    builder, found = _builder(name, None), {}
    for split in builder.info.splits:
        known = canonical_split(split)
        # "coco" has a "test" and a "test2015".
        found[split if known in found else known] = _source(builder, name, split)
    return found


def read(source: Source) -> Annotations:
    # Who names a set as a path sits at a command line, or would wait without a word otherwise.
    return _read(source, None, progress=sys.stdout.isatty())


def join_classes(classes: list[dict[str, object]]) -> tuple[str, ...]:
    """A set states them once, in their order."""
    return tuple(classes[0])


def _builder(name: str, data_dir):
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError("from_tfds needs tensorflow-datasets; pip install 'kerasdet[tfds]'") from error
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.DatasetNotFoundError:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(name.split("/")[0], known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"there is no TFDS set {name!r}.{hint} They are listed at tensorflow.org/datasets"
        ) from None
    builder.download_and_prepare(file_format="array_record")
    return builder


def _source(builder, name: str, split: str) -> Source:
    """A split whose photos are to be written out."""
    # Each slice has its own: photos are numbered anew in each.
    folder = Path(builder.data_dir) / "photos" / urllib.parse.quote(split, safe="+")
    return Source(
        canonical_split(split), folder, [Path(builder.data_dir)], [folder], document=(builder, name, split)
    )


def _read(source: Source, classes: tuple[str, ...] | None, progress: bool) -> Annotations:
    """Writes a split's photos where they are not there yet, and says what is on them."""
    import tensorflow_datasets as tfds

    builder, name, split = source.document
    image, objects = _features(name, builder.info.features, tfds)
    label, names = _names(name, builder.info.features[objects].feature, tfds, classes)
    try:
        rows = builder.as_data_source(split, decoders={image: tfds.decode.SkipDecoding()})
    except NotImplementedError:
        raise ValueError(
            f"{builder.data_dir}: is prepared as {builder.info.file_format.value}, but array_record is "
            "needed; give another data_dir, or delete it"
        ) from None
    source.root.mkdir(parents=True, exist_ok=True)
    records = []
    if progress:
        from rich.progress import track

        rows = track(rows, f"Writing {name}", transient=True)
    for index, row in enumerate(rows):
        photo = _write_photo(source.root / f"{index:06d}", row[image])
        given = row.get("image/filename", row.get("image/id", photo.name))
        record = Record(
            photo=photo.name, file=f"{name}[{split!r}]",
            image_id=given.decode() if isinstance(given, bytes) else given,
        )
        _add_objects(record, row[objects], label, names)
        records.append(record)
    return Annotations(records, {name: number for number, name in enumerate(names)}, relative=True)


def _features(name: str, features, tfds) -> tuple[str, str]:
    """The names of the feature that holds the photo and of that which holds the objects."""
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    objects = [
        key for key, feature in features.items()
        if isinstance(feature, tfds.features.Sequence)
        and isinstance(feature.feature, tfds.features.FeaturesDict)
        and isinstance(dict(feature.feature).get("bbox"), tfds.features.BBoxFeature)
    ]
    if not images or not objects:
        raise ValueError(f"{name}: holds no photos with boxes, but {', '.join(features)}")
    return images[0], objects[0]


def _split(name: str, split: str, known) -> str:
    base = split.split("[")[0]
    if base in known:
        return split
    for other in known:
        if canonical_split(other) == canonical_split(base):
            return other + split[len(base) :]
    raise ValueError(unknown_name("split", base, known, name))


def _names(name: str, features, tfds, classes) -> tuple[str, tuple[str, ...]]:
    """The feature with the class, "" where there is none, and the classes' names."""
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if labels:
        # VOC has a "pose" too.
        label = "label" if "label" in labels else labels[0]
        return label, tuple(features[label].names)
    if classes is None or len(classes) != 1:
        raise ValueError(f"{name}: its objects have no classes; say what they are, such as classes=['face']")
    return "", classes


def _add_objects(record: Record, things: dict, label: str, names: tuple[str, ...]) -> None:
    flags = [key for key in IGNORED if key in things]
    for row, (y1, x1, y2, x2) in enumerate(things["bbox"]):
        box = [float(x1), float(y1), float(x2), float(y2)]
        if any(things[flag][row] for flag in flags):
            record.ignore.append(box)
        else:
            record.boxes.append(box)
            record.names.append(names[int(things[label][row]) if label else 0])


def _write_photo(stem: Path, data: bytes) -> Path:
    """Writes a photo's bytes, unless they are there."""
    file = stem.with_suffix(".jpg" if data.startswith(b"\xff\xd8") else ".png")
    if not file.exists() or file.stat().st_size != len(data):
        partial = file.with_suffix(".partial")
        partial.write_bytes(data)
        os.replace(partial, file)
    return file
