"""Keras callbacks that measure detection inside `fit`."""

from __future__ import annotations

import keras

from kerasdet import photo
from kerasdet.metrics.matching import class_map


class CocoMetrics(keras.callbacks.Callback):
    """Evaluates the detector at the end of epochs and writes the figures into the logs.

    `History`, `CSVLogger`, `EarlyStopping(monitor="val_AP", mode="max")`, `ModelCheckpoint` and the
    progress bar see "val_AP", "val_AP50", "val_MR" and so on, like any validation metric. Keras
    calls callbacks in the order of the list, so put this one before those that read its figures
    and after one that swaps averaged weights in (`kerasdet.training.EMA`; `fit` puts its own first).
    Of several processes each measures all photos: so all see the same figures and stop together.

    Args:
        dataset: the held-back photos, a sequence of `Sample`.
        every: measure the first epoch, every `every`-th after it and the last one; and the first that a run
            goes on with. Epochs between repeat the last figures, so that every log has the same columns in
            every row; note that `EarlyStopping` counts its patience in epochs all the same.
        batch_size: photos detected at a time.

    Attributes:
        metrics: the last evaluation, all of it: per-class figures ("AP/<class>") are here and not
            in the logs, where dozens of classes would drown the rest.

    Raises:
        ValueError: empty set or `every` below 1; when training begins, a class in the set that the
            model does not know, or a photo that cannot be read.
    """

    def __init__(self, dataset, every=1, batch_size=16):
        super().__init__()
        if len(dataset) == 0:
            raise ValueError("CocoMetrics needs photos to measure on; the data set has none")
        if every < 1:
            raise ValueError(f"every={every}: must be 1 (each epoch) or more")
        self.dataset = dataset
        self.every = every
        self.batch_size = batch_size
        self.metrics = None
        self._readable = False

    def on_train_begin(self, logs=None):
        self.metrics = None
        # Both would be said first after an hour's epoch, which would be lost.
        class_map(self.model.classes, self.dataset.classes)
        if not self._readable:
            photo.check(sample.path for sample in self.dataset)
            self._readable = True

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 == self.params.get("epochs")
        if self.metrics is None or epoch % self.every == 0 or last:
            self.metrics = self.model.evaluate_detections(self.dataset, batch_size=self.batch_size)
        if logs is not None:
            logs.update({f"val_{k}": v for k, v in self.metrics.items() if "/" not in k})
