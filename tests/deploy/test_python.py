"""export/python/detect.py, the one file that runs a detector without kerasdet."""

import importlib.util
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from discs import CLASSES, photo

from kerasdet import deploy
from kerasdet import photo as photos_

FILE = Path(__file__).parents[2] / "export" / "python" / "detect.py"


@pytest.fixture(scope="module")
def alone():
    spec = importlib.util.spec_from_file_location("detect_alone", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


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


def test_its_camera_loop(alone, exported, tmp_path, monkeypatch, capsys):
    """With an OpenCV of our own: three frames, then the camera is unplugged."""
    frames = [photo(seed)[0] for seed in (5, 6, 7)]

    class Camera:
        def __init__(self, number):
            self.number, self.left = number, [frame[..., ::-1] for frame in frames]

        def isOpened(self):
            return self.number == 1

        def read(self):
            return (True, self.left.pop(0)) if self.left else (False, None)

        def release(self):
            frames.append("released")

    monkeypatch.setitem(sys.modules, "cv2", types.SimpleNamespace(VideoCapture=Camera))
    path = str(exported()[0])
    assert alone.main([path, "--camera", "1", "--out", str(tmp_path)]) == 0 and frames.pop() == "released"
    lines = capsys.readouterr().out.splitlines()
    detector = alone.Detector(path)
    for line, frame in zip(lines, frames, strict=True):
        assert line.startswith("camera: " + "; ".join(map(str, detector.detect(frame))))
    assert (tmp_path / "camera.jpg").is_file()
    assert alone.main([path, "--camera", "0"]) == 2
    assert "camera 0 cannot be opened" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert alone.main([path, "--camera", "1"]) == 2
    assert "pip install opencv-python-headless" in capsys.readouterr().err


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
    for arguments in ([], ["a.jpg", "--camera", "0"], ["b/a.jpg", "c/a.jpg", "--out", str(tmp_path)]):
        with pytest.raises(SystemExit):
            alone.main([str(exported()[0]), *arguments])
    assert "two photos have the same name" in capsys.readouterr().err
