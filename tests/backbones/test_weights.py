"""Weights: the features are those of `keras.applications`, whatever was edited."""

import keras
import numpy as np
import pytest

from kerasdet import backbones, zoo

APPLICATIONS = keras.applications
CASES = {  # name -> Keras' own network, its preprocessing, its layer for each level
    "mobilenet_v1_0.25": (
        lambda: APPLICATIONS.MobileNet(**bare(alpha=0.25)),
        APPLICATIONS.mobilenet.preprocess_input,
        ["conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"],
    ),
    "mobilenet_v2_0.35": (
        lambda: APPLICATIONS.MobileNetV2(**bare(alpha=0.35)),
        APPLICATIONS.mobilenet_v2.preprocess_input,
        ["block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "out_relu"],
    ),
    "mobilenet_v3_small_0.75": (  # Keras' default normalises inside
        lambda: APPLICATIONS.MobileNetV3Small(**bare(alpha=0.75)),
        lambda image: image,
        [None, None, None, -1],
    ),
    "resnet50": (
        lambda: APPLICATIONS.ResNet50(**bare()),
        APPLICATIONS.resnet.preprocess_input,
        ["conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out"],
    ),
    "resnet50v2": (
        lambda: APPLICATIONS.ResNet50V2(**bare()),
        APPLICATIONS.resnet_v2.preprocess_input,
        [
            "conv2_block3_preact_relu",
            "conv3_block4_preact_relu",
            "conv4_block6_preact_relu",
            "post_relu",
        ],
    ),
}
# Where a level of stride 32 lies on the dilated one: MobileNets pad below and to the right.
PHASE = {"resnet50": 0, "resnet50v2": 0}


def bare(**options):
    return {"include_top": False, "weights": None, "input_shape": (128, 128, 3), **options}


def photo(size=128):
    return np.random.default_rng(7).uniform(0, 255, (1, size, size, 3)).astype("float32")


def shake(model):
    """Give batch normalisation statistics that a lost or swapped weight would show up in."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shapes = [weight.shape for weight in layer.weights]
            layer.set_weights([rng.uniform(0.5, 1.5, shape) for shape in shapes])


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max(), rtol=1e-3)
    assert np.std(expected) > 0


@pytest.mark.parametrize("name", CASES)
def test_features_are_those_of_keras_applications(name, tmp_path):
    make, preprocess, layers = CASES[name]
    reference = make()
    shake(reference)
    path = tmp_path / "net.weights.h5"
    reference.save_weights(path)
    model = backbones.build(name, weights=path, image_size=128)
    found = model(photo())
    for level, layer in zip(found, layers, strict=True):
        if layer is not None:
            output = reference.output if layer == -1 else reference.get_layer(layer).output
            expected = keras.Model(reference.input, output)(preprocess(photo()))
            assert_close(found[level], expected)

    # The same weights without the last stride: every second row and column is the old map.
    dense = backbones.build(name, weights=path, image_size=128, output_stride=16)(photo())["P5"]
    assert dense.shape[1:3] == (8, 8)
    phase = PHASE.get(name, 1)
    if "v3" not in name:  # v3 gates channels by the mean over the map, which is another map's
        assert_close(dense[:, phase::2, phase::2], found["P5"])


def test_inception_differs_from_keras_by_its_borders_only(tmp_path):
    reference = APPLICATIONS.InceptionV3(**bare(input_shape=(256, 256, 3)))
    path = tmp_path / "net.weights.h5"
    reference.save_weights(path)
    model = backbones.build("inception_v3", weights=path)
    levels = [
        layer.output
        for layer in reference.layers
        if layer.name == "mixed2" or layer.output.shape[1:] == (60, 60, 192)
    ][-2:]
    assert len(levels) == 2
    image = photo(256)
    expected = keras.Model(reference.input, levels)(image / 127.5 - 1)
    # Unpadded layers put Keras' pixel (0, 0) of P2 and P3 six pixels further into the photo.
    found = model(np.roll(image, (-6, -6), (1, 2)))
    for level, inside, reference_map in zip(
        ("P2", "P3"), (slice(4, 50), slice(10, 18)), expected, strict=True
    ):
        assert_close(found[level][:, inside, inside], reference_map[:, inside, inside])


def test_resnet_file_that_ends_with_conv4(tmp_path):
    full = APPLICATIONS.ResNet50V2(**bare())
    part = keras.Model(full.input, full.get_layer("conv4_block6_out").output)
    shake(part)
    part.save_weights(tmp_path / "part.weights.h5")
    model = backbones.build("resnet50v2", tmp_path / "part.weights.h5", 128, output_stride=16)
    expected = part(photo() / 127.5 - 1)
    assert_close(model(photo())["P4"][:, ::2, ::2], expected)


@pytest.mark.parametrize("name, last", [("mobilenet_v2_0.35", None), ("resnet50v2", "conv4_block6_out")])
def test_float16_files_load_as_float32(name, last, tmp_path):
    """As presets are stored, half the size; also one that holds a network's first stages only."""
    reference = CASES[name][0]()
    if last is not None:
        reference = keras.Model(reference.input, reference.get_layer(last).output)
    shake(reference)
    whole, half = tmp_path / "whole.weights.h5", tmp_path / "half.weights.h5"
    reference.save_weights(whole)
    zoo._halve(whole, half)
    model = backbones.build(name, half, image_size=128)
    assert all(weight.dtype == "float32" for weight in model.weights)
    rounded = 0
    for layer in reference.layers:
        if layer.weights:
            found = model.get_layer(layer.name).get_weights()
            for value, expected in zip(found, layer.get_weights(), strict=True):
                # Eleven bits are right to 2^-11; below 6e-5 float16 has steps of 6e-8.
                np.testing.assert_allclose(value, expected, rtol=5e-4, atol=6e-8, err_msg=layer.name)
                rounded += not np.array_equal(value, expected)
    assert rounded > 20  # the kernels: it was a float16 file


def test_a_file_as_keras_applications_downloads_it(tmp_path):
    """Written as Keras did before .weights.h5, and under another name."""
    import h5py
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    keras.utils.set_random_seed(0)
    theirs = APPLICATIONS.MobileNetV2(**bare(alpha=0.35))
    shake(theirs)
    path = tmp_path / "mobilenet_v2_weights_0.35_128_no_top.h5"
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, theirs)
    mine = backbones.build("mobilenet_v2_0.35", weights=path, image_size=128)
    image = photo()
    expected = theirs(APPLICATIONS.mobilenet_v2.preprocess_input(image.copy()))
    assert_close(mine(image)["P5"], expected)
    with pytest.raises(ValueError, match="not the weights of mobilenet_v2_0.5"):
        backbones.build("mobilenet_v2_0.5", weights=path, image_size=128)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.weights.h5.*no such file"):
        backbones.build("mobilenet_v2_0.35", tmp_path / "gone.weights.h5")


