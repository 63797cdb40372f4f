"""From a convolution's map to one row an anchor."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerasdet")
class PerAnchor(keras.layers.Layer):
    """Turns (batch, h, w, anchors * channels) into (batch, h * w * anchors, channels).

    Rows go by row of the map, column and anchor, the anchor fastest. Unlike a `Reshape` it does not
    settle on the map's size, so that a network can be trained at several.

    Args:
        anchors: boxes that each cell predicts.
    """

    def __init__(self, anchors: int, **kwargs):
        super().__init__(**kwargs)
        self.anchors = anchors

    def call(self, inputs):
        # Numbers where the size is known, and so static shapes in an exported graph.
        _, height, width, channels = ops.shape(inputs)
        return ops.reshape(inputs, (-1, height * width * self.anchors, channels // self.anchors))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return batch, height * width * self.anchors, channels // self.anchors

    def get_config(self):
        return {**super().get_config(), "anchors": self.anchors}
