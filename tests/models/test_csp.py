"""CSP: targets worked out by hand, losses by loops, and the harness of all detectors."""

import math

import keras
import numpy as np
import pytest
from handmade import arrays, losses, objects, raw_maps
from harness import SHAPES, DetectorHarness, tiny_backbone
from keras import ops

import kerasdet
from kerasdet.models.csp import CSP

LOG3 = math.log(3)


def csp(classes=("person",), **options):
    options = {"stride": 4, "target": "paper", "channels": 16} | options
    options.setdefault("backbone", tiny_backbone(output_stride=16 if options.get("neck") == "deconv" else 32))
    return CSP(classes, image_size=64, **options)


@pytest.fixture(scope="module")
def paper():
    """One class, stride 4, so 16x16 cells."""
    return csp()


@pytest.fixture(scope="module")
def dense():
    """Two classes and a part, stride 8, so 8x8 cells."""
    return csp(("a", "b"), stride=8, target="dense", parts=("head",))


# === The paper's targets ===


def test_gaussian_of_one_box_by_hand(paper):
    # x from 2.5 to 7.75 cells: cells 3..6, so k = 4, sigma ((4 - 1) / 2 - 1) * .3 + .8 = .95, peak 5.
    # y from 1.5 to 11.25 cells: cells 2..10, so k = 9, sigma (8 / 2 - 1) * .3 + .8 = 1.7, peak 6.
    heat = arrays(paper.paper_targets(objects([10, 6, 31, 45])))["heat"][..., 0]
    assert heat[6, 5] == 1
    expected = np.zeros((16, 16))
    for row in range(2, 11):
        for column in range(3, 7):
            expected[row, column] = math.exp(-((row - 6) ** 2) / (2 * 1.7**2)) * math.exp(
                -((column - 5) ** 2) / (2 * 0.95**2)
            )
    np.testing.assert_allclose(heat, expected, atol=1e-6)


def test_centre_scale_and_offset_of_one_box_by_hand(paper):
    goal = arrays(paper.paper_targets(objects([10, 6, 31, 45])))
    # The centre is at x 5.125, y 6.375 cells.
    assert np.argwhere(goal["positive"]).tolist() == [[6, 5, 0]]
    np.testing.assert_allclose(goal["offset"][0], [6.375 - 6.5, 5.125 - 5.5], atol=1e-6)
    np.testing.assert_allclose(goal["size"][0], [9.75, 5.25])
    assert np.argwhere(goal["centre_owner"][0]).tolist() == [[6, 5]]
    painted = np.argwhere(goal["scale_owner"][0])
    assert len(painted) == 25
    assert painted.min(0).tolist() == [4, 3] and painted.max(0).tolist() == [8, 7]
    assert not goal["scale_owner"][1:].any() and not goal["centre_owner"][1:].any()
    assert goal["valid"].all()


@pytest.mark.parametrize(
    ("box", "cell", "painted"),
    [
        ([0, 0, 8, 8], (1, 1), 16),  # rows and columns -1..3: the first is outside
        ([56, 56, 64, 64], (15, 15), 9),  # 13..17
        ([0, 20, 4, 44], (8, 0), 15),  # columns -2..2
    ],
)
def test_boxes_at_the_border_keep_their_squares(paper, box, cell, painted):
    goal = arrays(paper.paper_targets(objects(box)))
    assert np.argwhere(goal["positive"][..., 0]).tolist() == [list(cell)]
    assert goal["scale_owner"][0].sum() == painted
    assert goal["heat"][cell[0], cell[1], 0] > 0.3


@pytest.mark.parametrize("box", [[5, 5, 7, 7], [5, 5, 9, 9], [61, 61, 64, 64], [0, 0, 2, 30]])
def test_a_box_under_one_cell_has_its_peak_where_it_lies(paper, box):
    goal = arrays(paper.paper_targets(objects(box)))
    row, column = np.argwhere(goal["positive"][..., 0])[0]
    assert (row, column) == (int((box[1] + box[3]) / 8), int((box[0] + box[2]) / 8))
    heat = goal["heat"][..., 0]
    assert heat[:, column].max() == 1 and not np.delete(heat, column, 1).any()
    assert heat.max() == 1


