"""Learning rates at steps that can be worked out by hand."""

import math

import keras
import pytest

from kerasdet.training.schedules import schedule


def rates(found, *steps):
    return [float(keras.ops.convert_to_numpy(found(step))) for step in steps]


def test_a_cosine_by_hand():
    found = schedule("cosine", 2.0, 110, warmup=10)
    half = 2.0 * (0.99 * (1 + math.cos(math.pi / 4)) / 2 + 0.01)
    assert rates(found, 0, 5, 10, 35, 60, 110) == pytest.approx([0.02, 1.01, 2.0, half, 1.01, 0.02])


def test_steps_by_hand():
    found = schedule("step", 2.0, 200, warmup=10)
    assert rates(found, 0, 5, 10, 159, 160, 179, 180, 200) == pytest.approx(
        [0.02, 1.01, 2.0, 2.0, 0.2, 0.2, 0.02, 0.02]
    )
    assert rates(type(found).from_config(found.get_config()), 5, 170) == pytest.approx([1.01, 0.2])


@pytest.mark.parametrize("warmup", [0, 10])
def test_a_constant_by_hand(warmup):
    found = schedule("constant", 2.0, 100, warmup)
    assert rates(found, 0, 10, 55, 100) == pytest.approx([0.02 if warmup else 2.0, 2.0, 2.0, 2.0])


@pytest.mark.parametrize("kind", ["cosine", "step"])
def test_without_a_warm_up_it_begins_at_the_highest(kind):
    assert rates(schedule(kind, 2.0, 100, 0), 0) == pytest.approx([2.0])


@pytest.mark.parametrize(("steps", "warmup"), [(50, 5), (10_000, 300), (3, 1)])
def test_the_warm_up_is_a_tenth_of_the_steps_and_300_at_most(steps, warmup):
    found = schedule("constant", 2.0, steps)
    assert rates(found, warmup) == pytest.approx([2.0]) and rates(found, warmup - 1)[0] < 2.0


@pytest.mark.parametrize("warmup", [-1, 100, 101])
def test_a_warm_up_that_takes_all_steps_is_told(warmup):
    with pytest.raises(ValueError, match=f"takes {warmup} steps of 100"):
        schedule("step", 1.0, 100, warmup)
