"""Shared by the layers' tests."""

import pytest
from needed import needed


@pytest.fixture
def operators_of():
    """What a model becomes in a `.tflite`: a function from the model to the operators."""
    import keras

    if keras.backend.backend() != "tensorflow":
        pytest.skip("export is TensorFlow's")
    needed("ai_edge_litert")
    import tensorflow as tf

    from kerasdet.deploy.operations import operations

    def convert(model):
        specs = [tf.TensorSpec(each.shape, each.dtype) for each in model.inputs]
        function = tf.function(lambda *given: model(given[0], training=False), autograph=False)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function(*specs)])
        return operations(converter.convert())

    return convert
