"""The commands around training: what they hand on, print and write, and how they say what is wrong."""

import json
import math

import keras
import numpy as np
import pytest
from commands import run
from needed import needed
from PIL import Image
from presets import tiny_csp

from kerasdet import training
from kerasdet.data import Dataset, Sample
from kerasdet.metrics.compare import write_scores
from kerasdet.training.lr_range import RangeTest

# === train ===


@pytest.fixture
def handed(monkeypatch):
    """What `train` was called with."""
    calls = {}

    def record(data, model, out, **options):
        calls.update(options)
        return [{"epoch": 0, "val_AP": 0.25, "val_AP50": 0.5}]

    monkeypatch.setattr(training, "train", record, raising=False)
    return calls


def test_every_freebie_is_a_switch(handed, tmp_path):
    run("train", "photos", "--out", tmp_path)
    names = ("schedule", "warmup", "mixup", "mosaic", "mix_until", "repeat_rare", "label_smoothing", "sizes")
    assert [handed[name] for name in names] == ["cosine", None, 0.0, 0.0, None, None, None, None]
    options = ["--schedule", "step", "--warmup", 1.5, "--mixup", "--mosaic", "--mix-until", 7]
    options += ["--repeat-rare", 0.25]
    run("train", "photos", *options, "--label-smoothing", 0.1, "--sizes", "256,320, 384")
    assert [handed[name] for name in names] == ["step", 1.5, 1.5, 0.5, 7, 0.25, 0.1, (256, 320, 384)]
    run("train", "photos", "--label-smoothing", "yolo")
    assert handed["label_smoothing"] == "yolo" and len(handed["callbacks"]) == 1


def test_where_nothing_could_be_measured_no_epoch_is_the_best(monkeypatch, tmp_path):
    rows = [{"epoch": epoch, "val_AP": math.nan, "val_AP50": math.nan} for epoch in range(3)]
    monkeypatch.setattr(training, "train", lambda *given, **options: rows, raising=False)
    output = run("train", "photos", "--out", tmp_path)
    assert "the validation photos have no object" in output and "best: " not in output


def test_what_tensorflow_says_is_one_line(monkeypatch):
    import tensorflow as tf

    def output_of(error):
        def fails(*given, **options):
            raise error

        monkeypatch.setattr(training, "train", fails, raising=False)
        return run("train", "photos", code=2)

    for error in (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), MemoryError()):
        assert "error: out of memory; give a smaller --batch-size" in output_of(error)
    assert "error: shapes differ" in output_of(tf.errors.InvalidArgumentError(None, None, "shapes differ"))


def test_what_a_run_is_told_is_handed_on(handed):
    options = ["--rate", 0.02, "--seed", 7, "--image-size", 96, "--val", "v", "--epochs", 3]
    run("train", "photos", *options, "--batch-size", 5, "--resume")
    expected = {"rate": 0.02, "seed": 7, "image_size": 96, "val": "v", "epochs": 3, "batch_size": 5}
    assert handed.items() >= (expected | {"resume": True}).items()
    run("train", "photos")
    expected = {"rate": 3e-4, "seed": 0, "image_size": None, "val": None, "epochs": 20, "batch_size": 16}
    assert handed.items() >= (expected | {"resume": False}).items()


@pytest.mark.parametrize(
    "text", ["((9, 12), (20.5, 31))", "anchors=((9, 12), (20.5, 31))", "[[9,12],[20.5,31]]"]
)
def test_anchors_are_taken_as_they_are_printed(text, handed):
    run("train", "photos")
    assert handed["anchors"] is None
    run("train", "photos", "--anchors", text)
    assert handed["anchors"] == [(9, 12), (20.5, 31)]


def test_tensorboard_is_written_into_the_folder(handed, tmp_path, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "tensorboard" else None)
    run("train", "photos", "--out", tmp_path / "run", "--tensorboard")
    assert str(handed["callbacks"][1].log_dir) == str(tmp_path / "run" / "tensorboard")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'kerasdet[tensorboard]'" in run("train", "photos", "--tensorboard", code=2)


def test_tensorboard_reads_what_training_wrote(shapes, tmp_path):
    needed("tensorboard")
    tf = pytest.importorskip("tensorflow")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    detector = tiny_csp(shapes.classes)
    detector.compile(keras.optimizers.SGD(1e-4), ema=None)
    logs = keras.callbacks.TensorBoard(tmp_path)
    losses = detector.fit(shapes[:8].batches(4, detector), epochs=2, callbacks=[logs], verbose=0).history
    events = EventAccumulator(str(tmp_path / "train")).Reload()
    for name, values in losses.items():
        written = [tf.make_ndarray(event.tensor_proto) for event in events.Tensors(f"epoch_{name}")]
        np.testing.assert_allclose(written, values, rtol=1e-4)


def test_options_that_cannot_be_read_are_told(handed):
    assert "--label-smoothing is 'much'; give a number" in run(
        "train", "photos", "--label-smoothing", "much", code=2
    )
    assert "--sizes is '256x320'; give sides" in run("train", "photos", "--sizes", "256x320", code=2)
    for text in ("much", "", "((9, 12), (20))", "((9, 12, 3),)", "((9, 'a'),)", "((9, 12), (f(), 1))"):
        said = run("train", "photos", "--anchors", text, code=2)
        assert f"--anchors is {text!r}; give what kerasdet data anchors prints" in said
    assert "cosine" in run("train", "photos", "--schedule", "line", code=2)
    assert not handed


RECIPE = """import json, pathlib, sys
pathlib.Path("said.json").write_text(json.dumps([__name__, *sys.argv]))
if "--steps" not in sys.argv:
    sys.exit("recipe.py: error: say how many steps")
"""


