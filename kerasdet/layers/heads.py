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


def rpn_head(maps, channels: int, per_cell: int) -> dict:
    """The head of a region proposal network, with the same weights on every map.

    Args:
        maps: of each level, (batch, h, w, c).
        channels: of the 3x3 convolution before the two 1x1 ones.
        per_cell: anchors a cell.

    Returns:
        object_logits (batch, N) and deltas (batch, N, 4), for the N anchors of all levels: level by level,
        row by row, cell by cell, anchor by anchor.

    Source: Faster R-CNN (Ren et al. 2015), section 3.1; one logit in place of two, as in detectron2. FPN
    (Lin et al. 2017), section 4.1.
    """
    start = keras.initializers.RandomNormal(stddev=0.01)
    convolve = layers.Conv2D(
        channels, 3, padding="same", activation="relu", kernel_initializer=start, name="rpn_conv"
    )
    score = layers.Conv2D(per_cell, 1, kernel_initializer=start, name="rpn_object")
    move = layers.Conv2D(per_cell * 4, 1, kernel_initializer=start, name="rpn_box")
    logits, deltas = [], []
    for level, features in enumerate(maps):
        x = convolve(features)
        count = x.shape[1] * x.shape[2] * per_cell
        logits.append(layers.Reshape((count,), name=f"rpn_object{level}_rows")(score(x)))
        deltas.append(layers.Reshape((count, 4), name=f"rpn_box{level}_rows")(move(x)))
    if len(maps) == 1:
        return {"object_logits": logits[0], "deltas": deltas[0]}
    return {
        "object_logits": layers.Concatenate(axis=1, name="rpn_object_all")(logits),
        "deltas": layers.Concatenate(axis=1, name="rpn_box_all")(deltas),
    }


def box_head(x, classes: int, agnostic: bool) -> dict:
    """What is said of each region: its class and how it has to be moved.

    Args:
        x: (regions, c), one vector a region.
        classes: how many, without background.
        agnostic: one box a region; otherwise one for each class.

    Returns:
        class_logits (regions, 1 + classes), background first; deltas (regions, 1 or classes, 4).

    Source: Fast R-CNN (Girshick 2015), section 2.1.
    """
    boxes = 1 if agnostic else classes
    deltas = layers.Dense(
        boxes * 4, kernel_initializer=keras.initializers.RandomNormal(stddev=0.001), name="head_box"
    )(x)
    return {
        "class_logits": layers.Dense(
            1 + classes, kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), name="head_class"
        )(x),
        "deltas": layers.Reshape((boxes, 4), name="head_box_rows")(deltas),
    }
