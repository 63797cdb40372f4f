"""VGG16: the levels are those of Keras' own network, at the sizes of SSD300."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.backbones.vgg import vgg16


@pytest.fixture(scope="module")
def original():
    keras.utils.set_random_seed(2)
    return keras.applications.VGG16(weights=None, include_top=False, input_shape=(64, 64, 3))


@pytest.fixture(scope="module")
def body(original, tmp_path_factory):
    """The same weights by way of a file."""
    path = tmp_path_factory.mktemp("vgg") / "vgg16.weights.h5"
    original.save_weights(path)
    return vgg16(path, 64, freeze_until="P2")


def test_levels_are_what_keras_own_network_computes(original, body):
    photo = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype("float32")
    names = {"P2": "block3_conv3", "P3": "block4_conv3", "P4": "block5_conv3"}
    theirs = keras.Model(original.input, {k: original.get_layer(v).output for k, v in names.items()})
    expected = theirs(keras.applications.vgg16.preprocess_input(photo.copy()))
    found = body(photo)
    for level, side in (("P2", 16), ("P3", 8), ("P4", 4)):
        assert found[level].shape[1:3] == (side, side)
        mine, other = (ops.convert_to_numpy(x[level]) for x in (found, expected))
        assert other.max() > 0
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4 * other.max())
    assert found["P5"].shape == (1, 4, 4, 1024)


def test_fc6_looks_six_cells_far(body):
    """A change in one cell of the fifth pool reaches the cells 6 away, and none in between."""
    fc6 = body.get_layer("fc6")
    x = np.zeros((1, 15, 15, 512), np.float32)
    x[0, 7, 7] = 1
    seen = ops.convert_to_numpy(fc6(x)).any(-1)[0]
    assert {tuple(cell) for cell in np.argwhere(seen)} == {(r, c) for r in (1, 7, 13) for c in (1, 7, 13)}
    pool = body.get_layer("block5_pool")
    assert pool.strides == (1, 1) and pool.pool_size == (3, 3)


def test_pools_round_up_at_300_px():
    levels = vgg16(image_size=300).output
    assert [levels[f"P{k}"].shape[1] for k in (2, 3, 4, 5)] == [75, 38, 19, 19]


def test_freezing_ends_with_the_level(body):
    frozen = [layer.name for layer in body.layers if layer.weights and not layer.trainable]
    blocks = {1: "12", 2: "12", 3: "123"}
    assert frozen == [f"block{b}_conv{c}" for b, numbers in blocks.items() for c in numbers]
