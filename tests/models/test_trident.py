"""TridentNet: branches that share weights, ranges of sizes, and the harness of all detectors."""

import math

import keras
import numpy as np
import pytest
from handmade import arrays, losses, objects, raw_maps
from harness import SHAPES, DetectorHarness
from keras import layers, ops

from kerasdet import backbones
from kerasdet.boxes.proposals import propose
from kerasdet.layers.trident import Dilated, trident
from kerasdet.models.faster_rcnn import FasterRCNN
from kerasdet.models.trident import TridentNet, _side_by_side
from kerasdet.training import start_from


def residual_backbone(size=64, units=2):
    """P2 to P5, with residual units at P4's resolution: their 3x3 convolutions can be dilated."""
    image = keras.Input((size, size, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    levels = {}
    for level, width in enumerate((16, 24, 32, 40, 48), 1):
        x = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False, name=f"conv{level}")(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9, name=f"norm{level}")(x))
        for unit in range(units if level == 4 else 0):
            y = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"unit{unit}")(x)
            y = layers.BatchNormalization(momentum=0.9, name=f"unit{unit}_norm")(y)
            x = layers.ReLU()(layers.Add()([x, y]))
        if level >= 2:
            levels[f"P{level}"] = x
    return keras.Model(image, levels, name="residual")


def net(classes=SHAPES, **options):
    small = {
        "channels": 24, "before": (60, 40), "proposals": (40, 20), "regions": 16,
        "anchor_sizes": (6, 12, 20, 32, 48),
    }
    return TridentNet(classes, **{"backbone": residual_backbone(), "image_size": 64} | small | options)


@pytest.fixture(scope="module")
def three():
    """Learns 0 to 16, 10 to 30 and 24 on."""
    return net(ranges=((0, 16), (10, 30), (24, 99)))


# === Branches ===


def test_branches_begin_where_the_first_dilated_unit_does():
    body = residual_backbone()
    for blocks, before in ((1, 1), (2, 0)):
        stem, branches, count = trident(body, body.output["P4"], (1, 2), blocks)
        assert count == blocks and len(branches) == 2
        names = [layer.name for layer in stem.layers]
        assert "conv4" in names and ("unit0" in names) == bool(before) and "unit1" not in names
        photo = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
        plain = ops.convert_to_numpy(body(photo)["P4"])
        # Dilation 1 is the backbone as it was.
        first, second = (ops.convert_to_numpy(branch(stem(photo))) for branch in branches)
        np.testing.assert_allclose(first, plain, atol=1e-5)
        assert not np.allclose(second, plain, atol=1e-3)


def test_a_dilated_branch_is_the_network_with_dilated_convolutions():
    body = residual_backbone()
    stem, branches, _ = trident(body, body.output["P4"], (3,), 2)
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 40)).astype("float32")
    expected = ops.convert_to_tensor(x)
    norms = [layer for layer in body.layers if isinstance(layer, layers.BatchNormalization)]
    for unit, norm in (("unit0", norms[4]), ("unit1", norms[5])):
        y = ops.conv(expected, body.get_layer(unit).kernel, padding="same", dilation_rate=3)
        expected = ops.relu(expected + norm(y))
    found = ops.convert_to_numpy(branches[0](x))
    np.testing.assert_allclose(found, ops.convert_to_numpy(expected), atol=1e-5)


def test_a_dilated_layer_is_keras_own_with_that_dilation():
    x = np.random.default_rng(0).normal(size=(1, 9, 9, 4)).astype("float32")
    for kind, options in ((layers.Conv2D, {"filters": 6}), (layers.DepthwiseConv2D, {"depth_multiplier": 2})):
        plain = kind(kernel_size=3, padding="same", activation="relu", bias_initializer="ones", **options)
        wide = kind(kernel_size=3, padding="same", activation="relu", dilation_rate=2, **options)
        plain(x), wide(x)
        wide.set_weights(plain.get_weights())
        found = Dilated(plain, 2)(x)
        np.testing.assert_allclose(ops.convert_to_numpy(found), ops.convert_to_numpy(wide(x)), atol=1e-5)


