"""What a `.tflite` says of itself: MediaPipe's metadata, `labels.txt` and `kerasdet.json`.

The metadata tables are those of the public TFLite metadata schema, version 1.5
(`metadata_schema.fbs`, file identifier M001); they are written field by field, so that an export
needs no MediaPipe. The two files are appended to the model as an uncompressed zip, where MediaPipe
looks for labels; a LiteRT interpreter ignores what follows the flatbuffer.
"""

from __future__ import annotations

import io
import itertools
import json
import struct
import zipfile
import zlib
from pathlib import Path

from kerasdet import photo
from kerasdet.deploy import flatbuffer
from kerasdet.names import with_control

KEY = "TFLITE_METADATA"
# MediaPipe's ObjectDetector recognises the four outputs by these names, in the file's order.
DETECTION_NAMES = ("location", "category", "score", "number of detections")
_LABELS, ABOUT = "labels.txt", "kerasdet.json"
# Bytes of a text behind the model, and how many files are there. A zip's own words may promise any size.
MAX_TEXT, MAX_FILES = 2**20, 100
# Steps that prepare an image, and numbers of one, that are looked at.
MAX_UNITS, MAX_NUMBERS = 10, 16
# What zipfile raises of a damaged archive; RuntimeError and its kind of encrypted or unknown files in it.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError, struct.error)


def attach(data: bytes, about: dict) -> bytes:
    """Returns the model's bytes with MediaPipe's metadata in them.

    Args:
        data: a `.tflite` file's bytes; what was appended to it is dropped.
        about: `name`, `image_size`, `outputs` and `output_names` are used.
    """
    model = flatbuffer.read(data)
    flatbuffer.set_metadata(model, KEY, _model_metadata(about))
    return flatbuffer.write(model)


def append_files(data: bytes, about: dict) -> bytes:
    """Returns the model's bytes with `labels.txt` and `kerasdet.json` behind them."""
    tail = io.BytesIO()
    tail.write(data)
    with zipfile.ZipFile(tail, "a", zipfile.ZIP_STORED) as archive:
        for name, text in _files(about).items():
            # A fixed date: the same model gives the same bytes.
            archive.writestr(zipfile.ZipInfo(name), text)
    return tail.getvalue()


def write_beside(folder: Path, about: dict) -> None:
    """Writes the two files into a SavedModel's folder."""
    for name, text in _files(about).items():
        (folder / name).write_text(text, encoding="utf-8")


def _files(about: dict) -> dict[str, str]:
    labels = "".join(f"{name}\n" for name in about["classes"])
    return {_LABELS: labels, ABOUT: json.dumps(about, indent=1)}


def read_metadata(path) -> dict:
    """Returns what a `.tflite` file says of itself.

    Args:
        path: a `.tflite` file, ours or another's.

    Returns:
        The content of `kerasdet.json` where the file has one. Otherwise the keys `classes` (a
        tuple, empty where the file has no labels) and `normalization` ((mean, std) or None).

    Raises:
        FileNotFoundError, ValueError: no such file; not a `.tflite` file, or one that is cut off or that has
            something behind it that is not what it should be.
    """
    path = Path(path)
    data = flatbuffer.file_bytes(path)
    files = _read_files(path)
    if ABOUT in files:
        return _read_about(files[ABOUT], f"{path}, {ABOUT}")
    texts = [t for n, t in sorted(files.items()) if n.endswith(".txt") and "label" in n.lower()]
    classes = tuple(texts[0].splitlines()) if texts else ()
    if (odd := with_control(classes)) is not None:
        raise ValueError(f"{path}: a label is {odd[:60]!r}, with a control character; make the file again")
    try:
        normalization = _read_normalization(data)
    except flatbuffer.DAMAGE as error:
        raise ValueError(f"{path}: damaged or cut off; make or fetch the file again") from error
    return {"classes": classes, "normalization": normalization}


