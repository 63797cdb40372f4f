"""fit and compile: what they take, what they refuse, and what is left of a training that breaks."""

import warnings

import keras
import numpy as np
import pytest
from harness import batch_of
from keras import layers, ops
from presets import tiny_csp
from tiny import Tiny

import kerasdet
from kerasdet.backbones.common import leaves
from kerasdet.data.augment import Augment
from kerasdet.ema import EMA
from kerasdet.layers.batch_norm import WholeBatchStatistics
from kerasdet.nan_guard import is_finite
from kerasdet.training import Checkpoint

pytestmark = pytest.mark.usefixtures("untraced")


def tiny(**options):
    keras.utils.set_random_seed(0)
    detector = Tiny()
    detector.compile(options.pop("optimizer", keras.optimizers.SGD(0.01)), **options)
    return detector


def weights(detector):
    return [ops.convert_to_numpy(v) for v in detector.weights]


# === What is refused ===


@pytest.mark.parametrize("name", ["loss", "loss_weights"])
def test_losses_of_others_are_refused(name):
    with pytest.raises(ValueError, match=f"compile it without {name}="):
        Tiny().compile("adamw", **{name: {"inside_loss": 2.0}})


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (lambda folder: [EMA(0.9), EMA(0.99)], "callbacks hold two EMA; give one"),
        (lambda folder: [keras.callbacks.BackupAndRestore(folder)], "BackupAndRestore does not keep the"),
    ],
)
def test_callbacks_that_spoil_the_average_are_refused(shapes, tmp_path, callbacks, message):
    detector = tiny()
    with pytest.raises(ValueError, match=message):
        detector.fit(shapes[:8].batches(4, detector), verbose=0, callbacks=callbacks(tmp_path / "backup"))


def test_weights_of_photos_are_refused(shapes):
    detector = tiny()
    images, targets = batch_of(shapes, detector, 2)
    with pytest.raises(ValueError, match=r"no sample_weight: give .* weights \(batch, n\), in the targets"):
        detector.train_on_batch(images, targets, sample_weight=np.ones(2))


@pytest.mark.parametrize("label", [1, 90])
def test_labels_beyond_the_classes_stop_the_training_and_cost_nothing(label, scenes):
    """COCO's numbers, say, or such as begin with 1: the one class is 0."""
    detector = tiny_csp()
    detector.compile(keras.optimizers.SGD(0.01), ema=0.9)
    images, targets = batch_of(scenes, detector, 4)
    targets["labels"][2, 0] = label
    with pytest.raises(FloatingPointError, match="box_loss is nan.*its labels .from 0 on, -1 in rows"):
        detector.fit(images, targets, batch_size=4, verbose=0)
    assert all(np.isfinite(value).all() for value in weights(detector))
    targets["labels"][2, 0] = 0
    detector.fit(images, targets, batch_size=4, verbose=0)


def test_a_number_of_boxes_that_changes_is_told():
    boxes, labels = keras.Input((None, 4)), keras.Input((None,), dtype="int32")
    with pytest.raises(ValueError, match="pad them to a fixed one, with labels of -1"):
        Tiny().training_targets({"boxes": boxes, "labels": labels})


def test_squares_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"images are \(1, 96, 96, 3\), and the detector's square has 64 px"):
        Tiny().forward(np.zeros((1, 96, 96, 3), np.uint8), "raw")


# === A training that breaks ===


class Break(keras.callbacks.Callback):
    """Makes a weight infinite after a step: no loss has told of it yet."""

    def __init__(self, batch):
        super().__init__()
        self.at = batch

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.at:
            variable = self.model.trainable_weights[0]
            variable.assign(variable + np.inf)


def test_weights_that_break_in_an_epochs_last_step_are_not_written(shapes, tmp_path):
    detector, ema = tiny(ema=None), EMA(0.9)
    batches = shapes.batches(8, detector, training=True)
    checkpoint = Checkpoint(tmp_path / "run.npz", ema)
    detector.fit(batches, verbose=0, callbacks=[ema, checkpoint])
    written = (tmp_path / "run.npz").read_bytes()
    with pytest.raises(FloatingPointError, match="epoch 2: the weights .*kernel are not finite"):
        detector.fit(
            batches, epochs=2, initial_epoch=1, verbose=0,
            callbacks=[ema, checkpoint, Break(len(batches) - 1)],
        )
    assert (tmp_path / "run.npz").read_bytes() == written


def test_a_loss_that_breaks_leaves_the_average(scenes):
    detector, ema = tiny_csp(), EMA(0.9)
    detector.compile(keras.optimizers.SGD(0.01))
    images, targets = batch_of(scenes, detector, 8)
    targets["weights"][6] = np.nan
    with pytest.raises(FloatingPointError, match="batch 2"):
        detector.fit(images, targets, batch_size=4, shuffle=False, verbose=0, callbacks=[ema])
    assert ema.steps == 1
    for variable, average in zip(ema.variables(), ema.averages, strict=True):
        assert np.isfinite(ops.convert_to_numpy(variable)).all()
        if "moving" not in variable.path:
            np.testing.assert_array_equal(ops.convert_to_numpy(variable), ops.convert_to_numpy(average))


