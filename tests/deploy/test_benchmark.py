"""Files beside each other: times in turns, scores, memory, rows of a table, and others' detectors."""

import csv
import itertools
import json
import math
import sys
import types

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from kerasdet.deploy import benchmark as bench
from kerasdet.deploy import flatbuffer, timing, trial
from kerasdet.deploy.peers import COCO_80, COCO_90, NanoDetPlus, _grid, open_detector


def row(name, milliseconds, AP50, threads=2, **more):
    return bench.Row(name, threads, more.pop("source", bench.MEASURED), milliseconds, AP50=AP50, **more)


# === Times ===


def test_interleave_takes_turns_after_warming_up_each(monkeypatch):
    calls, clock = [], itertools.count(step=3)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    times = timing.interleave(
        {name: lambda name=name: calls.append(name) for name in "ab"}, rounds=2, settle=1
    )
    assert "".join(calls) == "ab" + "aabb" * 2
    assert {name: seconds.tolist() for name, seconds in times.items()} == {"a": [3, 3], "b": [3, 3]}
    with pytest.raises(ValueError, match="rounds is 0"):
        timing.interleave({"a": calls.clear}, 0)


def test_spread_says_median_and_quartiles():
    assert timing.spread(np.array([1.0, 2, 3, 4, 5]), ".1f") == "3.0 (2.0 to 4.0)"


@pytest.mark.parametrize("key, flags, name", [
    ("flags", "fpu avx2 avx512f avx512_vnni", "AMD EPYC"),
    ("flags", "fpu avx2 fma", "AMD EPYC without eight-bit products"),
    ("Features", "fp asimd asimddp", "AMD EPYC"),
    ("Features", "fp asimd", "AMD EPYC without eight-bit products"),
    ("bugs", "spectre_v1", "AMD EPYC"),  # nobody knows
])
def test_a_processor_s_name_says_if_int8_is_no_faster_there(key, flags, name):
    core = f"processor\t: 0\nmodel name\t: AMD EPYC\n{key}\t\t: {flags}\n"
    assert timing.processor_name(core + core.replace(": 0", ": 1")) == name


def test_a_processor_without_a_name():
    assert timing.processor_name("") == timing.processor_name("Features\t: fp asimd\n") == ""
    assert timing.processor().endswith(" cores") and not timing.processor().startswith(",")