def _read_files(path: Path) -> dict[str, str]:
    """The texts in the zip behind a model, by name; nothing is unpacked onto the disk."""
    if not zipfile.is_zipfile(path):
        return {}
    texts = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if len(archive.infolist()) > MAX_FILES:
                raise ValueError(f"{len(archive.infolist())} files, more than {MAX_FILES}")
            for entry in archive.infolist():
                if entry.filename != ABOUT and not entry.filename.endswith(".txt"):
                    continue
                # zipfile unpacks the other kinds whole, however little is read.
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"{entry.filename!r} is packed in a way that is not read here")
                with archive.open(entry) as file:
                    text = file.read(MAX_TEXT + 1)
                if len(text) > MAX_TEXT:
                    raise ValueError(f"{entry.filename!r} is longer than {MAX_TEXT} bytes")
                texts[entry.filename] = text.decode("utf-8")
    except _ZIP_ERRORS as error:
        raise ValueError(
            f"{path}: the zip behind the model cannot be read ({error}); make or fetch the file again"
        ) from error
    return texts


def _read_about(text: str, where: str) -> dict:
    """What `kerasdet.json` says, each entry of the kind that it has to be."""
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not json ({error}); export the model again") from error
    if not isinstance(about, dict):
        raise ValueError(f"{where}: is {str(about)[:60]!r} and not an object; export the model again")
    for key, (right, what) in _KINDS.items():
        if key in about and not right(about[key]):
            raise ValueError(f"{where}: {key} is {str(about[key])[:60]!r}; it has to be {what}")
    missing = [key for key in ("classes", "parts", "outputs") if key not in about]
    if missing:
        raise ValueError(f"{where}: {missing[0]} is missing; export the model again")
    return about | {"classes": tuple(about["classes"]), "parts": tuple(about["parts"])}


def _is_names(value) -> bool:
    texts = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return texts and with_control(value) is None


_NAMES = "a list of names, without control characters"
# Of `kerasdet.json`, what running the file hangs on.
_KINDS = {
    "classes": (_is_names, _NAMES),
    "parts": (_is_names, _NAMES),
    "output_names": (_is_names, _NAMES),
    "image_size": (
        lambda value: type(value) is int and 0 < value <= photo.MAX_SQUARE,
        f"a whole number up to {photo.MAX_SQUARE}",
    ),
    "outputs": (lambda value: value in ("raw", "boxes", "detections"), "raw, boxes or detections"),
    "resize": (lambda value: value in photo.RESIZES, f"one of {', '.join(photo.RESIZES)}"),
    "nms_iou": (lambda value: value is None or type(value) in (int, float) and 0 <= value <= 1,
                "null or a number from 0 to 1"),
    "keep_float": (lambda value: isinstance(value, str), "a regular expression"),
}


# --- Writing -------------------------------------------------------------------------------------


class _Table(dict):
    """A flatbuffer table to be written: field number -> value.

    A value is a str, a _Table, a list of those, an _Int8 (bytes and enums), an int (uint32), or a
    list of ints (uint32) or floats (float32).
    """


class _Int8(int):
    pass


def _model_metadata(about: dict) -> bytes:
    labels = _Table({0: _LABELS, 2: _Int8(3)})  # type 3: names of a tensor's values
    size = about["image_size"]
    image = _Table(
        {
            0: "image",
            1: "RGB photo, values 0-255; the network normalises it itself",
            # content type 2: an image; colour space 1: RGB
            3: _Table({0: _Int8(2), 1: _Table({0: _Int8(1), 1: _Table({0: size, 1: size})})}),
            # process unit 1: normalisation
            4: [_Table({0: _Int8(1), 1: _Table({0: [0.0], 1: [1.0]})})],
        }
    )
    graph = _Table({2: [image]})
    if about["outputs"] == "detections":
        graph[3] = [_detection_output(name, labels) for name in DETECTION_NAMES]
        graph[8] = [_Table({0: "detection_result", 1: list(DETECTION_NAMES)})]
    else:
        graph[3] = [_Table({0: name}) for name in about["output_names"]]
        graph[4] = [labels]
    model = _Table(
        {
            0: about["name"],
            1: f"object detector, outputs: {about['outputs']}; written by kerasdet",
            3: [graph],
            7: "1.5.0",  # the oldest metadata parser that knows all fields used here
        }
    )
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(_put(builder, model), b"M001")
    return bytes(builder.Output())