def test_file_of_another_width_or_network(tmp_path):
    path = tmp_path / "other.weights.h5"
    APPLICATIONS.MobileNetV2(**bare(alpha=0.5)).save_weights(path)
    with pytest.raises(ValueError, match="other.weights.h5: not the weights of mobilenet_v2_0.35"):
        backbones.build("mobilenet_v2_0.35", path)
    with pytest.raises(ValueError, match="holds 260 arrays, the network has"):
        backbones.build("mobilenet_v1_0.5", path)


def test_file_that_is_no_weights_file(tmp_path):
    (tmp_path / "text.weights.h5").write_text("hello")
    with pytest.raises(ValueError, match="text.weights.h5: not the weights of"):
        backbones.build("mobilenet_v2_0.35", tmp_path / "text.weights.h5")
    (tmp_path / "net.pt").write_text("hello")
    with pytest.raises(ValueError, match="ends in .weights.h5"):
        backbones.build("mobilenet_v2_0.35", tmp_path / "net.pt")


def test_imagenet_without_network_says_what_to_do(monkeypatch):
    def offline(*args, **options):
        raise Exception("URL fetch failure on somewhere: no route to host")

    monkeypatch.setattr(APPLICATIONS, "MobileNetV2", offline)
    with pytest.raises(OSError, match="pass the path of a .weights.h5 file"):
        backbones.build("mobilenet_v2", weights="imagenet")


# === From a detector ===


def test_a_presets_backbone_is_what_another_detector_starts_from():
    preset = zoo.load("csp_mobilenet_v2_faces")
    mine = backbones.build("mobilenet_v2_0.35", weights=preset, image_size=320)
    photo = np.random.default_rng(0).uniform(0, 255, (1, 320, 320, 3)).astype("float32")
    theirs = next(layer for layer in preset.layers if isinstance(layer, keras.Model))
    for level, value in theirs(photo).items():
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(mine(photo)[level]), keras.ops.convert_to_numpy(value), atol=1e-4
        )
    dilated = backbones.build("mobilenet_v2_0.35", weights=preset, output_stride=16)
    for one, other in zip(mine.get_weights(), dilated.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for other in ("mobilenet_v2", "mobilenet_v1"):
        with pytest.raises(ValueError, match=f"'csp_mobilenet_v2_faces', which has no layer .* as {other}"):
            backbones.build(other, weights=preset)
