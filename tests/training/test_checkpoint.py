"""A run that was killed and goes on is the run that was not killed."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from tiny import Tiny

from kerasdet.training import EMA, Checkpoint
from kerasdet.training.checkpoint import _seeds


class Killed(Exception):
    pass


class KillIn(keras.callbacks.Callback):
    """Stops the process, as it were, in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.epoch and batch == 1:
            raise Killed


EPOCHS, BATCH = 4, 4


def build(seed=0):
    keras.utils.set_random_seed(seed)
    detector = Tiny()
    rate = keras.optimizers.schedules.CosineDecay(1e-2, EPOCHS * 4)
    detector.compile(keras.optimizers.AdamW(rate, clipnorm=10.0))
    return detector


def train(detector, data, path, extra=()):
    ema = EMA(0.999)
    checkpoint = Checkpoint(path, ema)
    start = checkpoint.restore(detector)
    batches = data.batches(BATCH, detector, training=True, epoch=start, threads=2)
    detector.fit(
        batches, epochs=EPOCHS, initial_epoch=start, verbose=0, callbacks=[ema, checkpoint, *extra]
    )
    return start


def weights(detector):
    return [ops.convert_to_numpy(v) for v in detector.weights]


def test_a_killed_run_ends_as_one_that_was_not(shapes, tmp_path):
    """With augmentation, weight averages, a rate schedule and Adam's moments."""
    whole = build()
    assert train(whole, shapes, tmp_path / "whole.npz") == 0

    with pytest.raises(Killed):
        train(build(), shapes, tmp_path / "killed.npz", [KillIn(2)])
    resumed = build(seed=5)  # another process: other weights, until they are restored
    assert train(resumed, shapes, tmp_path / "killed.npz") == 2

    for variable, a, b in zip(whole.weights, weights(whole), weights(resumed), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4, err_msg=variable.path)
    # What training would go on with is the same as well.
    with np.load(tmp_path / "whole.npz") as a, np.load(tmp_path / "killed.npz") as b:
        assert set(a) == set(b) and int(a["epoch"]) == EPOCHS
        for key in a:
            np.testing.assert_allclose(a[key], b[key], atol=1e-5, rtol=1e-3, err_msg=key)
        # The model is left with the averages, the file keeps the run's own weights too.
        assert any(not np.allclose(a[f"weight_{i}"], w) for i, w in enumerate(weights(whole)))


def test_nothing_is_restored_where_there_is_no_file(tmp_path):
    detector = build()
    before = weights(detector)
    assert Checkpoint(tmp_path / "none.npz").restore(detector) == 0
    for a, b in zip(before, weights(detector), strict=True):
        np.testing.assert_array_equal(a, b)


def small(width, path=None):
    x = keras.Input((2,))
    m = keras.Model(x, keras.layers.Dense(width)(x))
    m.compile("adam", loss="mse")
    if path is not None:
        values = np.ones((2, 2), np.float32), np.ones((2, width), np.float32)
        m.fit(*values, verbose=0, callbacks=[Checkpoint(path)])
    return m


def test_without_an_average(tmp_path):
    trained = small(3, tmp_path / "a.npz")
    other = small(3)
    assert Checkpoint(tmp_path / "a.npz").restore(other) == 1
    for a, b in zip(weights(trained), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not list(tmp_path.glob("*.partial"))


def test_the_checkpoint_of_another_model_is_refused(tmp_path):
    small(3, tmp_path / "a.npz")
    other = small(4)
    before = weights(other)
    with pytest.raises(ValueError, match=r"a\.npz: is the checkpoint of another model"):
        Checkpoint(tmp_path / "a.npz").restore(other)
    for a, b in zip(before, weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    """Nor is one unpickled: what numpy would make of it can run code."""
    path, m = tmp_path / "a.npz", small(3)
    np.savez(path, epoch=np.array([print], object))
    with pytest.raises(ValueError, match=r"a\.npz: is no checkpoint, .*allow_pickle=False"):
        Checkpoint(path).restore(m)
    np.save(tmp_path / "b.npz.npy", np.zeros(3))
    (tmp_path / "b.npz.npy").rename(path)
    with pytest.raises(ValueError, match=r"a\.npz: is no checkpoint"):
        Checkpoint(path).restore(m)
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match=r"a\.npz: is no checkpoint"):
        Checkpoint(path).restore(m)


def test_an_average_that_a_checkpoint_would_lose_is_told(shapes, tmp_path):
    detector = build()
    batches = shapes.batches(BATCH, detector, training=True)
    with pytest.raises(ValueError, match="has no ema, and fit keeps an average .*or compile.ema=None."):
        detector.fit(batches, epochs=1, verbose=0, callbacks=[Checkpoint(tmp_path / "run.npz")])
    with pytest.raises(ValueError, match="the ema of Checkpoint.* is not among the callbacks"):
        detector.fit(batches, epochs=1, verbose=0, callbacks=[Checkpoint(tmp_path / "run.npz", EMA())])
    detector.compile(keras.optimizers.AdamW(1e-2), ema=None)
    detector.fit(batches, epochs=1, verbose=0, callbacks=[Checkpoint(tmp_path / "run.npz")])
    with np.load(tmp_path / "run.npz") as saved:
        assert int(saved["epoch"]) == 1 and "ema_steps" not in saved


def test_statistics_of_the_average_are_measured_on_training_photos(shapes):
    detector, ema = build(), EMA(0.9)
    batches = shapes[:8].batches(BATCH, detector, training=True)
    detector.fit(batches, epochs=1, verbose=0, callbacks=[ema])
    assert len(ema.images) == len(batches.some_images()) > 0
    norm = next(layer for layer in detector.layers if isinstance(layer, layers.BatchNormalization))
    into = keras.Model(detector.inputs, norm.input)
    values = np.concatenate([ops.convert_to_numpy(into(images)) for images in ema.images])
    np.testing.assert_allclose(
        ops.convert_to_numpy(norm.moving_mean), values.mean((0, 1, 2)), rtol=1e-3, atol=1e-4
    )


def test_what_dropout_draws_next_is_kept(tmp_path):
    def build(seed):
        keras.utils.set_random_seed(seed)
        x = keras.Input((2,))
        m = keras.Model(x, layers.Dense(1)(layers.Dropout(0.5)(x)))
        m.compile("adam", loss="mse")
        return m

    def states(m):
        return [ops.convert_to_numpy(v) for v in _seeds(m)]

    trained, other = build(0), build(1)
    values = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    trained.fit(*values, batch_size=1, verbose=0, callbacks=[Checkpoint(tmp_path / "a.npz")])
    assert any(not np.array_equal(a, b) for a, b in zip(states(trained), states(other), strict=True))
    Checkpoint(tmp_path / "a.npz").restore(other)
    for a, b in zip(states(trained), states(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_stopped_the_model_has_its_averages(shapes, error):
    """By hand, as a cell of a notebook is, or by anything else, in the middle of an epoch."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise error

    detector, ema = build(), EMA(0.9)
    batches = shapes.batches(BATCH, detector, training=True)
    with pytest.raises(error):
        detector.fit(batches, epochs=2, verbose=0, callbacks=[ema, Stop()])
    assert ema.steps == 3
    for variable, average in zip(ema.variables(), ema.averages, strict=True):
        if "moving" not in variable.path:  # measured anew
            np.testing.assert_allclose(
                ops.convert_to_numpy(variable), ops.convert_to_numpy(average), err_msg=variable.path
            )
