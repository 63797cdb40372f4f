"""Faster R-CNN: proposals, regions, targets and losses by hand, and the harness of all detectors."""

import math

import keras
import numpy as np
import pytest
from handmade import arrays, losses, objects, raw_maps
from harness import SHAPES, DetectorHarness, batch_of, tiny_backbone
from keras import layers, ops

from kerasdet import backbones, zoo
from kerasdet.backbones.common import leaves
from kerasdet.boxes import coders
from kerasdet.boxes.proposals import propose
from kerasdet.models.fast_rcnn import RCNN, FastRCNN
from kerasdet.models.faster_rcnn import FasterRCNN, before_stage5, one_map, to_p4
from kerasdet.models.trident import TridentNet


def faster(classes=SHAPES, neck="fpn", **options):
    backbone = tiny_backbone(output_stride=16 if neck == "dc5" else 32)
    small = {
        "channels": 24, "head_units": 64, "before": (100, 60), "proposals": (60, 30), "regions": 32,
        "anchor_sizes": (6, 12, 20, 32, 48),
    }
    return FasterRCNN(classes, **{"backbone": backbone, "image_size": 64, "neck": neck} | small | options)


@pytest.fixture(scope="module")
def fpn():
    return faster()


@pytest.fixture(scope="module")
def c4():
    return faster(neck="c4")


# === Networks ===


@pytest.mark.parametrize(
    ("neck", "maps", "anchors"),
    [
        ("fpn", {"P2": 16, "P3": 8, "P4": 4, "P5": 2}, 3 * (256 + 64 + 16 + 4 + 1)),
        ("bottom_up", {"P2": 16, "P3": 8, "P4": 4, "P5": 2}, 3 * (256 + 64 + 16 + 4 + 1)),
        ("no_lateral", {"P2": 16, "P3": 8, "P4": 4, "P5": 2}, 3 * (256 + 64 + 16 + 4 + 1)),
        ("finest", {"P2": 16}, 15 * 256),
        ("c4", {"P4": 4}, 15 * 16),
        ("c4_light", {"P4": 4}, 15 * 16),
        ("dc5", {"P5": 4}, 15 * 16),
    ],
)
def test_maps_and_anchors_of_every_neck(neck, maps, anchors):
    detector = faster(neck=neck)
    shapes = {key[4:]: value.shape[1] for key, value in detector.output.items() if key.startswith("map_")}
    assert shapes == maps
    assert detector.output["deltas"].shape == (None, anchors, 4)
    assert sum(len(level) for level in detector.anchors) == anchors


