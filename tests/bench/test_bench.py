"""Every benchmark runs on something tiny and prints its table; what it measures is not tested."""

import importlib.util
import io
import itertools
import re
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import pytest
from needed import needed

BENCH = Path(__file__).parents[2] / "bench"
# Exports of random weights, whose flat score maps no int8 file can follow.
pytestmark = pytest.mark.filterwarnings(
    "ignore:int8 is calibrated", "ignore:nothing scored", "ignore:.* and Keras disagree"
)


@pytest.fixture(autouse=True)
def beside_common(monkeypatch):
    """Scripts find `common` beside them, as they do when they are run."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield
    sys.modules.pop("common", None)


def script(name):
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bench(name, *arguments):
    return script(name).main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder of drawn scenes, a CSP with random weights in a .keras file, and its .tflite."""
    from kerasdet.data.scenes import write_scenes
    from kerasdet.models.csp import CSP

    folder = tmp_path_factory.mktemp("bench")
    write_scenes(folder / "scenes", 6, size=(96, 80))
    model = CSP(backbone="mobilenet_v1_0.25", image_size=64, channels=16)
    model.save(folder / "tiny.keras")
    model.export(folder / "tiny.tflite", on_parity="warn")
    return types.SimpleNamespace(
        scenes=folder / "scenes", keras=folder / "tiny.keras", tflite=folder / "tiny.tflite"
    )