def test_shared_branches_add_no_weights_and_others_do():
    one, three, apart = net(dilations=(1,)), net(), net(share_weights=False)
    assert one.count_params() == three.count_params()
    body = residual_backbone()
    # Two units of a convolution and a batch norm, for two more branches.
    units = sum(body.get_layer(name).count_params() for name in ("unit0", "unit1"))
    assert apart.count_params() - three.count_params() == 2 * (units + 2 * 4 * 40)


def test_weights_of_their_own_begin_as_copies():
    keras.utils.set_random_seed(0)
    raw = arrays_of(net(share_weights=False, dilations=(2, 2))(np.full((1, 64, 64, 3), 99.0, "float32")))
    np.testing.assert_allclose(raw["map_P4_0"], raw["map_P4_1"], atol=1e-5)


def test_named_backbones_have_the_papers_units():
    body = backbones.build("resnet50v2", image_size=64)
    _, branches, count = trident(body, body.output["P4"], (1, 2, 3), None)
    assert count == 5
    dilated = [layer for layer in branches[1].layers if isinstance(layer, Dilated)]
    assert len(dilated) == 5 and all("conv4" in layer.convolution.name for layer in dilated)
    assert not any(isinstance(layer, Dilated) for layer in branches[0].layers)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neck": "fpn"}, "neck is 'fpn'; give one of c4, c4_light"),
        ({"inference": "last"}, "inference is 'last'; give one of all, middle"),
        ({"dilations": ()}, "dilations is .*give numbers from 1 on"),
        ({"blocks": 3}, "blocks is 3; of the 2 convolutions of stride 1 that residual has at that map"),
        ({"ranges": ((0, 9), (5, 20))}, "ranges is .*for each of the 3"),
        ({"ranges": "paper", "dilations": (1, 2)}, "ranges is .*for each of the 2"),
        ({"ranges": ((0, 9), (20, 5), (3, 9))}, "a smallest and a largest side"),
        ({"image_size": 50}, "image_size is 50"),
    ],
)
def test_wrong_options_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        net(**options)


def test_the_papers_ranges_are_scaled_to_the_square():
    # 90 and 160 of 800 px are 7.2 and 12.8 of 64.
    found = net(ranges="paper").ranges
    # The last has no end, so that it fits on a larger square too.
    np.testing.assert_allclose(found, [(0, 7.2), (2.4, 12.8), (7.2, 1e6)])


# === Ranges ===


def stacked(targets):
    """Targets of one photo, branch by branch."""
    return {key: ops.convert_to_tensor(np.concatenate([value] * 3)) for key, value in targets.items()}


def test_photos_are_not_taken_for_branches(three):
    """Two photos, three branches: rows go branch by branch, and photo by photo within each."""
    boxes = np.array([[[2, 2, 14, 14]], [[20, 20, 60, 60]]], np.float32)
    found = ops.convert_to_numpy(three._in_range(np.concatenate([boxes] * 3)))[:, 0].reshape(3, 2)
    assert found.tolist() == [[True, False], [True, False], [False, True]]
    rows = ops.convert_to_tensor(np.arange(6, dtype=np.float32).reshape(6, 1))
    assert ops.convert_to_numpy(_side_by_side(rows, 3)).tolist() == [[0, 2, 4], [1, 3, 5]]


def test_each_branch_learns_the_objects_of_its_size(three):
    """Objects of 12, 20 and 40 px: branches 0 and 1, 1, and 2 and no other."""
    small, middle, large = [2, 2, 14, 14], [20, 20, 40, 40], [20, 20, 60, 60]
    goal = arrays_of(three.rpn_targets(stacked(objects(small, middle, large))))
    without = net()
    for branch, own in enumerate(([small], [small, middle], [large])):
        alone = arrays(without.rpn_targets(objects(*own)))
        np.testing.assert_array_equal(goal["positive"][branch], alone["positive"])
        np.testing.assert_array_equal(goal["weight"][branch], alone["weight"])
        assert alone["positive"].any()


