"""Checkpoints from which a run that was killed goes on as if nothing had happened."""

from __future__ import annotations

import os
import zipfile
import zlib

import keras
import numpy as np

from kerasdet.distribution import share_of
from kerasdet.ema import EMA

# What numpy says of a file that is damaged, or is none of its own.
_DAMAGED = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


class Checkpoint(keras.callbacks.Callback):
    """Writes weights, optimizer, random states and weight averages to one file after every epoch.

    Of several processes the first one writes; all may read.

    Args:
        path: the .npz file; it is replaced in one step, so a kill while writing loses nothing.
        ema: the run's `EMA` callback, which has to stand before this one, or None for a run that keeps no
            average (`compile(ema=None)`).

    Raises:
        ValueError: when training begins, where `fit` keeps an average that this one was not given, or it was
            given one that is not among the callbacks.
    """

    def __init__(self, path: str | os.PathLike, ema: EMA | None = None):
        super().__init__()
        self.path, self.ema = os.fspath(path), ema

    def on_train_begin(self, logs=None):
        if self.ema is None and getattr(self.model, "_ema", None) is not None:
            raise ValueError(
                f"Checkpoint({self.path!r}) has no ema, and fit keeps an average of the weights, which would "
                "be lost; give callbacks=[ema, Checkpoint(path, ema)] with ema = EMA(), or compile(ema=None)"
            )
        if self.ema is not None and self.ema.model is not self.model:
            raise ValueError(
                f"the ema of Checkpoint({self.path!r}) is not among the callbacks; give callbacks=[ema, "
                "Checkpoint(path, ema)]"
            )

    def on_epoch_end(self, epoch, logs=None):
        arrays = {"epoch": np.array(epoch + 1)}
        own = dict(
            zip((id(v) for v in self.ema.variables()), self.ema.own_weights(), strict=True)
        ) if self.ema else {}
        for i, variable in enumerate(self.model.weights):
            value = own.get(id(variable))
            arrays[f"weight_{i}"] = keras.ops.convert_to_numpy(variable) if value is None else value
        for name, variables in (("optimizer", self.model.optimizer.variables), ("seed", _seeds(self.model))):
            for i, variable in enumerate(variables):
                arrays[f"{name}_{i}"] = keras.ops.convert_to_numpy(variable)
        if self.ema:
            arrays["ema_steps"] = np.array(self.ema.steps)
            for i, average in enumerate(self.ema.averages):
                arrays[f"ema_{i}"] = keras.ops.convert_to_numpy(average)
        if share_of(self.model).process:
            return
        partial = f"{self.path}.partial"
        with open(partial, "wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, self.path)

    def restore(self, model) -> int:
        """Puts a compiled model, its optimizer and the averages where the file says.

        Returns:
            Number of epochs that are done; 0 where there is no file.

        Raises:
            ValueError: the file is of another model, damaged or no checkpoint.
        """
        if not os.path.exists(self.path):
            return 0
        model.optimizer.build(model.trainable_variables)
        arrays = _arrays(self.path)
        groups = (
            ("weight", model.weights), ("optimizer", model.optimizer.variables),
            ("seed", _seeds(model)),
        )
        for name, variables in groups:
            saved = [arrays[f"{name}_{i}"] for i in range(sum(k.startswith(f"{name}_") for k in arrays))]
            if [a.shape for a in saved] != [tuple(v.shape) for v in variables]:
                raise ValueError(
                    f"{self.path}: is the checkpoint of another model or optimizer; start in a new "
                    "folder, or with the model that the run began with"
                )
            for variable, value in zip(variables, saved, strict=True):
                variable.assign(value)
        if self.ema and "ema_steps" in arrays:
            self.ema.steps = int(arrays["ema_steps"])
            self.ema.averages = [
                keras.ops.convert_to_tensor(arrays[f"ema_{i}"])
                for i in range(sum(k.startswith("ema_") for k in arrays) - 1)
            ]
        return int(arrays["epoch"])


def _arrays(path: str) -> dict[str, np.ndarray]:
    """What a checkpoint holds. Numbers only: an array of objects would be a pickle, which can run code."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    # Of a single array, numpy gives no file to open.
    except (*_DAMAGED, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path}: is no checkpoint, or a damaged one ({error}); start in a new folder"
        ) from error


def _seeds(model) -> list:
    """The states of random generators, such as dropout's."""
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]
