"""The optimizer of every training here: AdamW, slower on a backbone that has learned much already."""

from __future__ import annotations

import re

import keras

from kerasdet.backbones.common import weights_of_backbone

WEIGHT_DECAY = 1e-3
CLIP_NORM = 10.0


def adamw(rate, detector=None, backbone_rate=None):
    """AdamW with weight decay 1e-3, each weight's gradient clipped to norm 10.

    Adam moves every weight by about its rate, however small the gradient is. At a rate at which new heads
    learn, a pretrained backbone loses what it knows: after 22 epochs at 4e-4 all of the deepest features of a
    MobileNetV2 stood at 0 or 6, the ends of its ReLU, whatever the photo showed.

    Args:
        rate: the learning rate, or a schedule of it.
        detector: a `kerasdet.Detector`; needed with `backbone_rate` only.
        backbone_rate: the rate of its backbone's weights, or a schedule of it; None takes `rate`.

    Returns:
        A Keras optimizer.

    Raises:
        ValueError: the detector has no backbone that could have a rate of its own.
    """

    def of(rate):
        return keras.optimizers.AdamW(rate, weight_decay=WEIGHT_DECAY, clipnorm=CLIP_NORM)

    if backbone_rate is None:
        return of(rate)
    # By their paths, wherever a detector runs stages of its backbone, copies of layers included.
    paths = sorted({weight.path for weight in weights_of_backbone(detector)})
    if not paths:
        raise ValueError(f"{detector.name} has no backbone; leave backbone_rate out")
    # One pattern for all of them: a key for each would come back from a file as an optimizer each.
    slower = {"|".join(map(re.escape, paths)): of(backbone_rate)}
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(of(rate), slower))
