"""Training in stages: one run over several sizes, which can be killed."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
from harness import tiny_backbone
from overfeats import small

from kerasdet.data import Dataset
from kerasdet.data.augment import Augment
from kerasdet.data.scenes import write_scenes
from kerasdet.models.csp import CSP
from kerasdet.training import Stage, train_in_stages
from kerasdet.training.schedules import schedule as rate_schedule
from kerasdet.training.stages import _schedules

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
    return CSP(
        ("person",), backbone=tiny_backbone(size), image_size=size, target="dense", stride=8, channels=16
    )


def weights(model):
    return [keras.ops.convert_to_numpy(v) for v in model.weights]


@pytest.mark.slow
def test_killed_in_each_stage_it_ends_as_if_it_had_not_been(tmp_path):
    train = write_scenes(tmp_path / "scenes", 12, size=(96, 96), seed=0)
    rates = {"rate": 1e-3, "backbone_rate": 1e-4}
    whole = train_in_stages(build, STAGES, train, tmp_path / "whole", **rates)
    assert whole.image_size == 96
    for epoch in (1, 2):
        try:
            train_in_stages(build, STAGES, train, tmp_path / "killed", callbacks=[KillAt(epoch)], **rates)
        except Killed:
            pass
    resumed = train_in_stages(build, STAGES, train, tmp_path / "killed", **rates)
    for one, other in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    with (tmp_path / "killed" / "log.csv").open() as log:
        assert [row["epoch"] for row in csv.DictReader(log)] == ["0", "1", "2"]
    # Asked once more, a finished run trains nothing and gives the same detector.
    again = train_in_stages(build, STAGES, train, tmp_path / "killed", **rates)
    for one, other in zip(weights(whole), weights(again), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_next_size_starts_from_what_the_last_one_learned(tmp_path):
    train = write_scenes(tmp_path / "scenes", 8, size=(96, 96), seed=0)
    small = train_in_stages(build, STAGES[:1], train, tmp_path / "small", steps_per_epoch=1)
    both = train_in_stages(
        build, (STAGES[0], Stage(96, 0, 4)), train, tmp_path / "both", steps_per_epoch=1
    )
    assert both.image_size == 96
    with np.load(tmp_path / "small" / "checkpoint_1.npz") as saved:
        assert int(saved["ema_steps"]) == 2  # two epochs of one step, where the set has two
    for one, other in zip(small.trainable_variables, both.trainable_variables, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other), atol=1e-6
        )


@pytest.mark.parametrize(
    "change, told",
    [({"steps_per_epoch": 2}, "steps 1, now it is 2"), ({"rate": 5e-3}, r"rate 0\.001, now it is 0\.005"),
     ({"stages": STAGES}, "stages .*'epochs': 2"), ({"settings": {"data": "b"}}, "data 'a', now it is 'b'"),
     ({"batches": {"mix_until": 1}}, "batches")],
)
def test_a_run_does_not_go_on_with_other_arguments(tmp_path, change, told):
    """Two steps to try a recipe out are not taken for the run itself."""
    train = write_scenes(tmp_path / "scenes", 4, size=(96, 96), seed=0)
    given = {"stages": STAGES[:0], "steps_per_epoch": 1, "settings": {"data": "a"}}
    train_in_stages(build, train=train, folder=tmp_path / "run", **given)
    train_in_stages(build, train=train, folder=tmp_path / "run", **given)
    with pytest.raises(ValueError, match=rf"config\.json: the run began with {told}"):
        train_in_stages(build, train=train, folder=tmp_path / "run", **given | change)


def test_fewer_photos_than_a_batch_have_a_schedule_all_the_same():
    (rate,) = _schedules("cosine", 1e-3, [3], [Stage(64, 20, 4)])
    wanted = rate_schedule("cosine", 1e-3, 20)  # one step an epoch
    steps = [0, 1, 10, 19, 20]
    assert [float(rate(step)) for step in steps] == [float(wanted(step)) for step in steps]


def test_a_phase_trains_its_part_from_what_the_one_before_learned(tmp_path):
    """Killed within the second phase, it still ends as if it had not been."""

    def build(size, fresh):
        keras.utils.set_random_seed(1 if fresh else 2)
        return small(("person",))

    train = write_scenes(tmp_path / "scenes", 12, size=(64, 64), seed=0).select("person")
    stages = Stage(64, 1, 4, "classifier"), Stage(64, 2, 4, "regressor")
    first = train_in_stages(build, stages[:1], train, tmp_path / "first")
    whole = train_in_stages(build, stages, train, tmp_path / "whole")
    changed = {
        v.path for v, one, other in zip(whole.weights, weights(first), weights(whole), strict=True)
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


@pytest.mark.parametrize(
    "make, phase, message",
    [(lambda: small(("person",)), "boxes", "phase is 'boxes'; give one of all, classifier, regressor"),
     (lambda: build(64, True), "all", "phase='all'.* has a phase, and CSP has none; leave phase out")],
)
def test_phases_that_do_not_exist_are_told_before_the_first_stage(tmp_path, make, phase, message):
    train = write_scenes(tmp_path / "scenes", 4, size=(64, 64), seed=0).select("person")
    stages = Stage(64, 1, 4), Stage(64, 1, 4, phase)
    with pytest.raises(ValueError, match=message):
        train_in_stages(lambda size, fresh: make(), stages, train, tmp_path / "run")
    assert not (tmp_path / "run" / "log.csv").exists()


class Seen(keras.callbacks.Callback):
    """What the model holds at the end of an epoch."""

    def on_epoch_end(self, epoch, logs=None):
        self.weights = [keras.ops.convert_to_numpy(v) for v in self.model.trainable_weights]


def test_callbacks_see_the_averaged_weights(tmp_path):
    train, seen = write_scenes(tmp_path / "scenes", 8, size=(64, 64), seed=0), Seen()
    model = train_in_stages(
        build, [Stage(64, 1, 4)], train, tmp_path / "run", rate=1e-2, callbacks=[seen]
    )
    for variable, at_the_end in zip(model.trainable_weights, seen.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), at_the_end)
    with np.load(tmp_path / "run" / "checkpoint_1.npz") as saved:
        own = [saved[f"weight_{i}"] for i, v in enumerate(model.weights) if v.trainable]
    assert any(np.abs(one - other).max() > 1e-4 for one, other in zip(own, seen.weights, strict=True))


class Watch(keras.callbacks.Callback):
    """Rates at the end of each epoch."""

    def __init__(self, rates):
        super().__init__()
        self.rates = rates

    def on_epoch_end(self, epoch, logs=None):
        self.rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))


class Count(keras.callbacks.Callback):
    """Steps of the optimizer at the end of each epoch."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_epoch_end(self, epoch, logs=None):
        self.steps.append(int(self.model.optimizer.iterations))