def test_where_two_overlap_the_larger_value_stands(paper):
    one, two = [10, 6, 31, 45], [22, 12, 50, 40]
    both = arrays(paper.paper_targets(objects(one, two)))
    alone = [arrays(paper.paper_targets(objects(box))) for box in (one, two)]
    np.testing.assert_allclose(both["heat"], np.maximum(alone[0]["heat"], alone[1]["heat"]))
    assert both["positive"].sum() == 2


def test_classes_have_maps_of_their_own():
    detector = csp(("a", "b"))
    goal = arrays(detector.paper_targets(objects([8, 8, 24, 24], [8, 8, 40, 40], labels=[1, 0])))
    assert goal["heat"][4, 4, 1] == 1 and goal["heat"][6, 6, 0] == 1
    assert np.argwhere(goal["positive"]).tolist() == [[4, 4, 1], [6, 6, 0]]


def test_of_two_objects_in_one_cell_the_smaller_one_teaches(paper):
    goal = arrays(paper.paper_targets(objects([8, 8, 40, 40], [16, 16, 32, 32])))
    assert goal["positive"].sum() == 1
    assert goal["scale_owner"][0].sum() == 0 and goal["scale_owner"][1].sum() == 25


def test_ignored_cells_are_not_learned_but_objects_in_them_are(paper):
    goal = arrays(paper.paper_targets(objects([40, 40, 56, 64], ignore=[[0, 0, 18, 8], [36, 36, 64, 64]])))
    expected = np.ones((16, 16))
    expected[:2, :4] = 0  # the middle of column 4, at 4.5 cells, lies right at the region's end
    expected[9:, 9:] = 0
    expected[10:16, 10:14] = 1
    np.testing.assert_array_equal(goal["valid"][..., 0], expected)


def test_no_objects_no_targets(paper, dense):
    for goal in (arrays(paper.paper_targets(objects())), arrays(dense.dense_targets(objects()))):
        assert goal.pop("valid").all()
        goal.pop("offset", None), goal.pop("size", None)
        assert not any(value.any() for value in goal.values())


# === The paper's losses ===


def test_paper_losses_by_hand(paper):
    # Scale 0 predicts log(side) 0 where 2.277 and 1.658 are right, a relative error of -1 twice:
    # smooth L1 gives .5 + .5. The offsets are wrong by .125 and .375 cells.
    targets = objects([10, 6, 31, 45])
    found = losses(paper, targets, raw_maps(paper))
    heat = arrays(paper.paper_targets(targets))["heat"][..., 0]
    misses = ((1 - heat) ** 4).sum() - (1 - heat[6, 5]) ** 4
    assert found["center_loss"] == pytest.approx(0.01 * 0.25 * math.log(2) * (1 + misses), rel=1e-4)
    assert found["scale_loss"] == pytest.approx(1.0, rel=1e-5)
    assert found["offset_loss"] == pytest.approx(0.1 * (0.125**2 + 0.375**2) / 2, rel=1e-5)
    assert list(found) == ["center_loss", "scale_loss", "offset_loss"]


def test_small_sides_divide_by_log_3(paper):
    # 8 px high, 2 px wide: 2 and 1/2 cells; errors log 2 / log 3 and log .5 / log 3.
    found = losses(paper, objects([20, 20, 22, 28]), raw_maps(paper))
    error = math.log(2) / LOG3
    assert found["scale_loss"] == pytest.approx(2 * error**2 / 2, rel=1e-4)


def test_perfect_heads_cost_nothing(paper):
    targets = objects([10, 6, 31, 45])
    raw = raw_maps(paper, scale=[math.log(9.75), math.log(5.25)], offset=[-0.125, -0.375])
    raw["center_logits"] -= 40
    raw["center_logits"][0, 6, 5] = 40
    assert max(losses(paper, targets, raw).values()) < 1e-6


def test_every_loss_is_a_mean_over_objects(paper):
    near, far = [4, 4, 16, 16], [44, 44, 60, 60]
    raw = raw_maps(paper, scale=[1.0, 1.0])
    both = losses(paper, objects(near, far), raw)
    alone = [losses(paper, objects(box), raw) for box in (near, far)]
    # Their squares are of 16 (cut by the border) to 25 cells.
    cells = [arrays(paper.paper_targets(objects(box)))["scale_owner"].sum() for box in (near, far)]
    assert both["scale_loss"] == pytest.approx(
        sum(n * one["scale_loss"] for n, one in zip(cells, alone, strict=True)) / sum(cells), rel=1e-4
    )
    assert both["offset_loss"] == pytest.approx(sum(a["offset_loss"] for a in alone) / 2, rel=1e-4)


