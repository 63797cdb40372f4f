"""A small OverFeat, for its own tests and for those of what is built on it."""

import keras
from harness import tiny_backbone

from kerasdet.models.overfeat import OverFeat


def fine_backbone(size=64):
    """The tiny backbone, cut at stride 8."""
    tiny = tiny_backbone(size)
    return keras.Model(tiny.input, {"P4": tiny.output["P3"]})


def small(classes=("a", "b"), **options):
    """At 64 px: 8 x 8 cells of 8 px, 2 x 2 pools, windows of 32 px, 6 x 6 of them, 8 px apart."""
    options = {"network": "fast", "window": 2, "width": 1 / 64, "image_size": 64} | options
    options.setdefault("backbone", fine_backbone())
    return OverFeat(classes, **options)
