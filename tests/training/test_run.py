"""train: the run's folder, the figures in it, and going on after an interruption."""

import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from eager import eagerly
from harness import tiny_backbone
from PIL import Image
from presets import tiny_csp

import kerasdet
from kerasdet.data import Dataset, Sample
from kerasdet.metrics import CocoMetrics
from kerasdet.metrics.compare import read_scores
from kerasdet.models.csp import CSP
from kerasdet.models.yolo_v3 import YOLOv3
from kerasdet.training.folder import Keep, best_of, settle_config, trim_log
from kerasdet.training.run import train

SETTINGS = {"epochs": 2, "batch_size": 4, "rate": 1e-3, "seed": 1}


class StopAfter(keras.callbacks.Callback):
    """Ends the run as Ctrl-C does, after an epoch is written."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(scenes, tmp_path_factory):
    """A run that nothing interrupts: (folder, rows)."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with eagerly():
        return folder, train(scenes, tiny_csp(), folder, **SETTINGS)


def test_the_folder_and_its_log(whole, scenes):
    folder, rows = whole
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "best.keras", "last.keras", "scores.json", "log.csv", "curves.png", "config.json", "checkpoint.npz"
    }
    scores = read_scores(folder)
    assert scores["photos"] == 1 and {"AP", "AP/person", "MR"} <= set(scores["scores"])
    assert scores["scores"]["AP"] == pytest.approx(rows[scores["epoch"] - 1]["val_AP"], nan_ok=True)
    assert Image.open(folder / "curves.png").width >= 600
    assert [row["epoch"] for row in rows] == [0, 1]
    assert {"loss", "box_loss", "part_loss", "val_AP", "val_AP50", "val_MR"} <= set(rows[0])
    config = json.loads((folder / "config.json").read_text())
    # A tenth of the photos is kept for validation.
    photos = config["settings"]["train"]["photos"], config["settings"]["val"]["photos"]
    assert photos == (11, 1) and sum(photos) == len(scenes)
    assert config["versions"]["keras"] == keras.__version__
    for name in ("best.keras", "last.keras"):
        assert kerasdet.load(folder / name).classes == ("person",)


def test_the_rate_rises_and_falls(whole):
    folder, _ = whole
    optimizer = kerasdet.load(folder / "last.keras").optimizer
    steps = 2 * (11 // 4)
    rates = [float(optimizer._learning_rate(step)) for step in range(steps + 1)]
    assert rates[0] == pytest.approx(1e-5) and max(rates) == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(1e-5) and rates[1:] == sorted(rates[1:], reverse=True)


def test_what_is_kept_is_the_average(whole):
    """The run's own weights are in its checkpoint alone."""
    folder, _ = whole
    model, apart = kerasdet.load(folder / "last.keras"), []
    averaged = [(i, v) for i, v in enumerate(model.weights) if keras.backend.is_float_dtype(v.dtype)]
    with np.load(folder / "checkpoint.npz") as saved:
        for place, (i, variable) in enumerate(averaged):
            if "moving_" in variable.path:
                continue  # measured anew
            kept = keras.ops.convert_to_numpy(variable)
            np.testing.assert_allclose(kept, saved[f"ema_{place}"], atol=1e-6, err_msg=variable.path)
            apart.append(np.abs(kept - saved[f"weight_{i}"]).max())
    assert max(apart) > 1e-5


@pytest.mark.usefixtures("untraced")
def test_a_run_goes_on_as_if_it_had_not_stopped(whole, scenes, tmp_path):
    folder, rows = whole
    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(scenes, tiny_csp(), out, **SETTINGS, callbacks=[StopAfter(0)])
    halfway = kerasdet.load(out / "last.keras").get_weights()
    # As a kill between log and checkpoint leaves it: a row that the checkpoint does not know.
    line = (out / "log.csv").read_text().splitlines()[1]
    with (out / "log.csv").open("a") as log:
        log.write(f"1,{line.partition(',')[2]}\n")
    resumed = train(scenes, tiny_csp(), out, **SETTINGS, resume=True)
    assert [row["epoch"] for row in resumed] == [0, 1]
    for before, after in zip(rows, resumed, strict=True):
        np.testing.assert_allclose(after["loss"], before["loss"], rtol=1e-4)
    models = [kerasdet.load(path / "last.keras").get_weights() for path in (folder, out)]
    for one, other in zip(*models, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-5)
    moved = max(np.abs(a - b).max() for a, b in zip(halfway, models[1], strict=True))
    assert moved > 1e-4


@pytest.mark.usefixtures("untraced")
def test_a_run_that_goes_on_keeps_the_best_epoch_of_before(scenes, tmp_path, monkeypatch):
    figures, scored = iter([0.5, 0.1]), []

    def evaluate(detector, *_, **__):
        scored.append([keras.ops.convert_to_numpy(v) for v in detector.trainable_weights])
        return {"AP": next(figures)}

    monkeypatch.setattr(CSP, "evaluate_detections", evaluate)
    data, out = scenes[:4], tmp_path / "run"
    options = SETTINGS | {"val": scenes[4:5]}
    with pytest.raises(KeyboardInterrupt):
        train(data, tiny_csp(), out, **options, callbacks=[StopAfter(0)])
    best = (out / "best.keras").read_bytes()
    rows = train(data, tiny_csp(), out, **options, resume=True)
    assert [row["val_AP"] for row in rows] == [0.5, 0.1]
    assert (out / "best.keras").read_bytes() == best and read_scores(out)["epoch"] == 1
    # What was scored is what is kept.
    for name, weights in zip(("best", "last"), scored, strict=True):
        kept = kerasdet.load(out / f"{name}.keras").trainable_weights
        for variable, seen in zip(kept, weights, strict=True):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), seen)


