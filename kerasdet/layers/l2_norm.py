"""L2 normalisation over channels with a learned scale."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="kerasdet")
class L2Norm(keras.layers.Layer):
    """Divides every cell's feature vector by its length and multiplies by a learned scale a channel.

    It brings feature maps of different stages, whose lengths differ by an order of magnitude, to one
    scale before they are joined.

    Args:
        scale: what the learned scale starts from.

    Input and output: (batch, height, width, channels).

    Source: ParseNet (Liu et al. 2015), section 3.3; SSD for conv4_3 (scale 20); CSP (scale 10).
    """

    def __init__(self, scale: float = 10.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def build(self, input_shape):
        self.gamma = self.add_weight(
            name="gamma", shape=(input_shape[-1],), initializer=keras.initializers.Constant(self.scale)
        )

    def call(self, inputs):
        # By the mean of squares: of the sum, LiteRT makes an L2_NORMALIZATION, which GPU delegates refuse.
        channels = inputs.shape[-1]
        # Squares of more than 256, and the smallest length, are beyond float16.
        full = ops.cast(inputs, "float32")
        squares = ops.mean(ops.square(full), axis=-1, keepdims=True)
        length = ops.rsqrt(ops.maximum(squares, 1e-12 / channels))
        scaled = full * length * (ops.cast(self.gamma, "float32") / channels**0.5)
        return ops.cast(scaled, inputs.dtype)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}
