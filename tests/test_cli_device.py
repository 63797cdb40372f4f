"""kerasdet report, benchmark and mistakes, on files of a small detector."""

import json
import types
import warnings

import pytest
from commands import run
from PIL import Image
from presets import tiny_csp

from kerasdet.data import load, writers
from kerasdet.deploy import benchmark as bench
from kerasdet.metrics.mistakes import KINDS


@pytest.fixture(scope="module")
def files(tmp_path_factory, scenes):
    """The float and the int8 file of one small CSP, untrained, and the drawn scenes on disk."""
    folder = tmp_path_factory.mktemp("device")
    model = tiny_csp()
    paths = {precision: folder / f"{precision}.tflite" for precision in ("float32", "int8")}
    for precision, path in paths.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.export(path, precision=precision, calibration=scenes, on_parity="warn")
    model.save(folder / "tiny.keras")
    return types.SimpleNamespace(keras=folder / "tiny.keras", data=scenes.root, **paths)


def in_splits(data, folder):
    """Four of the photos as train, three others as val."""
    photos = load(data)
    writers.write({"train": photos[:4], "val": photos[4:7]}, folder, "coco")


def test_report_says_what_accelerators_take(files):
    said = run("report", files.float32)
    assert "operators" in said and "GPU" in said and "Edge TPU" in said
    assert "CAST 1" in said and "from uint8 to float32" in said and "TOPK_V2" in said


def test_report_says_where_noise_comes_in(files):
    said = run("report", files.int8, "--float", files.float32, "--data", files.data, "--photos", 4)
    assert "noise of" in said and "4 photos" in said
    assert "DEPTHWISE_CONV_2D" in said and " CONV_2D" in said
    assert "noise where eight bits end (neck_" in said and "end, in float" not in said
    said = run(
        "report", files.int8, "--float", files.float32, "--data", files.data, "--photos", 3, "--layers", 1,
        "--without",
    )
    assert "end, in float" in said and "calibrated on these photos only" in said
    assert "--photos, --layers and --without are of" in run("report", files.int8, "--layers", 3, code=2)
    assert "--float and --data go together" in run("report", files.int8, "--float", files.float32, code=2)


def test_what_a_file_leaves_in_float_stays_so_when_more_is_tried(files, tmp_path, monkeypatch):
    given = []

    def noise_without(reference, squares, layers, keep_float, progress):
        assert len(layers) == 1
        given.append(keep_float)
        return {"": 0.02} | {layer: 0.03 - 0.01 * (layer == layers[-1]) * 2 for layer in layers}

    monkeypatch.setattr("kerasdet.deploy.noise.noise_without", noise_without)
    run("export", files.keras, "-o", tmp_path / "kept.tflite", "--precision", "int8", "--calibration",
        files.data, "--keep-float", "neck_block1_", "--on-parity", "warn")
    said = run("report", tmp_path / "kept.tflite", "--float", files.float32, "--data", files.data,
               "--photos", 3, "--layers", 1, "--without")
    assert given == ["neck_block1_"] and "2.00%" in said and "1.00%" in said
    assert "to leave in float: --keep-float 'neck_block1_|^" in said


def test_export_reports_and_keeps_layers_in_float(files, tmp_path):
    said = run("export", files.keras, "-o", tmp_path / "raw.tflite", "--outputs", "raw", "--input-dtype",
               "float32", "--report")
    gpu = next(line for line in said.splitlines() if "GPU" in line)
    assert "all" in gpu
    said = run("export", files.keras, "-o", tmp_path / "a.tflite", "--keep-float", "neck", code=2)
    assert "keep_float is 'neck' and precision float32" in said
    said = run("export", files.keras, "-o", tmp_path / "folder", "--report", code=2)
    assert "--report is of .tflite files" in said


