"""The smallest detector that learns: for tests of training that hang on no network."""

import keras
from harness import SHAPES
from keras import layers, ops

from kerasdet.boxes.gaussians import region_mask
from kerasdet.detector import Detector


class Tiny(Detector):
    """Two convolutions that learn where boxes are."""

    def __init__(self, name=None):
        images = keras.Input((64, 64, 3), name="images")
        x = layers.Conv2D(8, 8, strides=8, use_bias=False)(layers.Rescaling(1 / 255)(images))
        x = layers.Conv2D(1, 1)(layers.ReLU()(layers.BatchNormalization()(x)))
        super().__init__(images, {"inside": x}, classes=SHAPES, image_size=64, name=name)
        self.track_losses("inside_loss")

    def loss_parts(self, targets, raw):
        inside = ops.cast(region_mask(targets["boxes"] / 8, 8, 8), "float32")[..., None]
        return {"inside_loss": ops.mean(ops.square(raw["inside"] - inside))}
