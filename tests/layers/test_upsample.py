"""Upsampling: Keras' own values and gradients, in forms that phones' GPUs and any size of map take."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasdet.layers.upsample import BilinearUpsample, NearestUpsample


def numbers(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("training", [False, True])
def test_it_gives_what_upsampling2d_gives(training):
    for shape in ((2, 5, 7, 3), (1, 1, 1, 1), (3, 40, 40, 8)):
        maps = numbers(*shape)
        found = ops.convert_to_numpy(NearestUpsample()(maps, training=training))
        np.testing.assert_array_equal(found, ops.convert_to_numpy(layers.UpSampling2D(2)(maps)))
        np.testing.assert_array_equal(found, maps.repeat(2, 1).repeat(2, 2))


def test_by_hand():
    cells = np.float32([[1, 2], [3, 4]])[None, :, :, None]
    found = ops.convert_to_numpy(NearestUpsample()(cells))[0, :, :, 0]
    assert found.tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_shapes_are_known_before_it_runs():
    for size in ((5, 8), (None, 8), (None, None)):
        maps = keras.Input((*size, 3))
        twice = NearestUpsample()(maps)
        assert twice.shape == (None, *(None if side is None else 2 * side for side in size), 3)
        assert keras.Model(maps, twice)(numbers(2, 5, 8, 3)).shape == (2, 10, 16, 3)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="others know all sides")
def test_graphs_need_not_know_the_sides():
    import tensorflow as tf

    run = tf.function(NearestUpsample(), input_signature=[tf.TensorSpec((None, None, None, 3))])
    for shape in ((2, 5, 7, 3), (1, 4, 2, 3)):
        maps = numbers(*shape)
        np.testing.assert_array_equal(run(maps), maps.repeat(2, 1).repeat(2, 2))


def test_it_holds_no_weights_and_is_saved(tmp_path):
    maps = keras.Input((4, 6, 2))
    model = keras.Model(maps, NearestUpsample(name="up")(maps))
    assert model.weights == []
    model.save(tmp_path / "up.keras")
    again = keras.models.load_model(tmp_path / "up.keras")
    values = numbers(1, 4, 6, 2)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(again(values)), ops.convert_to_numpy(model(values))
    )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's own")
def test_it_trains_and_is_evaluated_under_xla():
    import tensorflow as tf

    layer, maps, weights = NearestUpsample(), tf.constant(numbers(2, 3, 4, 5)), numbers(2, 6, 8, 5)

    @tf.function(jit_compile=True)
    def gradient(maps):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            total = tf.reduce_sum(layer(maps, training=True) * weights)
        return tape.gradient(total, maps)

    expected = weights.reshape(2, 3, 2, 4, 2, 5).sum((2, 4))
    np.testing.assert_allclose(gradient(maps), expected, rtol=1e-5, atol=1e-5)
    evaluated = tf.function(lambda maps: layer(maps), jit_compile=True)
    np.testing.assert_array_equal(evaluated(maps), layer(maps))


def test_in_a_tflite_it_is_one_operator(operators_of):
    maps = keras.Input((5, 8, 3), batch_size=1)
    (operator,) = operators_of(keras.Model(maps, NearestUpsample()(maps)))
    assert operator.name == "RESIZE_NEAREST_NEIGHBOR"
    assert operator.outputs[0].shape == (1, 10, 16, 3)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bilinear_maps_of_unknown_sides_are_what_known_ones_are(factor):
    known, unknown = keras.Input((5, 7, 3)), keras.Input((None, None, 3))
    models = [keras.Model(maps, BilinearUpsample(factor)(maps)) for maps in (known, unknown)]
    maps = numbers(2, 5, 7, 3)
    plain = ops.convert_to_numpy(layers.UpSampling2D(factor, interpolation="bilinear")(maps))
    assert models[1].output.shape == (None, None, None, 3)
    by_copies = BilinearUpsample(factor)
    found = [*(model(maps) for model in models), by_copies._along(by_copies._along(maps, 1), 2)]
    for each in found:
        np.testing.assert_allclose(ops.convert_to_numpy(each), plain, atol=1e-5)
    again = BilinearUpsample.from_config(by_copies.get_config())
    assert again.factor == factor and again.interpolation == "bilinear"


def test_bilinear_upsampling_keeps_places():
    """A bright cell is brightest in the middle of the 4x4 that it becomes."""
    cells = np.zeros((1, 2, 2, 1), np.float32)
    cells[0, 1, 0] = 1
    weight = ops.convert_to_numpy(BilinearUpsample(4)(cells))[0, ..., 0]
    rows, columns = np.mgrid[:8, :8] + 0.5
    centre = (weight * rows).sum() / weight.sum(), (weight * columns).sum() / weight.sum()
    assert abs(centre[0] - 6) < 1 and abs(centre[1] - 2) < 1
