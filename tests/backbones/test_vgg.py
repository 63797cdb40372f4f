"""VGG16: the levels are those of Keras' own network; SSD300 on it has the published sizes."""

import math

import keras
import numpy as np
import pytest
from keras import ops
from needed import needed
from PIL import Image

from kerasdet.backbones.vgg import vgg16
from kerasdet.data import Dataset
from kerasdet.data.augment import Augment
from kerasdet.data.sample import Sample
from kerasdet.models.ssd import SSD


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


def test_it_starts_from_a_detector_on_it(body):
    image = keras.Input((64, 64, 3))
    detector = keras.Model(image, body(image))
    for layer, other in zip(body.layers, vgg16(detector, 64).layers, strict=True):
        for one, another in zip(layer.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(one, another)


def test_freezing_ends_with_the_level(body):
    frozen = [layer.name for layer in body.layers if layer.weights and not layer.trainable]
    blocks = {1: "12", 2: "12", 3: "123"}
    assert frozen == [f"block{b}_conv{c}" for b, numbers in blocks.items() for c in numbers]


# === SSD300 as published ===


@pytest.fixture(scope="module")
def ssd300():
    return SSD([str(i) for i in range(90)], network="paper", backbone="vgg16", image_size=300)


def test_ssd300_has_the_published_default_boxes_and_parameters(ssd300):
    assert ssd300.anchors.shape == (8732, 4)
    assert ssd300.output["class_logits"].shape == (None, 8732, 90)
    # torchvision's ssd300_vgg16, with COCO's 91 names, background among them: 35.6 M. By layers:
    kernels = [(3, 3, 64), (3, 64, 64), (3, 64, 128), (3, 128, 128), (3, 128, 256), (3, 256, 256),
               (3, 256, 256), (3, 256, 512), *[(3, 512, 512)] * 5, (3, 512, 1024), (1, 1024, 1024),
               (1, 1024, 256), (3, 256, 512), (1, 512, 128), (3, 128, 256), (1, 256, 128), (3, 128, 256),
               (1, 256, 128), (3, 128, 256)]
    heads = ((512, 4), (1024, 6), (512, 6), (256, 6), (256, 4), (256, 4))
    kernels += [(3, channels, boxes * (91 + 4)) for channels, boxes in heads]
    norm = 512
    assert ssd300.count_params() == norm + sum(k * k * i * o + o for k, i, o in kernels) == 35_641_826


def test_ssd300_maps_are_the_published_ones(ssd300):
    counts = [ssd300.get_layer(f"head{k}_class").output.shape[1] for k in range(6)]
    assert counts == [38, 19, 10, 5, 3, 1]
    # The first box of the last map's only cell: 264 px in the middle.
    np.testing.assert_allclose(ssd300.anchors[-4], [18, 18, 282, 282], atol=1e-3)
    # The last of conv4_3's cells: steps of 8 px, so 37.5 * 8; a tall box of 30 / sqrt 2.
    width, height = 30 / math.sqrt(2), 30 * math.sqrt(2)
    np.testing.assert_allclose(
        ssd300.anchors[4 * 38 * 38 - 1],
        [300 - width / 2, 300 - height / 2, 300 + width / 2, 300 + height / 2], atol=1e-3,
    )


def learn_two_photos(folder, image_size, steps):
    """SSD on VGG16 from random weights, fitted to two real photos: what it then scores on them."""
    pictures = needed("skimage.data")
    samples = []
    # Boxes by eye, in the photos' pixels: Eileen Collins, and Chelsea the cat.
    for label, (name, box) in enumerate((("astronaut", [20, 15, 362, 512]), ("chelsea", [0, 0, 400, 300]))):
        path = folder / f"{name}.png"
        Image.fromarray(getattr(pictures, name)()).save(path)
        samples.append(Sample(str(path), np.array([box], np.float32), np.array([label], np.int32)))
    photos = Dataset(samples, ("person", "cat"))
    keras.utils.set_random_seed(0)
    detector = SSD(photos.classes, network="paper", backbone="vgg16", image_size=image_size)
    batches = photos.repeat(steps).batches(2, detector, training=True, augment=Augment.none())
    detector.compile(keras.optimizers.Adam(1e-4), ema=0.9)
    detector.fit(batches, verbose=0)
    return detector.evaluate_detections(photos)


@pytest.mark.slow
def test_ssd300_learns_two_photos_by_heart(tmp_path):
    metrics = learn_two_photos(tmp_path, 300, 120)
    assert metrics["AP"] >= 0.95, metrics
