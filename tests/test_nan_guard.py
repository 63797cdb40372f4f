"""A loss that is no number stops the training with its part and its photos."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from harness import batch_of
from keras import ops
from presets import tiny_csp

from kerasdet.data.augment import Augment
from kerasdet.training import NaNGuard

pytestmark = pytest.mark.usefixtures("untraced")


@pytest.fixture
def detector():
    detector = tiny_csp()
    detector.compile("adamw", ema=None)
    return detector


@pytest.fixture
def exploding(detector):
    """One of whose losses is infinite."""
    parts = detector.loss_parts

    def explode(targets, raw):
        return parts(targets, raw) | {"box_loss": ops.convert_to_tensor(np.float32(np.inf))}

    detector.loss_parts = explode
    return detector


def fit(detector, batches, epochs=2, **options):
    detector.fit(batches, epochs=epochs, verbose=0, callbacks=[NaNGuard(batches)], **options)


def test_a_part_that_is_no_number_is_named_with_its_photo(detector, scenes):
    samples = list(scenes)
    samples[5] = dataclasses.replace(samples[5], parts=np.full_like(samples[5].parts, np.nan))
    broken = type(scenes)(samples, scenes.classes, scenes.parts, scenes.name, scenes.root)
    batches = broken.batches(4, detector, training=True, augment=Augment.none())
    with pytest.raises(FloatingPointError) as raised:
        fit(detector, batches)
    message, path = str(raised.value), str(samples[5].path)
    assert "part_loss is nan" in message and "center_loss" not in message
    number = int(message.partition("batch ")[2].partition(":")[0])
    photos, _, rest = message.partition("its photos: ")[2].partition(";")
    assert message.startswith(f"epoch 1, batch {number}: part_loss") and path in photos.split(", ")
    assert photos.split(", ") == [str(sample.path) for sample in batches.samples(0, number - 1)]
    assert rest == f" correct the boxes of {path}: they are not finite"


def test_the_photos_named_are_those_of_the_batch(scenes):
    """Also of later epochs, which are shuffled anew, and of `fit` with epochs of its own length."""
    model = tiny_csp()
    batches = scenes.batches(4, model, training=True, augment=Augment.none())
    guard = NaNGuard(batches)
    guard.on_train_begin()
    seen = [batch for epoch in (0, 1) for batch in batches.epoch_dataset(epoch)]
    for number, (images, _) in enumerate(seen):
        if number % 2 == 0:
            guard.on_epoch_begin(number // 2)
        with pytest.raises(FloatingPointError) as raised:
            guard.on_train_batch_end(number % 2, {"loss": np.inf, "box_loss": np.inf})
        guard.on_train_batch_end(number % 2, {"loss": 1.0, "box_loss": 1.0})
        names = str(raised.value).partition("photos: ")[2].partition(";")[0].split(", ")
        for name, image in zip(names, images, strict=True):
            index = [str(sample.path) for sample in scenes].index(name)
            (expected, *_), _ = batch_of(scenes.subset([index]), model)
            np.testing.assert_array_equal(image, expected)


def test_an_exploding_part_is_named(exploding, scenes):
    batches = scenes.batches(4, exploding, training=True, augment=Augment(mixup=1.5), mix_until=1)
    with pytest.raises(FloatingPointError, match="box_loss is inf; its photos, mixed with others: "):
        fit(exploding, batches)
    images, targets = batch_of(scenes, exploding, 4)
    with pytest.raises(FloatingPointError, match="batch 1: box_loss is inf; look at the boxes of that batch"):
        exploding.fit(images, targets, verbose=0, callbacks=[NaNGuard()])


class Watch(keras.callbacks.Callback):
    """Counts the batches that it is told of."""

    seen = 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1


def test_a_fit_that_nobody_guards_guards_itself(exploding, scenes):
    """Before other callbacks, which might average or write what broke, hear of the batch."""
    batches = scenes.batches(4, exploding, training=True, augment=Augment.none())
    with pytest.raises(FloatingPointError, match="epoch 1, batch 1: box_loss is inf; its photos: "):
        exploding.fit(batches, verbose=0)
    images, targets = batch_of(scenes, exploding, 4)
    watch = Watch()
    with pytest.raises(FloatingPointError, match="batch 1: box_loss is inf; look at the boxes of that batch"):
        exploding.fit(images, targets, verbose=0, callbacks=[watch])
    assert watch.seen == 0


def test_weights_that_broke_are_told_from_a_broken_part(detector, scenes):
    for variable in detector.trainable_variables:
        variable.assign(np.full(variable.shape, np.nan))
    batches = scenes.batches(4, detector, training=True)
    with pytest.raises(FloatingPointError, match="all parts: the weights broke in the step before"):
        fit(detector, batches)


def test_a_sound_training_goes_through(detector, scenes):
    batches = scenes.batches(4, detector, training=True)
    fit(detector, batches, epochs=1)
    assert Path(scenes[0].path).exists() and batches.epoch == 1