def test_an_object_of_weight_zero_teaches_nothing(paper):
    raw = raw_maps(paper, scale=[1.0, 1.0])
    found = losses(paper, objects([10, 6, 31, 45], weights=[0.0]), raw)
    assert found["scale_loss"] == 0 and found["offset_loss"] == 0
    # Nor is its place background: cells under its Gaussian stay excused.
    none = losses(paper, objects(), raw)
    assert found["center_loss"] < none["center_loss"]


def test_height_alone_when_the_aspect_ratio_is_fixed():
    detector = csp(aspect_ratio=0.41, resize="letterbox")
    assert detector.output["scale"].shape[-1] == 1
    found = losses(detector, objects([10, 6, 31, 45]), raw_maps(detector))
    assert found["scale_loss"] == pytest.approx(0.5, rel=1e-5)


# === Dense targets ===


def test_dense_gaussian_by_hand(dense):
    # 4 x 2 cells about the cell (2, 3): reach int(2 * .54) = 1 across with sigma 3 / 6, 0 down.
    goal = arrays(dense.dense_targets(objects([8, 8, 40, 24], labels=[1])))
    expected = np.zeros((8, 8))
    expected[2, 2:5] = [math.exp(-2), 1, math.exp(-2)]
    np.testing.assert_allclose(goal["heat"][..., 1], expected, atol=1e-6)
    assert not goal["heat"][..., 0].any()
    assert np.argwhere(goal["positive"]).tolist() == [[2, 3, 1]]
    weight = expected / expected.sum() * math.log(1 + 32 * 16)
    np.testing.assert_allclose(goal["weight"][0], weight, rtol=1e-5)


def test_weights_of_an_object_sum_to_log_of_its_area(dense):
    boxes = [[2, 3, 60, 50], [30, 30, 44, 60], [0, 0, 7, 5]]
    goal = arrays(dense.dense_targets(objects(*boxes, weights=[1, 0.5, 1])))
    area = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes]
    expected = [math.log(1 + a) * w for a, w in zip(area, [1, 0.5, 1], strict=True)]
    np.testing.assert_allclose(goal["weight"].sum((1, 2)), [*expected, 0, 0], rtol=1e-4)


def test_the_smaller_object_takes_shared_cells(dense):
    large, small = [0, 0, 64, 64], [24, 24, 48, 48]
    goal = arrays(dense.dense_targets(objects(large, small)))
    alone = arrays(dense.dense_targets(objects(small)))
    np.testing.assert_array_equal(goal["owner"][1], alone["owner"][0])
    assert goal["owner"].sum(0).max() == 1
    assert goal["owner"][0].sum() == 5 * 5 - 1  # int(4 * .54) = 2 and int(1.5 * .54) = 0 cells around


def test_box_loss_by_hand(dense):
    # Every cell predicts 16 x 16 px about its own middle. Under the object are the cells (2, 2..4)
    # with middles (20, 20), (28, 20), (36, 20).
    targets = objects([8, 8, 40, 24], parts=[None])
    raw = raw_maps(dense, scale=[math.log(2), math.log(2)])
    weight = np.array([math.exp(-2), 1, math.exp(-2)])
    cost = []
    for x in (20, 28, 36):
        width, hull = min(x + 8, 40) - max(x - 8, 8), (max(x + 8, 40) - 8) * (28 - 8)
        shared = width * (24 - 12)
        union = 32 * 16 + 256 - shared
        cost.append(1 - (shared / union - (hull - union) / hull))
    expected = 5 * (weight * cost).sum() / weight.sum()
    found = losses(dense, targets, raw)
    assert found["box_loss"] == pytest.approx(expected, rel=1e-4)
    assert found["part_loss"] == 0


