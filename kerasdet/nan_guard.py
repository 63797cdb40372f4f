"""The guard that stops a training whose loss is not a number any more, and says why."""

from __future__ import annotations

import math

import keras
import numpy as np

PHOTOS_NAMED = 16


class NaNGuard(keras.callbacks.Callback):
    """Stops `fit` at the first batch whose loss is not finite; names the part of the loss and the photos.

    Args:
        batches: the `Batches` that are trained on, to name their photos; None, for arrays, names the part
            and the batch alone.

    Raises:
        FloatingPointError: in `fit`; files of the epochs before are left as they are.
    """

    def __init__(self, batches=None):
        super().__init__()
        self.batches = batches

    def on_train_begin(self, logs=None):
        self._seen = 0
        self._first = 0 if self.batches is None else self.batches.epoch

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        losses = {name: float(value) for name, value in (logs or {}).items() if name.endswith("loss")}
        if not all(math.isfinite(value) for value in losses.values()):
            raise FloatingPointError(self._message(batch, losses))
        self._seen += 1

    def _message(self, batch: int, losses: dict[str, float]) -> str:
        parts = {name: value for name, value in losses.items() if name != "loss"} or losses
        wrong = [f"{name} is {value}" for name, value in parts.items() if not math.isfinite(value)]
        text = f"epoch {self._epoch + 1}, batch {batch + 1}: {', '.join(wrong)}"
        if len(wrong) == len(parts) > 1:
            text += " (all parts: the weights broke in the step before)"
        if self.batches is None:
            return f"{text}; look at the boxes of that batch, or lower the rate"
        # Batches are counted through all epochs: an epoch of `fit` may be shorter than one of the set.
        epochs, number = divmod(self._seen, len(self.batches))
        samples = self.batches.samples(self._first + epochs, number)
        names = [str(sample.path) for sample in samples]
        more = f" and {len(names) - PHOTOS_NAMED} more" if len(names) > PHOTOS_NAMED else ""
        mixed = ", mixed with others" if self.batches.mixes(self._first + epochs) else ""
        text += f"; its photos{mixed}: {', '.join(names[:PHOTOS_NAMED])}{more}"
        broken = [str(sample.path) for sample in self.batches.dataset if not _finite(sample)]
        if broken:
            return f"{text}; correct the boxes of {', '.join(broken[:PHOTOS_NAMED])}: they are not finite"
        return f"{text}; look at their boxes, or lower the rate"


def _finite(sample) -> bool:
    boxes = (sample.boxes, sample.ignore, sample.parts, sample.part_weights)
    return all(np.isfinite(values).all() for values in boxes)
