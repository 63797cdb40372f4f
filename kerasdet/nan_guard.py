"""The guard that stops a training whose loss or weights are not numbers any more, and says why."""

from __future__ import annotations

import math

import keras
import numpy as np

PHOTOS_NAMED = 16


def is_finite(tensor) -> bool:
    """Whether all of a tensor is numbers; their sum is none where one of them is none."""
    # In 16 bits a sum may be beyond all numbers, and NumPy does not know all kinds of them.
    return bool(np.isfinite(keras.ops.convert_to_numpy(keras.ops.sum(keras.ops.cast(tensor, "float32")))))


class NaNGuard(keras.callbacks.Callback):
    """Stops `fit` at the first batch whose loss is not finite; names the part of the loss and the photos.

    Of weights that broke in an epoch's last step no loss tells: they are looked at before they are scored or
    written.

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
        self._epoch, self._batch = epoch, -1

    def on_train_batch_end(self, batch, logs=None):
        losses = {name: float(value) for name, value in (logs or {}).items() if name.endswith("loss")}
        # With steps_per_execution, one call for several batches.
        count = batch - self._batch
        if not all(math.isfinite(value) for value in losses.values()):
            raise FloatingPointError(self._message(batch, losses, count))
        self._seen += count
        self._batch = batch

    def on_epoch_end(self, epoch, logs=None):
        for variable in self.model.weights:
            if not is_finite(variable):
                raise FloatingPointError(
                    f"epoch {epoch + 1}: the weights {variable.path} are not finite after its last step; "
                    "lower the rate"
                )

    def _message(self, batch: int, losses: dict[str, float], count: int) -> str:
        parts = {name: value for name, value in losses.items() if name != "loss"} or losses
        wrong = [f"{name} is {value}" for name, value in parts.items() if not math.isfinite(value)]
        text = f"epoch {self._epoch + 1}, batch {batch + 1}: {', '.join(wrong)}"
        if len(wrong) == len(parts) > 1:
            text += " (all parts: the weights broke in the step before)"
        if self.batches is None:
            return (
                f"{text}; look at the boxes of that batch and its labels (from 0 on, -1 in rows that hold "
                "nothing), or lower the rate"
            )
        # Batches are counted through all epochs: an epoch of `fit` may be shorter than one of the set.
        names, mixed = [], ""
        for seen in range(self._seen, self._seen + count):
            epochs, number = divmod(seen, len(self.batches))
            names += [str(sample.path) for sample in self.batches.samples(self._first + epochs, number)]
            if number < self.batches.mixes(self._first + epochs):
                mixed = ", mixed with others"
        more = f" and {len(names) - PHOTOS_NAMED} more" if len(names) > PHOTOS_NAMED else ""
        text += f"; its photos{mixed}: {', '.join(names[:PHOTOS_NAMED])}{more}"
        broken = [str(sample.path) for sample in self.batches.dataset if not _finite(sample)]
        if broken:
            return f"{text}; correct the boxes of {', '.join(broken[:PHOTOS_NAMED])}: they are not finite"
        return f"{text}; look at their boxes, or lower the rate"


def _finite(sample) -> bool:
    boxes = (sample.boxes, sample.ignore, sample.parts, sample.part_weights)
    return all(np.isfinite(values).all() for values in boxes)
