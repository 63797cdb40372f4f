"""The exponential moving average of a model's weights, which is what is evaluated and kept."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from kerasdet.layers.batch_norm import measure_statistics
from kerasdet.nan_guard import is_finite


class EMA(keras.callbacks.Callback):
    """Keeps an average of the weights; evaluates and leaves the model with it.

    After every step, average = m * average + (1 - m) * weight, with m = min(momentum, (1 + t) / (10 + t))
    at step t, so that a short run is not held back by the weights it started from; steps that
    `steps_per_execution` does at once count one by one, with the weights of the last of them. Whenever the
    model is evaluated (validation inside `fit`, callbacks at the end of an epoch, after training) it holds
    the averages, with batch-norm statistics measured for them (see `measure_statistics`); while it trains,
    its own weights. Put it before callbacks that evaluate. Another `fit` goes on at step t from what the
    model holds then; with another model it begins anew.

    Args:
        momentum: upper bound of m; CSP takes 0.999 ("mean teacher").

    Attributes:
        images: batches of images to measure batch-norm statistics on; where none are given, `Detector.fit`
            takes some of its training set. Where it is empty, the statistics are averaged like weights.

    Source: CSP (Liu et al. 2019), section 4.2; Tarvainen and Valpola 2017.
    """

    def __init__(self, momentum: float = 0.999):
        super().__init__()
        if not 0 < momentum < 1:
            raise ValueError(f"momentum is {momentum}; give a number between 0 and 1, such as 0.999")
        self.momentum = momentum
        self._forget()
        self._batch = -1  # the last one of this epoch that was counted

    def variables(self) -> list:
        """What is averaged: every floating-point weight of the model, in its order."""
        return [v for v in self.model.weights if keras.backend.is_float_dtype(v.dtype)]

    def _forget(self):
        self.steps = 0
        self.images: list[np.ndarray] = []
        self._taken: list[np.ndarray] | None = None
        self._begin()

    def _begin(self):
        self.averages: list[np.ndarray] | None = None
        self._own: list[np.ndarray] | None = None
        # Whether the model holds the averages, with their statistics, and whether the training has ended.
        self._held = self._ended = False

    def set_model(self, model):
        """Says whose weights are averaged from now on; those of another model or training are forgotten."""
        if self.model is not None and self.model is not model:
            self._forget()
        elif self._ended:
            self._begin()
            if self.images is self._taken:
                self.images = []
        super().set_model(model)

    def on_train_batch_begin(self, batch, logs=None):
        # Not before: other callbacks may load weights when training begins.
        if self.averages is None:
            self.averages = [keras.ops.convert_to_tensor(v) for v in self._numbers()]

    def on_train_batch_end(self, batch, logs=None):
        # With steps_per_execution, one call for several steps.
        kept = 1.0
        for _ in range(max(1, batch - self._batch)):
            kept *= min(self.momentum, (1 + self.steps) / (10 + self.steps))
            self.steps += 1
        self._batch = batch
        self.averages = [
            average + (1 - kept) * (variable.value - average)
            for average, variable in zip(self.averages, self.variables(), strict=True)
        ]

    def is_finite(self) -> bool:
        """Whether there is an average and all of it is numbers: not once weights that broke went into it."""
        return self.averages is not None and all(map(is_finite, self.averages))

    def own_weights(self) -> list[np.ndarray]:
        """The weights that training goes on with, whichever the model holds at the moment."""
        if self._own is not None:
            return self._own
        return self._numbers()

    def _numbers(self) -> list[np.ndarray]:
        return [np.array(keras.ops.convert_to_numpy(v)) for v in self.variables()]

    def take_images(self, read: Callable[[], list[np.ndarray]]):
        """Reads images of the set that is trained on, where none were given."""
        if not self.images or self.images is self._taken:
            self.images = self._taken = read()

    def _swap_in(self):
        if self.averages is None or self._held:
            return
        # Who interrupted it half-way, Ctrl-C perhaps, has not lost the model's own.
        self._own = self.own_weights()
        for variable, average in zip(self.variables(), self.averages, strict=True):
            # A copy: JAX gives the buffers of a model's weights away in its next step.
            variable.assign(np.array(keras.ops.convert_to_numpy(average)))
        measure_statistics(self.model, self.images)
        self._held = True

    def _swap_out(self):
        self._held = False
        if self._own is not None:
            for variable, own in zip(self.variables(), self._own, strict=True):
                variable.assign(own)
            self._own = None

    def on_epoch_begin(self, epoch, logs=None):
        self._swap_out()
        self._batch = -1

    def on_test_begin(self, logs=None):
        self._swap_in()

    def on_epoch_end(self, epoch, logs=None):
        self._swap_in()

    def on_train_end(self, logs=None):
        self._swap_in()
        self._own = None
        self._ended = True
