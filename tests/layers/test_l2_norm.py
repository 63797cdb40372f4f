import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.layers import L2Norm


def test_every_cell_gets_the_learned_length():
    layer = L2Norm(10.0)
    x = np.array([[[[3.0, 4.0], [0.0, -2.0]]]], np.float32)
    found = ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(found, [[[[6, 8], [0, -10]]]], rtol=1e-5)
    layer.gamma.assign([1.0, 5.0])
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x))[0, 0, 0], [0.6, 4.0], rtol=1e-5)


def test_a_cell_of_zeros_stays_zero():
    assert not ops.convert_to_numpy(L2Norm()(np.zeros((1, 2, 2, 4), np.float32))).any()


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_sixteen_bits_hold_short_and_long_vectors(kind):
    """Squares of 300 and of 1e-4 are none of float16's numbers."""
    layer = L2Norm(10.0, dtype=f"mixed_{kind}")
    x = np.array([0.0, 300.0, 1e-4], np.float32)[:, None, None, None] * np.ones((3, 1, 1, 512), np.float32)
    found = layer(ops.cast(x, kind))
    assert keras.backend.standardize_dtype(found.dtype) == kind
    found = ops.convert_to_numpy(ops.cast(found, "float32"))
    np.testing.assert_allclose(found[:, 0, 0, 0], [0, 10 / 512**0.5, 10 / 512**0.5], rtol=0.01)


def test_config_keeps_the_scale():
    layer = L2Norm.from_config(L2Norm(20.0, name="norm").get_config())
    layer.build((None, 4, 4, 3))
    assert layer.name == "norm"
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.gamma), [20.0] * 3)