def test_benchmark_prints_draws_and_writes(files, tmp_path):
    table = tmp_path / "peers.json"
    table.write_text(json.dumps({
        "reference": {"file": "float32", "milliseconds": 3.0, "threads": 2}, "sets": {},
        "peers": [{"name": "Other", "milliseconds": 1.5, "scores": {}}],
    }))
    plot, out = tmp_path / "plot.png", tmp_path / "rows.json"
    arguments = (
        "benchmark", files.float32, files.int8, "--data", files.data, "--threads", "1,2", "--rounds", 2,
        "--table", table, "--plot", plot, "--out", out,
    )
    said = run(*arguments)
    assert "Other (scaled from a table)" in said and "scored on" in said
    assert Image.open(plot).size[0] > 500
    found = json.loads(out.read_text())
    assert [(row["name"], row["threads"]) for row in found] == [
        ("float32", 1), ("float32", 2), ("int8", 1), ("int8", 2), ("Other", 2)
    ]
    assert found[0]["ratio"] == 1 and found[4]["ratio"] == 0.5 and found[4]["memory"] is None
    assert "exists; give another --plot" in run(*arguments, code=2)
    # A table that does not fit is told before anything is measured.
    said = run("benchmark", files.float32, "--threads", 1, "--table", table, code=2)
    assert "scaled by 'float32' at 2 threads, which 0 rows are" in said and "detector" not in said


def test_benchmark_measures_what_it_is_told(files, tmp_path, monkeypatch):
    seen = {}

    def benchmark(paths, dataset, threads, rounds, reference, progress):
        seen.update(paths=paths, names=dataset.classes, photos=len(dataset), threads=threads, rounds=rounds,
                    reference=reference)
        return [bench.Row(name, 1, bench.MEASURED, 1.0) for name in "ab"]

    monkeypatch.setattr(bench, "benchmark", benchmark)
    in_splits(files.data, tmp_path / "sets")
    run("benchmark", "a.tflite", "b.tflite", "--data", tmp_path / "sets", "--split", "train", "--classes",
        "person", "--threads", "1,4", "--rounds", 3, "--reference", "b")
    assert seen == {
        "paths": ["a.tflite", "b.tflite"], "names": ("person",), "photos": 4, "threads": (1, 4), "rounds": 3,
        "reference": "b",
    }
    run("benchmark", "a.tflite", "--data", tmp_path / "sets")
    assert (seen["photos"], seen["threads"], seen["rounds"], seen["reference"]) == (3, (2,), 30, None)


@pytest.mark.parametrize("options, reason", [
    (("--plot", "a.png"), "needs --data"),
    (("--plot", "a.txt"), "give a name that ends in .png"),
    (("--out", "a.txt"), "give a name that ends in .json or .csv"),
    (("--threads", "two"), "--threads is 'two'; give numbers"),
])
def test_benchmark_says_what_is_wrong(files, options, reason):
    assert reason in run("benchmark", files.float32, *options, code=2)


def test_mistakes_draws_as_many_photos_as_it_is_told(files, tmp_path, monkeypatch):
    drawn = []

    def draw(dataset, wrong, count):
        drawn.append((len(dataset), count))
        return Image.new("RGB", (8, 8))

    monkeypatch.setattr("kerasdet.metrics.draw_mistakes", draw)
    in_splits(files.data, tmp_path / "sets")
    options = "mistakes", files.float32, tmp_path / "sets", "--out", tmp_path / "a.png", "--score", 0
    run(*options, "--count", 3, "--split", "train")
    assert "exists" in run(*options, code=2)
    run(*options, "--overwrite")
    assert drawn == [(4, 3), (3, 12)]


def test_mistakes_are_counted_and_drawn(files, tmp_path):
    def counted(said):
        rows = [[cell.strip() for cell in line.split("│")] for line in said.splitlines() if "│" in line]
        return {row[1]: int(row[3]) for row in rows if row[3].isdigit()}

    options = "mistakes", files.float32, files.data, "--out"
    picture = tmp_path / "new" / "wrong.jpg"
    said = run(*options, picture, "--score", 0, "--count", 2)
    assert "12 photos: AP50 0." in said and "drawn into" in said
    assert counted(said).keys() == set(KINDS) and counted(said)["background"] > 0
    assert Image.open(picture).size[0] > 600
    assert "exists; give another --out" in run(*options, picture, code=2)
    # Untrained, it is sure of nothing: all objects are missed, and nothing else is wrong.
    found = counted(run(*options, tmp_path / "b.png", "--score", 0.99))
    assert found.pop("missed") > 12 and not any(found.values())
