"""The weight average, worked out by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.training import EMA


def model(start=0.0):
    """One weight w, loss w * x, so plain gradient descent with rate .1 and x = 1 steps by -.1."""
    x = keras.Input((1,))
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(start))
    m = keras.Model(x, dense(x))
    m.compile(keras.optimizers.SGD(0.1), loss=lambda y_true, y_pred: y_pred)
    return m


def weight(m):
    return float(ops.convert_to_numpy(m.trainable_variables[0])[0, 0])


def by_hand(weights, average, step=0, momentum=0.999):
    for w in weights:
        m = min(momentum, (1 + step) / (10 + step))
        average = m * average + (1 - m) * w
        step += 1
    return average


class Spy(keras.callbacks.Callback):
    """What the model holds when others look at it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(("train", weight(self.model)))

    def on_test_end(self, logs=None):
        self.seen.append(("test", weight(self.model)))

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(("epoch", weight(self.model)))


ONES = np.ones((3, 1), np.float32)


def test_average_by_hand_and_who_sees_what():
    m, spy = model(), Spy()
    m.fit(
        ONES, ONES, batch_size=1, epochs=2, verbose=0, shuffle=False,
        validation_data=(ONES, ONES), callbacks=[EMA(0.999), spy],
    )
    own = [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6]  # training goes on with its own weights
    first, second = by_hand(own[:3], 0.0), by_hand(own, 0.0)
    expected = [("train", w) for w in own[:3]] + [("test", first), ("epoch", first)]
    expected += [("train", w) for w in own[3:]] + [("test", second), ("epoch", second)]
    assert [kind for kind, _ in spy.seen] == [kind for kind, _ in expected]
    np.testing.assert_allclose([w for _, w in spy.seen], [w for _, w in expected], rtol=1e-4)
    assert weight(m) == pytest.approx(second, rel=1e-4)


def test_another_model_begins_anew():
    ema, options = EMA(0.999), {"batch_size": 1, "verbose": 0, "shuffle": False}
    first, second = model(), model(5.0)
    first.fit(ONES, ONES, callbacks=[ema], **options)
    second.fit(ONES, ONES, callbacks=[ema], **options)
    assert ema.steps == 3 and weight(second) == pytest.approx(by_hand([4.9, 4.8, 4.7], 5.0))
    assert weight(first) == pytest.approx(by_hand([-0.1, -0.2, -0.3], 0.0))


def test_a_second_fit_goes_on_from_weights_loaded_between():
    ema, options = EMA(0.999), {"batch_size": 1, "verbose": 0, "shuffle": False}
    m = model()
    m.fit(ONES, ONES, callbacks=[ema], **options)
    ema.take_images(lambda: ["of the first training"])
    m.trainable_variables[0].assign([[5.0]])
    m.fit(ONES, ONES, callbacks=[ema], **options)
    assert ema.steps == 6 and ema.images == []
    assert weight(m) == pytest.approx(by_hand([4.9, 4.8, 4.7], 5.0, step=3))
    ema.images = ["given"]
    ema.take_images(lambda: ["of fit"])
    m.fit(ONES, ONES, callbacks=[ema], **options)
    assert ema.images == ["given"]


def test_a_measurement_that_is_interrupted_is_made_again(monkeypatch):
    """Ctrl-C as the epoch ends: what is left is the average with its own statistics all the same."""
    calls = []

    def interrupted(m, images):
        calls.append(weight(m))
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("kerasdet.ema.measure_statistics", interrupted)
    ema, m = EMA(0.999), model()
    with pytest.raises(KeyboardInterrupt):
        m.fit(ONES, ONES, callbacks=[ema], batch_size=1, verbose=0, shuffle=False)
    ema.on_train_end()  # as `Detector.fit` does
    average = by_hand([-0.1, -0.2, -0.3], 0.0)
    assert calls == pytest.approx([average] * 2) and weight(m) == pytest.approx(average)