def test_part_loss_by_hand(dense):
    # The object's box is predicted rightly at its centre's cell (2, 2), weightless elsewhere.
    box, head = [12, 12, 28, 28], [16, 12, 24, 20]
    targets = objects(box, [40, 40, 60, 60], parts=[head, None])
    raw = raw_maps(dense, scale=[math.log(2), math.log(2)], head_scale=math.log(0.5))
    raw["head_offset"][..., 0] = -0.25
    found = losses(dense, targets, raw)
    assert found["part_loss"] == pytest.approx(0, abs=1e-5)
    raw["head_offset"][..., 0] = 0.25  # the head below instead of above: 8 x 8 px, right next to it
    assert losses(dense, targets, raw)["part_loss"] == pytest.approx(2 * 1.0, rel=1e-4)
    targets["part_weights"][:] = 0
    assert losses(dense, targets, raw)["part_loss"] == 0


def test_parts_beside_the_papers_targets_by_hand():
    detector = csp(parts=("head",))
    raw = raw_maps(detector, scale=math.log(4), head_scale=math.log(0.5))
    # All 25 cells that learn the scale know where the centre is, at (6, 6) cells.
    middles = np.arange(16, dtype=np.float32) + 0.5
    raw["offset"][..., 0], raw["offset"][..., 1] = 6 - middles[:, None], 6 - middles
    raw["head_offset"][..., 0] = -0.25
    targets = objects([16, 16, 32, 32], parts=[[20, 16, 28, 24]])
    assert losses(detector, targets, raw)["part_loss"] == pytest.approx(0, abs=1e-5)
    raw["head_offset"][..., 0] = 0.25  # the head below instead of above: right next to it
    assert losses(detector, targets, raw)["part_loss"] == pytest.approx(0.02 * 1.0, rel=1e-4)
    faint = targets | {"weights": np.zeros_like(targets["weights"])}
    assert losses(detector, faint, raw)["part_loss"] == 0
    # Four of the 25 cells wrong.
    raw["head_offset"][..., 0] = -0.25
    raw["head_offset"][0, 4, 4:8, 0] = 0.25
    assert losses(detector, targets, raw)["part_loss"] == pytest.approx(0.02 * 4 / 25, rel=1e-4)


def test_wild_scales_stay_finite(dense):
    targets, wild = objects([8, 8, 40, 24], parts=[[16, 8, 24, 16]]), [1e4] * 2
    # The part's alone as well: what is wrong with the object's would hide it.
    for raw in (raw_maps(dense, scale=wild), raw_maps(dense, head_scale=wild)):
        found = losses(dense, targets, raw)
        assert found["part_loss"] > 0 and all(np.isfinite(list(found.values()))), found


# === Options ===


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"neck": "pan"}, "neck is 'pan'; give one of deconv, fpn, light"),
        ({"target": "sparse"}, "target is 'sparse'"),
        ({"stride": 16}, "stride is 16"),
        ({"image_size": 100}, "image_size is 100; give a multiple of 32"),
        ({"target": "dense", "aspect_ratio": 0.41}, "leave aspect_ratio out"),
        ({"resize": "crop"}, "resize is 'crop'"),
        ({"classes": "cat"}, r"classes is the text 'cat'; give a list of names, such as \['cat'\]"),
        ({"classes": ("cat", "cat")}, "names one twice"),
    ],
)
def test_wrong_options_are_told(option, message):
    with pytest.raises(ValueError, match=message):
        CSP(**{"image_size": 64, "backbone": tiny_backbone()} | option)


@pytest.mark.parametrize("stride", [4, 8])
def test_the_pyramids_finest_map_is_a_neck(stride):
    detector = csp(neck="fpn", stride=stride, channels=16)
    assert detector.output["center_logits"].shape[1:] == (64 // stride, 64 // stride, 1)
    names = {layer.name for layer in detector.layers}
    assert ("fpn_P2_sum" in names) == (stride == 4) and "fpn_P5_lateral" in names
    # What the heads' 1x1 convolutions are given is bent, as behind the paper's neck.
    shared = keras.Model(detector.input, detector.get_layer("head_center").input)
    seen = ops.convert_to_numpy(shared(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)) * 1.0))
    assert seen.min() == 0 and 0.2 < (seen == 0).mean() < 0.8
    assert CSP.from_config(detector.get_config()).get_config()["neck"] == "fpn"


def test_untrained_centres_start_at_one_percent(paper):
    raw = paper(np.full((1, 64, 64, 3), 128, np.uint8), training=False)
    center = ops.convert_to_numpy(paper.heads(raw)["center"])
    np.testing.assert_allclose(center, 0.01, rtol=0.3)


# === The harness of all detectors ===