# === Steps and epochs ===


def test_several_steps_at_once_are_averaged_as_so_many():
    """By hand: w falls by .1 a step; of two steps at once the average sees the second."""
    x = keras.Input((1,))
    dense = layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model, ema = keras.Model(x, dense(x)), EMA(0.5)
    model.compile(keras.optimizers.SGD(0.1), loss=lambda _, y: y, steps_per_execution=2)
    ones = np.ones((4, 1), np.float32)
    model.fit(ones, ones, batch_size=1, verbose=0, callbacks=[ema], shuffle=False)
    average = 0.0
    for w, steps in ((-0.2, (0, 1)), (-0.4, (2, 3))):
        kept = np.prod([min(0.5, (1 + t) / (10 + t)) for t in steps])
        average = kept * average + (1 - kept) * w
    assert ema.steps == 4
    assert float(ops.convert_to_numpy(ema.averages[0])[0, 0]) == pytest.approx(average, rel=1e-5)


@pytest.mark.parametrize(("at_once", "steps"), [(2, 4), (3, 3), (8, 8)])
def test_epochs_are_whole_numbers_of_steps_at_once(shapes, at_once, steps):
    """Of five batches."""
    detector = tiny(steps_per_execution=at_once)
    batches = shapes[:10].batches(2, detector, training=True)
    assert len(batches) == 5
    detector.fit(batches, epochs=2, verbose=0)
    assert int(ops.convert_to_numpy(detector.optimizer.iterations)) == 2 * steps
    assert batches.epoch == -(-2 * steps // 5)


def test_losses_of_batches_are_those_of_their_photos_and_nothing_is_said(shapes):
    detector = tiny()
    batches = shapes[:6].batches(4, detector)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = detector.evaluate(batches, verbose=0)[0]
    assert not [each for each in said if "ran out of data" in str(each.message)]
    four, two = (detector.evaluate(*batch, verbose=0)[0] for batch in batches)
    assert found == pytest.approx((4 * four + 2 * two) / 6, rel=1e-5)


def test_another_model_learns_from_the_same_pictures(shapes):
    """Mixed up to an epoch, say; the same model goes on with later ones."""
    one, other = tiny(), tiny()
    batches = shapes[:8].batches(4, one, training=True, augment=Augment(mosaic=1.0), mix_until=2)
    one.fit(batches, epochs=3, verbose=0)
    assert batches.epoch == 3
    other.fit(batches, epochs=3, verbose=0)
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    other.fit(batches, epochs=4, initial_epoch=3, verbose=0)
    assert batches.epoch == 4
    # Half an epoch at a time: two of them are one of the set's, and it goes on from its own.
    one.fit(batches, epochs=2, steps_per_epoch=1, verbose=0)
    assert batches.epoch == 4


def test_models_that_take_turns_each_go_on(shapes):
    one, other = tiny(), tiny()
    batches, seen = shapes[:8].batches(4, one, training=True), []
    for detector in (one, other, one, other):
        detector.fit(batches, verbose=0)
        seen.append(batches.epoch)
    assert seen == [1, 1, 2, 2]


def test_a_training_that_was_stopped_goes_on_with_other_pictures(shapes):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    detector = tiny()
    batches = shapes[:8].batches(4, detector, training=True)
    with pytest.raises(KeyboardInterrupt):
        detector.fit(batches, epochs=5, verbose=0, callbacks=[Stop()])
    assert batches.epoch == 3


def test_mixing_ends_with_fits_epochs_where_they_are_shorter_than_the_sets(shapes):
    """Four steps an epoch of `fit`, eight one of the set: 4 epochs that are mixed are 2 there."""
    detector = tiny()
    batches = shapes.batches(2, detector, training=True, augment=Augment(mosaic=1.0), mix_until=4)
    batches.begin(detector, steps=4)
    assert [batches.mixes(epoch) for epoch in range(4)] == [8, 8, 0, 0]
    batches.begin(detector)
    assert [batches.mixes(epoch) for epoch in range(5)] == [8] * 4 + [0]


@pytest.mark.parametrize(("steps", "until", "mixed"), [(1, 4, [4, 0]), (3, 3, [8, 1, 0]), (12, 1, [8, 4, 0])])
def test_mixing_ends_within_an_epoch_of_the_set(shapes, steps, until, mixed):
    """Epochs of `fit` of so many steps, of a set of eight batches."""
    detector = tiny()
    batches = shapes.batches(2, detector, training=True, augment=Augment(mosaic=1.0), mix_until=until)
    batches.begin(detector, steps=steps)
    assert [batches.mixes(epoch) for epoch in range(len(mixed))] == mixed


def test_mixing_ends_where_it_would_have_in_a_run_that_goes_on(shapes):
    """Twelve epochs of three steps, of which ten are mixed: of thirty batches six are left after eight."""
    detector = tiny()
    batches = shapes.batches(2, detector, training=True, augment=Augment(mosaic=1.0), mix_until=10)
    batches.begin(detector, 8, steps=3)
    assert batches.epoch == 3 and [batches.mixes(epoch) for epoch in (3, 4)] == [6, 0]
    batches = shapes.batches(2, detector, training=True, augment=Augment(mosaic=1.0), mix_until=10)
    batches.begin(detector, 9, steps=3)  # three batches into the fourth epoch of the set, which begins anew
    assert batches.epoch == 3 and [batches.mixes(epoch) for epoch in (3, 4)] == [3, 0]


def test_an_epoch_to_begin_with_is_the_sets_too(shapes):
    detector = tiny()
    batches = shapes[:8].batches(4, detector, training=True)
    detector.fit(batches, epochs=6, initial_epoch=5, verbose=0)
    assert batches.epoch == 6


def test_parts_of_the_loss_sum_to_it_when_the_last_batch_is_smaller(shapes):
    """Each photo counts alike, as in Keras' own mean."""
    detector = tiny()
    images, targets = batch_of(shapes, detector, 5)
    logs = detector.evaluate(images, targets, batch_size=3, verbose=0, return_dict=True)
    assert logs["inside_loss"] == pytest.approx(logs["loss"], rel=1e-5)
    halves = [
        detector.evaluate(images[s], {k: v[s] for k, v in targets.items()}, verbose=0)[0]
        for s in (slice(0, 3), slice(3, 5))
    ]
    assert logs["loss"] == pytest.approx(0.6 * halves[0] + 0.4 * halves[1], rel=1e-5)


def test_an_optimizers_own_average_takes_the_place_of_ours(shapes):
    own = keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.5)
    detector = tiny(optimizer=own)
    assert detector._ema is None
    detector.fit(shapes[:8].batches(4, detector), verbose=0)
    assert tiny(optimizer={"class_name": "AdamW", "config": {"use_ema": True}})._ema is None
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW(use_ema=True))
    assert tiny(optimizer=scaled)._ema is None
    assert tiny(optimizer="adamw")._ema == 0.999


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="an option of TensorFlow's")
def test_batch_norms_of_an_epoch_that_was_stopped_are_as_they_were(shapes):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            assert any(norm.synchronized for norm in norms)
            raise KeyboardInterrupt

    detector = tiny()
    norms = [layer for layer in leaves(detector) if isinstance(layer, layers.BatchNormalization)]
    with pytest.raises(KeyboardInterrupt):
        detector.fit(
            shapes[:8].batches(4, detector), verbose=0, callbacks=[WholeBatchStatistics(), Stop()]
        )
    assert norms and not any(norm.synchronized for norm in norms)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_numbers_of_every_kind_are_finite(dtype):
    assert is_finite(ops.full((9,), 3e4, dtype))
    assert not is_finite(ops.full((9,), np.nan, dtype)) and not is_finite(ops.full((9,), np.inf, dtype))


