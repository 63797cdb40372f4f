"""What a stranger may send: sets, photos, `.tflite` and `.keras` files, damaged or made to do harm.

Hypothesis strategies, for `fuzz.py` and the tests. Each starts from something sound, since pure noise is
turned away at the first byte: cut, with bytes changed, or with values put in that no reader expects.
"""

from __future__ import annotations

import copy
import io
import json
import zipfile

import numpy as np
from hypothesis import strategies as st
from PIL import Image

# Where a number, a name or a path stands.
VALUES = [
    0, -1, 1, 10**18, 10**400, 1e308, float("inf"), float("nan"), "", "x", "1e999", "../../etc/passwd",
    "/etc/passwd", "a\0b", "\ud800", "." * 300, None, True, [], {}, [1], {"a": 1}, [[[[]]]],
]
TEXTS = [
    "0", "-1", "1e999", "nan", "inf", "9" * 5000, "../../etc/passwd", "/etc/passwd", "a\0b", "\udcff", "",
    "²", '"', "<", "&lol;", "x" * 200_000, "[" * 2000, "- " * 2000, "&a [*a,*a]",
]


def damaged(sound: bytes):
    """The bytes with up to eight changed, cut somewhere perhaps."""
    # More often where headers are than in the pixels or weights behind.
    places = st.one_of(st.integers(0, min(200, len(sound) - 1)), st.integers(0, len(sound) - 1))
    edits = st.lists(st.tuples(places, st.integers(0, 255)), max_size=8)
    return st.builds(_edited, st.just(sound), edits, st.one_of(st.none(), places))


def _edited(sound: bytes, edits, end) -> bytes:
    data = bytearray(sound)
    for place, value in edits:
        data[place] = value
    return bytes(data[:end])


# === Sets ===


def jsons(document):
    """A json text with one of its values, or several, replaced."""
    paths = list(_paths(document, ()))
    swaps = st.lists(st.tuples(st.sampled_from(paths), st.sampled_from(VALUES)), min_size=1, max_size=3)
    return st.builds(_swapped, st.just(json.dumps(document)), swaps)


def _paths(value, at: tuple):
    yield at
    if isinstance(value, (dict, list)):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
    else:
        entries = ()
    for key, inner in entries:
        yield from _paths(inner, (*at, key))


def _swapped(text: str, swaps) -> str:
    document = json.loads(text)
    for path, new in swaps:
        # A copy: what is put in may be changed by the next swap, and put in again.
        place, new = document, copy.deepcopy(new)
        for key in path[:-1]:
            try:
                place = place[key]
            except (KeyError, IndexError, TypeError):
                break
        else:
            if path and isinstance(place, (dict, list)):
                try:
                    place[path[-1]] = new
                except (IndexError, TypeError):
                    pass
            elif not path:
                document = new
    return json.dumps(document)


def texts(sound: str):
    """A text with one of its words, or several, replaced."""
    words = sound.replace(",", " , ").replace("<", " < ").replace(">", " > ").replace(":", " : ").split(" ")
    swaps = st.lists(
        st.tuples(st.integers(0, len(words) - 1), st.sampled_from(TEXTS)), min_size=1, max_size=3
    )

    def swapped(pairs):
        changed = list(words)
        for place, new in pairs:
            changed[place] = new
        return "".join(changed) if "," in sound or "<" in sound else " ".join(changed)

    return swaps.map(swapped)