def test_each_phase_has_a_schedule_of_its_own(tmp_path):
    """Its rate falls to 1 % at the end of each phase, one that comes again included."""
    rates = []
    train = write_scenes(tmp_path / "scenes", 8, size=(64, 64), seed=0).select("person")
    phases = ("classifier", "regressor", "classifier")
    train_in_stages(
        lambda size, fresh: small(("person",)), [Stage(64, 1, 4, phase) for phase in phases], train,
        tmp_path / "run", rate=1e-2, callbacks=[Watch(rates)],
    )
    np.testing.assert_allclose(rates, [1e-4] * 3, rtol=1e-3)


def test_a_restart_has_a_schedule_of_its_own_and_starts_from_the_average(tmp_path):
    """Two stages under one schedule, then one that restarts; killed before that, it ends the same."""
    train = write_scenes(tmp_path / "scenes", 4, size=(96, 96), seed=0)
    first = train_in_stages(build, STAGES[1:], train, tmp_path / "first")
    again = Stage(64, 0, 4, restart=True)
    start = train_in_stages(build, (*STAGES[1:], again), train, tmp_path / "start")
    for one, other in zip(weights(first), weights(start), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    rates, stages = [], (Stage(64, 1, 4), Stage(64, 1, 4), Stage(64, 2, 4, restart=True))
    whole = train_in_stages(
        build, stages, train, tmp_path / "whole", rate=1e-2, callbacks=[Watch(rates)],
    )
    assert min(rates[0], rates[2]) > 3e-3
    np.testing.assert_allclose(rates[1::2], [1e-4] * 2, rtol=1e-3)
    with pytest.raises(Killed):
        train_in_stages(build, stages, train, tmp_path / "killed", rate=1e-2, callbacks=[KillAt(2)])
    resumed = train_in_stages(build, stages, train, tmp_path / "killed", rate=1e-2)
    for one, other in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_restart_may_climb_less():
    """Half of the rates, for as many steps as its schedule has: two stages of it here."""
    stages = Stage(64, 4, 4), Stage(64, 6, 4, restart=True, peak=0.5), Stage(96, 2, 4)
    first, *later = _schedules("cosine", 1e-3, [8] * 3, stages)
    wanted = rate_schedule("cosine", 1e-3, 8), *[rate_schedule("cosine", 5e-4, 16)] * 2
    for rate, same in zip((first, *later), wanted, strict=True):
        np.testing.assert_allclose([float(rate(s)) for s in range(17)], [float(same(s)) for s in range(17)])


@pytest.mark.parametrize(
    "stage, told",
    [(Stage(64, 1, 4, peak=0.5), "goes on with the schedule.*add restart=True"),
     (Stage(64, 1, 4, restart=True, peak=0), "peak is 0 .*above 0"),
     (Stage(64, 1, 4, restart=True, peak=float("nan")), "peak is nan .*above 0")],
)
def test_a_peak_that_does_nothing_is_told_before_the_first_stage(tmp_path, stage, told):
    train = write_scenes(tmp_path / "scenes", 4, size=(64, 64), seed=0)
    with pytest.raises(ValueError, match=told):
        train_in_stages(build, (Stage(64, 1, 4), stage), train, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_stage_may_repeat_photos_of_rare_classes(tmp_path):
    """One photo of eight has objects, and comes sqrt(8) = 2.8 times; the schedule has those steps too."""
    drawn = write_scenes(tmp_path / "scenes", 8, size=(64, 64), seed=0).select("person")
    none = {name: getattr(drawn[0], name)[:0] for name in ("boxes", "labels", "parts", "part_weights")}
    samples = [drawn[0], *(dataclasses.replace(sample, **none) for sample in drawn[1:])]
    train = Dataset(samples, drawn.classes, drawn.parts)
    rates, steps = [], []
    stages = Stage(64, 1, 1), Stage(64, 1, 1, restart=True, repeat_rare=1.0)
    train_in_stages(
        build, stages, train, tmp_path / "run", rate=1e-2, callbacks=[Watch(rates), Count(steps)]
    )
    assert steps == [8, len(train.repeat_rare(1.0))] and steps[1] in (9, 10)
    np.testing.assert_allclose(rates, [1e-4] * 2, rtol=1e-3)
    told = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["stages"]
    assert "repeat_rare" not in told[0] and told[1]["repeat_rare"] == 1.0


def test_a_stage_has_batches_of_its_own(tmp_path):
    """They go before those for all; what no batches take is said before the first stage."""
    train, asked = write_scenes(tmp_path / "scenes", 4, size=(64, 64), seed=0), []
    whole = train.batches

    def batches(batch_size, model, *, training=False, epoch=0, augment=None, mix_until=None):
        asked.append((augment, mix_until))
        return whole(batch_size, model, training=training, epoch=epoch, augment=augment, mix_until=mix_until)

    train.batches = batches
    own = Stage(64, 1, 4, batches={"augment": Augment(mosaic=1.0), "mix_until": 2})
    train_in_stages(
        build, (Stage(64, 1, 4), own), train, tmp_path / "run", batches={"augment": Augment(flip=0)}
    )
    assert asked == [(Augment(flip=0), None), (Augment(mosaic=1.0), 2)]
    told = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["stages"]
    assert "batches" not in told[0] and told[1]["batches"]["mix_until"] == "2"
    wrong = Stage(64, 1, 4, batches={"mosaics": 1.0})
    with pytest.raises(TypeError, match="mosaics"):
        train_in_stages(build, (Stage(64, 1, 4), wrong), train, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
