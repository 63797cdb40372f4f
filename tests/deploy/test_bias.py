"""Bias correction: what rounded weights add on the mean is gone, as TensorFlow's own convolutions see it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kerasdet.deploy import bias, flatbuffer
from kerasdet.deploy.quantise import quantise, quantise_weights

SIDE = 20
# What follows the two layers of the stem, which stay in float; the last one does too.
LAYERS = {
    "strided": (layers.Conv2D, {"filters": 8, "kernel_size": 3, "strides": 2, "padding": "same"}),
    "wide": (layers.DepthwiseConv2D, {"kernel_size": 5, "padding": "same"}),
    "dilated": (layers.Conv2D, {"filters": 6, "kernel_size": 3, "dilation_rate": 2, "padding": "same"}),
    "grouped": (layers.Conv2D, {"filters": 8, "kernel_size": 1, "groups": 2}),
    "valid": (layers.Conv2D, {"filters": 8, "kernel_size": (3, 2)}),
    "dense": (layers.Dense, {"units": 12}),
}


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    x = image = keras.Input((SIDE, SIDE, 3), batch_size=1, name="images")
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(4, 3, activation="relu")(x)
    x = layers.DepthwiseConv2D(3, activation="relu")(x)
    seen = {}
    for name, (kind, options) in LAYERS.items():
        seen[name] = layers.Flatten()(x) if name == "dense" else x
        x = kind(**options, activation="relu", name=name)(seen[name])
    model = keras.Model(image, layers.Dense(2, name="found")(x))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            kernel, offset = layer.get_weights()
            # Some weights are far larger than others, so that eight bits are coarse for those.
            kernel *= rng.choice([1, 8], kernel.shape, p=[0.9, 0.1])
            # A fully connected layer without a bias has nothing that could be corrected.
            offset = rng.uniform(0.1, 0.2, offset.shape)
            layer.set_weights([np.abs(kernel) - 0.3 * np.abs(kernel).mean(), offset])
    return model, keras.Model(image, seen)


@pytest.fixture(scope="module")
def photos():
    return list(np.random.default_rng(1).integers(0, 256, (12, SIDE, SIDE, 3), np.uint8))


@pytest.fixture(scope="module")
def files(network, photos):
    """Of the float network and of its int8 versions, with corrected biases and without."""
    data = tf.lite.TFLiteConverter.from_keras_model(network[0]).convert()
    model = flatbuffer.read(data)
    output = model.subgraphs[0].tensors[model.subgraphs[0].outputs[0]].name.decode()
    flatbuffer.order_and_name_outputs(model, [output], ["found"])
    data = flatbuffer.write(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bias, "correct", lambda data, original, squares: data)
        plain = quantise(data, photos)
    return data, plain, quantise(data, photos)


def test_steps_of_weights_are_no_steps_of_outputs():
    """Those of a kernel of one channel are one number too."""
    image = keras.Input((8, 8, 3), batch_size=1, name="images")
    model = keras.Model(image, layers.Conv2D(1, 3)(layers.Conv2D(1, 3, activation="relu")(image)))
    data = quantise_weights(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    assert flatbuffer.op_histogram(data)["DEQUANTIZE"] == 2
    assert flatbuffer.int8_steps(data) == {}


def layers_of(data):
    """(weights in float, bias as it is stored, its scale) of each layer with eight-bit weights."""
    model = flatbuffer.read(data)
    tensors, found = model.subgraphs[0].tensors, []
    for op in model.subgraphs[0].operators:
        if flatbuffer.op_name(model, op) in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            weights, offset = (tensors[i] for i in op.inputs[1:3])
            if weights.type == 9:
                stored = np.frombuffer(np.asarray(model.buffers[offset.buffer].data, np.uint8), np.int32)
                values = bias._values(model, weights).astype(np.float32)
                found.append((values, stored, np.asarray(offset.quantization.scale)))
    return found


def convolved(layer, values, kernel):
    """A layer's linear part, by TensorFlow, with a kernel as the file has it."""
    if isinstance(layer, layers.Dense):
        return values @ kernel.T
    options = {"padding": layer.padding.upper(), "dilations": layer.dilation_rate}
    if isinstance(layer, layers.DepthwiseConv2D):
        return tf.nn.depthwise_conv2d(values, kernel.transpose(1, 2, 3, 0), [1, 1, 1, 1], **options).numpy()
    return tf.nn.conv2d(values, kernel.transpose(1, 2, 3, 0), layer.strides, **options).numpy()


def test_biases_move_by_what_rounded_weights_add_on_the_mean(network, photos, files):
    model, inputs = network
    seen = inputs(np.stack(photos).astype("float32"))
    _, plain, corrected = files
    before, after = layers_of(plain), layers_of(corrected)
    moved = 0
    for name, (kernel, old, scale), (same, new, _) in zip(LAYERS, before, after, strict=True):
        np.testing.assert_array_equal(kernel, same)
        layer, values = model.get_layer(name), np.asarray(seen[name])
        exact = layer.get_weights()[0]
        exact = exact.T if name == "dense" else exact.transpose(3, 0, 1, 2)
        added = convolved(layer, values, kernel) - convolved(layer, values, exact)
        wanted = added.reshape(-1, len(old)).mean(0)
        np.testing.assert_allclose((old - new) * scale, wanted, atol=0.6 * scale.max(), err_msg=name)
        moved += np.abs(old - new).max() > 20
    assert moved >= 3


def test_what_comes_out_is_off_by_less(photos, files):
    from kerasdet.deploy.litert import Runner

    exact, plain, corrected = (
        np.stack([Runner(data)(photo)[0] for photo in photos]).astype(np.float64) for data in files
    )
    errors = [np.abs((found - exact).mean(0)) for found in (plain, corrected)]
    assert (errors[1] < errors[0] / 2).all()
    assert np.square(corrected - exact).mean() < np.square(plain - exact).mean() / 2
