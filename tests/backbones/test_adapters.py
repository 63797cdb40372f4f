"""Backbones of keras-cv and KerasHub in our detectors: levels, scaling, saved files."""

import json
import sys

import keras
import numpy as np
import pytest
from harness import tiny_backbone
from keras import layers
from needed import needed

import kerasdet
from kerasdet import backbones
from kerasdet.backbones.common import at_size, leaves
from kerasdet.layers.trident import Dilated
from kerasdet.models.centernet import CenterNet
from kerasdet.models.csp import CSP
from kerasdet.models.faster_rcnn import FasterRCNN
from kerasdet.models.overfeat import OverFeat
from kerasdet.models.ssd import SSD
from kerasdet.models.trident import TridentNet
from kerasdet.models.yolo_v1 import YOLOv1
from kerasdet.models.yolo_v3 import YOLOv3

STRIDES = {"P2": 4, "P3": 8, "P4": 16, "P5": 32}


def cv_resnet(rescale=True):
    """keras-cv's ResNet, one block a stage, random; its layers are all Keras' own."""
    library = needed("keras_cv")
    return library.models.ResNetBackbone(
        stackwise_filters=[8, 8, 16, 16], stackwise_blocks=[1] * 4, stackwise_strides=[1, 2, 2, 2],
        include_rescaling=rescale,
    )


def cv_mobilenet():
    """keras-cv's MobileNet v3, one block a stage; squeeze-and-excite is a layer of keras-cv."""
    library = needed("keras_cv")
    return library.models.MobileNetV3Backbone(
        stackwise_expansion=[1, 2, 2, 2, 2], stackwise_filters=[8, 8, 16, 16, 24],
        stackwise_kernel_size=[3] * 5, stackwise_stride=[2, 2, 2, 2, 1],
        stackwise_se_ratio=[0.25, None, None, 0.25, None],
        stackwise_activation=["relu", "relu", "hard_swish", "hard_swish", "hard_swish"],
        include_rescaling=True,
    )


def hub_resnet():
    library = pytest.importorskip("keras_hub")
    return library.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[7], stackwise_num_filters=[64, 64, 64, 64],
        stackwise_num_blocks=[1] * 4, stackwise_num_strides=[1, 2, 2, 2], block_type="basic_block",
    )


class LikeKerasCV(keras.Model):
    """The part of keras-cv's interface that the adapter needs, so that its tests need no keras-cv."""

    def __init__(self, rescale=True, levels=("P2", "P3", "P4", "P5")):
        image = x = keras.Input((None, None, 3))
        if rescale:
            x = layers.Rescaling(1 / 255)(x)
        for stride in (2, 4, 8, 16, 32):
            x = layers.Conv2D(4, 3, strides=2, padding="same", name=f"at_{stride}")(x)
        super().__init__(image, x, name="like")
        self.pyramid_level_inputs = {level: f"at_{STRIDES[level]}" for level in levels}


class LikeKerasHub(keras.Model):
    """KerasHub's: tensors in place of names, and no scaling."""

    def __init__(self):
        inner = LikeKerasCV(rescale=False)
        super().__init__(inner.input, inner.output, name="hub")
        self.pyramid_outputs = {f"P{n}": inner.get_layer(f"at_{2**n}").output for n in range(1, 6)}


def photo(size=64):
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("float32")


def arrays(maps):
    return {key: keras.ops.convert_to_numpy(value) for key, value in maps.items()}


