"""Darknet-53, the backbone of YOLOv3 (Redmon and Farhadi 2018, arXiv 1804.02767, table 1)."""

import keras
from keras import layers

from kerasdet.backbones.common import Plan, edits, load_weights

# Residual blocks of the five stages, each begun by a convolution of stride 2.
BLOCKS = (1, 2, 8, 8, 4)
EPSILON, SLOPE = 1e-6, 0.1


def darknet53(weights, dilate: bool, name: str) -> Plan:
    """P2-P5: the ends of stages 2 to 5, 128 to 1024 channels.

    Its ImageNet weights are published in darknet's own format only; `weights` is None or a
    `.weights.h5` of this very network.
    """
    if weights == "imagenet":
        raise ValueError(
            f'weights="imagenet": Keras has none of {name}; pass the path of a .weights.h5 file of '
            "this network, or None for random weights"
        )
    source = _network(name)
    if weights is not None:
        load_weights(source, weights, name)
    levels = {f"P{stage}": f"stage{stage}_block{BLOCKS[stage - 1]}_add" for stage in range(2, 6)}
    return Plan(source, levels, _zero_to_one, edits(source, dilate))


def _network(name: str) -> keras.Model:
    """Table 1 up to its average pool: 52 convolutions."""
    image = keras.Input((224, 224, 3))
    x = convolution(image, 32, 3, "conv1")
    for stage, blocks in enumerate(BLOCKS, 1):
        width = 32 * 2**stage
        x = convolution(x, width, 3, f"stage{stage}_down", strides=2)
        for block in range(1, blocks + 1):
            prefix = f"stage{stage}_block{block}"
            y = convolution(x, width // 2, 1, f"{prefix}_reduce")
            y = convolution(y, width, 3, f"{prefix}_conv")
            x = layers.Add(name=f"{prefix}_add")([x, y])
    return keras.Model(image, x, name=name)


def convolution(x, channels: int, kernel: int, name: str, strides: int = 1):
    """Darknet's layer: convolution without bias, batch norm, leaky ReLU of slope 0.1.

    Args:
        x: (batch, h, w, c).
        channels: of the result.
        kernel: side of the convolution in cells.
        name: prefix of the layers' names.
        strides: 1 or 2; with 2, one row and column of zeros goes around the map, as in darknet.

    Returns:
        (batch, h / strides, w / strides, channels).
    """
    if strides == 2:
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        channels, kernel, strides=strides, padding="valid" if strides == 2 else "same", use_bias=False,
        name=name,
    )(x)
    x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_bn")(x)
    return layers.LeakyReLU(SLOPE, name=f"{name}_leaky")(x)


def _zero_to_one(image):
    """RGB in 0..255 to 0..1."""
    return layers.Rescaling(1 / 255, name="normalise")(image)
