"""Where annotations and their photos lie, and what a reader hands on before it is checked."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

SPLITS = {
    "train": "train",
    "training": "train",
    "trainval": "trainval",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "minival": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".JPG", ".JPEG", ".PNG")
# Of a photo in pixels; no annotation means more.
MAX_SIDE = 10**6
# Bytes of a file's or folder's name, on all systems in use.
MAX_NAME = 255
_PHOTO_FOLDERS = ("images", "Images", "JPEGImages", "photos", "img")


@dataclasses.dataclass
class Source:
    """The annotation files of one split.

    Attributes:
        split: name of the split.
        root: folder that photos must lie in.
        files: annotation files.
        folders: where photos are looked for, in this order.
        document: the parsed file, or whatever else recognising it already meant finding out.
    """

    split: str
    root: Path
    files: list[Path]
    folders: list[Path]
    document: object = None


@dataclasses.dataclass
class Record:
    """One photo as its annotation says, unchecked. Boxes are xyxy lists in pixels.

    Attributes:
        photo: name as written; `spare` is a second name to try, such as the xml file's own.
        file: annotation file, for messages.
        parts: one row an object, one box (or None) a part.
        masks: one row an object, its polygons, see `Sample`.
    """

    photo: str
    file: str
    image_id: int | str
    boxes: list = dataclasses.field(default_factory=list)
    names: list[str] = dataclasses.field(default_factory=list)
    ignore: list = dataclasses.field(default_factory=list)
    parts: list = dataclasses.field(default_factory=list)
    masks: list = dataclasses.field(default_factory=list)
    width: int = 0
    height: int = 0
    spare: str | None = None


def read_text(file: Path) -> str:
    """The text of an annotation file. Raises ValueError where it is none."""
    try:
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not text in UTF-8 ({error}); save it so") from error


def pixels(value) -> int:
    """A photo's side as an annotation says it, 0 where it does not. Raises ValueError for what is none."""
    try:
        side = int(float(value or 0))
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{str(value)[:60]!r} is no number of pixels") from error
    if side > MAX_SIDE:
        raise ValueError(f"{side} is more pixels than a photo has")
    return max(0, side)


def pixels_if_said(value) -> int:
    """As `pixels`, but 0 for what is none: some tools write no size, or anything."""
    try:
        return pixels(value)
    except ValueError:
        return 0


def inside(path: str | os.PathLike, root: str | os.PathLike) -> bool:
    """Whether a path, which may have `..` in it, stays in a folder; both absolute.

    Lexical on purpose: a linked folder, or the linked photos of `kerasdet data convert --link`, are the
    user's own choice, while a path that an annotation file brings along must stay in the set's folder.
    """
    return os.path.normpath(path).startswith(os.path.join(root, ""))


def is_name(text: str) -> bool:
    """Whether a text can be the name of a file."""
    try:
        parts = os.fsencode(text).split(b"/")
    except UnicodeEncodeError:  # half of a character, which json can write
        return False
    return "\0" not in text and max(map(len, parts)) <= MAX_NAME


@dataclasses.dataclass
class Annotations:
    """What a reader read: photos, the classes named (name -> sort key) and the parts' names.

    Where `relative`, the records' boxes and regions are fractions of the photo's width and height.
    """

    records: list[Record]
    classes: dict[str, object]
    parts: tuple[str, ...] = ()
    relative: bool = False


def canonical_split(name: str) -> str:
    """The split that a file or folder name speaks of: "train" for "instances_train2017"."""
    for token in re.split(r"[^a-z]+", name.lower()):
        if token in SPLITS:
            return SPLITS[token]
    return name


def root_of(folder: Path) -> Path:
    """The set's folder, given the one that holds the annotation files."""
    return folder.parent if folder.name.lower() == "annotations" else folder


def photo_folders(root: Path, beside: Path, name: str) -> list[Path]:
    """Folders under `root` where the photos of the annotations called `name` may be."""
    # "instances_train2017" has its photos in "train2017" or "train".
    inner = {name, name.split("_")[-1], canonical_split(name)}
    folders = [beside, root]
    folders += [base / n for n in sorted(inner) for base in (root, root / "images")]
    folders += [base / n for n in _PHOTO_FOLDERS for base in (root, beside)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def split_folders(root: Path) -> list[Path]:
    """Sub-folders of `root` that are named as splits."""
    entries = sorted(entry for entry in root.iterdir() if entry.is_dir())
    return [entry for entry in entries if canonical_split(entry.name) in SPLITS.values()]


def find_files(folder: Path, suffix: str) -> list[Source]:
    """One source for each file with `suffix` in `folder`, `annotations/` and the splits' folders.

    In a split's folder the folder names the split, elsewhere the file does.
    """
    sources = []
    for place in dict.fromkeys([folder, *_annotation_folders(folder)]):
        root = root_of(place) if place == folder else folder
        for file in ordinary(place, suffix):
            folders = photo_folders(root, place, file.stem)
            sources.append(Source(canonical_split(file.stem), root, [file], folders))
    for place in split_folders(folder):
        for file in ordinary(place, suffix):
            folders = photo_folders(folder, place, place.name)
            sources.append(Source(canonical_split(place.name), folder, [file], folders))
    return sources


def ordinary(folder: Path, suffix: str) -> list[Path]:
    """Files of a folder, not its folders and pipes, nor what is hidden, see `photo.files_within`."""
    files = (file for file in folder.glob(f"*{suffix}") if not file.name.startswith("."))
    return sorted(file for file in files if file.is_file())


def _annotation_folders(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.name.lower() == "annotations"]


class PhotoFinder:
    """Finds annotated photos in a source's folders, reading each folder's list only once."""

    def __init__(self, source: Source):
        self.root = os.path.abspath(source.root)
        self.folders = [os.path.abspath(folder) for folder in source.folders]
        self._listed: dict[str, frozenset[str]] = {}

    def find(self, record: Record) -> str:
        """The photo's file.

        Raises:
            ValueError: the name leads out of the set's folder.
            FileNotFoundError: no such photo in any of the folders.
        """
        if not is_name(record.photo):
            raise ValueError(
                f"{record.file}: photo {record.photo[:60]!r} is no name of a file; write it as it is called"
            )
        # The last for what was written on Windows.
        names = [record.photo, record.spare, record.photo.replace("\\", "/")]
        # Where no list has it the disk is asked: macOS' and Windows' take names in other letters too.
        for exists in (self._is_listed, os.path.isfile):
            for path in self._places(dict.fromkeys(filter(None, names))):
                if exists(path):
                    return path
        if not inside(os.path.join(self.folders[0], record.photo), self.root):
            raise ValueError(
                f"{record.file}: photo {record.photo!r} lies outside of {self.root}; write paths "
                "relative to the photos' folder"
            )
        folders = ", ".join(self.folders)
        raise FileNotFoundError(
            f"{record.file}: photo {record.photo!r} is not there; looked in {folders}. "
            "Copy it there or take it out of the annotations"
        )

    def _places(self, names):
        """Where a photo of one of these names may be, within the set's folder, the likeliest first."""
        for name in names:
            for folder in self.folders:
                path = os.path.normpath(os.path.join(folder, name))
                if inside(path, self.root):
                    yield from (path + suffix for suffix in ("", *PHOTO_SUFFIXES))

    def _is_listed(self, path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(folder))
            except OSError:
                self._listed[folder] = frozenset()
        return name in self._listed[folder]
