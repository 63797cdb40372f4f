"""train: the run's folder, the figures in it, and going on after an interruption."""

import json
import math

import keras
import numpy as np
import pytest
from presets import tiny_csp

import kerasdet
from kerasdet.training.run import Keep, train

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
    return folder, train(scenes, tiny_csp(), folder, **SETTINGS)


def test_the_folder_and_its_log(whole, scenes):
    folder, rows = whole
    names = {path.name for path in folder.iterdir()}
    assert names == {"best.keras", "last.keras", "log.csv", "config.json", "checkpoint.npz"}
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
        np.testing.assert_allclose(after["loss"], before["loss"], rtol=1e-3)
    models = [kerasdet.load(path / "last.keras").get_weights() for path in (folder, out)]
    for one, other in zip(*models, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-5)
    moved = max(np.abs(a - b).max() for a, b in zip(halfway, models[1], strict=True))
    assert moved > 1e-4


def test_a_finished_run_is_left_as_it_is(whole, scenes):
    folder, rows = whole
    before = (folder / "last.keras").read_bytes()
    # As text, in which nan equals nan.
    assert str(train(scenes, tiny_csp(), folder, **SETTINGS, resume=True)) == str(rows)
    assert (folder / "last.keras").read_bytes() == before


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
    assert not out.exists()


def test_the_validation_split_of_a_folder_is_used(tmp_path):
    from kerasdet.data.scenes import write_scenes
    from kerasdet.training.run import _sets

    write_scenes(tmp_path, 4, size=(64, 64), split="train")
    write_scenes(tmp_path, 3, size=(64, 64), split="val")
    assert [len(part) for part in _sets(tmp_path, None, 0)] == [4, 3]
    alone = tmp_path / "annotation_train.odgt"
    assert [len(part) for part in _sets(alone, None, 0)] == [3, 1]
    assert [len(part) for part in _sets(alone, tmp_path, 0)] == [4, 3]


@pytest.mark.parametrize(
    ("figures", "kept"),
    [([0.1, 0.3, 0.2], 1), ([0.3, 0.3], 0), ([math.nan, 0.1, math.nan], 1), ([math.nan], 0)],
)
def test_the_best_epoch_is_kept(figures, kept, tmp_path):
    class Model:
        def save(self, path):
            path.write_text(str(self.epoch))

    keep = Keep(tmp_path)
    keep.set_model(Model())
    for epoch, figure in enumerate(figures):
        keep.model.epoch = epoch
        keep.on_epoch_end(epoch, {"val_AP": figure})
    assert (tmp_path / "best.keras").read_text() == str(kept)
    assert (tmp_path / "last.keras").read_text() == str(len(figures) - 1)