# === What is kept ===


def test_layers_frozen_by_hand_stay_so():
    detector = tiny()
    first = next(layer for layer in detector.layers if isinstance(layer, layers.Conv2D))
    assert "frozen" not in detector.get_config()
    first.trainable = False
    again = Tiny.from_config(detector.get_config())
    assert [v.trainable for v in again.weights] == [v.trainable for v in detector.weights]
    assert len(again.trainable_weights) == len(detector.weights) - 3  # with two of the statistics
    first.trainable = True
    assert "frozen" not in detector.get_config()


def test_layers_frozen_by_hand_stay_so_in_a_file_and_with_other_classes(tmp_path):
    detector = tiny_csp()
    for layer in detector.get_layer("tiny").layers[:4]:
        layer.trainable = False
    frozen = len(detector.weights) - len(detector.trainable_weights)
    detector.save(tmp_path / "a.keras")
    loaded = kerasdet.load(tmp_path / "a.keras")
    for other in (loaded, kerasdet.zoo.adapt(loaded, ("a", "b"), parts=())):
        first = other.get_layer("tiny").layers[:4]
        assert not any(layer.trainable for layer in first if layer.weights)
        assert all(layer.trainable for layer in other.get_layer("tiny").layers[4:])
    assert len(loaded.weights) - len(loaded.trainable_weights) == frozen


def test_a_detector_without_an_optimizer_is_saved_and_loaded(tmp_path):
    detector = tiny_csp()
    detector.compile(optimizer=None)
    detector.save(tmp_path / "a.keras")
    assert kerasdet.load(tmp_path / "a.keras").classes == detector.classes


@pytest.mark.parametrize(("options", "message"), [
    ({"classes": range(10)}, "classes has 0, which is no text"),
    ({"nms_iou": 50}, "nms_iou is 50; give an overlap"), ({"nms_iou": 0}, "nms_iou is 0; give an overlap"),
])
def test_what_its_own_files_would_refuse_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_csp(**options)


def test_overlaps_of_numpy_are_numbers():
    assert type(tiny_csp(nms_iou=np.float32(0.5)).nms_iou) is float