@pytest.mark.parametrize(("size", "cells"), [(128, 4), (96, 3)])
@pytest.mark.parametrize("neck", ["fpn", "bottom_up"])
def test_anchors_of_p6_stand_on_the_cells_of_p5_that_it_takes(size, cells, neck):
    """P6 is P5[::2, ::2]: of three cells a side two, around the first and the last one."""
    detector = faster(neck=neck, image_size=size, backbone=tiny_backbone(size))
    p5, p6 = (
        (level[:, :2] + level[:, 2:]).reshape(count, count, 3, 2) / 2
        for level, count in zip(detector.anchors[-2:], (cells, -(-cells // 2)), strict=True)
    )
    np.testing.assert_allclose(p6, p5[::2, ::2], atol=1e-4)


def test_default_anchors_are_the_papers_on_a_smaller_photo():
    detector = faster(anchor_sizes=None)
    # 32 px at a short side of 800 are 2.56 px at 64; three ratios, of equal areas.
    sides = detector.anchors[0][:3, 2:] - detector.anchors[0][:3, :2]
    np.testing.assert_allclose(np.prod(sides, -1), 2.56**2, rtol=1e-5)
    np.testing.assert_allclose(sides[:, 1] / sides[:, 0], [0.5, 1, 2], rtol=1e-5)


def test_c4_runs_the_last_stage_on_regions_alone(c4):
    """Its P5 of whole photos is never computed, and its weights stand once in the detector."""
    names = [weight.path for weight in c4.weights]
    assert len(names) == len(set(names))
    stage = c4.roi_head.get_layer("tiny_stage5")
    assert stage.output.shape[1:] == (2, 2, 64) and c4.roi_head.input.shape[1:] == (14, 14, 48)
    deepest = {weight.path for weight in stage.weights}
    assert deepest and deepest <= set(names)
    # Its statistics are those it came with: those of regions in training are not those afterwards.
    norms = [layer for layer in stage.layers if isinstance(layer, layers.BatchNormalization)]
    assert norms and not any(layer.trainable for layer in norms)
    trunk = c4.get_layer("tiny")
    assert not deepest & {weight.path for weight in trunk.weights}


@pytest.mark.parametrize("backbone", ["resnet50v2", "mobilenet_v2_0.35"])
def test_c4_s_stage_goes_on_from_where_its_trunk_ends(backbone):
    """A ResNet v2's P4 is behind a normalisation that the last stage's first shortcut leads past."""
    body = backbones.build(backbone, image_size=64)
    photo = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype("float32")
    _, features = one_map(body, ops.convert_to_tensor(photo), "c4")
    whole = body(photo, training=False)
    stage = keras.Model(before_stage5(body), body.output["P5"])
    for found, level in ((to_p4(body)(features), "P4"), (stage(features), "P5")):
        expected = ops.convert_to_numpy(whole[level])
        np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-4 * np.abs(expected).max())


def test_c4_light_looks_at_a_thin_p4_and_has_no_last_stage():
    body = tiny_backbone()
    detector = faster(neck="c4_light", backbone=body)
    photo = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype("float32")
    raw = arrays(detector(photo))
    kernel, bias = detector.get_layer("thin_P4").get_weights()
    expected = ops.convert_to_numpy(body(photo)["P4"])[0] @ kernel[0, 0] + bias
    np.testing.assert_allclose(raw["map_P4"], expected, atol=1e-4)
    assert raw["map_P4"].shape[-1] == 24 and detector.roi_head.input.shape[1:] == (7, 7, 24)
    # Of a named backbone nothing behind P4 is in the detector.
    named = faster(neck="c4_light", backbone="mobilenet_v2_0.35")
    body = backbones.build("mobilenet_v2_0.35", image_size=64)
    needed = keras.Model(body.input, body.output["P4"]).count_params()
    assert named.get_layer("mobilenet_v2_0.35").count_params() == needed < body.count_params()
    assert not {"block_16_project", "Conv_1"} & {layer.name for layer in leaves(named)}


def test_c4_needs_a_last_stage_of_its_own():
    """A P5 that looks at P3 as well cannot be run on regions of P4."""
    body = tiny_backbone()
    mixed = layers.Concatenate()([body.output["P5"], layers.AveragePooling2D(4)(body.output["P3"])])
    body = keras.Model(body.input, body.output | {"P5": mixed}, name="mixed")
    with pytest.raises(ValueError, match="mixed: its P5 does not come from P4 alone.*neck='fpn'"):
        faster(neck="c4", backbone=body)


@pytest.mark.slow
@pytest.mark.parametrize("detector", [FasterRCNN, FastRCNN, RCNN, TridentNet])
def test_every_region_detector_is_built_as_it_comes(detector):
    options = {"neck": "c4"} if detector is FasterRCNN else {}
    made = detector(("a", "b"), image_size=64, **options)
    assert made.roi_head.output["class_logits"].shape[-1] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neck": "c3"}, "neck is 'c3'; give one of c4, c4_light, dc5, fpn"),
        ({"image_size": 60}, "image_size is 60; give a multiple of 32"),
        ({"anchor_sizes": (8, 16)}, r"anchor_sizes is \(8, 16\); give five rising"),
        ({"before": (100,)}, r"before is \(100,\); give two numbers"),
        ({"proposals": (100, 0)}, "proposals is .*give two numbers above 0"),
        ({"regions": 0}, "regions=0"),
        ({"neck": "dc5", "backbone": tiny_backbone()}, "has 2 cells a side; .* dilated.*: 4 cells"),
    ],
)
def test_wrong_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        faster(**options)


@pytest.mark.parametrize("options", [{}, {"neck": "c4", "agnostic": True}])
def test_other_classes_take_over_what_was_learned(options):
    keras.utils.set_random_seed(0)
    detector = faster(("a", "b", "c"), **options)
    other = zoo.adapt(detector, ("c", "d"))
    photo = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype("uint8")
    raw, own = detector(photo), other(photo)
    for key, value in raw.items():
        np.testing.assert_allclose(ops.convert_to_numpy(own[key]), ops.convert_to_numpy(value), atol=1e-5)
    boxes = ops.convert_to_tensor([[[10, 10, 40, 40], [0, 20, 30, 60]]], "float32")
    before, after = arrays(detector.regions_of(raw, boxes)), arrays(other.regions_of(own, boxes))
    np.testing.assert_allclose(after["logits"][:, :2], before["logits"][:, [0, 3]], atol=1e-5)
    kept = (0, 0) if options else (2, 0)
    np.testing.assert_allclose(after["deltas"][:, kept[1]], before["deltas"][:, kept[0]], atol=1e-5)


