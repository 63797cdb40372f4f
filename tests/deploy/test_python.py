"""export/python/detect.py, the one file that runs a detector without kerasdet."""

import importlib.util
import io
import json
import os
import struct
import subprocess
import sys
import tracemalloc
import types
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from discs import CLASSES, photo
from PIL import EpsImagePlugin, Image, ImageFont, _util

from kerasdet import deploy
from kerasdet import photo as photos_
from kerasdet.deploy import flatbuffer

FILE = Path(__file__).parents[2] / "export" / "python" / "detect.py"


@pytest.fixture(scope="module")
def alone():
    spec = importlib.util.spec_from_file_location("detect_alone", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_it_tells_of_classes_that_the_terminal_has_no_letters_for(exported, pictures, tmp_path):
    data = Path(exported("float32")[0]).read_bytes()
    path = tmp_path / "cats.tflite"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        about = json.loads(archive.read("kerasdet.json"))
    tail = io.BytesIO()
    with zipfile.ZipFile(tail, "w") as archive:
        archive.writestr("kerasdet.json", json.dumps(about | {"classes": ["猫", "犬"]}))
    path.write_bytes(data + tail.getvalue())
    done = subprocess.run(
        [sys.executable, FILE, path, pictures[0], "--out", tmp_path / "out"], capture_output=True, text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii:strict"},
    )
    assert done.returncode == 0 and "skipped" not in done.stderr, done.stderr
    assert "\\u732b" in done.stdout or "\\u72ac" in done.stdout
    assert len(list((tmp_path / "out").iterdir())) == 1


@pytest.mark.filterwarnings("ignore:int8 is calibrated on")
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_it_finds_what_the_library_finds(alone, exported, pictures, precision):
    path = exported(precision)[0]
    ours, detector = deploy.LiteRTDetector(path), alone.Detector(path)
    assert (detector.classes, detector.size) == (CLASSES, 96)
    for picture in pictures:
        assert_same(detector.detect(alone.read(picture)), ours.detect(picture))


def test_it_keeps_the_shape_of_photos_that_need_it(alone, letterboxed, pictures):
    ours, detector = deploy.LiteRTDetector(letterboxed), alone.Detector(letterboxed)
    for picture in pictures:
        assert_same(detector.detect(alone.read(picture)), ours.detect(picture))


def assert_same(found, ours):
    assert [each.name for each in found] == ours.names and len(ours) > 0
    assert [each.label for each in found] == ours.labels.tolist()
    np.testing.assert_allclose([each.score for each in found], ours.scores, atol=1e-3)
    np.testing.assert_allclose([each.box for each in found], ours.boxes, atol=0.05)


@pytest.mark.parametrize("shape", [(40, 31), (96, 96), (333, 517), (1000, 64)])
def test_its_square_is_the_librarys(alone, shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for size in (96, 160):
        square = photos_.to_square(noise, size)[0]
        np.testing.assert_array_equal(alone._to_square(noise, size, "stretch"), square)
        square = photos_.to_square(noise, size, "letterbox")[0].astype(int)
        away = np.abs(alone._to_square(noise, size, "letterbox") - square)
        # OpenCV's exact positions are of single precision: noise of full contrast shows it.
        assert away.max() <= 1, away.max()


def test_it_imports_nothing_else(exported, pictures):
    code = f"""if True:
        import runpy, sys
        import numpy, PIL.Image, PIL.ImageDraw, PIL.ImageFont, PIL.ImageOps
        from ai_edge_litert.interpreter import Interpreter
        PIL.Image.open({str(pictures[0])!r}).load()
        before = set(sys.modules)
        sys.argv = ["detect.py", {str(exported()[0])!r}, {str(pictures[0])!r}]
        try:
            runpy.run_path({str(FILE)!r}, run_name="__main__")
        except SystemExit as ended:
            assert not ended.code, ended.code
        tops = {{name.split(".")[0] for name in set(sys.modules) - before}}
        print("others:", sorted(tops - set(sys.stdlib_module_names) - {{"numpy", "PIL", "ai_edge_litert"}}))
        print("kerasdet" in sys.modules, "cv2" in sys.modules, "tensorflow" in sys.modules)
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    first, *rest = result.stdout.splitlines()
    assert first.startswith(f"{pictures[0]}: ") and " ms)" in first, result.stderr
    assert rest == ["others: []", "False False False"]


def test_its_command_line_prints_and_draws(alone, exported, pictures, tmp_path, capsys):
    path, out = str(exported()[0]), tmp_path / "found"
    broken = tmp_path / "broken.jpg"
    broken.write_text("hello, this is text")
    code = alone.main([path, str(pictures[0]), str(broken), str(pictures[1]), "--out", str(out)])
    said = capsys.readouterr()
    assert code == 2 and f"skipped: {broken}: cannot be read" in said.err
    lines = said.out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(pictures[0]), str(pictures[1])]
    best = alone.Detector(path).detect(alone.read(pictures[0]))[0]
    assert f": {best.name} {best.score:.2f} at " in lines[0]
    drawn = alone.read(out / f"{pictures[0].stem}_found.jpg")
    original = alone.read(pictures[0])
    x1, y1, x2, _ = map(round, best.box)
    assert drawn.shape == original.shape
    assert np.abs(drawn[y1, x1:x2].astype(int) - original[y1, x1:x2]).mean() > 30
    assert alone.main([path, str(pictures[0]), "--score", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{pictures[0]}: nothing")


def test_its_command_line_draws_over_nothing(alone, exported, pictures, tmp_path, capsys, monkeypatch):
    path, photo, other = str(exported()[0]), tmp_path / "a.png", tmp_path / "a_found.jpg"
    photo.write_bytes(pictures[0].read_bytes())
    other.write_bytes(b"a photo")
    for photos in ([photo], [photo, other]):
        with pytest.raises(SystemExit):
            alone.main([path, *map(str, photos), "--out", str(tmp_path)])
        assert "a_found.jpg is there already; give another --out" in capsys.readouterr().err
    assert other.read_bytes() == b"a photo"
    with pytest.raises(SystemExit):
        alone.main([path, str(photo), str(tmp_path / "A.png"), "--out", str(tmp_path / "new")])
    assert "two photos have the same name" in capsys.readouterr().err

    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(alone, "_look", stopped)
    assert alone.main([path, str(photo)]) == 130


def test_its_camera_loop(alone, exported, tmp_path, monkeypatch, capsys):
    """With an OpenCV of our own: three frames, then the camera is unplugged."""
    frames, asked = [photo(seed)[0] for seed in (5, 6, 7)], []

    class Camera:
        def __init__(self, number):
            self.number, self.left = number, [frame[..., ::-1] for frame in frames]

        def isOpened(self):
            return self.number == 1

        def set(self, what, value):
            asked.append((what, value))

        def read(self):
            return (True, self.left.pop(0)) if self.left else (False, None)

        def release(self):
            frames.append("released")

    cv2 = types.SimpleNamespace(VideoCapture=Camera, CAP_PROP_BUFFERSIZE=38)
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    path = str(exported()[0])
    # Not 0: what restarts a program that failed has to see it.
    assert alone.main([path, "--camera", "1", "--out", str(tmp_path)]) == 2 and frames.pop() == "released"
    said = capsys.readouterr()
    assert said.err == "error: camera 1 gives no more pictures; is it still plugged in?\n"
    lines = said.out.splitlines()
    detector = alone.Detector(path)
    for line, frame in zip(lines, frames, strict=True):
        assert line.startswith("camera: " + "; ".join(map(str, detector.detect(frame))))
    assert [file.name for file in tmp_path.iterdir()] == ["camera.jpg"]
    assert asked == [(38, 1)], "the newest picture, not what has waited"
    assert alone.main([path, "--camera", "0"]) == 2
    assert "camera 0 cannot be opened" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert alone.main([path, "--camera", "1"]) == 2
    assert "pip install opencv-python-headless" in capsys.readouterr().err


def test_a_raspberry_pis_own_camera(alone, exported, monkeypatch, capsys):
    """With a Picamera2 of our own, whose format BGR888 gives red first, as the real one's does."""
    frame, done = photo(5)[0], []

    class Picamera2:
        def create_video_configuration(self, main):
            return main

        def configure(self, main):
            assert main["format"] == "BGR888"

        def start(self):
            done.append("started")

        def capture_array(self):
            if done.count("looked") == 2:
                raise KeyboardInterrupt
            done.append("looked")
            return frame

        def close(self):
            done.append("closed")

    monkeypatch.setitem(sys.modules, "picamera2", types.SimpleNamespace(Picamera2=Picamera2))
    path = str(exported()[0])
    assert alone.main([path, "--camera", "pi"]) == 0
    assert done == ["started", "looked", "looked", "closed"]
    found, lines = alone.Detector(path).detect(frame), capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and len(found)
    assert all(line.startswith("camera: " + "; ".join(map(str, found))) for line in lines)

    def none():
        raise IndexError("list index out of range")

    monkeypatch.setitem(sys.modules, "picamera2", types.SimpleNamespace(Picamera2=none))
    assert alone.main([path, "--camera", "pi"]) == 2
    assert "camera cannot be opened (list index out of range); is it connected?" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "picamera2", None)
    assert alone.main([path, "--camera", "pi"]) == 2
    assert "sudo apt install python3-picamera2" in capsys.readouterr().err


def test_threads_are_those_that_it_may_use(alone, exported):
    if hasattr(os, "sched_getaffinity"):
        assert alone.CORES == len(os.sched_getaffinity(0))
    with pytest.raises(ValueError, match="threads is 0; give 1 or more"):
        alone.Detector(exported()[0], threads=0)


def test_ctrl_c_is_how_a_camera_loop_ends(alone, exported, monkeypatch, capsys):
    def frames(number):
        yield photo(5)[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(alone, "camera", frames)
    assert alone.main([str(exported()[0]), "--camera", "0"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("camera: ") and not said.err


@pytest.mark.parametrize("change, said", [
    (lambda whole: whole / 255, r"\(\d+, \d+, 3\) and type float64"),
    (lambda whole: whole.astype(np.int64), r"\(\d+, \d+, 3\) and type int64"),
    (lambda whole: np.dstack([whole, whole[..., 0]]), r"\(\d+, \d+, 4\) and type uint8"),
    (lambda whole: whole[..., 0], r"\(\d+, \d+\) and type uint8"),
    (lambda whole: whole[None], r"\(1, \d+, \d+, 3\) and type uint8"),
    (lambda whole: whole[:0], r"\(0, \d+, 3\) and type uint8"),
    (lambda whole: "street.jpg", r"\(\) and type <U10"),
], ids=["0 to 1", "int64", "RGBA", "grey", "batch", "empty", "path"])
def test_a_photo_that_is_none_is_refused(alone, exported, change, said):
    detector, said = alone.Detector(exported()[0]), rf"of shape {said}; give \(height, width, 3\) uint8"
    with pytest.raises(ValueError, match=said):
        detector.detect(change(photo(5)[0]))


@pytest.mark.parametrize("missing", ["size", "FreeType"])
def test_it_draws_with_other_pillows(alone, monkeypatch, missing):
    """One before 10.1, whose font has one size and the letters of Latin-1; one built without FreeType."""
    absent = _util.DeferredError(ImportError("The _imagingft C module is not installed"))
    monkeypatch.setattr(ImageFont, "core", absent)
    small = ImageFont.load_default()
    assert not hasattr(small, "size")
    if missing == "size":
        monkeypatch.setattr(ImageFont, "load_default", lambda: small)
    grey = np.full((120, 160, 3), 128, np.uint8)
    found = [alone.Found(name, 0.5, (20.0, y, 140.0, y + 30), 0) for name, y in (("cat", 30.0), ("猫", 80.0))]
    drawn = np.asarray(alone.draw(grey, found))
    for y in (30, 80):  # the names' background, and the names on it
        name = drawn[y - 14 : y - 3, 20:90].reshape(-1, 3).tolist()
        assert name.count([0x12, 0x14, 0x18]) > 30 and name.count([128, 128, 128]) < len(name) / 2


def test_what_it_cannot_run_it_says(alone, exported, tmp_path, capsys):
    text = tmp_path / "text.tflite"
    text.write_text("hello, this is text")
    with pytest.raises(ValueError, match="text.tflite: not a .tflite that kerasdet export wrote"):
        alone.Detector(text)
    for number, about in enumerate(("{}", "[]", "no json", '{"outputs": "detections"}')):
        with zipfile.ZipFile(odd := tmp_path / f"{number}.tflite", "w") as archive:
            archive.writestr("kerasdet.json", about)
        with pytest.raises(ValueError, match=f"{number}.tflite: not a .tflite that kerasdet export wrote"):
            alone.Detector(odd)
    with pytest.raises(ValueError, match="ends in raw; export it with --outputs detections"):
        alone.Detector(exported(outputs="raw")[0])
    assert alone.main([str(tmp_path / "none.tflite"), "a.jpg"]) == 2
    assert "none.tflite: no such file" in capsys.readouterr().err
    wrong = ([], ["a.jpg", "--camera", "0"], ["--camera", "first"])
    for arguments in (*wrong, ["b/a.jpg", "c/a.jpg", "--out", str(tmp_path)]):
        with pytest.raises(SystemExit):
            alone.main([str(exported()[0]), *arguments])
    assert "two photos have the same name" in capsys.readouterr().err


# === Files that are damaged, or made to do harm ===


@pytest.fixture
def altered(exported, tmp_path):
    """Writes odd.tflite: the graph and `kerasdet.json` of a sound file after a change of either."""
    sound = exported()[0]

    def write(graph=lambda model: None, spaces=0, packing=zipfile.ZIP_STORED, **about):
        model = flatbuffer.read(sound.read_bytes())
        graph(model)
        whole = json.loads(zipfile.ZipFile(sound).read("kerasdet.json")) | about
        tail = io.BytesIO()
        with zipfile.ZipFile(tail, "w", packing) as archive, archive.open("kerasdet.json", "w") as file:
            file.write(json.dumps(whole).encode())
            for _ in range(spaces):
                file.write(b" " * 2**20)
        path = tmp_path / "odd.tflite"
        path.write_bytes(flatbuffer.write(model) + tail.getvalue())
        return path

    return write


@pytest.mark.parametrize("spaces, packing, what", [
    (2, zipfile.ZIP_STORED, "longer than 1048576 bytes"),
    (64, zipfile.ZIP_DEFLATED, "longer than 1048576 bytes"),
    (2, zipfile.ZIP_BZIP2, "packed in a way"),
    (2, zipfile.ZIP_LZMA, "packed in a way"),
])
def test_its_text_is_not_unpacked_without_end(alone, altered, spaces, packing, what):
    path = altered(spaces=spaces, packing=packing)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"odd.tflite: not a .*kerasdet.json is {what}.*export it again"):
            alone.Detector(path)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def nested(depth):
    return [nested(depth - 1)] if depth else "red"


NO_NAMES = "not a list of names without line breaks or other control characters"


@pytest.mark.parametrize("key, value, said", [
    ("classes", [], rf"\[\], {NO_NAMES}"),
    ("classes", "red", f"'red', {NO_NAMES}"),
    ("classes", ["red", 2], rf"\['red', 2\], {NO_NAMES}"),
    ("classes", [None] * 999, rf"\[None, None, .*\], {NO_NAMES}"),
    ("classes", nested(200), rf"\[.*\], {NO_NAMES}"),
    ("classes", ["red", "a\nb"], rf"\['red', 'a\\nb'\], {NO_NAMES}"),
    ("classes", ["\x1b[2Jred"], rf"\['\\x1b\[2Jred'\], {NO_NAMES}"),
    ("classes", ["\x7f"], rf"\['\\x7f'\], {NO_NAMES}"),
    ("classes", ["\x9b2J"], rf"\['\\x9b2J'\], {NO_NAMES}"),
    ("classes", ["a\u2028b", "c\u2029d"], rf"\['a\\u2028b', 'c\\u2029d'\], {NO_NAMES}"),
    ("resize", "crop", "'crop', not stretch or letterbox"),
    ("resize", None, "None, not stretch or letterbox"),
    ("outputs", ["detections"], r"\['detections'\], not raw, boxes or detections"),
])
def test_what_a_file_says_of_itself_is_looked_at(alone, altered, key, value, said):
    with pytest.raises(ValueError, match=f"odd.tflite: kerasdet.json says {key} is {said}; export") as raised:
        alone.Detector(altered(**{key: value}))
    assert len(str(raised.value)) < 400 and str(raised.value).isprintable()


@pytest.mark.parametrize("size", ["64", 40_000, -1, None])
def test_the_squares_size_is_the_graphs(alone, altered, exported, pictures, size):
    ours, detector = deploy.LiteRTDetector(exported()[0]), alone.Detector(altered(image_size=size))
    assert detector.size == 96
    assert_same(detector.detect(alone.read(pictures[0])), ours.detect(pictures[0]))


def test_a_class_without_a_name(alone, altered):
    detector = alone.Detector(altered(classes=["red"]))
    with pytest.raises(ValueError, match="odd.tflite: finds class 1, and has names for 0 to 0; export it"):
        for seed in range(9):
            detector.detect(photo(seed)[0])


def test_graphs_that_are_no_detectors(alone, altered, exported, tmp_path, capsys):
    def large(model):
        graph = model.subgraphs[0]
        graph.tensors[graph.inputs[0]].shape = np.array([1, 40_000, 40_000, 3], np.int32)

    def turned(model):
        model.subgraphs[0].outputs = np.array(model.subgraphs[0].outputs)[::-1]

    def unfit(model):  # what comes into a convolution has fewer channels than its weights
        graph = model.subgraphs[0]
        of_all = [graph.tensors[op.inputs[1]] for op in graph.operators
                  if flatbuffer.op_name(model, op) == "CONV_2D"]
        of_all[0].shape = np.array([*of_all[0].shape[:3], 7], np.int32)

    sound = exported()[0].read_bytes()
    for change, said in (
        (large, "takes uint8 1x40000x40000x3 and gives .*, not a square photo of up to 4096 px"),
        (turned, "takes uint8 1x96x96x3 and gives float32 1, .*, not a square photo"),
        (unfit, "LiteRT cannot run it"),
    ):
        with pytest.raises(ValueError, match=f"odd.tflite: {said}"):
            alone.Detector(altered(change))
    # The command line says so too, in one sentence.
    assert alone.main([str(tmp_path / "odd.tflite"), "a.jpg"]) == 2
    assert "error: " in (said := capsys.readouterr().err) and said.count("\n") == 1
    (tmp_path / "cut.tflite").write_bytes(sound[:2000] + sound[-6000:])
    with pytest.raises(ValueError, match="cut.tflite: LiteRT cannot run it .*; is it complete"):
        alone.Detector(tmp_path / "cut.tflite")


def test_what_is_no_number_is_no_object(alone, exported, monkeypatch):
    detector, picture = alone.Detector(exported()[0]), photo(5)[0]
    whole = detector.detect(picture, score=0)
    values = detector._run(photos_.to_square(picture, detector.size)[0])
    boxes, classes, scores, count = map(np.array, values)
    monkeypatch.setattr(detector, "_run", lambda square: [boxes, classes, scores, count])
    assert detector.detect(picture, score=0) == whole and len(whole) > 1
    boxes[np.argmax(scores), 2] = np.nan
    assert detector.detect(picture, score=0) == whole[1:]
    scores[np.argmax(scores)] = np.inf
    assert detector.detect(picture, score=0) == whole[1:]
    for none in (np.nan, -np.inf, 0):
        count[...] = none
        assert detector.detect(picture, score=0) == []
    count[...] = np.inf
    classes[:] = np.nan
    with pytest.raises(ValueError, match="finds class -1"):
        detector.detect(picture, score=0)


@pytest.mark.parametrize("low", [0, 1], ids=["y", "x"])
def test_a_box_that_ends_before_it_begins_is_none(alone, exported, monkeypatch, low):
    detector, picture = alone.Detector(exported()[0]), photo(5)[0]
    whole = detector.detect(picture, score=0)
    boxes, *others = map(np.array, detector._run(photos_.to_square(picture, detector.size)[0]))
    monkeypatch.setattr(detector, "_run", lambda square: [boxes, *others])
    best = np.argmax(others[1])
    boxes[best, [low, low + 2]] = boxes[best, [low + 2, low]]
    found = detector.detect(picture, score=0)
    assert found == whole[1:] and len(found) > 0
    alone.draw(picture, found)
    boxes[best, [low, low + 2]] = -0.1, -0.2  # both beyond the photo's border, which cuts them off
    assert detector.detect(picture, score=0) == whole[1:]


def test_it_takes_the_photos_that_the_library_takes(alone, tmp_path):
    assert (alone.KINDS, alone.MAX_PIXELS, alone.MAX_SIDE) == (
        photos_._KINDS, photos_.MAX_PIXELS, photos_.MAX_SIDE
    )
    path = tmp_path / "photo"
    for kind in alone.KINDS:
        Image.fromarray(photo(5)[0]).save(path, kind, **{"lossless": True} if kind == "WEBP" else {})
        away = np.abs(alone.read(path).astype(int) - photos_.read(path))
        assert away.max() <= (16 if kind == "JPEG" else 0)  # whose decoders differ
    grey = np.arange(80 * 60, dtype=np.uint16).reshape(80, 60) * 13
    for kind in ("PNG", "TIFF"):
        Image.fromarray(grey).save(path, kind)
        np.testing.assert_array_equal(alone.read(path), photos_.read(path))
        assert len(np.unique(alone.read(path))) > 200


def test_no_other_kinds_are_opened(alone, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: called.append("gs"))
    (tmp_path / "page.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    Image.fromarray(photo(5)[0]).save(tmp_path / "film.jpg", "GIF")
    for name in ("page.jpg", "film.jpg"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read as an image .*; give a JPEG, PNG,"):
            alone.read(tmp_path / name)
        assert not called


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(17_600, 10_000), (20_000, 10_000), (40_000, 10)])
def test_a_photo_that_promises_too_much_is_refused_unread(alone, tmp_path, size):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match="bomb.png: is more than 175 megapixels or 32000 pixels a side .*; "):
        alone.read(path)


def test_an_error_of_pillows_own_names_the_photo(alone, tmp_path):
    short = tmp_path / "short.png"
    short.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 3) + b"IHDR" + bytes(3) + bytes(4))
    with pytest.raises(ValueError, match="short.png: cannot be read as an image"):
        alone.read(short)
