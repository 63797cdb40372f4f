"""Starting from another detector."""

import keras
import numpy as np
import pytest
from harness import tiny_backbone

from kerasdet.models.centernet import CenterNet
from kerasdet.models.csp import CSP
from kerasdet.training import start_from

OPTIONS = {
    "image_size": 64, "stride": 8, "neck": "light", "channels": 16, "target": "dense", "head_blocks": 1,
}


def test_what_agrees_is_taken_over_and_the_rest_is_named():
    keras.utils.set_random_seed(0)
    source = CenterNet(("a", "b"), backbone=tiny_backbone(), **OPTIONS)
    model = CSP(("person",), backbone=tiny_backbone(), parts=("head",), **OPTIONS)

    def weights_of(detector, name):
        return np.concatenate([value.ravel() for value in detector.get_layer(name).get_weights()])

    # The heat-map has another number of classes, CSP's scale another name, and CenterNet no heads.
    own = ("head_center", "head_scale", "head_head_block1_pointwise", "head_head_offset")
    before = [weights_of(model, name) for name in own]
    kept = start_from(model, source)
    assert set(own) <= set(kept)
    for name, value in zip(own, before, strict=True):
        np.testing.assert_array_equal(weights_of(model, name), value)
    for name in ("neck_P3_lateral", "head_center_block1_pointwise", "head_box_block1_depthwise"):
        assert name not in kept
        np.testing.assert_array_equal(weights_of(model, name), weights_of(source, name))


def test_classes_in_another_order_do_not_change_places():
    orders = ("a", "b"), ("b", "a")
    source, model = (CenterNet(names, backbone=tiny_backbone(), **OPTIONS) for names in orders)
    before = model.get_layer("head_center").get_weights()
    assert "head_center" in start_from(model, source)
    np.testing.assert_array_equal(model.get_layer("head_center").get_weights()[0], before[0])
    model = CenterNet(("a", "b"), backbone=tiny_backbone(), **OPTIONS)
    assert "head_center" not in start_from(model, source)


def test_a_detector_that_has_nothing_in_common_is_refused():
    source = CenterNet(("a",), backbone=tiny_backbone(), **OPTIONS | {"channels": 8, "neck": "fpn"})
    stranger = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="other")], name="stranger")
    with pytest.raises(ValueError, match="no layer of .* has the name and shape of one of stranger"):
        start_from(stranger, source)