def test_anchors_of_another_size_have_as_many_pixels():
    """The weights have learned how far from 2.56 px an object is; on a larger photo that is the same."""
    detector = faster(anchor_sizes=None, backbone="mobilenet_v2_0.35")
    larger = zoo.adapt(detector, image_size=96)
    assert len(larger.anchors[0]) > len(detector.anchors[0])
    np.testing.assert_allclose(larger.anchors[0][1, 2:] - larger.anchors[0][1, :2], 32 * 64 / 800, rtol=1e-4)
    weights = zip(detector.get_weights(), larger.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in weights)


def test_regions_of_another_size_are_looked_at_on_the_same_levels():
    """A side of 224 px at 800 px belongs to P4, and to the same number of pixels once that is learned."""
    detector = faster(neck="fpn", backbone="mobilenet_v2_0.35")
    larger = zoo.adapt(detector, image_size=128)
    assert detector.level_side == larger.level_side == pytest.approx(224 * 64 / 800)
    # P2 to P5, filled with their numbers.
    boxes = np.array([[[0, 0, side, side] for side in (4, 10, 20, 40)]], np.float32)
    for one in (detector, larger):
        cells = {k: one.image_size >> k for k in (2, 3, 4, 5)}
        maps = {f"map_P{k}": ops.full((1, side, side, 1), float(k)) for k, side in cells.items()}
        pooled = ops.convert_to_numpy(one.pooled(maps, ops.convert_to_tensor(boxes), 2))
        np.testing.assert_allclose(pooled[0, :, 0, 0, 0], [2, 3, 4, 5], rtol=1e-5)


# === Proposals ===


@pytest.mark.parametrize("per_level", [True, False])
@pytest.mark.parametrize(
    ("limit", "kept"), [({}, [0, 2]), ({"iou_threshold": 0.85}, [0, 1, 2]), ({"iou_threshold": 0.5}, [0]),
                        ({"iou_threshold": None}, [0, 1, 2])]
)
def test_proposals_that_overlap_a_better_one_are_dropped(limit, kept, per_level):
    """IoU .8 and .6 with the first, .75 with each other: what is dropped drops nothing. The limit is .7."""
    boxes = np.array([[0, 0, 40, 40], [0, 0, 40, 32], [0, 0, 40, 24]], np.float32)
    found, scores = propose(
        ops.convert_to_tensor([[3.0, 2.0, 1.0]]), ops.zeros((1, 3, 4)), [boxes], 64, before=3, after=3,
        per_level=per_level, **limit,
    )
    scores = ops.convert_to_numpy(scores)[0]
    assert (scores > 0).sum() == len(kept)
    np.testing.assert_allclose(ops.convert_to_numpy(found)[0][scores > 0], boxes[kept], atol=1e-4)


def test_a_level_proposes_as_many_as_it_may():
    detector = faster(before=(100, 1), proposal_iou=None)
    raw = raw_maps(detector)
    after, training = (
        int(ops.convert_to_numpy(detector.propose(raw, training=mode)[1] > 0).sum()) for mode in (False, True)
    )
    assert after == 5 and training == 60