COCO = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 40, "height": 30},
        {"id": 2, "file_name": "b.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 12], "iscrowd": 0,
         "segmentation": [[1, 2, 11, 2, 11, 14]]},
        {"id": 2, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 12], "iscrowd": 0,
         "segmentation": {"size": [30, 40], "counts": "P1c0[4d0"}},
        {"id": 3, "image_id": 2, "category_id": 3, "bbox": [1, 2, 10, 12], "iscrowd": 1,
         "segmentation": {"size": [30, 40], "counts": [600, 30, 570]}},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
}
ODGT = {
    "ID": "a.jpg",
    "gtboxes": [
        {"tag": "person", "fbox": [1, 2, 10, 12], "hbox": [2, 3, 4, 4], "head_attr": {"ignore": 0}},
        {"tag": "mask", "fbox": [20, 2, 10, 12], "extra": {"ignore": 1}},
    ],
}
VOC = (
    "<annotation><filename>a.jpg</filename><size><width>40</width><height>30</height></size><object><name>cat"
    "</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>14</ymax></bndbox>"
    "</object></annotation>"
)
CSV = "image,xmin,ymin,xmax,ymax,label\na.jpg,1,2,11,14,cat\nb.jpg,,,,,\n"
YOLO, NAMES = "0 0.3 0.3 0.2 0.4\n1 0.5 0.5 0.2 0.2\n", "names: [cat, dog]\n"
WIDER = "a.jpg\n2\n1 2 11 14 0 0 0 0 0 0\n5 5 20 20 0 0 0 1 0 0\nb.jpg\n0\n0 0 0 0 0 0 0 0 0 0\n"
LISTS = "a\n"


def sets():
    """Files of a set by name, one of them hostile, beside two sound photos `a.jpg` and `b.jpg`."""
    def one(name, changed, **others):
        return changed.map(lambda content: {name: content, **others})

    sound = {
        "annotations.json": json.dumps(COCO), "set.odgt": json.dumps(ODGT), "a.xml": VOC, "set.csv": CSV,
        "labels/a.txt": YOLO, "data.yaml": NAMES, "wider_train_bbx_gt.txt": WIDER,
    }
    mixed = {"labels/a.txt": YOLO, "data.yaml": NAMES}
    voc = {"Annotations/a.xml": VOC, "ImageSets/Main/train.txt": LISTS}
    return st.one_of(
        one("annotations.json", jsons(COCO)),
        one("set.odgt", jsons(ODGT)),
        *(one(name, texts(sound[name])) for name in ("a.xml", "set.csv", "wider_train_bbx_gt.txt")),
        *(texts(mixed[name]).map(lambda text, name=name: mixed | {name: text}) for name in mixed),
        texts(LISTS).map(lambda text: voc | {"ImageSets/Main/train.txt": text}),
        *(one(name, damaged(sound[name].encode())) for name in list(sound)[:4]),
        damaged(NAMES.encode()).map(lambda data: mixed | {"data.yaml": data}),
    )


def write_set(folder, files: dict) -> None:
    """Writes what `sets` gives, with the two photos."""
    for name in ("a.jpg", "b.jpg"):
        for place in (folder, folder / "images"):
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(PHOTOS["JPEG"])
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


# === Pictures ===