@pytest.mark.usefixtures("untraced")
def test_what_is_asked_for_reaches_the_batches_and_the_detector(scenes, tmp_path, monkeypatch):
    asked, batches = {}, Dataset.batches

    def watched(self, *arguments, **options):
        asked.update(options)
        return batches(self, *arguments, **options)

    monkeypatch.setattr(Dataset, "batches", watched)
    out, pairs = tmp_path / "run", ((6, 9), (14, 20), (30, 40))
    options = SETTINGS | {"epochs": 1, "mixup": 1.5, "mosaic": 0.5, "image_size": 96, "label_smoothing": 0.25}
    train(scenes, tiny_yolo(), out, **options, anchors=pairs)
    augment = asked["augment"]
    assert (augment.mixup, augment.mosaic, asked["mix_until"], asked["seed"]) == (1.5, 0.5, 1, 1)
    made = kerasdet.load(out / "last.keras")
    assert (made.image_size, made.label_smoothing, made.anchors) == (96, 0.25, pairs)
    with pytest.raises(ValueError, match="the run began with anchors .*, now it is None"):
        train(scenes, tiny_yolo(), out, **options, resume=True)


def test_a_finished_run_is_left_as_it_is(whole, scenes):
    folder, rows = whole
    before = (folder / "last.keras").read_bytes()
    # As text, in which nan equals nan.
    assert str(train(scenes, tiny_csp(), folder, **SETTINGS, resume=True)) == str(rows)
    assert (folder / "last.keras").read_bytes() == before


def test_a_run_goes_on_with_a_detector_whose_name_counts_up(whole, scenes):
    """Keras calls the second one of a process csp_1, and another process's first one csp."""
    folder, rows = whole
    second = CSP.from_config(tiny_csp().get_config() | {"name": "tiny_1"})
    assert second.name == "tiny_1"
    assert str(train(scenes, second, folder, **SETTINGS, resume=True)) == str(rows)


def test_what_does_not_fit_the_run_is_refused(whole, scenes):
    folder, _ = whole
    with pytest.raises(FileExistsError, match="whole: is not empty"):
        train(scenes, tiny_csp(), folder, **SETTINGS)
    with pytest.raises(ValueError, match="the run began with epochs 2, now it is 3"):
        train(scenes, tiny_csp(), folder, **SETTINGS | {"epochs": 3}, resume=True)
    with pytest.raises(ValueError, match="the run began with train .*now it is"):
        train(scenes[:10], tiny_csp(), folder, **SETTINGS, resume=True)


