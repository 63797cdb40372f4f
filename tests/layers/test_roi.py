"""RoI pooling and RoI align: by hand, and against those of ONNX Runtime and TensorFlow."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasdet.layers.roi import roi_align, roi_levels, roi_pool

STRIDE = 8


def maps(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def boxes(count, extent, seed=0):
    """(2, count, 4) float32 of all sizes, some of them beyond the border."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(-0.1, 0.9, (2, count, 2)) * extent
    return np.concatenate([low, low + rng.uniform(0.02, 0.8, (2, count, 2)) * extent], -1).astype("float32")


# === Levels ===


def test_levels_by_hand():
    sides = np.array([10, 111, 112, 223, 224, 447, 448, 2000], np.float32)
    squares = np.stack([sides * 0, sides * 0, sides, sides], -1)[None]
    assert ops.convert_to_numpy(roi_levels(squares))[0].tolist() == [2, 2, 3, 3, 4, 4, 5, 5]
    # 112 = sqrt(56 * 224); an empty box has no logarithm.
    others = np.array([[[0, 0, 56, 224], [5, 5, 5, 5]]], np.float32)
    assert ops.convert_to_numpy(roi_levels(others))[0].tolist() == [3, 2]
    # On photos of 400 px a box half as large belongs to the same level.
    halved = ops.convert_to_numpy(roi_levels(squares / 2, canonical=112.0))
    assert halved[0].tolist() == [2, 2, 3, 3, 4, 4, 5, 5]


# === Align ===


def test_align_of_a_slope_is_the_slope():
    """On a map that rises by 1 a column and 10 a row, every bin is what the slope is at its middle."""
    row, column = np.mgrid[:6, :8].astype("float32")
    slope = (10 * row + column)[None, ..., None]
    box = np.array([[[12, 10, 36, 34]]], np.float32)  # 1.5 to 4.5 cells across, 1.25 to 4.25 down
    found = ops.convert_to_numpy(roi_align([slope], [STRIDE], box, size=3))[0, 0, ..., 0]
    middles = np.arange(3)  # a cell wide each, so in cells that are whole but for the box's beginning
    expected = 10 * (1.25 + middles)[:, None] + (1.5 + middles)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_align_beyond_the_border():
    ones = np.ones((1, 4, 4, 1), np.float32)
    # One bin and one place each: half a cell beyond, one and a half beyond.
    places = np.array([[-8, 8, 0, 16], [-24, 8, -8, 16]], np.float32)[None]
    found = ops.convert_to_numpy(roi_align([ones], [STRIDE], places, size=1, samples=1))
    assert found.ravel().tolist() == [1, 0]


@pytest.mark.parametrize("size, samples", [(7, 2), (3, 1), (2, 4)])
def test_align_is_tensorflows_crop_and_resize(size, samples):
    tf = pytest.importorskip("tensorflow")
    features = maps(2, 12, 16, 5)
    inside = np.clip(boxes(20, 90), [4, 4, 12, 12], [100, 70, 124, 92])  # within the middles of border cells
    inside = inside[:, (inside[..., 2:] > inside[..., :2]).all(-1).all(0)]
    assert inside.shape[1] > 10
    found = ops.convert_to_numpy(roi_align([features], [STRIDE], inside, size, samples))
    # It samples from edge to edge, so the edges are the first and last places; in fractions of the cells.
    places = size * samples
    side = inside[..., 2:] - inside[..., :2]
    low = inside[..., :2] + side / (2 * places)
    high = inside[..., 2:] - side / (2 * places)
    cells = np.concatenate([low, high], -1)[..., [1, 0, 3, 2]] / STRIDE - 0.5
    relative = cells / np.array([11, 15, 11, 15])
    sampled = tf.image.crop_and_resize(
        features, relative.reshape(-1, 4), np.repeat([0, 1], inside.shape[1]), (places, places)
    )
    expected = tf.nn.avg_pool2d(sampled, samples, samples, "VALID").numpy()
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-3, atol=1e-4)


def test_each_box_is_looked_at_on_its_own_level():
    pyramid = [maps(2, 16, 16, 3), maps(2, 8, 8, 3) + 5]
    some = boxes(6, 64)
    levels = np.array([[0, 1, 0, 1, 1, 0], [1, 1, 0, 0, 1, 0]], np.int32)
    found = ops.convert_to_numpy(roi_align(pyramid, [4, 8], some, levels=levels))
    alone = [ops.convert_to_numpy(roi_align([m], [s], some)) for m, s in zip(pyramid, (4, 8), strict=True)]
    for photo, row in np.ndindex(2, 6):
        np.testing.assert_allclose(found[photo, row], alone[levels[photo, row]][photo, row], atol=1e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(roi_align(pyramid, [4, 8], some)), alone[0])


# === Pool ===


RECORDED = json.loads((Path(__file__).parent / "roi_pool_onnx.json").read_text())


@pytest.mark.parametrize("size", RECORDED["found"], ids="size {}".format)
def test_pool_is_onnx_runtimes(size):
    """`record_roi_pool.py` says how its figures were recorded."""
    features = np.array(RECORDED["features"], np.float32)[None, ..., None]
    some = np.array(RECORDED["boxes"], np.float32)[None]
    found = ops.convert_to_numpy(roi_pool(features, RECORDED["stride"], some, int(size)))
    np.testing.assert_allclose(found[0, ..., 0], RECORDED["found"][size], atol=1e-6)


def test_photos_and_channels_are_pooled_apart():
    features, some = maps(2, 12, 16, 4), boxes(25, 140)
    found = ops.convert_to_numpy(roi_pool(features, STRIDE, some, 3))
    for photo, channel in np.ndindex(2, 4):
        one = features[photo : photo + 1, ..., channel : channel + 1]
        alone = ops.convert_to_numpy(roi_pool(one, STRIDE, some[photo : photo + 1], 3))
        np.testing.assert_array_equal(found[photo, ..., channel], alone[0, ..., 0])


def test_pool_by_hand():
    numbers = np.arange(16.0, dtype="float32").reshape(1, 4, 4, 1)
    # Cells 1 to 3 down and across: bins of 1.5 cells share the middle one.
    found = ops.convert_to_numpy(roi_pool(numbers, STRIDE, np.array([[[8, 8, 24, 24]]], np.float32), 2))
    assert found[0, 0, ..., 0].tolist() == [[10, 11], [14, 15]]


# === Both ===


@pytest.mark.parametrize(
    "crop", [lambda m, b: roi_align([m], [STRIDE], b, 3), lambda m, b: roi_pool(m, STRIDE, b, 3)]
)
def test_gradients_reach_the_features(crop):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("one backend's gradients will do")
    import tensorflow as tf

    features = tf.constant(maps(1, 6, 6, 2))
    with tf.GradientTape() as tape:
        tape.watch(features)
        total = tf.reduce_sum(crop(features, np.array([[[8, 8, 30, 30]]], np.float32)))
    slope = tape.gradient(total, features).numpy()
    assert slope[0, 2:3, 2:3].any() and not slope[0, 5].any()
    np.testing.assert_allclose(slope.sum(), 18, rtol=1e-5)  # every bin of both channels counts once


def test_shapes_are_fixed_before_anything_runs():
    images, places = keras.Input((8, 8, 4)), keras.Input((5, 4))
    assert roi_align([images], [STRIDE], places, 7).shape == (None, 5, 7, 7, 4)
    assert roi_pool(images, STRIDE, places, 7).shape == (None, 5, 7, 7, 4)
    x = layers.Flatten()(roi_pool(images, STRIDE, places, 7))
    assert x.shape == (None, 5 * 7 * 7 * 4)
