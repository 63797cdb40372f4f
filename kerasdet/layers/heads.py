"""Heads: from the features that they share to their raw outputs."""

from __future__ import annotations

import keras
from keras import layers

from kerasdet.layers.necks import separable


def branch(features, name: str, channels: int, blocks: int):
    """Separable 5x5 convolutions that one head has for its own.

    Args:
        features: (batch, h, w, c).
        name: of the branch; its layers are called head_<name>_block1, ..
        channels: of the result.
        blocks: how many; none gives the features themselves.

    Returns:
        (batch, h, w, channels).
    """
    for number in range(1, blocks + 1):
        features = separable(features, channels, 5, f"head_{name}_block{number}")
    return features


def head(features, channels: int, name: str, bias: float = 0.0):
    """The 1x1 convolution a head ends in, which starts near one value.

    Args:
        features: (batch, h, w, c).
        channels: of the result.
        name: of the head; the layer is called head_<name>.
        bias: what it gives at first.

    Returns:
        (batch, h, w, channels).
    """
    return layers.Conv2D(
        channels, 1, bias_initializer=keras.initializers.Constant(bias),
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), name=f"head_{name}",
    )(features)