def _detection_output(name: str, labels: _Table) -> _Table:
    output = _Table({0: name})
    if name == "location":
        # Columns are ymin, xmin, ymax, xmax; `index` says where left, top, right, bottom are.
        # Box type 1: boundaries; coordinate type 0 (left out, the default): ratios.
        output[3] = _Table({0: _Int8(3), 1: _Table({0: [1, 0, 3, 2], 1: _Int8(1)})})
    else:
        output[3] = _Table({0: _Int8(1), 1: _Table()})  # content type 1: a feature
    if name == "category":
        output[6] = [labels]
    return output


def _put(builder, table: _Table) -> int:
    """Writes a table, its children first, and returns its offset."""
    done = {}
    for slot, value in table.items():
        if isinstance(value, str):
            done[slot] = builder.CreateString(value)
        elif isinstance(value, _Table):
            done[slot] = _put(builder, value)
        elif isinstance(value, list):
            done[slot] = _put_list(builder, value)
    builder.StartObject(max(table, default=-1) + 1)
    for slot, value in table.items():
        if slot in done:
            builder.PrependUOffsetTRelativeSlot(slot, done[slot], 0)
        elif isinstance(value, _Int8):
            builder.PrependInt8Slot(slot, int(value), 0)
        else:
            builder.PrependUint32Slot(slot, value, 0)
    return builder.EndObject()


def _put_list(builder, values: list) -> int:
    if isinstance(values[0], int):
        put, values = builder.PrependUint32, values
    elif isinstance(values[0], float):
        put, values = builder.PrependFloat32, values
    elif isinstance(values[0], str):
        put, values = builder.PrependUOffsetTRelative, [builder.CreateString(v) for v in values]
    else:
        put, values = builder.PrependUOffsetTRelative, [_put(builder, v) for v in values]
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        put(value)
    return builder.EndVector()


# --- Reading -------------------------------------------------------------------------------------


def _read_normalization(data: bytes) -> tuple[list[float], list[float]] | None:
    """Returns (mean, std) of the first input, where a file's metadata gives them."""
    import flatbuffers
    from flatbuffers import number_types as kinds
    from flatbuffers.table import Table

    content = flatbuffer.get_metadata(data, KEY)
    if content is None:
        return None

    def field(table, slot):
        return table.Offset(4 + 2 * slot)  # a vtable starts with two 2-byte sizes

    def child(table, slot):
        offset = field(table, slot)
        return offset and Table(table.Bytes, table.Indirect(offset + table.Pos))

    def children(table, slot):
        offset = field(table, slot)
        start = offset and table.Vector(offset)
        for i in range(table.VectorLen(offset) if offset else 0):
            yield Table(table.Bytes, table.Indirect(start + 4 * i))

    def floats(table, slot):
        offset = field(table, slot)
        start = offset and table.Vector(offset)
        count = table.VectorLen(offset) if offset else 0
        return [table.Get(kinds.Float32Flags, start + 4 * i) for i in range(min(count, MAX_NUMBERS))]

    root = Table(content, flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0))
    # The first tensor of the first graph: its image. A hostile file may name one table a million times.
    for graph in itertools.islice(children(root, 3), 1):
        for tensor in itertools.islice(children(graph, 2), 1):
            for unit in itertools.islice(children(tensor, 4), MAX_UNITS):
                kind = field(unit, 0)
                if kind and unit.Get(kinds.Int8Flags, kind + unit.Pos) == 1:
                    options = child(unit, 1)
                    return floats(options, 0), floats(options, 1)
    return None