def test_memory_is_of_the_file_and_not_of_who_asks(exported):
    path, _ = exported()
    ballast = np.ones(200_000_000 // 8)  # what Linux would hand on as the child's peak
    assert timing.peak_bytes() > ballast.nbytes
    assert 0 < timing.memory(path, 1) < 100e6


def test_memory_is_unknown_where_the_system_does_not_tell(monkeypatch):
    """On Windows."""
    monkeypatch.setattr(timing.Path, "exists", lambda path: False)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert math.isnan(timing.peak_bytes())
    said = types.SimpleNamespace(returncode=0, stdout=f"{json.dumps(math.nan)}\n")
    monkeypatch.setattr(timing, "run_python", lambda *_, **__: said)
    assert math.isnan(timing.memory("a.tflite", 1))


def test_memory_says_why_a_file_does_not_run(tmp_path):
    (tmp_path / "no.tflite").write_text("no model")
    with pytest.raises(RuntimeError, match="no.tflite: cannot be run in a process of its own: ValueError"):
        timing.memory(tmp_path / "no.tflite", 1)


# === Rows ===


@pytest.fixture
def clock(monkeypatch):
    """Every file takes (its place + 1) * 2 ms by 1 thread, half of it by 2."""

    def interleave(tasks, rounds, settle=0, progress=False):
        for task in tasks.values():
            assert task()  # each can be run
        return {key: np.full(rounds, (key[0] + 1) * 0.002 / key[1]) for key in tasks}

    monkeypatch.setattr(timing, "interleave", interleave)


def test_a_row_for_each_file_and_number_of_threads(exported, disc_set, clock):
    files = [exported()[0], exported("float16")[0]]
    rows = bench.benchmark(files, disc_set, (1, 2), rounds=3, reference="float16")
    assert [(one.name, one.threads) for one in rows] == [
        ("float32_detections", 1), ("float32_detections", 2), ("float16_detections", 1),
        ("float16_detections", 2),
    ]
    assert [one.milliseconds for one in rows] == pytest.approx([2, 1, 4, 2])
    assert [one.ratio for one in rows] == pytest.approx([0.5, 0.5, 1, 1])
    # A name given whole is meant, though it be part of another's, or given twice.
    longer = files[0].with_name(files[0].stem + "_too.tflite")
    longer.write_bytes(files[0].read_bytes())
    rows_of_two = bench.benchmark([longer, *files[:1] * 2], None, (1,), 1, reference=files[0].stem)
    assert [one.ratio for one in rows_of_two] == pytest.approx([0.5, 1, 1.5])
    # And so is a file.
    rows_of_two = bench.benchmark([longer, files[0]], None, (1,), 1, reference=str(files[0]))
    assert [one.ratio for one in rows_of_two] == pytest.approx([0.5, 1])
    assert all(one.AP50 == pytest.approx(1, abs=0.02) and one.classes == ("red", "blue") for one in rows)
    assert rows[0].megabytes == pytest.approx(files[0].stat().st_size / 1e6) and rows[0].memory > 0


def test_ratios_are_of_neighbouring_turns(exported, monkeypatch):
    """The median of a's turns over b's is 1; of medians, 3 over 2, it would be 1.5."""
    a, b = np.array([1, 2, 3, 4, 5]) / 1000, np.array([5, 1, 2, 4, 2]) / 1000
    monkeypatch.setattr(timing, "interleave", lambda tasks, *_, **__: dict(zip(tasks, (a, b), strict=True)))
    files = [exported()[0], exported("float16")[0]]
    one, other = bench.benchmark(files, None, (1,), rounds=5, reference="float16")
    assert [one.milliseconds, one.low, one.high] == pytest.approx([3, 2, 4])
    # 0.2, 2, 1.5, 1, 2.5 in order: 0.2, 1, 1.5, 2, 2.5.
    assert [one.ratio, one.ratio_low, one.ratio_high] == pytest.approx([1.5, 1, 2])
    assert [other.milliseconds, other.ratio] == pytest.approx([2, 1])


def test_a_file_is_scored_on_the_classes_it_knows(exported, disc_set, clock):
    both = type(disc_set)(list(disc_set), ("red", "green"), (), "other", disc_set.root)
    (found,) = bench.benchmark([exported()[0]], both, (1,), 1)
    assert found.classes == ("red",)
    none = type(disc_set)(list(disc_set), ("cat", "dog"), (), "other", disc_set.root)
    with pytest.raises(ValueError, match="float32_detections.tflite: finds none of the classes cat, dog"):
        bench.benchmark([exported()[0]], none, (1,), 1)
    (unscored,) = bench.benchmark([exported()[0]], None, (1,), 1)
    assert math.isnan(unscored.AP) and unscored.classes == ()


def test_what_is_wrong_is_said_before_anything_is_timed(exported):
    path, _ = exported()
    for options, reason in (
        ({"threads": (0,)}, r"threads is \(0,\)"), ({"reference": "ssd"}, "part of 0 names"),
        ({"files": [path, path], "reference": "float32"}, "part of 2 names"),
        ({"files": [exported(outputs="raw")[0]]}, "ends in raw heads"),
    ):
        with pytest.raises(ValueError, match=reason):
            bench.benchmark(**{"files": [path], "rounds": 1} | options)


def test_rows_from_a_table_are_scaled_by_the_reference(tmp_path):
    table = {
        "reference": {"file": "ssd", "milliseconds": 4.0, "threads": 2},
        "sets": {"farm": {"classes": ["cow", "cat"]}, "street": {"classes": ["person"]}},
        "peers": [
            {"name": "SSD", "file": "ssd", "milliseconds": 4.0, "scores": {"farm": {"AP": 0.3, "AP50": 0.5}}},
            {"name": "other", "milliseconds": 2.0, "scores": {"farm": {"AP": 0.4, "AP50": 0.6}}},
        ],
    }
    path = tmp_path / "peers.json"
    path.write_text(json.dumps(table))
    seen = {"classes": ("cat", "cow"), "ratio": 1.0}
    measured = [row("ssd_v1", 8.0, 0.5, **seen), row("ssd_v1", 12.0, 0.5, threads=1, **seen)]
    (found,) = bench.scaled(path, measured)  # and not again what was measured
    assert (found.name, found.milliseconds, found.ratio, found.threads) == ("other", 4.0, 0.5, 2)
    assert (found.AP, found.AP50) == (0.4, 0.6)
    assert found.source == "scaled from a table" and math.isnan(found.low)
    # Nobody knows what it scores on other classes.
    for classes in (("person",), ("cat",), ()):
        (found,) = bench.scaled(path, [row("ssd_v1", 8.0, 0.5, ratio=1.0, classes=classes)])
        assert found.milliseconds == 4.0 and math.isnan(found.AP) and math.isnan(found.AP50)
    with pytest.raises(ValueError, match="'ssd' at 2 threads, which 0 rows are .*--threads with 2"):
        bench.scaled(path, measured[1:])
    path.write_text('{"peers": []}')
    with pytest.raises(ValueError, match="peers.json: is no such table .*'reference'"):
        bench.scaled(path, measured)


def test_the_front_is_what_none_beats():
    rows = [row("slow", 9, 0.6), row("worse", 5, 0.3), row("good", 4, 0.5), row("fast", 2, 0.3),
            row("unknown", 1, math.nan), row("same, slower", 6, 0.5)]
    assert [one.name for one in bench.front(rows)] == ["fast", "good", "slow"]


def test_rows_are_written_as_json_and_csv(tmp_path):
    rows = [row("a", 2.5, 0.5, classes=("cat", "dog")), row("b", 3.0, math.nan)]
    bench.write(rows, tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert (found[0]["name"], found[0]["classes"], found[1]["AP50"]) == ("a", ["cat", "dog"], None)
    bench.write(rows, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert (lines[0]["milliseconds"], lines[0]["classes"], lines[1]["AP50"]) == ("2.5", "cat dog", "")


def test_the_picture_has_a_panel_for_each_number_of_threads():
    rows = [row("a", 2, 0.5), row("b", 4, 0.6, source=bench.SCALED), row("a", 3, 0.5, threads=1)]
    one, two = bench.draw(rows).axes
    assert [text.get_text().strip() for text in one.texts] == ["a"]
    assert {text.get_text().strip() for text in two.texts} == {"a", "b"}
    assert "2 CPU threads" in two.get_xlabel() and "1 CPU thread" in one.get_xlabel()
    assert len(two.lines[0].get_xdata()) == 2  # none beats the other


# === Others' detectors ===


def test_coco_has_eighty_classes_with_gaps_in_ninety():
    assert len(COCO_80) == 80 and len(COCO_90) == 90
    # Of COCO's own list: ids 1, 17, 44 (after four gaps), 90.
    assert (COCO_80[0], COCO_80[15], COCO_80[39], COCO_80[79]) == ("person", "cat", "bottle", "coco 90")


def test_nanodet_is_decoded_as_by_hand():
    detector = object.__new__(NanoDetPlus)
    detector.image_size = 64
    detector._cells = np.concatenate([_grid(64, stride) for stride in (8, 16, 32, 64)])
    assert len(detector._cells) == 64 + 16 + 4 + 1
    output = np.full((85, 112), -20.0)
    output[:, :80] = 0
    cell = 64 + 1 * 4 + 2  # stride 16, row 1, column 2: x 32, y 16
    output[cell, 16] = 0.9  # a dog
    # Left and top 1 bin, right all bins alike (3.5 on the mean), bottom half 0 and half 1.
    bins = output[cell, 80:].reshape(4, 8)
    bins[0, 1] = bins[1, 1] = 20
    bins[2] = 5
    bins[3, :2] = 20
    found = detector.decode(output)
    assert COCO_80[int(found["classes"][0])] == "dog" and found["scores"][0] == 0.9
    # ymin 16 - 16, xmin 32 - 16, ymax 16 + 8, xmax 32 + 56 (beyond the square) over 64.
    np.testing.assert_allclose(found["boxes_rel_yxyx"][0], [0, 0.25, 0.375, 1], atol=1e-6)


def test_nanodet_sees_bgr_less_imagenets_mean_and_finds_no_doubles():
    detector = object.__new__(NanoDetPlus)
    detector.image_size, detector.classes = 64, COCO_80
    detector._cells = np.concatenate([_grid(64, stride) for stride in (8, 16, 32, 64)])
    output, seen = np.full((85, 112), -20.0), []
    output[:, :80] = 0
    cell = 64 + 1 * 4 + 2  # stride 16: x 32, y 16; the next one lies 16 px to the right
    for row, score in ((cell, 0.9), (cell + 1, 0.8)):
        output[row, 16] = score
        output[row, 80:].reshape(4, 8)[:, 1] = 20
    # From 16, 0 to 48, 32, and from 20, 0 to 52, 32: .78 overlap.
    output[cell + 1, 80:].reshape(4, 8)[0], output[cell + 1, 80:].reshape(4, 8)[2] = -20, -20
    output[cell + 1, 80 + 1], output[cell + 1, 80 + 2] = np.log([1, 3])
    output[cell + 1, 80 + 17], output[cell + 1, 80 + 16] = np.log([1, 3])

    def run(image):
        seen.append(image)
        return (output,)

    detector._runner = run
    photo = np.full((64, 64, 3), (10, 20, 30), np.uint8)
    found = detector.detect(photo, score=0.1)
    expected = [(30 - 103.53) / 57.375, (20 - 116.28) / 57.12, (10 - 123.675) / 58.395]
    np.testing.assert_allclose(seen[0][5, 5], expected, rtol=1e-5)
    np.testing.assert_allclose(found.boxes, [[16, 0, 48, 32]], atol=1e-3)
    assert found.names == ["dog"] and found.scores[0] == pytest.approx(0.9)


def test_a_file_that_breaks_litert_is_told_before_it_is_opened(exported, monkeypatch):
    monkeypatch.setattr(trial, "_PROGRAM", "import os; os.abort()")
    with pytest.raises(ValueError, match="LiteRT breaks down on it"):
        open_detector(exported()[0])


def test_another_file_is_not_nanodet(tmp_path):
    (tmp_path / "x.tflite").write_bytes(b"    TFL3" + bytes(64))
    assert not NanoDetPlus.fits(tmp_path / "x.tflite")


def test_our_files_keep_their_labels(exported):
    assert open_detector(exported()[0]).classes == ("red", "blue")


def test_a_picture_of_any_size_is_not_laid_out(tmp_path, monkeypatch):
    """192 bytes that promise a photo of 160,000 px: its cells are counted."""
    monkeypatch.setattr("kerasdet.deploy.peers._grid", None)
    model = schema.ModelT()
    graph, tensor, buffer = schema.SubGraphT(), schema.TensorT(), schema.BufferT()
    tensor.shape, tensor.type, tensor.name = np.array([1, 160_000, 1, 1], np.int32), 3, b"image"
    graph.tensors, graph.operators = [tensor], []
    graph.inputs = graph.outputs = np.array([0], np.int32)
    model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], [buffer], []
    path = tmp_path / "tall.tflite"
    path.write_bytes(flatbuffer.write(model))
    assert not NanoDetPlus.fits(path)
    with pytest.raises(ValueError, match=r"tall\.tflite: "):
        open_detector(path)