def test_proposals_are_moved_anchors_without_doubles(c4, monkeypatch):
    raw = raw_maps(c4)
    raw["object_logit"] -= 9
    anchors = c4.anchors[0]
    # The square of 20 px about (24, 24), cell (1, 1): as it is, and moved; and its likeness, a doubt lower.
    square = (1 * 4 + 1) * 15 + 2 * 3 + 1
    np.testing.assert_allclose(anchors[square], [14, 14, 34, 34])
    raw["object_logit"][0, square] = 3
    raw["deltas"][0, square] = [0.1, 0, 0, math.log(1.5)]
    other = square + 3
    raw["object_logit"][0, other] = 2
    raw["deltas"][0, other] = [0, 0, *np.log((anchors[square] - anchors[other])[2:] * 2 / 32 + 1)]
    boxes, scores = (ops.convert_to_numpy(value)[0] for value in c4.propose(raw))
    assert boxes.shape == (30, 4) and scores.shape == (30,)
    np.testing.assert_allclose(boxes[0], [16, 9, 36, 39], atol=1e-4)
    np.testing.assert_allclose(scores[0], 1 / (1 + math.exp(-3)), rtol=1e-5)
    # The second overlaps the first by 18 x 20 px, .56: under the limit it stays.
    assert 18 * 20 / (20 * 30 + 20 * 20 - 18 * 20) == pytest.approx(0.5625)
    np.testing.assert_allclose(boxes[1], [14, 14, 34, 34], atol=1e-3)
    assert (np.diff(scores) <= 0).all()
    monkeypatch.setattr(c4, "proposal_iou", 0.55)
    boxes, _ = (ops.convert_to_numpy(value)[0] for value in c4.propose(raw))
    assert not np.isclose(boxes, [14, 14, 34, 34], atol=1e-3).all(-1).any()


@pytest.mark.parametrize("per_level", [True, False])
def test_levels_do_not_drop_each_others_boxes_unless_asked(per_level):
    detector = faster(per_level_nms=per_level)
    raw = raw_maps(detector)
    raw["object_logit"] -= 30
    before = 0
    box = np.array([10, 12, 40, 44], np.float32)
    for level, score in ((0, 2.0), (2, 4.0)):
        row = sum(len(a) for a in detector.anchors[:level]) + before
        anchor = detector.anchors[level][before]
        raw["object_logit"][0, row] = score
        raw["deltas"][0, row] = ops.convert_to_numpy(coders.encode(box[None], anchor[None], (1.0, 1.0)))[0]
    boxes, scores = (ops.convert_to_numpy(value)[0] for value in detector.propose(raw))
    same = np.isclose(boxes, box, atol=1e-3).all(-1) & (scores > 0.5)
    assert same.sum() == (2 if per_level else 1)
    assert np.isclose(scores[0], 1 / (1 + math.exp(-4)))


def test_boxes_outside_are_cut_and_slivers_are_none(c4):
    raw = raw_maps(c4)
    raw["object_logit"] -= 9
    corner = 2 * 3 + 1  # 20 px about (8, 8)
    raw["object_logit"][0, corner] = 5
    outside = 15 * 15 + 4 * 3 + 1  # 48 px about (56, 56), pushed out of the photo
    raw["object_logit"][0, outside] = 6
    raw["deltas"][0, outside] = [0.66, 0, 0, 0]
    boxes, scores = (ops.convert_to_numpy(value)[0] for value in c4.propose(raw))
    np.testing.assert_allclose(boxes[0], [0, 0, 18, 18], atol=1e-4)
    assert not (boxes[:, 0] >= 63).any()
    assert scores[0] < 1 / (1 + math.exp(-5.5))


# === Targets ===


def test_anchors_learn_by_the_papers_rule(c4):
    """One object of 20 px about (25, 25): the square about (24, 24) learns it, its neighbours are neither."""
    goal = arrays(c4.rpn_targets(objects([15, 15, 35, 35])))
    square = (1 * 4 + 1) * 15 + 2 * 3 + 1
    assert goal["positive"].nonzero()[0].tolist() == [square]
    np.testing.assert_allclose(goal["deltas"][square], [1 / 20, 1 / 20, 0, 0], atol=1e-6)
    # 12 px within it overlap by .36: neither; 6 px by .09: background.
    inner, small = (1 * 4 + 1) * 15 + 1 * 3 + 1, (1 * 4 + 1) * 15 + 1
    assert not goal["negative"][inner] and not goal["positive"][inner]
    assert goal["negative"][small]
    assert goal["negative"][0]


def test_an_object_that_no_anchor_fits_has_the_best_one(c4):
    goal = arrays(c4.rpn_targets(objects([0, 30, 64, 34])))
    assert goal["positive"].sum() >= 1


def test_nothing_is_background_in_an_ignore_region(c4):
    goal = arrays(c4.rpn_targets(objects(ignore=[[0, 0, 32, 64]])))
    middle = (c4.anchors[0][:, 0] + c4.anchors[0][:, 2]) / 2
    assert not goal["positive"].any()
    np.testing.assert_array_equal(goal["negative"], middle >= 32)