def test_a_recipe_runs_as_it_does_alone(tmp_path, monkeypatch):
    (tmp_path / "shelf" / "mine").mkdir(parents=True)
    path = tmp_path / "shelf" / "mine" / "recipe.py"
    path.write_text(RECIPE)
    monkeypatch.setenv("KERASDET_ZOO", str(tmp_path / "shelf"))
    monkeypatch.chdir(tmp_path)
    for name in ("mine", path):
        run("train", "sets", "--recipe", name, "--out", "run", "--backbone", "b.h5", "--steps", 2)
        expected = f"__main__ {path} --data sets --out run --backbone b.h5 --steps 2".split()
        assert json.loads((tmp_path / "said.json").read_text()) == expected
    run("train", "sets", "--recipe", "mine", code=1)
    for options, message in (
        (["--recipe", "mine", "--epochs", 3], "--epochs does not go with --recipe"),
        (["--recipe", "gone.py"], "gone.py: there is no such recipe"),
        (["--recipe", "nobody"], "there is no preset 'nobody'"),
        (["--steps", 3], "--steps is for --recipe"),
    ):
        assert message in run("train", "sets", *options, code=2)


# === train --check ===


@pytest.mark.parametrize("passed", [True, False])
def test_check_says_what_it_found(passed, scenes, tmp_path, monkeypatch):
    from kerasdet.training import check

    # Its own rate, which is higher than that of `train`, unless one is given.
    own = {"rate": 0.5} if passed else {}

    def overfit(detector, dataset, *, photos, report, **options):
        assert (len(dataset), photos, options) == (len(scenes), count, own)
        report(50, 2.5, 0.5)
        reasons = [] if passed else ["the loss rose", "boxes [1] are small"]
        return check.Check(passed, {"AP": 0.96 if passed else 0.5}, 50, [2.5], reasons)

    monkeypatch.setattr(check, "overfit", overfit)
    tiny_csp().save(tmp_path / "start.keras")
    count = 12 if passed else check.PHOTOS
    options = ["--check", "--model", tmp_path / "start.keras"] + (["--batch-size", 12] if passed else [])
    options += ["--rate", 0.5] if own else []
    output = run("train", scenes.root, *options, code=0 if passed else 1)
    assert "50 steps: loss 2.5, AP 0.500" in output
    assert ("learned by heart after 50 steps, AP 0.960" in output) == passed
    assert ("Probably:\n- the loss rose\n- boxes [1] are small" in output) != passed
    assert "--mixup does not go with --check" in run("train", scenes.root, "--check", "--mixup", code=2)


# === lr-find ===


def test_lr_find_names_the_rates_and_draws_them(scenes, tmp_path, monkeypatch):
    def lr_find(detector, batches, *, lowest, highest, steps, progress):
        assert (batches.batch_size, lowest, highest, steps, progress) == (4, 1e-4, 0.1, 10, False)
        assert (detector.image_size, batches.seed) == (96, 3)
        rates = np.geomspace(1e-4, 0.01, 8)
        return RangeTest(rates, np.array([8.0, 8, 8, 4, 2, 2, 9, 9]) if falls else rates + 8, exploded=True)

    monkeypatch.setattr(training, "lr_find", lr_find, raising=False)
    tiny_csp().save(tmp_path / "start.keras")
    options = ["--model", tmp_path / "start.keras", "--batch-size", 4, "--lowest", 1e-4, "--highest", 0.1]
    options += ["--steps", 10, "--plot", tmp_path / "lr.png", "--image-size", 96, "--seed", 3]
    falls = True
    output = run("lr-find", scenes.root, *options)
    assert "the loss falls at rates from 3.7e-04 to 1.4e-03" in output and "it explodes at 1.0e-02" in output
    assert Image.open(tmp_path / "lr.png").width == 700
    assert "lr.png exists" in run("lr-find", scenes.root, *options, code=2)
    falls = False
    assert "the loss falls at no rate from 1.0e-04" in run("lr-find", scenes.root, *options, "--overwrite")

    def full(self):
        raise OSError("No space left on device")

    # What was found is told even if it cannot be drawn.
    monkeypatch.setattr(RangeTest, "draw", full)
    output = run("lr-find", scenes.root, *options, "--overwrite", code=2)
    assert "the loss falls at no rate from 1.0e-04" in output and "No space left" in output


# === compare ===


def test_compare_prints_and_draws_every_class(tmp_path):
    before, after, plot = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "new" / "compare.png"
    photos = Dataset([Sample("a.jpg", np.zeros((0, 4)), np.zeros(0))], ("cat",), name="zoo")
    write_scores(before, {"AP": 0.4, "AP/cat": 0.5, "AP/dog": 0.3}, photos)
    write_scores(after, {"AP": 0.317, "AP/cat": 0.45, "AP/dog": 0.4, "AP/owl": 0.1}, photos)
    output = run("compare", before, after, "--plot", plot)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if "│" in line]
    assert rows == [
        ["dog", "0.300", "0.400", "+0.100"], ["cat", "0.500", "0.450", "-0.050"],
        ["all that both know", "0.400", "0.425", "+0.025"],
    ]
    assert "scored in one of the two only: owl" in output and Image.open(plot).width == 800
    assert "compare.png exists" in run("compare", before, after, "--plot", plot, code=2)
    assert "a name that ends in .png" in run("compare", before, after, "--plot", "a.txt", code=2)
    assert "gone: there is no such evaluation" in run("compare", before, tmp_path / "gone", code=2)