def rows(text, head):
    """The printed table whose head starts with `head`: first column -> the other cells."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(head)) + 2
    cells = [re.split(r"\s{2,}", line.strip()) for line in itertools.takewhile(str.strip, lines[start:])]
    assert "machine: " in text and "numpy " in text
    return {first: rest for first, *rest in cells}


def test_loader(tiny, untraced, capsys):
    code = bench(
        "loader", tiny.scenes, "--size", 64, "--batch", 2, "--photos", 8, "--rounds", 1,
        "--steps", 1, "--backbone", "mobilenet_v1_0.25",
    )
    found = rows(capsys.readouterr().out, "what")
    assert code == 0
    mixed = "kerasdet loader with mixup, two photos each, pictures/s"
    assert {"kerasdet / bare, speed", "loading / training step", mixed} <= set(found)
    assert len(found) == 9


@pytest.mark.slow
def test_decode_share(tiny, capsys):
    code = bench("decode_share", tiny.keras, "--calibration", tiny.scenes, "--rounds", 2)
    found = rows(capsys.readouterr().out, "precision")
    assert code == 0
    assert set(found) == {"float32", "int8"}
    assert all(len(cells) == 3 and "%" in cells[-1] for cells in found.values())


def test_decoding_is_measured_of_what_detections_hold(tmp_path, monkeypatch, capsys):
    """Raw heads of parts would be more than detections take."""
    from presets import tiny_csp

    from kerasdet.models.csp import CSP

    tiny_csp().save(tmp_path / "mine.keras")
    made = []
    record = lambda self, path, **given: made.append((self.parts, given["outputs"]))  # noqa: E731
    monkeypatch.setattr(CSP, "export", record)
    share = script("decode_share")
    monkeypatch.setattr(share, "inference", lambda *given: lambda: None)
    assert share.main([str(tmp_path / "mine.keras"), "--rounds", "1"]) == 0
    assert made == [((), "raw"), ((), "detections")]


def test_a_file_scores_in_mediapipe_what_it_scores_here(tiny, capsys, monkeypatch):
    needed("mediapipe")
    from kerasdet import data

    walkers = data.load(tiny.scenes).as_one_class("walker")
    monkeypatch.setattr("kerasdet.cli_data.held_back", lambda *given: walkers)
    options = "--data", tiny.scenes, "--enlarge", 3, "--as-one-class", "person"
    assert bench("mediapipe_ap", tiny.tflite, *options) == 0
    out = capsys.readouterr().out
    assert re.search(r", \d+ photos, 3 times as wide and high, ", out)
    # However much two boxes overlap, both are there; of one place they share a detection.
    for kind in ("one class", "two classes"):
        assert (f"MediaPipe, pairs of {kind}: none loses the less sure box; "
                "from an IoU of 1.00 on comes as one detection with two categories") in out
    (cells,) = rows(out, "file").values()
    figures = [float(cell) for cell in cells]
    assert figures[1::3] == pytest.approx(figures[2::3], abs=0.005)


@pytest.mark.slow
def test_export_cost(tiny, capsys):
    assert bench("export_cost", tiny.keras, "--rounds", 1) == 0
    found = rows(capsys.readouterr().out, "precision")
    # Nothing that imports TensorFlow is done in a tenth of a gigabyte.
    assert set(found) == {"float32", "float16"} and all(float(c[1].split()[0]) > 0.1 for c in found.values())


def test_startup(capsys):
    assert bench("startup", "--rounds", 1) == 0
    found = rows(capsys.readouterr().out, "process")
    assert set(found) == {"python -c pass", "import numpy", "import kerasdet", "kerasdet zoo"}
    # Not a matter of time: the last column is what got imported.
    assert {cells[-1] for cells in found.values()} == {"none"}


def test_startup_sees_what_was_imported():
    startup = script("startup")
    # A stand-in: the real ones take seconds to import.
    out = startup.run(startup.LISTING + "sys.modules['tensorflow'] = sys; sys.exit()")
    assert out.split() == ["tensorflow"]
    with pytest.raises(RuntimeError, match="no_such_module"):
        startup.run("import no_such_module")


def test_paired_detectors(tiny, tmp_path, capsys):
    from kerasdet.models.trident import TridentNet

    trident = TridentNet(
        ("person",), backbone="mobilenet_v2_0.35", image_size=64, neck="c4_light", channels=8,
        head_units=8, dilations=(1, 2), blocks=1, inference="middle",
    )
    trident.save(tmp_path / "trident.keras")
    files = tiny.keras, tiny.tflite, tmp_path / "trident.keras"
    assert bench("paired", *files, "--data", tiny.scenes, "--photos", 4) == 0
    out = capsys.readouterr().out
    assert ", 4 photos: person" in out
    found = rows(out, "detector")
    assert list(found) == [*map(str, files), f"{files[2]}, all branches"]
    assert len(found[str(files[0])]) == 5 and all(len(found[name]) == 6 for name in list(found)[1:])
    _, first, changes = out.partition(f"changes from {files[0]}")
    assert first and changes.split()[:5] == ["detector", *script("paired").FIGURES[1:]]
    each = [line for line in changes.splitlines() if line.startswith((str(files[1]), str(files[2])))]
    assert len(each) == 3 and all(len(re.split(r"\s{2,}", line)) == 5 for line in each)


@pytest.mark.parametrize("detector, ways", [
    ("csp", {"csp paper", "csp dense"}),
    pytest.param("centernet", {"centernet paper", "centernet dense"}, marks=pytest.mark.slow),
    pytest.param("ssdlite", {"ssdlite"}, marks=pytest.mark.slow),
    pytest.param("yolo_v1", {"yolo_v1"}, marks=pytest.mark.slow),
    pytest.param("yolo_v3", {"yolo_v3 yolo", "yolo_v3 giou"}, marks=pytest.mark.slow),
])
def test_targets(detector, ways, untraced, capsys):
    code = bench(
        "targets", detector, "--size", 64, "--batch", 2, "--boxes", 8, "--rounds", 1, "--backbone",
        "mobilenet_v1_0.25",
    )
    found = rows(capsys.readouterr().out, "detector")
    assert code == 0
    assert set(found) == ways


@pytest.mark.slow
def test_memory_pool(capsys):
    code = bench(
        "memory_pool", "yolo_v1", "--size", 64, "--batch", 2, "--boxes", 8, "--rounds", 1, "--backbone",
        "mobilenet_v1_0.25",
    )
    assert code == 0
    assert set(rows(capsys.readouterr().out, "memory")) == {"without", "with a pool"}


def test_overfeat_by_photos_and_by_boxes(tmp_path, capsys):
    from overfeats import small

    from kerasdet.data.scenes import write_scenes

    photos = tmp_path / "scenes"
    write_scenes(photos, 4, size=(64, 64), seed=0, split="val")
    for background, head, names in (
        (False, "windows", {"single crop", "ten crops", "dense, one scale, no offsets"}),
        (True, "windows", {"one scale, nms", "one scale, greedy", "2 scales, nms", "2 scales, greedy"}),
    ):
        small(("person",), background=background).save(tmp_path / "mine.keras")
        code = bench("overfeat", tmp_path / "mine.keras", photos, "--sizes", 64, 96, "--photos", 3)
        found = rows(capsys.readouterr().out, head)
        assert code == 0 and names <= set(found)
        # Of one class there is nothing to take for another.
        assert background or all(cells[0].startswith("0.00%") for cells in found.values())


@pytest.mark.slow
def test_sharing_a_backbone(capsys):
    needed("cv2.ximgproc")
    code = bench(
        "sharing", "--backbone", "mobilenet_v1_0.25", "--size", 64, "--warp", 64, "--proposals", 4, 8,
        "--rounds", 1,
    )
    found = rows(capsys.readouterr().out, "detector")
    assert code == 0
    names = ("R-CNN", "Fast R-CNN", "Faster R-CNN")
    assert set(found) == {f"{name}, {count} proposals" for name in names for count in (4, 8)}
    assert all(found[f"Fast R-CNN, {count} proposals"][1].startswith("1 ") for count in (4, 8))


def test_sliding_saves_what_windows_share(capsys):
    assert bench("overfeat", "sliding", "--rounds", 1) == 0
    out = capsys.readouterr().out
    apart = float(re.search(r"differ by at most (\S+)", out)[1])
    assert apart < 1e-4
    # By hand: 12 * 12 and 10 * 10 cells of the first convolution, 2 * 2 and 1 of the others.
    one, four = (int(rows(out, "what")[name][0].replace(",", "")) for name in
                 ("one pass on 16 x 16", "four windows of 14 x 14"))
    rest = 64 * 16 * 25 + 64 * 64 + 256
    assert (one, four) == (144 * 1200 + 4 * rest, 4 * (100 * 1200 + rest))


def test_fuzz_counts_what_comes_of_hostile_files(tiny, tmp_path):
    """In a process of its own, since it forks."""
    needed("hypothesis")
    options = ["--cases", "40", "--model", tiny.tflite, "--keras", tiny.keras, "--out", tmp_path / "out"]
    command = [sys.executable, BENCH / "fuzz.py", *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("40 cases, 0 failed\n") and not list((tmp_path / "out").iterdir())
    kinds = {line.split()[0] for line in done.stdout.splitlines()[2:-1]}
    assert kinds == {"sets", "photos", "models", "client", "report"}  # of a .keras there is one case in 200


def test_fuzz_tells_what_is_read_from_what_is_refused(tiny, tmp_path, monkeypatch):
    needed("hypothesis")
    fuzz = script("fuzz")
    assert fuzz.SHARES.keys() == fuzz.KINDS.keys() and sum(fuzz.SHARES.values()) == pytest.approx(1)
    saved, model = tiny.keras.read_bytes(), tiny.tflite.read_bytes()
    assert fuzz.read_keras(tmp_path, saved) == "read"
    assert fuzz.read_keras(tmp_path, saved[:-9]) == "refused"
    assert fuzz.read_report(tmp_path, model) == "read"
    assert fuzz.read_report(tmp_path, model[: len(model) // 2]) == "refused"
    # A client whose file says what it should goes on in a process of its own; here that is left out.
    monkeypatch.setattr(fuzz, "_apart", lambda look, path: look())
    assert fuzz.run_client(tmp_path, model[:-9]) == "refused"
    assert fuzz.run_client(tmp_path, model) is None

    def nameless(path):
        raise ValueError("something is wrong")

    import detect

    monkeypatch.setattr(detect, "_about", nameless)
    assert fuzz.run_client(tmp_path, model).startswith("no file named: ")


@pytest.mark.parametrize("strategy, sound, inside", [
    ("clients", "tflite", {"kerasdet.json"}),
    ("keras_files", "keras", {"metadata.json", "config.json", "model.weights.h5"}),
])
def test_hostile_files_are_not_damaged_beyond_recognition(tiny, strategy, sound, inside):
    needed("hypothesis")
    from hypothesis import given, settings

    whole = []

    @settings(max_examples=30, derandomize=True, database=None, deadline=None)
    @given(getattr(script("fuzz").hostile, strategy)(getattr(tiny, sound).read_bytes()))
    def make(data):
        try:
            whole.append(inside <= set(zipfile.ZipFile(io.BytesIO(data)).namelist()))
        except (zipfile.BadZipFile, ValueError):
            whole.append(False)

    make()
    assert len(whole) / 4 < sum(whole) < len(whole)