def test_anchors_on_objects_of_other_branches_are_no_background(three):
    alone = arrays_of(three.rpn_targets(stacked(objects())))["negative"]
    goal = arrays_of(three.rpn_targets(stacked(objects([14, 14, 34, 34]))))
    anchors = three.anchors[0]
    low, high = np.maximum(anchors[:, :2], 14), np.minimum(anchors[:, 2:], 34)
    shared = np.prod(np.maximum(high - low, 0), -1)
    iou = shared / (np.prod(anchors[:, 2:] - anchors[:, :2], -1) + 400 - shared)
    assert 0 < (iou > 0.3).sum() < 20 and goal["positive"][1].any()
    for branch in (0, 2):
        assert not goal["positive"][branch].any()
        np.testing.assert_array_equal(goal["negative"][branch], alone[branch] & (iou <= 0.3))


def test_anchors_on_objects_of_two_branches_are_left_out(three):
    """An anchor that is a small object exactly, within one of 20 px: IoU .36 with that, which branch 0 does
    not learn; of branch 1 both are."""
    row = int(np.flatnonzero((three.anchors[0] == [18, 18, 30, 30]).all(1))[0])
    goal = arrays_of(three.rpn_targets(stacked(objects([18, 18, 30, 30], [14, 14, 34, 34]))))
    assert goal["positive"][:, row].tolist() == [False, True, False]
    assert not goal["negative"][:, row].any()


def test_regions_learn_from_objects_of_every_size(three):
    """Paper, section 3.3: proposals have to be of the branch's size; what they lie on has not."""
    proposals = np.zeros((3, 4, 4), np.float32)
    proposals[:, 0] = [15, 15, 30.5, 30.5]  # of branch 0's size, on an object of branch 1: IoU .6
    goal = arrays_of(three.region_targets(stacked(objects([14, 14, 34, 34], labels=[1])), proposals))
    assert goal["positive"].sum(1).tolist() == [1, 1, 1] and not goal["negative"].any()
    assert goal["label"][:, 0].tolist() == [1, 1, 1]


def test_proposals_of_other_sizes_are_left_out_in_training(three):
    raw = raw_maps(three)
    together = three._stacked({k: ops.convert_to_tensor(v) for k, v in raw.items()}, range(3))
    for training in (True, False):
        boxes, scores = (ops.convert_to_numpy(v) for v in three.propose(together, training))
        assert boxes.shape[1] == scores.shape[1] == (40 if training else 20)
        sides = np.sqrt(np.prod(boxes[..., 2:] - boxes[..., :2], -1))
        for branch, (low, high) in enumerate(three.ranges):
            fits = (sides[branch] >= low) & (sides[branch] <= high)
            assert fits[scores[branch] > 0].all() == training, branch
            assert (scores[branch] > 0).any()


def test_proposals_of_other_sizes_take_no_place_of_those_that_fit():
    """Two anchors are looked at, and those that fit are surest of all but for all that do not."""
    anchors = np.array([[0, 0, 40, 40], [1, 1, 41, 41], [0, 0, 8, 8], [30, 30, 38, 38]], np.float32)
    logits = np.array([[5, 4, 1, 2]], np.float32)

    def small(boxes):
        return boxes[..., 2] - boxes[..., 0] < 20

    boxes, scores = propose(
        logits, np.zeros((1, 4, 4), np.float32), [anchors], 64, before=2, after=3, fits=small
    )
    np.testing.assert_allclose(ops.convert_to_numpy(boxes)[0], [anchors[3], anchors[2], [0] * 4])
    expected = [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1)), 0]
    np.testing.assert_allclose(ops.convert_to_numpy(scores)[0], expected, rtol=1e-6)


