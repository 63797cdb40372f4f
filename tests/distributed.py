"""Trains small detectors on one device and on several, and prints what came of it.

    python distributed.py FOLDER [PROCESS ADDRESS ADDRESS]

FOLDER holds a set of shapes. Alone, it trains on one device and on two of this process; as one of two
processes of TensorFlow, on a device of each. The last line that it prints is JSON: for each of these ways
and of the detectors the losses of every step, and what callbacks saw of the first detector.
"""

import contextlib
import dataclasses
import json
import os
import sys

FOLDER, ADDRESSES = sys.argv[1], sys.argv[3:]
PROCESS = int(sys.argv[2]) if ADDRESSES else 0
TENSORFLOW = os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"
if ADDRESSES:
    cluster = {"cluster": {"worker": ADDRESSES}, "task": {"type": "worker", "index": PROCESS}}
    os.environ["TF_CONFIG"] = json.dumps(cluster)
if not TENSORFLOW:
    # Compiled without care, which takes longer than to run.
    os.environ["XLA_FLAGS"] = (
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
        "--xla_force_host_platform_device_count=2"
    )

import keras  # noqa: E402
import numpy as np  # noqa: E402
from harness import tiny_backbone  # noqa: E402

from kerasdet import data  # noqa: E402
from kerasdet.distribution import share_of  # noqa: E402
from kerasdet.metrics import CocoMetrics  # noqa: E402
from kerasdet.models.centernet import CenterNet  # noqa: E402
from kerasdet.training import EMA, Checkpoint  # noqa: E402

BATCH, STEPS = 8, 3


def centernet(classes):
    return CenterNet(classes, backbone=tiny_backbone(), image_size=64, channels=8)


# They take long to compile, and the harness counts what each detector's losses count: one stands for all.
DETECTORS = (centernet,)


class Losses(keras.callbacks.Callback):
    """Of every step, means over the steps before it."""

    def on_train_begin(self, logs=None):
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append({name: float(np.asarray(value)) for name, value in logs.items()})


def unequal(dataset):
    """The set with all objects of every third photo, none of the next and one of the one after that."""
    def some(index, sample):
        left = (len(sample.boxes), 0, 1)[index % 3]
        rows = {key: getattr(sample, key)[:left] for key in ("boxes", "labels", "masks")}
        return dataclasses.replace(sample, **rows)

    return type(dataset)(map(some, range(len(dataset)), dataset), dataset.classes)


def train(build, way, scope=contextlib.nullcontext):
    """Three steps of a detector that is made within the scope."""
    keras.utils.set_random_seed(3)
    dataset, losses = unequal(data.load(FOLDER)), Losses()
    with scope():
        detector = build(dataset.classes)
        detector.compile("adamw")
        rate = float(keras.ops.convert_to_numpy(detector.optimizer.get_config()["learning_rate"]))
        detector.compile(keras.optimizers.SGD(3e-3), ema=None)
    batches = dataset.batches(BATCH, detector, training=True, seed=5)
    objects = [(targets["labels"] >= 0).sum(-1).tolist() for _, targets in batches]
    found, callbacks, options = {"objects": objects, "replicas": share_of(detector).replicas}, [losses], {}
    if build is DETECTORS[0]:
        ema, metrics = EMA(0.9), CocoMetrics(dataset[:4])
        callbacks = [ema, metrics, Checkpoint(f"{FOLDER}/{way}_{PROCESS}.npz", ema), losses]
        options["validation_data"] = dataset[:6].batches(4, detector)
    history = detector.fit(batches, steps_per_epoch=STEPS, verbose=0, callbacks=callbacks, **options).history
    if build is DETECTORS[0]:
        found["epoch"] = {name: float(values[0]) for name, values in history.items()}
        found["weights"] = [float(np.square(value).sum()) for value in detector.get_weights()]
    return found | {"steps": losses.steps, "rate": rate}


def ways():
    """Names of the ways to train, and the scope that a detector is made in."""
    if TENSORFLOW:
        import tensorflow as tf

        if ADDRESSES:
            yield "processes", tf.distribute.MultiWorkerMirroredStrategy().scope
            return
        cpu, = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        yield "one", contextlib.nullcontext
        yield "two", tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope
        return
    yield "one", contextlib.nullcontext
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    yield "two", contextlib.nullcontext


print(json.dumps({way: {b.__name__: train(b, way, scope) for b in DETECTORS} for way, scope in ways()}))
