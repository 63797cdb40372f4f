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


def rpn_head(width: int, channels: int, per_cell: int) -> keras.Model:
    """The head of a region proposal network, which runs on every map with the same weights.

    Args:
        width: channels of the maps.
        channels: of the 3x3 convolution before the two 1x1 ones.
        per_cell: anchors a cell.

    Returns:
        a model, (batch, h, w, width) to object_logit (batch, N) and deltas (batch, N, 4), for the N anchors
        of a map: row by row, cell by cell, anchor by anchor.

    Source: Faster R-CNN (Ren et al. 2015), section 3.1; one logit in place of two, as in detectron2. FPN
    (Lin et al. 2017), section 4.1.
    """
    start = {"kernel_initializer": keras.initializers.RandomNormal(stddev=0.01)}
    features = keras.Input((None, None, width), name="features")
    x = layers.Conv2D(channels, 3, padding="same", activation="relu", name="rpn_conv", **start)(features)
    logits = layers.Conv2D(per_cell, 1, name="rpn_object", **start)(x)
    deltas = layers.Conv2D(per_cell * 4, 1, name="rpn_box", **start)(x)
    outputs = {
        "object_logit": layers.Reshape((-1,), name="rpn_object_rows")(logits),
        "deltas": layers.Reshape((-1, 4), name="rpn_box_rows")(deltas),
    }
    return keras.Model(features, outputs, name="rpn")


def mask_head(width: int, channels: int, blocks: int, classes: int) -> keras.Model:
    """What a region's cells show, class by class.

    Args:
        width: channels of the maps.
        channels: of the 3x3 convolutions, and of the one that doubles the cells.
        blocks: how many 3x3 convolutions.
        classes: how many, without background.

    Returns:
        a model, (regions, 14, 14, width) to mask_logits (regions, 28, 28, classes).

    Source: Mask R-CNN (He et al. 2017), section 3 and figure 4.
    """
    regions = keras.Input((14, 14, width), name="regions")
    options = {"activation": "relu", "kernel_initializer": "he_normal"}
    x = regions
    for number in range(1, blocks + 1):
        x = layers.Conv2D(channels, 3, padding="same", name=f"mask_conv{number}", **options)(x)
    x = layers.Conv2DTranspose(channels, 2, strides=2, name="mask_deconv", **options)(x)
    start = keras.initializers.RandomNormal(stddev=0.001)
    x = layers.Conv2D(classes, 1, kernel_initializer=start, name="mask_classes")(x)
    return keras.Model(regions, {"mask_logits": x}, name="mask_head")


def box_head(x, classes: int, agnostic: bool) -> dict:
    """What is said of each region: its class and how it has to be moved.

    Args:
        x: (regions, c), one vector a region.
        classes: how many, without background.
        agnostic: one box a region; otherwise one for each class.

    Returns:
        class_logits (regions, classes) and background_logit (regions, 1), which joins them in one softmax;
        deltas (regions, 1, 4) if agnostic, otherwise deltas_per_class (regions, classes, 4).

    Source: Fast R-CNN (Girshick 2015), section 2.1.
    """
    def dense(units, name, deviation):
        start = keras.initializers.RandomNormal(stddev=deviation)
        return layers.Dense(units, kernel_initializer=start, name=name)(x)

    found = {
        "class_logits": dense(classes, "head_class", 0.01),
        "background_logit": dense(1, "head_background", 0.01),
    }
    boxes = 1 if agnostic else classes
    # A channel a class at last, so that classes can be taken over one by one.
    deltas = layers.Reshape((4, boxes), name="head_box_rows")(dense(4 * boxes, "head_box", 0.001))
    deltas = layers.Permute((2, 1), name="head_box_by_class")(deltas)
    return found | {"deltas" if agnostic else "deltas_per_class": deltas}