def test_open_ranges_teach_every_branch_everything():
    """Three branches with the same dilation are one network three times over: the mean is its loss."""
    keras.utils.set_random_seed(0)
    detector = net(dilations=(1, 1, 1))
    photo = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    raw = arrays_of(detector(photo))
    for key in ("object_logit", "deltas", "map_P4"):
        np.testing.assert_allclose(raw[f"{key}_0"], raw[f"{key}_2"], atol=1e-5)
    found = losses(detector, objects([14, 14, 34, 34]), raw)
    assert all(np.isfinite(value) for value in found.values())
    goal = arrays(detector.rpn_targets(objects([14, 14, 34, 34])))
    # 256 anchors a branch are sampled of 240: all that are not between.
    logits = raw["object_logit_0"][0]
    hit = goal["positive"] * np.log1p(np.exp(-logits)) + goal["negative"] * np.log1p(np.exp(logits))
    expected = hit.sum() / (goal["positive"] | goal["negative"]).sum()
    assert found["object_loss"] == pytest.approx(expected, rel=1e-4)


def arrays_of(raw):
    return {key: ops.convert_to_numpy(value) for key, value in raw.items()}


def test_one_branch_on_a_thin_map_is_a_faster_rcnn():
    """And takes over all that it has learned, which branches of other dilations begin with."""
    keras.utils.set_random_seed(0)
    options = {
        "neck": "c4_light", "channels": 24, "head_units": 32, "before": (60, 40), "proposals": (40, 20),
        "agnostic": False, "anchor_sizes": (6, 12, 20, 32, 48), "image_size": 64,
    }
    plain = FasterRCNN(SHAPES, backbone=residual_backbone(), **options)
    photo = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype("float32")
    boxes = ops.convert_to_tensor([[[10, 10, 40, 40], [0, 20, 30, 60]]], "float32")
    raw = plain(photo)
    for dilations in ((1,), (1, 2, 3)):
        branches = net(**options, dilations=dilations)
        assert start_from(branches, plain) == []
        own = branches(photo)
        np.testing.assert_allclose(arrays(own)["map_P4_0"], arrays(raw)["map_P4"], atol=1e-5)
        said, expected = branches.regions_of(first_of(own), boxes), plain.regions_of(raw, boxes)
        for key, value in arrays(expected).items():
            np.testing.assert_allclose(arrays(said)[key], value, atol=1e-5)
        np.testing.assert_allclose(arrays(own)["deltas_0"], arrays(raw)["deltas"], atol=1e-5)
    assert not np.allclose(arrays(own)["map_P4_1"], arrays(raw)["map_P4"], atol=1e-3)


def first_of(raw):
    """A TridentNet's raw outputs of its first branch, under a Faster R-CNN's names."""
    return {key.removesuffix("_0"): value for key, value in raw.items() if key.endswith("_0")}


# === Inference ===


def test_fast_is_the_middle_branch_of_the_same_weights():
    keras.utils.set_random_seed(0)
    detector = net()
    fast = detector.fast()
    photo = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype("uint8")
    whole, middle = arrays_of(detector.forward(photo, "raw")), arrays_of(fast.forward(photo, "raw"))
    assert whole["class"].shape == (1, 60, 3) and middle["class"].shape == (1, 20, 3)
    for key in whole:
        np.testing.assert_allclose(whole[key][:, 20:40], middle[key], atol=1e-4)
    again = type(fast).from_config(fast.get_config())
    assert again.inference == "middle" and detector.inference == "all"


def test_a_config_of_before_is_read():
    """It had an option that a single level has no use for."""
    config = net(inference="middle").get_config()
    assert "per_level_nms" not in config
    assert TridentNet.from_config(config | {"per_level_nms": True}).get_config() == config


def test_fast_runs_no_other_branch():
    fast = net(inference="middle")
    heads = fast.heads(dict(fast.output))
    graph = keras.Model(fast.inputs[0], heads)
    names = [layer.name for layer in graph.layers if "branch" in layer.name]
    assert names == ["residual_branch2"]


