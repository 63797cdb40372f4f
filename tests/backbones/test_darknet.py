"""Darknet-53: its table of layers counted by hand, its padding, its weights; YOLOv3 at full size."""

import keras
import numpy as np
import pytest
from needed import needed

from kerasdet import backbones
from kerasdet.backbones.darknet import convolution
from kerasdet.data.augment import Augment
from kerasdet.data.dataset import Dataset
from kerasdet.data.sample import Sample
from kerasdet.models.yolo_v3 import PAPER_ANCHORS, YOLOv3

# Table 1 of the paper: (repetitions, [(filters, side of the kernel)]), residual blocks in pairs.
TABLE = (
    (1, [(32, 3), (64, 3)]), (1, [(32, 1), (64, 3)]), (1, [(128, 3)]), (2, [(64, 1), (128, 3)]),
    (1, [(256, 3)]), (8, [(128, 1), (256, 3)]), (1, [(512, 3)]), (8, [(256, 1), (512, 3)]),
    (1, [(1024, 3)]), (4, [(512, 1), (1024, 3)]),
)


def count(convolutions, before=3):
    """Trainable and fixed parameters of (filters, kernel) pairs, each with batch norm."""
    trainable = fixed = 0
    for filters, kernel in convolutions:
        trainable += before * filters * kernel**2 + 2 * filters
        fixed += 2 * filters
        before = filters
    return trainable, fixed


def size(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


@pytest.fixture(scope="module")
def darknet():
    return backbones.build("darknet53", image_size=64, freeze_bn=False)


def test_parameters_are_those_of_the_papers_table(darknet):
    convolutions = [pair for times, block in TABLE for pair in block * times]
    assert len(convolutions) == 52  # and the 53rd, which classifies, is left out
    assert count(convolutions) == (40_584_928, 35_712)
    assert size(darknet.trainable_variables) == 40_584_928
    assert size(darknet.non_trainable_variables) == 35_712
    kinds = [type(layer) for layer in darknet.layers]
    assert kinds.count(keras.layers.Conv2D) == 52 and kinds.count(keras.layers.Add) == 23


def test_levels_have_the_tables_channels(darknet):
    shapes = {level: tensor.shape[1:] for level, tensor in darknet.output.items()}
    assert shapes == {"P2": (16, 16, 128), "P3": (8, 8, 256), "P4": (4, 4, 512), "P5": (2, 2, 1024)}


def test_a_stride_of_2_pads_all_sides():
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, convolution(image, 1, 3, "c", strides=2))
    model.get_layer("c").set_weights([np.ones((3, 3, 1, 1))])
    found = keras.ops.convert_to_numpy(model(np.ones((1, 4, 4, 1))))[0, ..., 0]
    # Keras' own "same" pads below and on the right alone: [[9, 6], [6, 4]].
    np.testing.assert_allclose(found, [[4, 6], [6, 9]], rtol=1e-4)


def test_the_slope_below_zero_is_a_tenth():
    image = keras.Input((1, 1, 1))
    model = keras.Model(image, convolution(image, 1, 1, "c"))
    model.get_layer("c").set_weights([np.ones((1, 1, 1, 1))])
    found = keras.ops.convert_to_numpy(model(np.full((1, 1, 1, 1), -2.0)))
    np.testing.assert_allclose(found, -0.2, rtol=1e-4)


def test_imagenet_weights_are_not_to_be_had():
    with pytest.raises(ValueError, match="Keras has none of darknet53; pass the path"):
        backbones.build("darknet53", weights="imagenet")


# === YOLOv3 as published ===


@pytest.mark.slow
def test_yolo_v3_has_the_published_parameters():
    detector = YOLOv3(
        [f"class {i}" for i in range(80)], backbone="darknet53", freeze_bn=False, image_size=416, neck="paper"
    )
    # Darknet-53, then level by level: reduction, five convolutions, one before the outputs, outputs.
    trainable, fixed = count([pair for times, block in TABLE for pair in block * times])
    for inputs, width, coarser in ((1024, 512, None), (512, 256, 512), (256, 128, 256)):
        parts = [(inputs + width * bool(coarser), [(width, 1), (2 * width, 3)] * 3)]
        if coarser:
            parts.append((coarser, [(width, 1)]))
        for before, convolutions in parts:
            trainable, fixed = (
                a + b for a, b in zip((trainable, fixed), count(convolutions, before), strict=True)
            )
        trainable += (2 * width + 1) * 3 * (5 + 80)
    assert (trainable, trainable + fixed) == (61_949_149, 62_001_757)
    assert size(detector.trainable_variables) == trainable
    assert detector.count_params() == trainable + fixed
    assert detector.output["box"].shape == (None, 3 * (52**2 + 26**2 + 13**2), 4)
    np.testing.assert_allclose(detector.anchors, PAPER_ANCHORS)


@pytest.mark.slow
def test_yolo_v3_at_full_size_learns_two_photos_by_heart(tmp_path):
    data = needed("skimage.data")
    from PIL import Image

    samples = []
    # Boxes by eye, in the photos' pixels: Eileen Collins, and Chelsea the cat.
    for label, (name, box) in enumerate((("astronaut", [20, 15, 362, 512]), ("chelsea", [0, 0, 400, 300]))):
        picture = getattr(data, name)()
        path = tmp_path / f"{name}.png"
        Image.fromarray(picture).save(path)
        samples.append(Sample(str(path), np.array([box], np.float32), np.array([label], np.int32)))
    photos = Dataset(samples, ("person", "cat"))
    keras.utils.set_random_seed(0)
    detector = YOLOv3(
        photos.classes, backbone="darknet53", freeze_bn=False, image_size=224, neck="paper", box_loss="giou"
    )
    for layer in detector._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # statistics of 0.99 lag behind so short a run
    batches = photos.repeat(20).batches(2, detector, training=True, augment=Augment.none())
    detector.compile(keras.optimizers.Adam(3e-4), ema=0.9)
    metrics = {"AP": 0}
    for _ in range(15):  # processors add up in other orders, and take more steps or fewer
        if metrics["AP"] < 0.95:
            detector.fit(batches, epochs=1, verbose=0)
            metrics = detector.evaluate_detections(photos)
    assert metrics["AP"] >= 0.95, metrics
