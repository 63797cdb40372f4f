"""Necks bring the stages to one stride, and every stage has a say in the result."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.layers.necks import PYRAMIDS, centernet_deconv_neck, deconv_neck, fpn_neck, light_neck, pyramid

SIZE = 64


def levels(strides):
    return {f"P{i}": keras.Input((SIZE // s, SIZE // s, 8), name=f"P{i}") for i, s in enumerate(strides, 2)}


@pytest.mark.parametrize("stride", [4, 8])
@pytest.mark.parametrize(
    ("neck", "strides", "unused"),
    [
        (deconv_neck, (4, 8, 16, 16), {4: {"P2"}, 8: {"P2"}}),
        (light_neck, (4, 8, 16, 32), {4: set(), 8: {"P2"}}),
        (fpn_neck, (4, 8, 16, 32), {4: set(), 8: {"P2"}}),
        (centernet_deconv_neck, (4, 8, 16, 32), {4: {"P2", "P3", "P4"}, 8: {"P2", "P3", "P4"}}),
    ],
)
def test_shape_and_use_of_every_level(neck, strides, unused, stride):
    features = levels(strides)
    model = keras.Model(features, neck(features, stride, 12))
    assert model.output.shape == (None, SIZE // stride, SIZE // stride, 12)
    rng = np.random.default_rng(0)
    values = {k: rng.normal(size=(1, *v.shape[1:])).astype(np.float32) for k, v in features.items()}
    plain = ops.convert_to_numpy(model(values))
    for level in features:
        changed = ops.convert_to_numpy(model({**values, level: values[level] + 5}))
        assert np.allclose(plain, changed) == (level in unused[stride]), level


def test_csps_levels_start_at_length_10():
    features = levels((4, 8, 16, 16))
    model = keras.Model(features, deconv_neck(features, 4, 12))
    for level in ("P3", "P4", "P5"):
        assert (ops.convert_to_numpy(model.get_layer(f"neck_{level}_l2").gamma) == 10).all(), level


def test_context_is_the_identity_at_first():
    features = levels((4, 8, 16, 32))
    # The second neck is the first one with blocks on P5.
    plain, wide = (keras.Model(features, light_neck(features, 8, 12, context=n)) for n in (0, 2))
    for layer in plain.layers:
        wide.get_layer(layer.name).set_weights(layer.get_weights())
    rng = np.random.default_rng(0)
    values = {k: rng.normal(size=(1, *v.shape[1:])).astype(np.float32) for k, v in features.items()}
    before = ops.convert_to_numpy(plain(values))
    np.testing.assert_array_equal(ops.convert_to_numpy(wide(values)), before)
    wide.get_layer("neck_context2_pointwise_bn").gamma.assign(np.ones(64))
    assert not np.allclose(ops.convert_to_numpy(wide(values)), before)


# === The pyramid ===

ABOVE = {"P2": {"P2", "P3", "P4", "P5"}, "P3": {"P3", "P4", "P5"}, "P4": {"P4", "P5"}, "P5": {"P5"}}


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("fpn", ABOVE),
        ("bottom_up", {level: {level} for level in ABOVE}),
        ("no_lateral", {level: {"P5"} for level in ABOVE}),
        ("finest", {"P2": ABOVE["P2"]}),
    ],
)
def test_what_each_map_of_a_pyramid_sees(kind, seen):
    features = levels((4, 8, 16, 32))
    model = keras.Model(features, pyramid(features, 12, kind=kind))
    shapes = {level: value.shape[1:] for level, value in model.output.items()}
    assert shapes == {level: (*features[level].shape[1:3], 12) for level in seen}
    rng = np.random.default_rng(0)
    values = {k: rng.normal(size=(1, *v.shape[1:])).astype(np.float32) for k, v in features.items()}
    plain = {k: ops.convert_to_numpy(v) for k, v in model(values).items()}
    for changed in features:
        found = model({**values, changed: values[changed] + 5})
        moved = {k for k in plain if not np.allclose(plain[k], ops.convert_to_numpy(found[k]))}
        assert moved == {level for level, seen_by in seen.items() if changed in seen_by}, changed


def test_a_pyramid_by_hand():
    """With laterals and smoothing that pass everything on, a map is its level and all above, repeated."""
    features = {"P4": keras.Input((4, 4, 1), name="P4"), "P5": keras.Input((2, 2, 1), name="P5")}
    model = keras.Model(features, pyramid(features, 1, ("P4", "P5")))
    for layer in model.layers:
        if layer.weights:
            kernel = np.zeros(layer.kernel.shape, np.float32)
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1
            layer.set_weights([kernel, np.zeros(1, np.float32)])
    p5 = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    p4 = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1) * 10
    found = model({"P4": p4, "P5": p5})
    np.testing.assert_array_equal(ops.convert_to_numpy(found["P4"]), p4 + p5.repeat(2, 1).repeat(2, 2))
    np.testing.assert_array_equal(ops.convert_to_numpy(found["P5"]), p5)


def test_other_pyramids_are_told():
    with pytest.raises(ValueError, match=f"kind is 'pan'; give one of {', '.join(PYRAMIDS)}"):
        pyramid(levels((4, 8, 16, 32)), 12, kind="pan")