def _photo(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    file = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    options = {} if kind == "BMP" else {"exif": exif}
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


PHOTOS = {kind: _photo(kind) for kind in ("JPEG", "PNG", "BMP", "WEBP", "TIFF")}


def photos():
    """The bytes of a picture, damaged."""
    return st.one_of(*(damaged(data) for data in PHOTOS.values()))


# === Exported models ===

NUMBERS = [-(2**31), -1000, -2, -1, 0, 1, 2, 3, 7, 255, 65536, 2**20, 2**31 - 1]


def models(sound: bytes):
    """A `.tflite`: its bytes damaged, or whole and its graph wrong."""
    wrong = _graphs(sound)
    return st.one_of(wrong, wrong, damaged(sound), _tails(sound))


def clients(sound: bytes):
    """A `.tflite` for who asks for the `kerasdet.json` behind it: that, the graph or the bytes damaged."""
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        whole = json.loads(archive.read("kerasdet.json"))
    about = {key: whole[key] for key in ("classes", "outputs", "resize", "image_size", "output_names")}
    behind = st.builds(
        _with_about, st.just(sound), jsons(about), st.sampled_from([0, 0, 2**21]),
        st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
    )
    wrong = _graphs(sound).map(lambda data: _with_about(data, json.dumps(about)))
    return st.one_of(wrong, behind, damaged(sound), _tails(sound))


def _with_about(model: bytes, text: str, spaces: int = 0, packing: int = zipfile.ZIP_STORED) -> bytes:
    """The file with a zip behind it, in place of one that it has perhaps: the last one counts."""
    tail = io.BytesIO()
    with zipfile.ZipFile(tail, "w", packing) as archive:
        archive.writestr("kerasdet.json", text + " " * spaces)
    return model + tail.getvalue()


def _tails(sound: bytes):
    """The file, damaged where the zip behind the model is."""
    return damaged(sound[-3000:]).map(lambda end: sound[:-3000] + end)


def _graphs(sound: bytes):
    """The file, whole and its graph wrong; without a zip behind it."""
    from kerasdet.deploy import flatbuffer

    graph = flatbuffer.read(sound).subgraphs[0]
    kinds = "shape buffer type inputs outputs opcode option code data ends".split()
    edits = st.tuples(
        st.sampled_from(kinds), st.integers(0, len(graph.tensors) - 1), st.integers(0, 7),
        st.sampled_from(NUMBERS), st.integers(0, len(graph.tensors)),
    )
    return st.lists(edits, min_size=1, max_size=3).map(lambda rows: _wrong_graph(sound, rows))


def _wrong_graph(sound: bytes, edits) -> bytes:
    from kerasdet.deploy import flatbuffer

    model = flatbuffer.read(sound)
    graph = model.subgraphs[0]
    for kind, place, position, number, index in edits:
        tensor = graph.tensors[place % len(graph.tensors)]
        operator = graph.operators[place % len(graph.operators)]
        code = model.operatorCodes[place % len(model.operatorCodes)]
        if kind == "shape" and tensor.shape is not None and len(tensor.shape):
            tensor.shape = _put(tensor.shape, position, number)
        elif kind == "buffer":
            tensor.buffer = max(0, number)
        elif kind == "type":
            tensor.type = position + place % 12
        elif kind in ("inputs", "outputs") and len(getattr(operator, kind)):
            setattr(operator, kind, _put(getattr(operator, kind), position, (index, number)[position % 2]))
        elif kind == "opcode":
            operator.opcodeIndex = max(0, number)
        elif kind == "option" and operator.builtinOptions is not None:
            fields = vars(operator.builtinOptions)
            names = [name for name, value in fields.items() if type(value) is int]
            if names:
                setattr(operator.builtinOptions, names[position % len(names)], number)
        elif kind == "code":
            code.builtinCode = index
            code.deprecatedBuiltinCode = min(127, index)
        elif kind == "data":
            buffer = model.buffers[place % len(model.buffers)]
            if buffer.data is not None and len(buffer.data) >= 4:
                whole = np.array(buffer.data[: len(buffer.data) // 4 * 4], np.uint8).view(np.int32).copy()
                buffer.data = _put(whole, position * 131, number).view(np.uint8)
        elif kind == "ends":
            side = ("inputs", "outputs")[position % 2]
            setattr(graph, side, _put(getattr(graph, side), position, index))
    try:
        return flatbuffer.write(model)
    except Exception:  # an option that has no place for such a number
        return sound[: len(sound) // 2]


def _put(values, position: int, number: int) -> np.ndarray:
    changed = np.array(values)
    changed[position % len(changed)] = number
    return changed


# === Saved models ===


def keras_files(sound: bytes):
    """A `.keras` file: its bytes damaged, or packed anew with a wrong configuration or damaged weights."""
    with zipfile.ZipFile(io.BytesIO(sound)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    wrong = jsons(config).map(lambda text: _packed(parts | {"config.json": text.encode()}))
    weights = damaged(parts["model.weights.h5"]).map(
        lambda data: _packed(parts | {"model.weights.h5": data})
    )
    return st.one_of(wrong, wrong, weights, damaged(sound))


def _packed(parts: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return file.getvalue()