@pytest.mark.parametrize("make", [LikeKerasCV, cv_resnet, cv_mobilenet])
def test_a_keras_cv_backbone_is_taken_where_ours_are(make):
    source = make()
    taken = backbones.resolve(source)
    for size in (64, 96):
        found = arrays(taken(photo(size)))
        assert {k: v.shape[:3] for k, v in found.items()} == {
            k: (2, size // s, size // s) for k, s in STRIDES.items()
        }
    # The same layers, nothing between: what keras-cv computes is what comes out.
    theirs = keras.Model(source.input, source.get_layer(source.pyramid_level_inputs["P4"]).output)
    np.testing.assert_allclose(arrays(taken(photo()))["P4"], arrays({"": theirs(photo())})[""], atol=1e-5)
    assert {id(w) for w in taken.weights} <= {id(w) for w in source.weights}


@pytest.mark.parametrize("make", [LikeKerasHub, hub_resnet])
def test_a_keras_hub_backbone_is_given_what_its_converter_gives(make):
    source = make()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    taken = backbones.adapt(source, list(1 / 255 / std), list(-mean / std))
    found = arrays(taken(photo()))
    assert {k: v.shape[1] for k, v in found.items()} == {k: 64 // s for k, s in STRIDES.items()}
    by_hand = (photo() / 255 - mean) / std
    theirs = keras.Model(source.input, source.pyramid_outputs["P3"])
    np.testing.assert_allclose(
        found["P3"], arrays({"": theirs(by_hand.astype("float32"))})[""], rtol=1e-3, atol=1e-4
    )
    assert backbones.resolve(taken) is taken


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LikeKerasCV(rescale=False), "'like' does not scale its input.*include_rescaling=True"),
        (lambda: cv_resnet(rescale=False), "does not scale its input.*include_rescaling=True"),
        (LikeKerasHub, "'hub' does not scale its input.*ImageConverter"),
        (hub_resnet, "does not scale its input.*ImageConverter"),
        (lambda: LikeKerasCV(levels=("P3", "P4")), "has the levels P3, P4, and .* needs P2, P5"),
        (lambda: layers.Conv2D(3, 3), "backbone is <Conv2D.*give a name"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.ReLU()]), "outputs are a dict of P2"),
    ],
)
def test_what_cannot_be_a_backbone(make, message):
    backbone = make()
    with pytest.raises(ValueError, match=message):
        CSP(backbone=backbone, image_size=64)


def test_scaling_twice_is_refused():
    with pytest.raises(ValueError, match="'like' scales its input itself"):
        backbones.adapt(LikeKerasCV(), 1 / 255)


def forward(detector):
    return arrays(detector(photo(), training=False))


@pytest.mark.parametrize(
    ("make", "own_layers"),
    [
        (LikeKerasCV, False),
        (lambda: backbones.adapt(LikeKerasHub(), 1 / 127.5, -1.0), False),
        (cv_resnet, False),
        (cv_mobilenet, True),
        (lambda: backbones.adapt(hub_resnet(), 1 / 255), False),
    ],
)
def test_a_detector_on_it_survives_save_and_load(make, own_layers, tmp_path, monkeypatch):
    detector = CSP(backbone=make(), image_size=64, stride=8, channels=8)
    detector.save(tmp_path / "net.keras")
    config = json.dumps(detector.get_config())
    assert ("keras_cv" in config) is own_layers
    if not own_layers:
        # A None there makes every import of it fail, as where it is not installed.
        for library in ("keras_cv", "keras_hub"):
            monkeypatch.setitem(sys.modules, library, None)
    loaded = kerasdet.load(tmp_path / "net.keras")
    for key, value in forward(detector).items():
        np.testing.assert_allclose(forward(loaded)[key], value, atol=1e-6)
    # A new head on it keeps the backbone's weights.
    other = kerasdet.zoo.adapt(detector, ("a", "b"))
    np.testing.assert_allclose(forward(other)["scale"], forward(detector)["scale"], atol=1e-6)


def test_layers_of_a_library_that_is_missing_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    layer = {"module": "keras_cv.layers", "registered_name": "keras_cv.layers>SqueezeAndExcite2D"}
    config = {"module": "keras", "config": {"name": "net", "layers": [layer]}}
    with pytest.raises(ImportError, match=r"'net' has layers of keras-cv.*'kerasdet\[keras-cv\]'"):
        backbones.deserialize(config)


def test_a_detector_on_a_keras_cv_backbone_trains_and_exports(tmp_path, shapes, untraced):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("export needs TensorFlow")
    detector = CSP(shapes.classes, backbone=cv_resnet(), image_size=64, stride=8, channels=8, target="dense")
    detector.compile()
    before = [keras.ops.convert_to_numpy(w) for w in detector.trainable_weights]
    detector.fit(shapes.batches(4, detector, training=True), steps_per_epoch=1, epochs=1, verbose=0)
    moved = [
        np.abs(keras.ops.convert_to_numpy(w) - old).max() > 0
        for w, old in zip(detector.trainable_weights, before, strict=True)
    ]
    assert np.mean(moved) > 0.9
    report = detector.export(tmp_path / "net.tflite", outputs="raw", on_parity="warn")
    assert report.size == (tmp_path / "net.tflite").stat().st_size


