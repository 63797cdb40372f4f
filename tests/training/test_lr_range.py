"""The range test: where it sees a loss fall, and that it leaves the detector as it was."""

import keras
import numpy as np
import pytest
from harness import batch_of
from presets import tiny_csp

from kerasdet.training.lr_range import RangeTest, falling_stretch, lr_find, smooth


def test_the_stretch_where_a_loss_falls_by_hand():
    assert falling_stretch([1, 2, 3, 4, 5, 6], [10, 10, 6, 2, 2, 9]) == (2, 4)
    # From 10 to 2: within .8 of either.
    assert falling_stretch([1, 2, 3, 4, 5, 6, 7], [9.1, 10, 9.3, 6, 2.7, 2, 9]) == (3, 5)
    # It may rise at once, or hardly move.
    assert falling_stretch([1, 2, 3], [1, 2, 3]) is None
    assert falling_stretch([1, 2, 3], [10, 9.9, 9.8]) is None


def test_smoothing_by_hand():
    losses = np.zeros(20)
    losses[5] = 3.0
    expected = np.zeros(20)
    expected[4:7] = 1.0
    np.testing.assert_allclose(smooth(losses), expected)
    assert smooth(np.array([1.0, 5.0])).tolist() == [1, 5]


def test_the_picture_shows_losses_and_stretch():
    rates = np.geomspace(1e-4, 1, 40)
    found = RangeTest(rates, np.where(rates < 1e-2, 8.0, 2.0), exploded=False)
    (panel,) = found.draw().axes
    assert panel.get_xscale() == "log" and len(panel.lines) == 2
    np.testing.assert_allclose(panel.lines[0].get_ydata(), found.losses)
    low, high = found.falls
    assert any("falls from" in text.get_text() for text in panel.get_legend().get_texts())
    assert low < 1e-2 < high and high / low < 4


@pytest.fixture(scope="module")
def found(scenes):
    """A detector that has learned a little, what it held before a range test, and the test."""
    detector = tiny_csp()
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, 100)
    detector.compile(keras.optimizers.SGD(schedule, momentum=0.9), ema=None)
    images, targets = batch_of(scenes, detector, 4)
    detector.fit(images, targets, batch_size=4, verbose=0)
    before = held(detector)
    batches = scenes.batches(4, detector, training=True)
    return detector, before, lr_find(detector, batches, lowest=1e-5, highest=1e6, steps=60)


def held(detector):
    variables = [*detector.variables, *detector.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def test_weights_and_optimizer_stay_exactly_as_they_were(found):
    detector, before, _ = found
    assert any(np.abs(value).max() > 0 for value in before[-5:]), "it had momentum"
    for one, other in zip(before, held(detector), strict=True):
        np.testing.assert_array_equal(one, other)
    assert isinstance(detector.optimizer._learning_rate, keras.optimizers.schedules.CosineDecay)


def test_it_stops_when_the_loss_explodes(found):
    _, _, result = found
    assert result.exploded and 10 < len(result.rates) < 60
    np.testing.assert_allclose(result.rates, np.geomspace(1e-5, 1e6, 60)[: len(result.rates)])
    low, high = result.falls
    assert 1e-5 < low < high < result.rates[-1]


@pytest.mark.parametrize("options", [{"lowest": 0}, {"lowest": 1, "highest": 0.1}, {"steps": 9}])
def test_rates_that_do_not_rise_are_told(options):
    with pytest.raises(ValueError, match="give rates that rise from above 0, and 10 steps or more"):
        lr_find(None, None, **options)
