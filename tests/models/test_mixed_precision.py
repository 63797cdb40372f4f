"""Losses are float32 where the network is of 16 bits, in every family of detectors."""

import keras
import numpy as np
import pytest
from handmade import arrays
from harness import SHAPES, batch_of, tiny_backbone
from keras import ops
from overfeats import small

from kerasdet.models.centernet import CenterNet
from kerasdet.models.csp import CSP
from kerasdet.models.faster_rcnn import FasterRCNN
from kerasdet.models.ssd import SSD
from kerasdet.models.yolo_v1 import YOLOv1
from kerasdet.models.yolo_v3 import YOLOv3

pytestmark = pytest.mark.usefixtures("untraced")


def built(detector, **options):
    return lambda: detector(SHAPES, backbone=tiny_backbone(), image_size=64, **options)


FAMILIES = {
    "csp": built(CSP, stride=8, target="dense", channels=16),
    "centernet": built(CenterNet, stride=8, target="dense", channels=16),
    "ssd": lambda: SSD(
        SHAPES, backbone=tiny_backbone(output_stride=16), network="paper", image_size=64,
        anchor_sizes=(0.16, 0.24, 0.32, 0.4),
    ),
    "yolo_v1": lambda: YOLOv1(
        SHAPES, backbone=tiny_backbone(output_stride=16), image_size=64, head="light", grid=4, channels=16
    ),
    "yolo_v3": built(YOLOv3, channels=8),
    "overfeat": lambda: small(SHAPES),
    "two stages": built(
        FasterRCNN, channels=16, head_units=32, before=(40, 40), proposals=(20, 20), regions=16,
        anchor_sizes=(6, 12, 20, 32, 48),
    ),
}


@pytest.mark.parametrize(
    ("family", "kind"), [*((family, "float16") for family in FAMILIES), ("csp", "bfloat16")]
)
def test_losses_are_float32(family, kind, shapes):
    keras.utils.set_random_seed(0)
    plain = FAMILIES[family]()
    images, targets = batch_of(shapes, plain, 2)
    try:
        keras.config.set_dtype_policy(f"mixed_{kind}")
        mixed = FAMILIES[family]()
        mixed.set_weights(plain.get_weights())
        assert {variable.dtype for variable in mixed.trainable_variables} == {"float32"}
        raw = mixed(images, training=False)
        assert kind in {keras.backend.standardize_dtype(value.dtype) for value in raw.values()}
        # What is exported and what is found is computed in full from there on.
        out = mixed.forward(images)
        assert {keras.backend.standardize_dtype(value.dtype) for value in out.values()} == {"float32"}
        # The best of them; what an untrained network finds besides is all but equal.
        best = [arrays(each)["scores"][0] for each in (out, plain.forward(images))]
        np.testing.assert_allclose(*best, atol=0.02)
        assert np.isfinite(mixed.infer(images)["boxes"]).all()
        raw = {key: ops.cast(value, "float32") for key, value in raw.items()}
        parts = mixed.loss_parts({key: ops.convert_to_tensor(v) for key, v in targets.items()}, raw)
        assert {keras.backend.standardize_dtype(value.dtype) for value in parts.values()} == {"float32"}
        mixed.compile("adamw", ema=None)
        history = mixed.fit(images, targets, batch_size=2, verbose=0).history
        assert all(np.isfinite(values).all() for values in history.values())
    finally:
        keras.config.set_dtype_policy("float32")


def test_regions_of_a_mixed_detector_are_judged_in_float32(shapes):
    try:
        keras.config.set_dtype_policy("mixed_float16")
        detector = FAMILIES["two stages"]()
    finally:
        keras.config.set_dtype_policy("float32")
    images, _ = batch_of(shapes, detector, 2)
    raw = {key: ops.cast(value, "float32") for key, value in detector(images, training=False).items()}
    boxes, _ = detector.propose(raw)
    said = detector.regions_of(raw, boxes)
    assert {keras.backend.standardize_dtype(value.dtype) for value in said.values()} == {"float32"}


def test_a_mixed_detector_is_exported_in_full(tmp_path, shapes):
    """LiteRT's convolutions are float32; afterwards it trains on in 16 bits."""
    try:
        keras.config.set_dtype_policy("mixed_float16")
        detector = FAMILIES["csp"]()
    finally:
        keras.config.set_dtype_policy("float32")
    report = detector.export(tmp_path / "a.tflite", outputs="raw", check_photos=shapes[:2])
    assert report.operators["CONV_2D"] and max(report.parity.raw_error.values()) < 1e-4
    images, _ = batch_of(shapes, detector, 1)
    assert "float16" in {keras.backend.standardize_dtype(v.dtype) for v in detector(images).values()}