def flat(scaled=True):
    """As of keras-cv, with a convolution of stride 1 before P4."""
    image = x = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 255)(x) if scaled else x
    for stride in (2, 4, 8, 16, 32):
        x = layers.Conv2D(4, 3, strides=2, padding="same", name=f"at_{stride}")(x)
        if stride == 16:
            x = layers.Conv2D(4, 3, padding="same", name="again")(x)
    model = keras.Model(image, x, name="like")
    model.pyramid_level_inputs = {"P2": "at_4", "P3": "at_8", "P4": "again", "P5": "at_32"}
    return model


@pytest.mark.parametrize("build", [
    lambda **o: CenterNet(("a", "b"), channels=8, **o),
    lambda **o: SSD(("a", "b"), anchor_sizes=(0.2, 0.5, 0.9), **o),
    lambda **o: YOLOv1(("a", "b"), grid=2, channels=8, head="light", **o),
    lambda **o: YOLOv3(("a", "b"), channels=8, **o),
    lambda **o: FasterRCNN(("a", "b"), channels=8, head_units=8, **o),
    lambda **o: FasterRCNN(("a", "b"), channels=8, neck="c4", **o),
    lambda **o: TridentNet(("a", "b"), channels=8, blocks=1, dilations=(1, 2), **o),
    lambda **o: OverFeat(("a", "b"), width=0.01, **o | {"image_size": 256}),
])
def test_every_detector_is_built_on_one_of_any_size_and_freezes_it(build):
    detector = build(backbone=flat(), image_size=64, freeze_until="P3")
    frozen = {layer.name for layer in leaves(detector) if not layer.trainable}
    assert {"at_2", "at_4", "at_8"} <= frozen and not {"at_16", "at_32"} & frozen
    size = detector.image_size
    assert {value.shape[0] for value in arrays(detector(photo(size), training=False)).values()} == {2}
    # Drawn for another size, its layers are the same.
    fixed = at_size(backbones.adapt(flat()), 96)
    again = build(backbone=fixed, image_size=64)
    assert again.image_size == size and again.count_params() == detector.count_params()


def test_what_is_frozen_of_one_that_is_scaled_outside_is_no_more_than_asked():
    """There it is one layer, of which a level is an output."""
    backbone = flat(scaled=False)
    detector = CenterNet(
        ("a",), backbone=backbones.adapt(backbone, 1 / 255), image_size=64, channels=8, freeze_until="P3"
    )
    frozen = {layer.name for layer in leaves(detector) if layer.weights and not layer.trainable}
    assert {"at_2", "at_4", "at_8"} <= frozen and not {"again", "at_16", "at_32"} & frozen
    with pytest.raises(ValueError, match="freeze_until='at_9': .*did you mean 'at_"):
        CenterNet(
            ("a",), backbone=backbones.adapt(flat(scaled=False), 1 / 255), image_size=64, channels=8,
            freeze_until="at_9",
        )


def test_what_is_dilated_is_at_the_maps_own_resolution():
    """Where a network's input is open, no layer says of which resolution it is."""
    from kerasdet.backbones import build

    sizes = [TridentNet(
        ("a",), backbone=build("resnet50v2", image_size=size), image_size=64, channels=8, head_units=8,
    ) for size in (None, 64)]
    dilated = [[each.name for each in leaves(net) if isinstance(each, Dilated)] for net in sizes]
    assert dilated[0] == dilated[1] and len(dilated[0]) == 10  # five units, in two branches


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone_weights": "imagenet"}, "backbone_weights is 'imagenet', and backbone is a model, which"),
        ({"levels": ("P3", "P4", "P5")}, "'tiny' has the levels P3, P4, P5, and this .* needs P2 as well"),
        ({"image_size": 8224}, "image_size is 8224; give 8192 at most"),
    ],
)
def test_what_a_model_as_backbone_cannot_be(options, message):
    body = tiny_backbone(64)
    levels = options.pop("levels", tuple(STRIDES))
    body = keras.Model(body.input, {level: body.output[level] for level in levels}, name="tiny")
    with pytest.raises(ValueError, match=message):
        CSP(backbone=body, **{"image_size": 64} | options)