def test_regions_of_objects_and_of_background(fpn):
    targets = objects([10, 10, 30, 30], [40, 40, 60, 60], labels=[2, 0])
    proposals = np.array([[
        [10, 10, 30, 34], [0, 40, 20, 60], [10, 10, 30, 52], [38, 40, 60, 60], [0, 0, 0, 0],
    ]], np.float32)
    goal = arrays(fpn.region_targets(targets, ops.convert_to_tensor(proposals)))
    learned = {
        tuple(box): (int(label), on, off)
        for box, label, on, off in zip(
            goal["boxes"].tolist(), goal["label"], goal["positive"], goal["negative"], strict=True
        )
    }
    assert learned[10, 10, 30, 34] == (2, 1, 0)
    assert learned[38, 40, 60, 60] == (0, 1, 0)
    assert learned[0, 40, 20, 60] == (0, 0, 1)
    # .476 of an object: background; and the objects themselves are proposals.
    assert learned[10, 10, 30, 52] == (0, 0, 1)
    assert learned[10, 10, 30, 30] == (2, 1, 0) and learned[40, 40, 60, 60] == (0, 1, 0)
    assert goal["positive"].sum() == 4 and goal["negative"].sum() == 2
    row = goal["boxes"].tolist().index([10, 10, 30, 34])
    np.testing.assert_allclose(goal["deltas"][row], [0, -10 * 2 / 24, 0, 5 * math.log(20 / 24)], atol=1e-5)


def test_regions_in_ignore_regions_are_no_background(fpn):
    given = ops.convert_to_tensor([[[0, 0, 20, 20], [40, 40, 60, 60]]], "float32")
    goal = arrays(fpn.region_targets(objects(ignore=[[0, 0, 32, 32]]), given))
    assert not goal["positive"].any()
    assert goal["boxes"][goal["negative"] > 0].tolist() == [[40, 40, 60, 60]]


def test_no_more_objects_than_their_share():
    detector = faster(regions=8, share=0.25, append_truth=False)
    near = [[10 + i, 10, 30 + i, 30] for i in range(4)]
    far = [[40, 0 + i, 60, 10 + i] for i in range(10)]
    proposals = ops.convert_to_tensor([near + far], "float32")
    goal = arrays(detector.region_targets(objects([10, 10, 30, 30]), proposals))
    assert goal["boxes"].shape == (8, 4)
    assert goal["positive"].sum() == 2 and goal["negative"].sum() == 6
    assert goal["positive"][:2].all() and goal["negative"][2:].all()


def test_samples_differ_from_step_to_step(fpn):
    corners = np.random.default_rng(0).uniform(0, 20, (1, 60, 2))
    proposals = ops.convert_to_tensor(np.concatenate([corners, corners + 30], -1), "float32")
    targets = objects([50, 2, 60, 12])
    first, second = (arrays(fpn.region_targets(targets, proposals))["boxes"] for _ in range(2))
    assert not np.array_equal(first, second)


# === Losses ===


def test_region_losses_by_hand(fpn):
    """Two objects of weight 1 and .5, one background region, one that fills up; uniform classes."""
    goal = {
        "positive": [[1, 1, 0, 0]], "negative": [[0, 0, 1, 0]], "label": [[1, 0, 0, 0]],
        "weight": [[1, 0.5, 0, 0]], "deltas": np.zeros((1, 4, 4)),
    }
    goal = {k: np.array(v, np.int32 if k == "label" else np.float32) for k, v in goal.items()}
    deltas = np.zeros((1, 4, 3, 4), np.float32)
    deltas[0, 0, 1] = [1, -2, 0, 0.5]  # the object's own class
    deltas[0, 0, 0] = 9  # another class of it, and a region that is background: teach no box
    deltas[0, 2] = 9
    deltas[0, 1, 0] = [0, 0, 4, 0]
    said = {"logits": np.zeros((1, 4, 4), np.float32), "deltas": deltas}
    found = {k: float(v) for k, v in fpn.region_losses(goal, said).items()}
    assert found["class_loss"] == pytest.approx((1 + 0.5 + 1) * math.log(4) / 2.5, rel=1e-5)
    assert found["box_loss"] == pytest.approx((3.5 + 0.5 * 4) / 2.5, rel=1e-5)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_proposal_losses_by_hand(c4, weight):
    """An object of a mixed photo teaches, and counts, by its weight."""
    raw = raw_maps(c4)
    raw["object_logit"][:] = -2
    square = (1 * 4 + 1) * 15 + 2 * 3 + 1
    raw["object_logit"][0, square] = 1
    raw["deltas"][0, square] = [0.5, 0, 0, -0.25]
    targets = objects([15, 15, 35, 35], weights=[weight])
    found = losses(c4, targets, raw)
    others = min(255, int(arrays(c4.rpn_targets(targets))["negative"].sum()))
    expected = weight * math.log1p(math.exp(-1)) + others * math.log1p(math.exp(-2))
    assert found["object_loss"] == pytest.approx(expected / (weight + others), rel=1e-4)
    expected = weight * (0.45 + 0.05 + 0.25)
    assert found["proposal_loss"] == pytest.approx(expected / (weight + others), rel=1e-4)


