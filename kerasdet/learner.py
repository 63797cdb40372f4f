"""How a detector learns: what `fit`, `evaluate` and `compile` of Keras do for it besides."""

from __future__ import annotations

import math
import re
import sys

import keras
import numpy as np
from keras import ops

from kerasdet.distribution import handed_out, joined_logs, replicas_apart, share_of
from kerasdet.ema import EMA
from kerasdet.layers.batch_norm import WholeBatchStatistics, warn_of_random_statistics
from kerasdet.nan_guard import NaNGuard

# What a name such as "adamw" stands for in Keras, and here.
_KERAS_ADAM_RATE, FINE_TUNING_RATE = float(np.float32(1e-3)), 3e-4
_ADAMS = keras.optimizers.Adam, keras.optimizers.Adamax, keras.optimizers.Nadam
# What `compile` takes of a loss, of which a detector brings its own.
_OF_LOSSES = "loss", "loss_weights"


class Learner(keras.Model):
    """The half of `Detector` that is for training. Of the other half it takes `classes`, `parts`,
    `given_proposals`, `mask_size`, `loss_parts` and what `track_losses` made."""

    def compile(self, optimizer="adamw", *, ema=0.999, jit_compile="auto", **kwargs):
        """As `keras.Model.compile`; the losses are the detector's own and need not be named.

        Args:
            optimizer: as in Keras; one with `use_ema` takes the place of `ema`. But where Adam or one of its
                kind is given by name, it takes the rate 3e-4 in place of Keras' 1e-3, which ruins pretrained
                backbones: at 1e-3 the deepest stage of MobileNetV2 saturated and its features were lost.
            ema: upper bound of the momentum of the weight average that `fit` keeps, evaluates and
                leaves in the model (see `kerasdet.training.EMA`); None keeps none.
            jit_compile: "auto" means no XLA on TensorFlow without a GPU, which trains several times
                slower with it; everywhere else it is Keras' own "auto".
        """
        if named := [name for name in _OF_LOSSES if kwargs.get(name) is not None]:
            raise ValueError(f"a detector brings its own losses; compile it without {named[0]}=")
        if jit_compile == "auto":
            jit_compile = jit_compiled()
        by_name = isinstance(optimizer, str)
        optimizer = keras.optimizers.get(optimizer)
        # Asked of its config: the rate itself is a variable, of every replica under some strategies.
        adam = by_name and isinstance(optimizer, _ADAMS)
        if adam and optimizer.get_config()["learning_rate"] == _KERAS_ADAM_RATE:
            optimizer.learning_rate = FINE_TUNING_RATE
        # Keras would put the optimizer's average in the place of the one that was evaluated.
        whole = getattr(optimizer, "inner_optimizer", optimizer)  # that which scales the loss has one inside
        self._ema = None if getattr(whole, "use_ema", False) else ema
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)

    def get_compile_config(self):
        if not self.compiled or self.optimizer is None:
            return None
        optimizer = keras.saving.serialize_keras_object(self.optimizer)
        # Not whether XLA compiles: that is a matter of the machine it is loaded on.
        return {"optimizer": optimizer, "ema": self._ema, "steps_per_execution": self.steps_per_execution}

    def compile_from_config(self, config):
        optimizer = keras.saving.deserialize_keras_object(config["optimizer"])
        # Files written before steps were kept have none.
        self.compile(optimizer, ema=config["ema"], steps_per_execution=config.get("steps_per_execution", 1))
        optimizer.build(self.trainable_variables)

    def fit(self, x=None, *args, callbacks=None, **kwargs):
        """As `keras.Model.fit`, on what `Dataset.batches` gives, or on batches of your own, such as a
        `tf.data.Dataset` or arrays: images (batch, S, S, 3), RGB values 0..255, and `training_targets`.

        Epochs are counted by the set's own length (rounded down to whole `steps_per_execution`), each one
        shuffled anew, and the weight average of `compile(ema=...)` is kept unless `callbacks` brings an `EMA`
        of its own: the model is left with it, whatever ends the training. A loss that is no number any
        more stops it with a FloatingPointError that names part and photos, see `NaNGuard`. A detector
        that was made under `tf.distribute.MirroredStrategy`, `MultiWorkerMirroredStrategy` or
        `keras.distribution.DataParallel` learns from a batch what one device would. Under the first two,
        what regions a two-stage detector samples and what an optimizer's clipnorm clips is each device's own.

        Raises:
            ValueError: two `EMA`, of which one would take the other's averages for weights; Keras'
                `BackupAndRestore`, which knows nothing of averages.
        """
        # One alone is a list of one, as for Keras.
        alone = isinstance(callbacks, keras.callbacks.Callback)
        callbacks = [callbacks] if alone else list(callbacks or [])
        if len(_of(EMA, callbacks)) > 1:
            raise ValueError("callbacks hold two EMA; give one (train and train_in_stages have one already)")
        if _of(keras.callbacks.BackupAndRestore, callbacks):
            raise ValueError(
                "BackupAndRestore does not keep the average of the weights; give callbacks=[ema, Checkpoint("
                "path, ema)] with ema = EMA() of kerasdet.training, or use kerasdet.training.train(...)"
            )
        warn_of_random_statistics(self)
        if share_of(self).replicas > 1 and keras.backend.backend() == "tensorflow":
            callbacks.insert(0, WholeBatchStatistics())
        if self._ema and not _of(EMA, callbacks):
            callbacks.insert(0, EMA(self._ema))
        if not _of(NaNGuard, callbacks):
            # First, so that nothing is averaged or written of weights that broke.
            callbacks.insert(0, NaNGuard(x if _is_batches(x) else None))
        if _is_batches(x):
            at_once = self.steps_per_execution
            if kwargs.get("steps_per_epoch") is None:
                # Keras would round it up, and the batches have no end.
                kwargs["steps_per_epoch"] = max(len(x) // at_once, 1) * at_once
            steps = math.ceil(kwargs["steps_per_epoch"] / at_once) * at_once
            x.begin(self, kwargs.get("initial_epoch", 0), steps)
            for average in _of(EMA, callbacks):
                average.set_model(self)
                average.take_images(x.some_images)
        validation = kwargs.get("validation_data")
        if _is_batches(validation):
            kwargs.setdefault("validation_steps", len(validation))
            kwargs["validation_data"] = handed_out(validation, self)
        if not _is_batches(x):
            return self._fit(x, *args, callbacks=callbacks, **kwargs)
        # Keras warns of every Grain dataset that it will not shuffle it; ours shuffles itself.
        batches = handed_out(x.endless(), self)
        begun = _Begun()
        try:
            return self._fit(batches, *args, callbacks=[begun, *callbacks], shuffle=False, **kwargs)
        finally:
            # One that was stopped goes on with other pictures too.
            x.end(begun.epochs)

    def _fit(self, *args, callbacks, **kwargs):
        try:
            return super().fit(*args, callbacks=callbacks, **kwargs)
        except BaseException as error:
            # Whoever stops a cell of a notebook keeps what `fit` promises: the averaged weights. So does one
            # whose training broke, where the average did not.
            for average in _of(EMA, callbacks):
                if average.is_finite():
                    average.on_train_end()
            if said := _said_by_data(error):
                raise ValueError(said) from error
            raise
        finally:
            for statistics in _of(WholeBatchStatistics, callbacks):
                statistics.undo()

    def evaluate(self, x=None, *args, **kwargs):
        """As `keras.Model.evaluate`: the losses, on what `Dataset.batches` gives or on batches of your own.

        `evaluate_detections` gives AP.
        """
        if _is_batches(x):
            kwargs.setdefault("steps", len(x))
            x = handed_out(x, self)
        return super().evaluate(x, *args, **kwargs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Sum of the detector's named losses; each part's mean is shown in the progress bar."""
        if sample_weight is not None:
            raise ValueError(
                "a detector takes no sample_weight: give the weight of each object, weights (batch, n), in "
                "the targets"
            )
        self._learning = bool(training)
        targets = self.training_targets(y)
        parts = self.loss_parts(targets, in_full(y_pred))
        total = sum(parts.values())
        # Of replicas it is the sum that counts: Keras adds up their gradients, and takes the mean of metrics.
        replicas = replicas_apart()
        photos = ops.shape(targets["boxes"])[0]  # a last batch may have fewer, as Keras' own mean allows for
        for name, value in parts.items():
            self._loss_means[name].update_state(replicas * value, sample_weight=photos)
        for extra in self.losses:
            total += ops.cast(extra, "float32") / replicas
        return total

    def training_targets(self, given: dict) -> dict:
        """What `loss_parts` learns from, with what a batch of the user's own may leave out.

        Args:
            given: boxes (batch, n, 4) xyxy pixels of the square; labels (batch, n), -1 in rows that hold
                nothing; and, where there are any, weights (batch, n) of objects, 1 if left out; ignore
                (batch, m, 4), regions that are neither object nor background; parts (batch, n, P, 4) and
                part_weights (batch, n, P), 0 where a part is not known. Detectors that need proposals
                (batch, k, 4) or masks (batch, n, m, m) and mask_weights (batch, n) say so.

        Labels beyond the classes make weights that are no numbers: so the loss is none, and `NaNGuard` stops.

        Raises:
            ValueError: something is missing that cannot be left out; a number of boxes that is not fixed.
        """
        needed = ["boxes", "labels"]
        if self.given_proposals:
            needed.append("proposals")
        if self.mask_size:
            needed += ["masks", "mask_weights"]
        there = sorted(given) if isinstance(given, dict) else []
        if missing := [key for key in needed if key not in there]:
            raise ValueError(
                f"{type(self).__name__} learns from targets with {', '.join(needed)}, and {missing[0]} is "
                f"missing in {there or type(given).__name__}; give a dict of these, or fit on "
                "Dataset.batches(...)"
            )
        # A user's own arrays may be of NumPy's usual float64, or weights of integers.
        targets = {
            key: ops.cast(value, "int32" if key == "labels" else "float32") for key, value in given.items()
        }
        boxes = targets["boxes"]
        if boxes.shape[1] is None:
            raise ValueError(
                "targets have a number of boxes that changes from batch to batch; pad them to a fixed one, "
                "with labels of -1, such as by padded_batch(..., padded_shapes=...)"
            )
        left_out = {
            "weights": ops.cast(targets["labels"] >= 0, "float32"), "ignore": ops.zeros_like(boxes[:, :1]),
        }
        if self.parts:
            left_out["part_weights"] = ops.repeat(ops.zeros_like(boxes[..., :1]), len(self.parts), axis=-1)
            left_out["parts"] = ops.repeat(left_out["part_weights"][..., None], 4, axis=-1)
        targets = left_out | targets
        # Rows that hold nothing weigh nothing, whatever is given of them, be it no number. (A class that is
        # none would be looked up beyond the last.)
        real = targets["labels"] >= 0
        weights = ops.where(real, targets["weights"], 0.0)
        targets["weights"] = ops.where(targets["labels"] < len(self.classes), weights, math.nan)
        targets["boxes"] = ops.where(real[..., None], targets["boxes"], 0.0)
        if self.parts:
            targets["part_weights"] = ops.where(real[..., None], targets["part_weights"], 0.0)
            targets["parts"] = ops.where(real[..., None, None], targets["parts"], 0.0)
        targets["labels"] = ops.minimum(targets["labels"], len(self.classes) - 1)
        return targets

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return joined_logs(super().compute_metrics(x, y, y_pred, sample_weight), self)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Keras' own joins what all of TensorFlow's processes have read, and fails; there only the optimizer
        is left to build."""
        if share_of(self).processes == 1:
            super()._maybe_symbolic_build(iterator, data_batch)
        elif self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)


class _Begun(keras.callbacks.Callback):
    """Counts epochs, the one in which training stops among them."""

    epochs = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs += 1


def _of(kind: type, callbacks: list) -> list:
    """The callbacks of a kind."""
    return [callback for callback in callbacks if isinstance(callback, kind)]


def _said_by_data(error: BaseException) -> str | None:
    """What a photo's reader said, of an error that TensorFlow made of it."""
    if not type(error).__module__.startswith("tensorflow"):
        return None
    found = re.search(r"^(?:ValueError|FileNotFoundError|OSError): (.+)$", str(error), re.MULTILINE)
    return found and found[1]


def _is_batches(x) -> bool:
    """Whether x comes from `Dataset.batches`, without importing Grain where nobody has."""
    loader = sys.modules.get("kerasdet.data.loader")
    return loader is not None and isinstance(x, loader.Batches)


def in_full(raw: dict) -> dict:
    """Raw outputs as float32, whatever precision the network computes in."""
    kinds = {key: keras.backend.standardize_dtype(value.dtype) for key, value in raw.items()}
    return {key: v if kinds[key] == "float32" else ops.cast(v, "float32") for key, v in raw.items()}


def jit_compiled():
    """Of `compile`: no XLA on TensorFlow without a GPU, where it trains several times slower."""
    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf

    return "auto" if tf.config.list_physical_devices("GPU") else False
