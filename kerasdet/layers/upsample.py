"""Upsampling in forms that phones' GPUs run, and that maps of any size can take."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerasdet")
class NearestUpsample(keras.layers.Layer):
    """Doubles a map's sides: every cell becomes a square of two by two.

    It gives what `keras.layers.UpSampling2D(2)` gives. That one repeats cells on an axis of its own, which in
    a `.tflite` makes tensors of five dimensions, and TensorFlow Lite's GPU delegate takes four at most; this
    one becomes a single RESIZE_NEAREST_NEIGHBOR.

    Shapes:
        (batch, h, w, c) -> (batch, 2 * h, 2 * w, c).
    """

    def call(self, inputs, training=False):
        _, height, width, _ = inputs.shape
        if training or None in (height, width):
            # The same values: XLA has no gradient of TensorFlow's resize, and Keras wants to know its sides.
            return ops.repeat(ops.repeat(inputs, 2, axis=1), 2, axis=2)
        return ops.image.resize(
            inputs, (2 * height, 2 * width), interpolation="nearest", data_format="channels_last"
        )

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = input_shape
        return batch, *(None if side is None else 2 * side for side in sides), channels


@keras.saving.register_keras_serializable(package="kerasdet")
class BilinearUpsample(keras.layers.UpSampling2D):
    """Multiplies a map's sides by a whole number, bilinearly; maps of unknown sides too.

    Keras' own, which this is where sides are known, refuses those that are known at run time only: of batches
    whose squares change their size in training.

    Args:
        factor: what the sides are multiplied by.
        name: of the layer.

    Shapes:
        (batch, h, w, c) -> (batch, factor * h, factor * w, c).
    """

    def __init__(self, factor: int, name=None, **options):
        super().__init__(factor, interpolation="bilinear", name=name, **options)
        self.factor = factor

    def call(self, inputs):
        if None not in inputs.shape[1:3]:
            return super().call(inputs)
        return self._along(self._along(inputs, 1), 2)

    def _along(self, x, axis: int):
        """A row's copies lie about its middle, each between it and the row before or after."""
        length = ops.shape(x)[axis]
        first, last = ops.take(x, [0], axis=axis), ops.take(x, [length - 1], axis=axis)
        padded = ops.concatenate([first, x, last], axis=axis)
        before, after = (
            ops.take(padded, start + ops.arange(length, dtype="int32"), axis=axis) for start in (0, 2)
        )
        copies = []
        for copy in range(self.factor):
            place = (copy + 0.5) / self.factor - 0.5
            other = before if place < 0 else after
            copies.append((1 - abs(place)) * x + abs(place) * other)
        joined = ops.stack(copies, axis=axis + 1)
        sides = [*ops.shape(x)]
        sides[axis] = length * self.factor
        return ops.reshape(joined, (-1, *sides[1:]))

    def get_config(self):
        ours = super().get_config() | {"factor": self.factor}
        return {key: value for key, value in ours.items() if key not in ("size", "interpolation")}
