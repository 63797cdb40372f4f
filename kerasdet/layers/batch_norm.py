"""Batch-norm statistics that belong to the weights a model holds, and to the whole batch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import keras

from kerasdet.backbones.common import leaves


def measure_statistics(model: keras.Model, images: Sequence) -> None:
    """Sets means and variances of trained batch norms to what they are on `images`.

    While a model trains, they are running averages over weights of the past; for averaged weights they
    are those of another model. Either way boxes come out several percent too large or too small. Frozen
    batch norms (the backbones') are left alone, and so are those that only regions go through (an `RCNN` with
    its backbone's batch norms trained).

    Args:
        model: changed in place.
        images: batches (B, S, S, 3), as training sees them; some hundred pictures are enough.

    Source: Wu and Johnson 2021, "Rethinking Batch in BatchNorm", section 3 (PreciseBN): the mean over
    batches of each batch's statistics.
    """
    norms = [norm for norm in _batch_norms(model) if norm.trainable]
    usual = [norm.momentum for norm in norms]
    try:
        for count, batch in enumerate(images if norms else ()):
            for norm in norms:
                # Makes the running average the plain mean of the batches so far.
                norm.momentum = count / (count + 1)
            model(batch, training=True)
    finally:
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum


def warn_of_random_statistics(model: keras.Model) -> None:
    """Warns of a random network behind batch norms that will never learn what it gives."""
    frozen = [
        layer for layer in leaves(model)
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.trainable and layer.built
    ]
    if frozen and all(_as_it_began(norm) for norm in frozen):
        # Those of a stage that runs on regions, and of trident branches, stay frozen whatever is asked.
        asked = getattr(model, "_config", {}).get("freeze_bn", True)
        remedy = "backbone_weights, or freeze_bn=False" if asked else "backbone_weights"
        warnings.warn(
            f"{model.name} has frozen batch norms that have seen nothing yet: what is in front of them is "
            f"random, and normalised by nothing; give {remedy}",
            stacklevel=3,
        )


def _as_it_began(norm) -> bool:
    mean, variance = map(keras.ops.convert_to_numpy, (norm.moving_mean, norm.moving_variance))
    return not mean.any() and (variance == 1).all()


class WholeBatchStatistics(keras.callbacks.Callback):
    """While it trains, a model's batch norms take their statistics over all of TensorFlow's replicas.

    So they are those of the whole batch, as on one device or on JAX. At the end of an epoch the layers are
    as they were: files that are written then can be read on any backend.
    """

    def __init__(self):
        super().__init__()
        self._usual = {}

    def on_train_begin(self, logs=None):
        self._usual = {norm: norm.synchronized for norm in _batch_norms(self.model)}

    def on_epoch_begin(self, epoch, logs=None):
        for norm in self._usual:
            norm.synchronized = True

    def on_epoch_end(self, epoch, logs=None):
        self.undo()

    def undo(self):
        """Leaves the layers as they were; within an epoch that was interrupted too."""
        for norm, usual in self._usual.items():
            norm.synchronized = usual


def _batch_norms(model) -> list:
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            found.append(layer)
        elif isinstance(layer, keras.Model):
            found += _batch_norms(layer)
    return found