def test_boxes_of_another_size_than_their_branchs_are_left_out(three):
    count = 3 * three.proposals[1]
    heads = {
        "class": np.zeros((1, count, 3)), "boxes": np.zeros((1, count, 1, 4)),
        "proposals": np.zeros((1, count, 4)),
    }
    each = three.proposals[1]
    for branch, score in ((0, 0.9), (1, 0.8), (2, 0.7)):
        heads["proposals"][0, branch * each] = [10, 10, 30, 30]
        heads["class"][0, branch * each, 1] = score
        heads["proposals"][0, branch * each + 1] = [4, 4, 44, 44]
        heads["class"][0, branch * each + 1, 0] = score / 2
    found = three.decode({k: ops.convert_to_tensor(v.astype("float32")) for k, v in heads.items()})
    scores = ops.convert_to_numpy(found["scores"])[0]
    # 20 px are of the second branch alone, 40 px of the third.
    np.testing.assert_allclose(scores[scores > 0], [0.8, 0.35])


def test_one_branch_alone_finds_all_sizes(three):
    """Fast is the middle branch, whatever sizes it has learned."""
    fast = three.fast()
    count = fast.proposals[1]
    heads = {
        "class": np.zeros((1, count, 3)), "boxes": np.zeros((1, count, 1, 4)),
        "proposals": np.zeros((1, count, 4)),
    }
    for row, (box, score) in enumerate((([10, 10, 16, 16], 0.9), ([2, 2, 60, 60], 0.8))):
        heads["proposals"][0, row], heads["class"][0, row, 1] = box, score
    found = fast.decode({k: ops.convert_to_tensor(v.astype("float32")) for k, v in heads.items()})
    scores = ops.convert_to_numpy(found["scores"])[0]
    np.testing.assert_allclose(scores[scores > 0], [0.9, 0.8])


# === The harness of all detectors ===


class TestTrident(DetectorHarness):
    overfit_epochs, overfit_rate = 800, 4e-3
    overfit_is_slow = True

    @pytest.fixture
    def data(self, shapes):
        return shapes.subset([12, 6, 11, 2, 10, 7, 4, 13])

    def build(self, **changes):
        # All anchors: without the objects themselves, some proposals of a net that knows nothing must hit.
        return net(**{"before": (240, 40), "proposals": (240, 20)} | changes)

    def known_heads(self, detector):
        count = 3 * detector.proposals[1]
        heads = {
            "class": np.zeros((1, count, 3)), "boxes": np.zeros((1, count, 1, 4)),
            "proposals": np.zeros((1, count, 4)),
        }
        # One of the first branch, moved right by a fifth and as wide again, and one of the last.
        heads["proposals"][0, 2], heads["proposals"][0, -1] = [10, 10, 20, 30], [40, 0, 60, 20]
        heads["boxes"][0, 2, 0] = [2, 0, 5 * math.log(2), 0]
        heads["class"][0, 2, 1], heads["class"][0, -1] = 0.8, [0.3, 0.04, 0.1]
        return heads, [(1, 0.8, 7, 10, 27, 30), (0, 0.3, 40, 0, 60, 20), (2, 0.1, 40, 0, 60, 20)]


def test_all_branches_come_back_from_a_fast_one():
    fast = net(inference="middle")
    full = fast.full()
    assert full.inference == "all" and full.get_config()["inference"] == "all"
    assert len(full.forward(np.zeros((1, 64, 64, 3), "uint8"), "raw")["class"][0]) == 60
    for one, other in zip(fast.get_weights(), full.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_as_many_photos_together_as_there_is_room_for(monkeypatch):
    """Three branches' regions take three times the memory of the middle one's; what is found is the same."""
    detector = net()
    numbers = 60 * 14 * (4 + 28) * detector.output["map_P4_0"].shape[-1]
    monkeypatch.setattr("kerasdet.models.regions.MEMORY", 2 * 4 * numbers)
    assert detector.most_at_once == 2 and detector.fast().most_at_once == 6
    photos = list(np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3)).astype("uint8"))
    batches = []
    monkeypatch.setattr(
        detector, "infer", lambda images, *rest, _infer=detector.infer, **more: (
            batches.append(len(images)) or _infer(images, *rest, **more)
        )
    )
    found = detector.detect(photos, score=0.0)
    assert len(found) == 3 and batches == [2, 1]