def hand_made(detector, peaks):
    """Heads with peaks (row, column, label, score, height, width, offset y, offset x), in cells."""
    heads = {
        key.replace("center_logits", "center"): np.zeros((1, *value.shape[1:]))
        for key, value in detector.output.items()
    }
    for row, column, label, score, height, width, y, x in peaks:
        heads["center"][0, row, column, label] = score
        heads["scale"][0, row, column] = np.log([height, width])[: heads["scale"].shape[-1]]
        heads["offset"][0, row, column] = [y, x]
    return heads


class TestPaperCSP(DetectorHarness):
    """The paper's network: deconvolutions, stride 4, one positive cell an object."""

    overfit_is_slow = True

    def build(self, **changes):
        return csp(SHAPES, neck="deconv", channels=32, **changes)

    def known_heads(self, detector):
        heads = hand_made(
            detector,
            [(4, 8, 1, 0.9, 5, 3, 0.25, -0.5), (4, 9, 1, 0.8, 5, 3, 0, 0), (0, 15, 0, 0.5, 4, 4, 0, 0)],
        )
        # Centre (8, 4.75) cells = (32, 19) px, 12 x 20 px. The second is no peak: 0.9 is next to it.
        # Centre (15.5, .5) cells = (62, 2) px, 16 x 16 px, cut at the border.
        return heads, [(1, 0.9, 26, 9, 38, 29), (0, 0.5, 54, 0, 64, 10)]


class TestDenseCSP(DetectorHarness):
    """The network for phones: the light neck, stride 8, dense targets and a part."""

    narrow_is_slow = False
    parts = ("corner",)

    def build(self, **changes):
        options = {"stride": 8, "target": "dense", "channels": 32, "parts": self.parts}
        return csp(SHAPES, **options | changes)

    def known_heads(self, detector):
        heads = hand_made(
            detector, [(2, 3, 2, 0.75, 2, 1, 0, 0), (6, 6, 0, 0.5, 1, 2, 0, 0), (6, 6, 1, 0.25, 1, 2, 0, 0)]
        )
        heads["corner_scale"][:] = math.log(0.5)
        heads["corner_offset"][:] = -0.25
        # Centre (28, 20) px, 8 x 16 px; centre (52, 52) px, 16 x 8 px, which two classes claim.
        return heads, [
            (2, 0.75, 24, 12, 32, 28, 24, 12, 28, 20),
            (0, 0.5, 44, 48, 60, 56, 44, 48, 52, 52),
            (1, 0.25, 44, 48, 60, 56, 44, 48, 52, 52),
        ]


def test_height_alone_is_decoded_with_the_aspect_ratio():
    detector = csp(aspect_ratio=0.5, resize="letterbox")
    heads = hand_made(detector, [(8, 8, 0, 0.9, 6, 1, 0, 0)])
    found = detector.decode({key: ops.convert_to_tensor(v.astype("float32")) for key, v in heads.items()})
    # Centre 8.5 cells = 34 px, 24 px high and so 12 wide.
    np.testing.assert_allclose(ops.convert_to_numpy(found["boxes"])[0, 0], [28, 22, 40, 46], atol=1e-3)


def test_a_fixed_ratio_does_not_go_with_stretching():
    with pytest.warns(UserWarning, match="aspect_ratio is 0.41 and resize 'stretch'.* give resize="):
        csp(aspect_ratio=0.41)


def test_height_alone_is_learned_and_kept(shapes, tmp_path, untraced):
    detector = csp(SHAPES, aspect_ratio=0.41, resize="letterbox")
    detector.compile()
    history = detector.fit(shapes.batches(8, detector), verbose=0).history
    assert {"center_loss", "scale_loss", "offset_loss"} <= set(history)
    detector.save(tmp_path / "high.keras")
    again = kerasdet.load(tmp_path / "high.keras")
    assert again.aspect_ratio == 0.41
    one, other = (each.detect(shapes[0].path, score=0) for each in (detector, again))
    np.testing.assert_allclose(other.boxes, one.boxes, atol=1e-3)
    sides = one.boxes[:, 2:] - one.boxes[:, :2]
    inside = (one.boxes > 0.5).all(1) & (one.boxes < 63.5).all(1)
    assert inside.any()
    np.testing.assert_allclose(sides[inside, 0] / sides[inside, 1], 0.41, rtol=1e-3)
