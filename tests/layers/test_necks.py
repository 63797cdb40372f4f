"""Necks bring the stages to one stride, and every stage has a say in the result."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.layers.necks import centernet_deconv_neck, deconv_neck, light_neck

SIZE = 64


def levels(strides):
    return {f"P{i}": keras.Input((SIZE // s, SIZE // s, 8), name=f"P{i}") for i, s in enumerate(strides, 2)}


@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize(
    ("neck", "strides", "unused"),
    [
        (deconv_neck, (4, 8, 16, 16), {4: {"P2"}, 8: {"P2"}}),
        (light_neck, (4, 8, 16, 32), {4: set(), 8: {"P2"}}),
        (centernet_deconv_neck, (4, 8, 16, 32), {4: {"P2", "P3", "P4"}, 8: {"P2", "P3", "P4"}}),
    ],
)
def test_shape_and_use_of_every_level(neck, strides, unused, stride):
    features = levels(strides)
    model = keras.Model(features, neck(features, stride, 12))
    assert model.output.shape == (None, SIZE // stride, SIZE // stride, 12)
    rng = np.random.default_rng(0)
    values = {k: rng.normal(size=(1, *v.shape[1:])).astype(np.float32) for k, v in features.items()}
    plain = ops.convert_to_numpy(model(values))
    for level in features:
        changed = ops.convert_to_numpy(model({**values, level: values[level] + 5}))
        assert np.allclose(plain, changed) == (level in unused[stride]), level


def test_bilinear_upsampling_keeps_places():
    """A bright cell of P5 is brightest in the middle of its own 32x32 pixels."""
    features = levels((4, 8, 16, 32))
    model = keras.Model(features, model_upsampled(features))
    p5 = np.zeros((1, 2, 2, 8), np.float32)
    p5[0, 1, 0] = 1
    maps = {k: p5 if k == "P5" else np.zeros((1, *v.shape[1:])) for k, v in features.items()}
    found = ops.convert_to_numpy(model(maps))
    rows, columns = np.mgrid[:8, :8] + 0.5
    weight = found[0, ..., 0]
    centre = (weight * rows).sum() / weight.sum(), (weight * columns).sum() / weight.sum()
    assert abs(centre[0] - 6) < 1 and abs(centre[1] - 2) < 1


def model_upsampled(features):
    from kerasdet.layers.necks import _upsample

    return _upsample(features["P5"], 4, "up")
