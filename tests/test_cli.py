"""The command line: what it prints and writes, and how it says what is wrong."""

import json
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from commands import run
from PIL import Image
from presets import tiny_csp

from kerasdet import card, cli, cli_detect, photo, zoo
from kerasdet.detector import Detector

pytestmark = pytest.mark.usefixtures("shelf")


@pytest.fixture
def photos(tmp_path):
    """Two photos, one of them in a folder below, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "inner/b.png"):
        Image.fromarray(rng.integers(0, 256, (60, 90, 3), np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("x")
    return folder


@pytest.fixture(scope="module")
def tflite(shelf, tmp_path_factory):
    """The tiny detector's .tflite, written by the command."""
    path = tmp_path_factory.mktemp("files") / "tiny.tflite"
    output = run("export", "tiny", "-o", path)
    assert "float32" in output and "agreement" in output
    return path


# === Greeting ===


def test_alone_it_greets_with_three_commands():
    output = run()
    for command in ("kerasdet detect street.jpg", "kerasdet train", "kerasdet export"):
        assert command in output
    for line in cli.GREETING.splitlines():
        assert len(line.replace("[bold]", "").replace("[/]", "")) <= 80


def test_an_unknown_command_or_option_is_a_mistake_of_use():
    assert "detcet" in run("detcet", code=2)
    run("zoo", "--markdwn", code=2)


# === zoo ===


def test_zoo_lists_tells_and_writes_markdown_and_plots(tmp_path):
    assert "tiny_64_people" in run("zoo")
    assert "Peaks instead of a threshold." in run("zoo", "tiny")
    assert run("zoo", "tiny", "--markdown").strip() == card.markdown(zoo.presets("tiny"))
    assert "leave it out, or --html" in run("zoo", "--markdown", "--html", tmp_path / "a.html", code=2)
    assert "--overwrite is for the files of --html" in run("zoo", "--overwrite", code=2)
    assert "ap_latency_voc12.svg" in run("zoo", "--plots", tmp_path)
    assert "exists; give another --plots" in run("zoo", "--plots", tmp_path, code=2)
    assert "error: there is no preset 'tinny'. Did you mean 'tiny'?" in run("zoo", "tinny", code=2)


# === detect ===


