"""Training in stages: one run over several sizes, which can be killed."""

import csv

import keras
import numpy as np
import pytest
from harness import tiny_backbone
from overfeats import small

from kerasdet.data.scenes import write_scenes
from kerasdet.models.csp import CSP
from kerasdet.training import Stage, train_in_stages

pytestmark = pytest.mark.usefixtures("untraced")
STAGES = Stage(64, 2, 4), Stage(96, 1, 4)


class Killed(Exception):
    pass


class KillAt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Killed


def build(size, fresh):
    keras.utils.set_random_seed(1 if fresh else 2)
    return CSP(("person",), backbone=tiny_backbone(size), image_size=size, target="dense")


def weights(model):
    return [keras.ops.convert_to_numpy(v) for v in model.weights]


def test_killed_in_each_stage_it_ends_as_if_it_had_not_been(tmp_path):
    train = write_scenes(tmp_path / "scenes", 12, size=(96, 96), seed=0)
    whole = train_in_stages(build, STAGES, train, tmp_path / "whole")
    assert whole.image_size == 96
    for epoch in (1, 2):
        try:
            train_in_stages(build, STAGES, train, tmp_path / "killed", callbacks=[KillAt(epoch)])
        except Killed:
            pass
    resumed = train_in_stages(build, STAGES, train, tmp_path / "killed")
    for one, other in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    with (tmp_path / "killed" / "log.csv").open() as log:
        assert [row["epoch"] for row in csv.DictReader(log)] == ["0", "1", "2"]
    # Asked once more, a finished run trains nothing and gives the same detector.
    again = train_in_stages(build, STAGES, train, tmp_path / "killed")
    for one, other in zip(weights(whole), weights(again), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_next_size_starts_from_what_the_last_one_learned(tmp_path):
    train = write_scenes(tmp_path / "scenes", 8, size=(96, 96), seed=0)
    small = train_in_stages(build, STAGES[:1], train, tmp_path / "run", steps_per_epoch=1)
    both = train_in_stages(
        build, (STAGES[0], Stage(96, 0, 4)), train, tmp_path / "run", steps_per_epoch=1
    )
    assert both.image_size == 96
    for one, other in zip(small.trainable_variables, both.trainable_variables, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other), atol=1e-6
        )


def test_a_phase_trains_its_part_from_what_the_one_before_learned(tmp_path):
    """Killed within the second phase, it still ends as if it had not been."""

    def build(size, fresh):
        keras.utils.set_random_seed(1 if fresh else 2)
        return small(("person",))

    train = write_scenes(tmp_path / "scenes", 12, size=(64, 64), seed=0).select("person")
    stages = Stage(64, 1, 4, "classifier"), Stage(64, 2, 4, "regressor")
    halfway = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                halfway.extend(weights(self.model))

    whole = train_in_stages(build, stages, train, tmp_path / "whole", callbacks=[Watch()])
    changed = {
        v.path for v, one, other in zip(whole.weights, halfway, weights(whole), strict=True)
        if not np.array_equal(one, other)
    }
    assert changed and all("regressor" in path for path in changed)
    try:
        train_in_stages(build, stages, train, tmp_path / "killed", callbacks=[KillAt(2)])
    except Killed:
        pass
    resumed = train_in_stages(build, stages, train, tmp_path / "killed")
    for one, other in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