def test_weights_that_another_callback_loads_are_where_the_average_begins():
    class Load(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.trainable_variables[0].assign([[3.0]])

    m = model()
    m.fit(ONES, ONES, batch_size=1, verbose=0, shuffle=False, callbacks=[EMA(0.999), Load()])
    assert weight(m) == pytest.approx(by_hand([2.9, 2.8, 2.7], 3.0))


def test_momentum_is_the_upper_bound():
    m, ema = model(), EMA(0.2)
    m.fit(ONES, ONES, batch_size=1, verbose=0, shuffle=False, callbacks=[ema])
    # (1 + t) / (10 + t) is .1, .182 and .25: the third is held down to .2.
    assert weight(m) == pytest.approx(by_hand([-0.1, -0.2, -0.3], 0.0, momentum=0.2), rel=1e-4)
    assert by_hand([-0.1, -0.2, -0.3], 0.0, momentum=0.2) == pytest.approx(-0.276, rel=1e-6)


def test_a_second_fit_goes_on_from_the_average():
    m, ema = model(), EMA(0.999)
    m.fit(ONES, ONES, batch_size=1, verbose=0, shuffle=False, callbacks=[ema])
    first = weight(m)
    m.fit(ONES, ONES, batch_size=1, verbose=0, shuffle=False, callbacks=[ema])
    own = [first - 0.1, first - 0.2, first - 0.3]
    assert weight(m) == pytest.approx(by_hand(own, first, step=3), rel=1e-4)


def test_statistics_of_batch_norm_are_averaged_too():
    x = keras.Input((1,))
    norm = keras.layers.BatchNormalization(momentum=0.5, scale=False, center=False)
    m = keras.Model(x, norm(x))
    m.compile(keras.optimizers.SGD(0.1), loss=lambda y_true, y_pred: 0 * y_pred)
    values = np.array([[2.0], [2.0], [4.0], [4.0]], np.float32)
    m.fit(values, values, batch_size=2, verbose=0, shuffle=False, callbacks=[EMA(0.999)])
    # The moving mean goes 0, 1, 2.5.
    found = float(ops.convert_to_numpy(norm.moving_mean)[0])
    assert found == pytest.approx(by_hand([1.0, 2.5], 0.0), rel=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 1.0, 1.5])
def test_wrong_momentum_is_told(momentum):
    with pytest.raises(ValueError, match=f"momentum is {momentum}"):
        EMA(momentum)


def test_batch_norm_statistics_are_those_of_the_averaged_weights():
    """Of the batches in `images`, by hand; frozen batch norms keep theirs."""
    rng = np.random.default_rng(0)
    x = keras.Input((4,))
    frozen = keras.layers.BatchNormalization(name="frozen", trainable=False)
    y = keras.layers.Dense(3, use_bias=False, name="dense")(frozen(x))
    m = keras.Model(x, keras.layers.BatchNormalization(name="norm", momentum=0.97)(y))
    m.compile(keras.optimizers.SGD(0.5), loss="mse")
    ema = EMA(0.9)
    ema.images = [rng.normal(2, 3, (8, 4)).astype(np.float32) for _ in range(3)]
    m.fit(rng.normal(size=(16, 4)), rng.normal(size=(16, 3)), epochs=3, verbose=0, callbacks=[ema])
    kernel = ops.convert_to_numpy(m.get_layer("dense").kernel)
    np.testing.assert_allclose(kernel, ops.convert_to_numpy(ema.averages[4]), rtol=1e-6)
    # The frozen norm starts as (x - 0) / sqrt(1 + epsilon) and stays so.
    seen = [images / np.sqrt(1 + frozen.epsilon) @ kernel for images in ema.images]
    norm = m.get_layer("norm")
    np.testing.assert_allclose(norm.moving_mean, np.mean([s.mean(0) for s in seen], 0), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, np.mean([s.var(0) for s in seen], 0), rtol=1e-4)
    assert norm.momentum == 0.97
    np.testing.assert_array_equal(frozen.moving_mean, np.zeros(4))