def test_detect_draws_and_writes_coco_results(photos, tmp_path):
    out = tmp_path / "out"
    output = run("detect", photos, "--model", "tiny", "--out", out, "--score", 0)
    names = ["a.jpg", "b.png", "detections.json", "detections.progress"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert Image.open(out / "a.jpg").size == (90, 60)
    rows = json.loads((out / "detections.json").read_text())
    found = zoo.load("tiny").detect([str(photos / "a.jpg"), str(photos / "inner/b.png")], score=0)
    assert [row["score"] for row in rows] == pytest.approx([s for f in found for s in f.scores])
    assert {row["image_id"]: row["file_name"] for row in rows} == {
        1: str(photos / "a.jpg"), 2: str(photos / "inner" / "b.png"),
    }
    x1, y1, x2, y2 = found[0].parts["head"][0]
    assert rows[0]["head"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1e-3)
    assert f"{len(found[0])} person" in output and "a.jpg" in output


def test_pycocotools_reads_the_results(photos, tmp_path):
    from pycocotools.coco import COCO

    run("detect", photos, "--model", "tiny", "--out", tmp_path / "out", "--score", 0)
    truth = COCO()
    truth.dataset = {
        "info": {}, "images": [{"id": 1}, {"id": 2}], "annotations": [],
        "categories": [{"id": 1, "name": "person"}],
    }
    truth.createIndex()
    results = truth.loadRes(str(tmp_path / "out" / "detections.json"))
    assert len(results.getAnnIds(imgIds=[1])) > 0


def test_photos_are_found_by_path_folder_and_pattern(photos):
    a, b = photos / "a.jpg", photos / "inner" / "b.png"
    assert photo.find([str(photos)]) == [a, b]
    assert photo.find([str(b), str(photos / "*.jpg"), str(a)]) == [b, a]
    assert photo.find([str(photos / "**" / "*.png")]) == [b]
    with pytest.raises(FileNotFoundError, match=r"gone\*\.jpg: no such photo, folder or pattern"):
        photo.find([str(photos / "gone*.jpg")])
    with pytest.raises(FileNotFoundError, match=r"inn\*: no such photo, folder or pattern"):
        photo.find([str(photos / "inn*")])
    (photos / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no photos in this folder"):
        photo.find([str(photos / "empty")])


def test_drawings_never_replace_photos_or_each_other(photos, tmp_path):
    paths = [photos / name for name in ("a.jpg", "inner/a.jpg", "x.webp", "a_2.jpg", "other/a.jpg")]
    names = [path.name for path in cli_detect.picture_names(paths, tmp_path)]
    assert names == ["a.jpg", "a_2.jpg", "x.jpg", "a_2_2.jpg", "a_3.jpg"]
    # To the disks of macOS and Windows they are one.
    paths = [photos / name for name in ("a.jpg", "inner/A.JPG", "A_2.jpg")]
    names = [path.name for path in cli_detect.picture_names(paths, tmp_path)]
    assert names == ["a.jpg", "A_2.jpg", "A_2_2.jpg"]
    before = (photos / "a.jpg").read_bytes()
    output = run("detect", photos / "a.jpg", "-m", "tiny", "--out", photos, code=2)
    assert "a.jpg: is one of the photos, and would be drawn over" in output
    assert (photos / "a.jpg").read_bytes() == before


def test_an_unreadable_photo_is_skipped_and_told(photos, tmp_path):
    data = (photos / "a.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(data[: len(data) // 2])
    output = run("detect", photos, "-m", "tiny", "-o", tmp_path / "out", "--score", 0, code=2)
    assert "skipped: " in output and "cut.jpg: the JPEG image is truncated" in output
    assert "error: 1 of 3 photos could not be read" in output
    assert (tmp_path / "out" / "a.jpg").is_file() and (tmp_path / "out" / "b.png").is_file()


def test_wrong_input_is_one_line_and_code_2(photos, tmp_path):
    for arguments, message in (
        (("gone.jpg",), "error: gone.jpg: no such photo, folder or pattern"),
        ((photos, "-m", "gone.keras"), "error: gone.keras: no such file"),
        ((photos, "-m", "tinyy"), "error: there is no preset 'tinyy'"),
    ):
        output = run("detect", *arguments, "-o", tmp_path / "out", code=2)
        assert output.startswith(message) and output.count("\n") == 1, output
    assert not (tmp_path / "out").exists()


# === A .tflite, without Keras ===

WITHOUT_KERAS = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('keras', 'tensorflow', 'jax'):
            raise ImportError(f'{name} was imported')
sys.meta_path.insert(0, Refuse())
from kerasdet.cli import app
app()
"""


def fresh(*arguments, code=WITHOUT_KERAS):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_tflite_detects_and_evaluates_without_keras(tflite, photos, scenes, tmp_path):
    result = fresh("detect", photos, "-m", tflite, "-o", tmp_path / "out", "--score", 0)
    assert (result.returncode, result.stderr) == (0, "")
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    first = zoo.load("tiny").detect(str(photos / "a.jpg"), score=0)
    assert rows[0]["score"] == pytest.approx(first.scores[0], abs=1e-3)
    result = fresh("evaluate", tflite, scenes.root)
    assert (result.returncode, result.stderr) == (0, "")
    assert "AP50" in result.stdout and "VOC" not in result.stdout
    result = fresh("evaluate", tflite, scenes.root, "--voc")
    assert (result.returncode, result.stderr) == (0, "")
    assert "VOC_AP" in result.stdout and "VOC07_AP" in result.stdout
    # The watch over imports is awake.
    assert "keras was imported" in fresh("evaluate", "tiny", scenes.root).stderr


def test_debug_shows_where_an_error_came_from():
    code = "from kerasdet.cli import app; app()"
    quiet, loud = fresh("zoo", "zzz", code=code), fresh("--debug", "zoo", "zzz", code=code)
    assert (quiet.returncode, loud.returncode) == (2, 1)
    assert quiet.stderr.startswith("error: there is no preset 'zzz'")
    assert "Traceback" not in quiet.stderr and "Traceback" in loud.stderr


# === export ===


def test_export_says_what_it_needs(tflite, tmp_path):
    out = tmp_path / "x.tflite"
    assert "int8 needs --calibration" in run("export", "tiny", "-o", out, "--precision", "int8", code=2)
    assert "is exported already" in run("export", tflite, "-o", out, code=2)
    assert "exists; give overwrite=True" in run("export", "tiny", "-o", tflite, code=2)
    assert "int4" in run("export", "tiny", "-o", out, "--precision", "int4", code=2)
    assert "gone: no such" in run(
        "export", "tiny", "-o", out, "--precision", "int8", "--calibration", tmp_path / "gone", code=2
    )
    assert not out.exists()


def test_export_hands_on_what_was_asked_for(scenes, photos, tmp_path, monkeypatch):
    calls = []

    class Recorder:
        def export(self, path, **options):
            calls.append((path, options))
            return "report"

    monkeypatch.setattr(zoo, "load_file", lambda model: Recorder())
    out = tmp_path / "x.tflite"
    options = ["--outputs", "boxes", "--input-dtype", "float32", "--keep-float", "neck", "--overwrite"]
    options += ["--on-parity", "warn"]
    run("export", "m.keras", "-o", out, "--precision", "int8", "--calibration", scenes.root, *options)
    run("export", "m.keras", "-o", out, "--calibration", photos)
    (path, first), (_, second) = calls
    assert path == out and len(first.pop("calibration")) == len(scenes)
    assert first == {
        "precision": "int8", "outputs": "boxes", "input_dtype": "float32", "keep_float": "neck",
        "overwrite": True, "on_parity": "warn",
    }
    assert second["calibration"] == [photos / "a.jpg", photos / "inner" / "b.png"]
    assert second["precision"] == "float32" and second["overwrite"] is False
    assert second["on_parity"] == "error"


def test_export_draws_the_detector_for_another_image_size(tmp_path, monkeypatch):
    exported = []
    monkeypatch.setattr(Detector, "export", lambda self, path, **options: exported.append(self) or "report")
    out = tmp_path / "x.tflite"
    run("export", "tiny", "-o", out)
    run("export", "tiny", "-o", out, "--image-size", 96)
    own, larger = exported
    assert (own.image_size, larger.image_size) == (64, 96)
    for given, kept in zip(own.get_weights(), larger.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, given)
    said = run("export", "tiny", "-o", out, "--image-size", 100, code=2)
    assert "error: image_size is 100; give a multiple of 32" in said
    assert len(exported) == 2


def test_a_file_that_fails_parity_is_code_1(tmp_path, monkeypatch):
    from kerasdet.deploy import ParityError

    class Liar:
        def export(self, path, **options):
            raise ParityError("the file and Keras disagree")

    monkeypatch.setattr(zoo, "load_file", lambda model: Liar())
    output = run("export", "m.keras", "-o", tmp_path / "x.tflite", code=1)
    assert "error: the file and Keras disagree" in output


# === train and evaluate ===


def test_train_evaluate_and_train_on(scenes, tmp_path, untraced):
    out, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(scenes.root, data)
    tiny_csp().save(tmp_path / "start.keras")
    options = [
        "--model", tmp_path / "start.keras", "--out", out, "--epochs", 1, "--batch-size", 4,
        "--val", data,
    ]
    output = run("train", data, *options)
    assert "epoch 1/1: loss" in output and "best: epoch 1" in output
    settings = json.loads((out / "config.json").read_text())["settings"]
    assert (settings["epochs"], settings["batch_size"], settings["rate"]) == (1, 4, 3e-4)
    assert "error: " in (again := run("train", data, *options, code=2)) and "not empty" in again
    assert "best: epoch 1" in run("train", data, *options, "--resume")
    written = tmp_path / "new" / "scores.json"
    output = run("evaluate", out / "best.keras", data, "--split", "train", "--out", written)
    assert f"{len(scenes)} photos" in output and "head_AP50" in output
    assert "AP/person" in json.loads(written.read_text())["scores"]
    wrong = run("evaluate", out / "best.keras", data, "--split", "vall", code=2)
    assert "there is no split 'vall'" in wrong


def test_figures_are_told_even_if_they_cannot_be_written(scenes, tmp_path, monkeypatch):
    from kerasdet import metrics

    monkeypatch.setattr(metrics, "evaluate", lambda model, data, **_: {"AP": 0.5})

    def full(*given, **more):
        raise OSError("No space left on device")

    monkeypatch.setattr(metrics.compare, "write_scores", full)
    output = run("evaluate", "tiny", scenes.root, "--out", tmp_path / "scores.json", code=2)
    assert "0.5000" in output and "error: No space left on device" in output


def test_evaluate_takes_the_held_back_split(scenes, tmp_path, monkeypatch):
    from kerasdet import metrics
    from kerasdet.data.scenes import write_scenes

    shutil.copytree(scenes.root, tmp_path / "data")
    write_scenes(tmp_path / "data", 3, size=(64, 64), split="val")
    seen = []
    monkeypatch.setattr(
        metrics, "evaluate", lambda model, data, **_: seen.append(data) or {"AP": 0.5, "MR": np.nan}
    )
    output = run("evaluate", "tiny", tmp_path / "data")
    assert len(seen[0]) == 3 and "0.5000" in output and "MR" not in output


def test_boxes_of_all_classes_are_taken_for_one(shapes, tmp_path, monkeypatch):
    """Circles, squares and triangles for people, whom the model knows."""
    from kerasdet import metrics

    seen = []
    monkeypatch.setattr(metrics, "evaluate", lambda model, data, **_: seen.append(data) or {"AP": 0.5})
    run("evaluate", "tiny", shapes.root, "--as-one-class", "person")
    assert seen[0].classes == ("person",)
    for sample, own in zip(seen[0], shapes, strict=True):
        np.testing.assert_array_equal(sample.boxes, own.boxes)
    options = "mistakes", "tiny", shapes.root, "--out", tmp_path / "wrong.jpg"
    assert "dataset.as_one_class" in run(*options, code=2)
    assert f"{len(shapes)} photos: AP50 " in run(*options, "--as-one-class", "person")
    assert (tmp_path / "wrong.jpg").is_file()


def test_a_file_that_does_not_name_its_classes_is_told_so(scenes, tmp_path, monkeypatch):
    numbered = types.SimpleNamespace(classes=tuple(map(str, range(1000))), unnamed=True)
    monkeypatch.setattr(zoo, "load_file", lambda model: numbered)
    for command, *options in (["evaluate"], ["mistakes", "--out", tmp_path / "wrong.jpg"]):
        output = run(command, "m.tflite", scenes.root, *options, code=2)
        assert "error: m.tflite: the file does not name its classes" in output


def test_zoo_writes_a_page(shelf, tmp_path):
    page = tmp_path / "new" / "zoo.html"
    assert "see " in run("zoo", "--html", page)
    assert "tiny_64_people" in page.read_text()
    assert "exists; give another --html" in run("zoo", "--html", page, code=2)
    assert "ends in .html" in run("zoo", "--html", tmp_path / "zoo.txt", code=2)
    page.unlink()
    run("zoo", "tiny", "--html", page)
    assert "1 preset of" in page.read_text()