def test_wrong_settings_leave_no_folder(scenes, tmp_path):
    out = tmp_path / "new"
    with pytest.raises(FileNotFoundError, match="holds no run to go on with"):
        train(scenes, tiny_csp(), out, resume=True)
    with pytest.raises(ValueError, match="epochs=0"):
        train(scenes, tiny_csp(), out, epochs=0)
    with pytest.raises(ValueError, match=r"a\.tflite: a \.tflite can not be trained"):
        train(scenes, "a.tflite", out)
    with pytest.raises(ValueError, match="holds no photos"):
        train(scenes, tiny_csp(), out, val=scenes.subset([]))
    with pytest.raises(FileNotFoundError, match="no such folder"):
        train(tmp_path / "gone", tiny_csp(), out)
    stranger = scenes.as_one_class("stranger")
    with pytest.raises(ValueError, match="stranger"):
        train(scenes, tiny_csp(), out, val=stranger)
    assert not out.exists()


@pytest.mark.parametrize("text", ['{"settings": {"ep', "{}", "[1]", '{"settings": 3}'])
def test_settings_that_are_none_are_named(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json: not the settings of a run .* give another folder"):
        settle_config(tmp_path / "config.json", {"epochs": 1}, resume=True)


def test_the_validation_split_of_a_folder_is_used(tmp_path):
    from kerasdet.data.scenes import write_scenes
    from kerasdet.training.run import _sets

    write_scenes(tmp_path, 4, size=(64, 64), split="train")
    write_scenes(tmp_path, 3, size=(64, 64), split="val")
    assert [len(part) for part in _sets(tmp_path, None, 0)] == [4, 3]
    alone = tmp_path / "annotation_train.odgt"
    assert [len(part) for part in _sets(alone, None, 0)] == [3, 1]
    assert [len(part) for part in _sets(alone, tmp_path, 0)] == [4, 3]
    # What is to be scored on is never what is learned from.
    other = tmp_path / "other"
    for split in ("train", "test"):
        write_scenes(other, 4, size=(64, 64), split=split, seed=len(split))
    for data in (tmp_path, other):
        training, validation = _sets(data, other, 0)
        assert validation.name.endswith("test")
        assert not {sample.path for sample in training} & {sample.path for sample in validation}
    # The name of its only file does not make a set one to validate on.
    training, validation = _sets(tmp_path / "annotation_val.odgt", None, 0)
    assert [len(training), len(validation)] == [2, 1]
    assert not {sample.path for sample in training} & {sample.path for sample in validation}


def tiny_yolo():
    keras.utils.set_random_seed(0)
    squares = ((8, 8), (16, 16), (32, 32))
    return YOLOv3(
        ("person",), backbone=tiny_backbone(), image_size=64, anchors=squares, channels=8, name="tiny"
    )


EVERYTHING = {
    "epochs": 2, "batch_size": 4, "rate": 1e-3, "schedule": "step", "warmup": 0.5, "mixup": 1.5,
    "mosaic": 0.5, "mix_until": 1, "repeat_rare": 1.0, "label_smoothing": "yolo", "sizes": (32, 64),
}
# Run as a process of its own, which is killed in the middle of the second epoch.
CHILD = f"""
import os, signal, sys
sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parent)]!r}
import keras
import kerasdet
from test_run import EVERYTHING, tiny_yolo
from kerasdet.training import train
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    tf.config.run_functions_eagerly(True)

class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

data = kerasdet.data.load(sys.argv[1])
train(data, tiny_yolo(), sys.argv[2], val=data.subset([0]), callbacks=[Kill()], **EVERYTHING)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("untraced")
def test_a_run_with_every_freebie_goes_on_after_kill_9(scenes, tmp_path):
    """To the same losses as one that nothing interrupted, and to the same weights."""
    data = kerasdet.data.load(scenes.root)
    options = EVERYTHING | {"val": data.subset([0])}
    rows = train(data, tiny_yolo(), tmp_path / "whole", **options)
    out = tmp_path / "killed"
    child = subprocess.run([sys.executable, "-c", CHILD, scenes.root, out], capture_output=True, text=True)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert len((out / "log.csv").read_text().splitlines()) == 2
    resumed = train(data, tiny_yolo(), out, resume=True, **options)
    assert [row["epoch"] for row in resumed] == [0, 1]
    for before, after in zip(rows, resumed, strict=True):
        losses = {key: value for key, value in before.items() if "loss" in key}
        assert {key: after[key] for key in losses} == pytest.approx(losses, rel=1e-4)
    with np.load(tmp_path / "whole" / "checkpoint.npz") as a, np.load(out / "checkpoint.npz") as b:
        assert set(a) == set(b)
        for key in a:
            np.testing.assert_allclose(a[key], b[key], rtol=1e-3, atol=1e-5, err_msg=key)
    settings = json.loads((out / "config.json").read_text())["settings"]
    assert settings["mix_until"] == 1 and settings["sizes"] == [32, 64]


def test_what_a_model_cannot_take_is_told_before_there_is_a_folder(scenes, tmp_path):
    out, model = tmp_path / "new", tiny_csp()
    for options, message in (
        ({"label_smoothing": 0.1}, "CSP does not say one class among several"),
        ({"sizes": (64, 100)}, r"sizes=\(64, 100\): 100 is no multiple of 32"),
        ({"mix_until": 3}, "mix_until is 3, but nothing is mixed"),
        ({"mixup": 1, "mix_until": 99, "epochs": 20}, "mix_until is 99 of 20 epochs; give 0 to 20"),
        ({"mixup": -1}, "mixup is -1; give 0 for none"),
        ({"mosaic": 2}, "mosaic is 2; give a probability"),
        ({"repeat_rare": 30}, r"repeat_rare\(30\): .* above 0 and at most 1"),
        ({"schedule": "line"}, "schedule is 'line'; give one of cosine, step, constant"),
        ({"warmup": 99}, "the warm-up takes 198 steps of 40; give 0 or more, and fewer than all"),
    ):
        with pytest.raises(ValueError, match=message):
            train(scenes, model, out, batch_size=4, **options)
    assert not out.exists()


@pytest.mark.parametrize(("epochs", "until"), [(200, 180), (19, 18), (9, 8), (2, 1), (1, 1)])
def test_the_last_tenth_of_the_epochs_is_unmixed(epochs, until):
    from kerasdet.training.run import _mixing

    made = _mixing(1.5, 0.0, None, epochs)
    assert made["mix_until"] == until and made["augment"].mixup == 1.5 and made["augment"].mosaic == 0


@pytest.mark.parametrize(
    ("figures", "kept"),
    [([0.1, 0.3, 0.2], 1), ([0.3, 0.3], 0), ([math.nan, 0.1, math.nan], 1), ([math.nan], 0)],
)
def test_the_best_epoch_is_kept(figures, kept, tmp_path):
    class Model:
        def save(self, path):
            path.write_text(str(self.epoch))

    sample = Sample("a.jpg", np.zeros((0, 4)), np.zeros(0))
    evaluation = CocoMetrics(Dataset([sample], (), name="none"))
    keep = Keep(tmp_path, evaluation)
    keep.set_model(Model())
    for epoch, figure in enumerate(figures):
        keep.model.epoch, evaluation.metrics = epoch, {"AP": figure}
        keep.on_epoch_end(epoch, {"val_AP": figure})
    assert (tmp_path / "best.keras").read_text() == str(kept)
    scores = read_scores(tmp_path)
    assert scores["epoch"] == kept + 1 and str(scores["scores"]["AP"]) == str(figures[kept])
    assert (tmp_path / "last.keras").read_text() == str(len(figures) - 1)


def test_a_full_disk_leaves_the_log(tmp_path, monkeypatch):
    log = tmp_path / "log.csv"
    log.write_text("epoch,val_AP\n0,0.3\n1,0.2\n")

    def full(path, text, encoding=None):
        path.open("w").close()
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    trim_log(log, 2)  # nothing to cut, nothing written
    with pytest.raises(OSError, match="No space left"):
        trim_log(log, 1)
    assert best_of(log) == 0.3
    monkeypatch.undo()
    trim_log(log, 1)
    assert log.read_text() == "epoch,val_AP\n0,0.3\n"
