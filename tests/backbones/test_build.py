"""Names, shapes, freezing and saving of every backbone."""

import keras
import numpy as np
import pytest

from kerasdet import backbones

STRIDES = {"P2": 4, "P3": 8, "P4": 16, "P5": 32}
SMALL = "mobilenet_v2_0.35"


@pytest.mark.parametrize("name", backbones.names())
def test_levels_are_input_over_stride(name):
    model = backbones.build(name)
    for size in (224, 256):  # an odd and an even number of cells
        outputs = model(keras.Input((size, size, 3)))
        sides = {level: tensor.shape[1:3] for level, tensor in outputs.items()}
        assert sides == {level: (size // s, size // s) for level, s in STRIDES.items()}
    kinds = [type(layer) for layer in model.layers]
    assert keras.layers.Dense not in kinds, "a backbone is fully convolutional"
    assert kinds.count(keras.layers.Rescaling) == 1, "normalised once, inside"


def test_fixed_size_and_real_maps_agree():
    model = backbones.build(SMALL, image_size=64)
    image = np.zeros((2, 64, 64, 3), "float32")
    maps = model(image)
    for level, stride in STRIDES.items():
        assert model.output[level].shape[1:3] == (64 // stride, 64 // stride)
        assert maps[level].shape[:3] == (2, 64 // stride, 64 // stride)


def test_width_scales_channels():
    wide = backbones.build("mobilenet_v1", image_size=64).output
    half = backbones.build("mobilenet_v1_0.5", image_size=64).output
    assert all(wide[level].shape[-1] == 2 * half[level].shape[-1] for level in STRIDES)


def test_layer_names_do_not_depend_on_what_was_built_before():
    first = [layer.name for layer in backbones.build("mobilenet_v3_small_0.75").layers]
    keras.layers.ReLU(), keras.layers.Activation("relu")  # moves Keras' counters
    assert first == [layer.name for layer in backbones.build("mobilenet_v3_small_0.75").layers]
    assert "expanded_conv_8_expand_act" in first


def step(model, size=64):
    """One training step on noise; returns the change of every weight, by path."""
    before = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    tensor = keras.layers.GlobalAveragePooling2D()(model.output["P5"])
    net = keras.Model(model.input, keras.layers.Dense(1)(tensor))
    net.compile("sgd", "mse", run_eagerly=True)  # compiling a graph takes longer
    rng = np.random.default_rng(0)
    net.fit(rng.uniform(0, 255, (2, size, size, 3)), rng.uniform(5, 9, (2, 1)), verbose=0)
    return {
        weight.path: float(np.abs(keras.ops.convert_to_numpy(weight) - old).max())
        for weight, old in zip(model.weights, before, strict=True)
    }


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_batch_norm_keeps_its_statistics(freeze):
    model = backbones.build(SMALL, image_size=64, freeze_bn=freeze)
    moved = step(model)
    statistics = [change for path, change in moved.items() if "moving_" in path]
    scales = [change for path, change in moved.items() if path.endswith(("gamma", "beta"))]
    assert len(statistics) == len(scales) > 0
    if freeze:
        assert max(statistics) == max(scales) == 0
    else:
        assert min(statistics) > 0 and max(scales) > 0


@pytest.mark.parametrize("where", ["P2", "block_3_expand_relu"])
def test_freeze_until_stops_at_the_level(where):
    model = backbones.build(SMALL, image_size=64, freeze_until=where, freeze_bn=False)
    frozen = {layer.name for layer in model.layers if not layer.trainable}
    assert {"Conv1", "block_2_project_BN", "block_3_expand", "block_3_expand_BN"} <= frozen
    assert not frozen & {"block_3_depthwise", "block_3_depthwise_BN", "Conv_1"}
    assert frozen == {layer.name for layer in keras.Model(model.input, model.output["P2"]).layers}


def test_nested_model_survives_save_and_load(tmp_path):
    backbone = backbones.build(SMALL, image_size=64, freeze_until="P2", output_stride=16)
    image = keras.Input((64, 64, 3))
    levels = backbone(image)
    model = keras.Model(image, keras.layers.Concatenate()([levels["P4"], levels["P5"]]))
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras", safe_mode=True)
    photo = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    np.testing.assert_array_equal(model(photo), loaded(photo))
    inner = loaded.get_layer(SMALL)
    assert list(inner.output) == list(STRIDES)
    assert [w.path for w in inner.trainable_weights] == [w.path for w in backbone.trainable_weights]


@pytest.mark.parametrize("name", ["mobilenet_v3_large_0.25", "resnet50"])
def test_config_round_trip_gives_the_same_graph(name):
    model = backbones.build(name, image_size=64)
    again = keras.Model.from_config(model.get_config())
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    assert {k: v.shape for k, v in again.output.items()} == {
        k: v.shape for k, v in model.output.items()
    }
    assert len(again.trainable_weights) == len(model.trainable_weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mobilnet_v2"}, "'mobilnet_v2' is unknown; did you mean 'mobilenet_v2'"),
        ({"name": "mobilnet_v2_0.5"}, "did you mean 'mobilenet_v2'"),
        ({"name": "resnet50_0.5"}, "resnet50 has one width only"),
        ({"name": "mobilenet_v2_0"}, "the width 0 is not above 0"),
        ({"name": SMALL, "image_size": 300}, "image_size=300: give a multiple of 32"),
        ({"name": SMALL, "output_stride": 8}, "output_stride=8: give 32, or 16"),
        ({"name": SMALL, "freeze_until": "block_3_expand_rel"}, "mean 'block_3_expand_relu'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        backbones.build(**arguments)