def test_of_256_anchors_half_may_be_objects(fpn):
    """Section 3.1.3; a pyramid has more anchors than that, and here 200 objects that lie right on some."""
    targets = objects(*fpn.anchors[0][:200])
    goal = arrays(fpn.rpn_targets(targets))
    assert goal["positive"].sum() == 200 and goal["negative"].sum() > 256
    # Nothing is to be moved, so that each object sampled costs 4.
    found = losses(fpn, targets, raw_maps(fpn, deltas=1.0))
    assert found["proposal_loss"] == pytest.approx(4 * 128 / 256, rel=1e-4)


def test_no_gradient_runs_through_proposals(fpn, shapes, untraced):
    """The second network's losses leave the proposal network alone (approximate joint training)."""
    images, targets = batch_of(shapes, fpn, 2)
    detector = faster()
    detector.compile(keras.optimizers.SGD(1.0), ema=None)
    all_parts = detector.loss_parts

    def of_regions(targets, raw):
        return {k: v * (k in ("class_loss", "box_loss")) for k, v in all_parts(targets, raw).items()}

    detector.loss_parts = of_regions
    weights = detector.trainable_variables
    before = [ops.convert_to_numpy(v) for v in weights]
    detector.fit(images, targets, batch_size=2, verbose=0)
    after = [ops.convert_to_numpy(v) for v in weights]
    moved = {v.path for v, a, b in zip(weights, before, after, strict=True) if not np.array_equal(a, b)}
    assert not any("rpn" in path for path in moved) and any("head_class" in path for path in moved)


# === The harness of all detectors ===


class FasterHarness(DetectorHarness):
    neck = "fpn"
    # After 320, how well ten boxes were learned, and bore eight bits, hung on the processor and its threads.
    overfit_epochs, overfit_rate = 520, 6e-3

    def build(self, **changes):
        return faster(neck=self.neck, **{"share": 0.5} | changes)

    def known_heads(self, detector):
        count, boxes_each = detector.proposals[1], 1 if self.neck == "c4" else 3
        boxes = np.zeros((1, count, 4), np.float32)
        boxes[0, 0], boxes[0, 3] = [10, 10, 30, 50], [40, 0, 60, 20]
        heads = {
            "class": np.zeros((1, count, 3)), "proposals": boxes,
            "boxes": np.zeros((1, count, boxes_each, 4)),
        }
        own = min(1, boxes_each - 1)
        heads["class"][0, 0, 1], heads["class"][0, 3] = 0.8, [0.3, 0.04, 0.1]
        # Of its class: moved down by a tenth, half as wide.
        heads["boxes"][0, 0, own] = [0, 1, -5 * math.log(2), 0]
        return heads, [
            (1, 0.8, 15, 14, 25, 54), (0, 0.3, 40, 0, 60, 20), (2, 0.1, 40, 0, 60, 20),
        ]


class TestFPN(FasterHarness):
    """On a pyramid."""

    overfit_is_slow = True  # 520 steps: two minutes


class TestC4(FasterHarness):
    """The paper's: the backbone's last stage on every region; one box a region."""

    neck = "c4"
    overfit_epochs, overfit_rate = 640, 4e-3
    overfit_is_slow = True

    @pytest.fixture
    def data(self, shapes):
        # The largest objects first: its one map has 4x4 cells here.
        return shapes.subset([12, 6, 11, 2, 10, 7, 4, 13])

    def build(self, **changes):
        return super().build(**{"agnostic": True} | changes)
