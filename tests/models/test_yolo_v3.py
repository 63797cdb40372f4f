"""YOLOv3: assignment against loops, losses worked out by hand, and the harness of all detectors."""

import math

import keras
import numpy as np
import pytest
from handmade import arrays, losses, objects, raw_maps
from harness import SHAPES, DetectorHarness, batch_of, tiny_backbone
from keras import ops

from kerasdet import zoo
from kerasdet.models.yolo_v3 import PAPER_ANCHORS, YOLOv3

LOG2 = math.log(2)
SQUARES = ((8, 8), (16, 16), (32, 32))


def yolo(classes=("a", "b"), **options):
    options = {"image_size": 64, "anchors": SQUARES, "channels": 8} | options
    options.setdefault("backbone", tiny_backbone())
    return YOLOv3(classes, **options)


@pytest.fixture(scope="module")
def detector():
    """One square anchor a level; rows 0..63 at stride 8, 64..79 at 16, 80..83 at 32."""
    return yolo()


# === Rows and targets ===


def test_rows_go_by_level_line_column_and_anchor():
    anchors = ((4, 6), (8, 8), (12, 10), (16, 16), (30, 20), (40, 40))
    detector = yolo(anchors=anchors, image_size=32)
    expected = []
    for level, stride in enumerate((8, 16, 32)):
        for line in range(32 // stride):
            for column in range(32 // stride):
                for anchor in anchors[2 * level : 2 * level + 2]:
                    expected.append((column, line, stride, *anchor))
    np.testing.assert_allclose(ops.convert_to_numpy(detector.priors(len(expected))), expected)
    assert detector.output["box"].shape == (None, len(expected), 4)


def test_the_network_lays_its_rows_out_as_the_priors_are(detector):
    # All of a level's channels by hand: row (line, column) of P3's map is its place, 10 line + column.
    layer = detector.get_layer("head_P3_box_rows")
    grid = 10.0 * np.arange(8)[:, None] + np.arange(8)
    rows = ops.convert_to_numpy(layer(np.repeat(grid[None, ..., None], 4, -1)))[0, :, 0]
    priors = ops.convert_to_numpy(detector.priors(84))[:64]
    np.testing.assert_allclose(rows, 10 * priors[:, 1] + priors[:, 0])


def test_one_object_by_hand(detector):
    # 16 x 16 px: the anchor of stride 16. Its centre (28, 44) is in column 1, line 2: row 64 + 2*4 + 1.
    goal = arrays(detector.assign(objects([20, 36, 36, 52]), 84))
    assert goal["row"][0] == 73 and goal["weight"].tolist() == [1, 0, 0]
    assert np.flatnonzero(goal["positive"]).tolist() == [73]
    assert np.flatnonzero(goal["negative"] == 0).tolist() == [73]


@pytest.mark.parametrize("size", [64, 96])
def test_assignment_agrees_with_loops(size):
    anchors = ((5, 9), (10, 6), (12, 24), (25, 15), (30, 45), (50, 40))
    detector = yolo(anchors=anchors)
    rng = np.random.default_rng(size)
    side = rng.uniform(3, 50, (20, 2))
    centre = rng.uniform(0, size, (20, 2))
    boxes = np.clip(np.concatenate([centre - side / 2, centre + side / 2], 1), 0, size)
    rows = 2 * (size // 32) ** 2 * 21
    found = arrays(detector.assign(objects(*boxes), rows))["row"]
    for box, row in zip(boxes, found, strict=False):
        w, h = box[2] - box[0], box[3] - box[1]
        overlap = []
        for a, b in anchors:
            shared = min(a, w) * min(b, h)
            overlap.append(shared / (a * b + w * h - shared))
        best = int(np.argmax(overlap))
        expected, cells = 0, 0
        for level, stride in enumerate((8, 16, 32)):
            if level == best // 2:
                column, line = (int((box[i] + box[i + 2]) / 2 // stride) for i in (0, 1))
                expected = cells + (line * (size // stride) + column) * 2 + best % 2
            cells += 2 * (size // stride) ** 2
        assert cells == rows and row == expected


def test_drawn_shapes_are_given_to_cells_that_hold_their_centre(shapes):
    sides = (10, 15, 22)
    detector = yolo(SHAPES, anchors=[(side, side) for side in sides])
    _, targets = batch_of(shapes, detector, 8)
    goal = {k: ops.convert_to_numpy(v) for k, v in detector.assign(targets, 84).items()}
    priors = ops.convert_to_numpy(detector.priors(84))
    seen = []
    for photo, label in zip(*np.nonzero(targets["labels"] >= 0), strict=True):
        x1, y1, x2, y2 = targets["boxes"][photo, label]
        column, line, stride, _, _ = priors[goal["row"][photo, label]]
        assert column * stride <= (x1 + x2) / 2 < (column + 1) * stride
        assert line * stride <= (y1 + y2) / 2 < (line + 1) * stride
        # Shapes are as wide as high: of two squares one lies in the other.
        overlap = [(min(x2 - x1, side) / max(x2 - x1, side)) ** 2 for side in sides]
        assert overlap[int(math.log2(stride)) - 3] == max(overlap)
        seen.append(stride)
    assert set(seen) == {8, 16, 32} and len(seen) > 10
    assert goal["positive"].sum() == (targets["labels"] >= 0).sum()


def test_of_two_objects_in_one_row_the_smaller_one_has_it(detector):
    goal = arrays(detector.assign(objects([20, 20, 36, 36], [21, 21, 35, 35], [40, 40, 47, 48]), 84))
    assert goal["row"].tolist()[:2] == [69, 69]
    assert goal["weight"].tolist()[:3] == [0, 1, 1]
    assert np.flatnonzero(goal["positive"]).tolist() == [45, 69]


def test_rows_in_ignore_regions_are_not_background_but_objects_in_them_are_learned(detector):
    goal = arrays(detector.assign(objects([1, 1, 15, 15], ignore=[[0, 0, 21, 13]]), 84))
    # Middles at 4, 12, 20 of stride 8 in columns 0..2 and lines 0, 1; (8, 8) of stride 16.
    assert np.flatnonzero(goal["negative"] == 0).tolist() == [0, 1, 2, 8, 9, 10, 64]
    assert goal["positive"][64] == 1


def test_an_object_of_weight_zero_teaches_nothing_and_is_no_background(detector):
    goal = arrays(detector.assign(objects([20, 36, 36, 52], weights=[0.0]), 84))
    assert not goal["weight"].any() and not goal["positive"].any()
    assert np.flatnonzero(goal["negative"] == 0).tolist() == [73]


# === Losses ===


def test_losses_by_hand(detector):
    # Centre 28 of stride 16: t_x has to be .75 in cell 1, and is sigmoid(0) = .5; t_w is right.
    found = losses(detector, objects([20, 20, 36, 36]), raw_maps(detector))
    small = 2 - 16 * 16 / 64**2
    assert found["box_loss"] == pytest.approx(small * (0.25**2 + 0.25**2) / 2, rel=1e-5)
    assert found["object_loss"] == pytest.approx(84 * LOG2, rel=1e-5)
    assert found["class_loss"] == pytest.approx(2 * LOG2, rel=1e-5)


def test_wrong_size_by_hand(detector):
    # 24 x 12 px: overlaps the anchor of 16 by 192 / 352, that of 32 by 288 / 1024.
    found = losses(detector, objects([12, 18, 36, 30]), raw_maps(detector))
    error = math.log(24 / 16) ** 2 + math.log(12 / 16) ** 2  # the centre, (24, 24), is right
    assert found["box_loss"] == pytest.approx((2 - 288 / 4096) * error / 2, rel=1e-4)


@pytest.mark.parametrize(("name", "measure"), [
    # [16, 16, 32, 32] is predicted: 144 of 368 are shared, the hull is 20 x 20, centres are 4, 4 apart.
    ("giou", 144 / 368 - (400 - 368) / 400), ("ciou", 144 / 368 - 32 / 800),
])
def test_box_losses_by_overlap(name, measure):
    detector = yolo(box_loss=name)
    found = losses(detector, objects([20, 20, 36, 36]), raw_maps(detector))
    assert found["box_loss"] == pytest.approx(2.5 * (2 - 256 / 4096) * (1 - measure), rel=1e-4)


def test_wild_sizes_stay_finite():
    detector = yolo(box_loss="giou")
    raw = raw_maps(detector, box=[0, 0, 1e4, 1e4])
    found = losses(detector, objects([8, 8, 40, 24]), raw)
    assert found["box_loss"] > 0 and all(np.isfinite(list(found.values()))), found


def test_predictions_that_find_an_object_are_not_background(detector):
    # The row of stride 16 has the object; that of stride 32 predicts it exactly.
    targets, raw = objects([8, 8, 24, 24]), raw_maps(detector)
    raw["box"][0, 80, 2:] = math.log(0.5)
    assert losses(detector, targets, raw)["object_loss"] == pytest.approx(83 * LOG2, rel=1e-5)
    # One that overlaps by .8 is excused too, one by .6 is not.
    for share, count in ((0.8, 83), (0.6, 84)):
        raw["box"][0, 80, 2:] = math.log(0.5), math.log(0.5 * share)
        assert losses(detector, targets, raw)["object_loss"] == pytest.approx(count * LOG2, rel=1e-5)
    raw["box"][0, 80, 2:] = math.log(0.5)
    strict = yolo(ignore_iou=1.0)
    assert losses(strict, targets, raw)["object_loss"] == pytest.approx(84 * LOG2, rel=1e-5)


def test_perfect_heads_cost_nothing(detector):
    raw = raw_maps(detector)
    raw["box"][0, 69] = [math.log(3), math.log(3), math.log(20 / 16), 0]  # sigmoid(log 3) = .75
    raw["object_logit"] -= 40
    raw["object_logit"][0, 69] = 40
    raw["class_logits"][0, 69] = [-40, 40]
    found = losses(detector, objects([18, 20, 38, 36], labels=[1]), raw)
    assert list(found) == ["box_loss", "object_loss", "class_loss"]
    assert max(found.values()) < 1e-6


def test_weights_scale_what_an_object_teaches(detector):
    raw, boxes = raw_maps(detector), ([20, 20, 36, 36], [40, 40, 48, 48])
    both = losses(detector, objects(*boxes, weights=[1.0, 0.25]), raw)
    one, other = (losses(detector, objects(box), raw) for box in boxes)
    for name in ("box_loss", "class_loss"):
        assert both[name] == pytest.approx((one[name] + 0.25 * other[name]) / 1.25, rel=1e-4)
    assert both["object_loss"] == pytest.approx((82 + 1.25) * LOG2 / 1.25, rel=1e-4)


def test_without_objects_all_is_background(detector):
    found = losses(detector, objects(), raw_maps(detector))
    assert found == pytest.approx({"box_loss": 0, "object_loss": 84 * LOG2, "class_loss": 0}, rel=1e-5)


# === Other classes ===


def test_known_classes_keep_what_every_anchor_learned_of_them(shapes):
    pairs = ((6, 6), (8, 8), (12, 12), (16, 16), (24, 24), (32, 32))
    before = yolo(("a", "b"), anchors=pairs)
    for level in ("P3", "P4", "P5"):
        layer = before.get_layer(f"head_{level}_class")
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel, 1.0 + np.arange(len(bias))])
    after = zoo.adapt(before, classes=("c", "b", "d"))
    images, _ = batch_of(shapes, yolo(SHAPES), 2)
    old, new = (ops.convert_to_numpy(m(images, training=False)["class_logits"]) for m in (before, after))
    np.testing.assert_allclose(new[..., 1], old[..., 1], atol=1e-5)
    assert np.abs(new[..., 0]).max() < 0.5 < old.min()


# === Options ===


def test_the_papers_anchors_are_scaled_from_416():
    detector = yolo(anchors=None, image_size=32 * 26)
    np.testing.assert_allclose(detector.anchors, 2 * np.array(PAPER_ANCHORS))


def test_untrained_objectness_starts_at_one_percent(detector):
    raw = detector(np.full((1, 64, 64, 3), 128, np.uint8), training=False)
    objectness = ops.convert_to_numpy(detector.heads(raw)["object"])
    np.testing.assert_allclose(objectness, 0.01, rtol=0.3)


def test_fpns_pyramid_as_a_neck():
    detector = yolo(neck="fpn", channels=16)
    names = [layer.name for layer in detector.layers]
    assert {"fpn_P3_sum", "fpn_P4_sum", "fpn_P5_lateral"} <= set(names) and "fpn_P5_sum" not in names
    again = YOLOv3.from_config(detector.get_config())
    again.set_weights(detector.get_weights())
    photo = np.random.default_rng(0).integers(0, 255, (1, 96, 96, 3)).astype("uint8")
    for key, value in detector(photo).items():
        # Squares of other sizes go through as well.
        assert value.shape[1] == detector.per_cell * (12**2 + 6**2 + 3**2)
        np.testing.assert_allclose(ops.convert_to_numpy(again(photo)[key]), ops.convert_to_numpy(value))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"neck": "pan"}, "neck is 'pan'; give one of paper, light, fpn"),
        ({"box_loss": "l1"}, "box_loss is 'l1'; give one of yolo, giou, ciou"),
        ({"image_size": 100}, "image_size is 100; give a multiple of 32"),
        ({"anchors": [(8, 8), (16, 16)]}, "anchors are .* a multiple of 3 of them"),
        ({"anchors": [(8, 8), (32, 32), (16, 16)]}, "anchors are .* by rising area"),
    ],
)
def test_wrong_options_are_told(option, message):
    with pytest.raises(ValueError, match=message):
        yolo(**option)


# === The harness of all detectors ===


class TestLightYOLOv3(DetectorHarness):
    """The network for phones, trained by GIoU."""

    # Of the first four drawn shapes, one or more for every level.
    anchors = ((9, 9), (10, 10), (12, 12), (13, 13), (14, 14), (16, 16), (19, 19), (21, 21), (23, 23))

    def build(self, **changes):
        options = {"anchors": self.anchors, "channels": 32, "box_loss": "giou"}
        return yolo(SHAPES, **options | changes)

    def known_heads(self, detector):
        heads = {
            key: np.zeros((1, detector.output["box"].shape[1], count))
            for key, count in (("object", 1), ("class", 3), ("box", 4))
        }
        # Line 2, column 3 of stride 8, its third anchor; line 1, column 0 of stride 32, its first.
        fine, coarse = (2 * 8 + 3) * 3 + 2, 3 * 64 + 3 * 16 + (1 * 2 + 0) * 3
        heads["object"][0, [fine, coarse]] = [[0.5], [0.8]]
        heads["class"][0, fine], heads["class"][0, coarse] = [0, 0.9, 0.2], [0.75, 0, 0]
        heads["box"][0, coarse] = [math.log(3), -math.log(3), math.log(2), -math.log(3)]
        # Fine: 12 x 12 px about (28, 20). Coarse: 38 x 19/3 px about (.75 * 32, 1.25 * 32).
        top, bottom = 40 - 19 / 6, 40 + 19 / 6
        return heads, [
            (0, 0.6, 5, top, 43, bottom), (1, 0.45, 22, 14, 34, 26), (2, 0.1, 22, 14, 34, 26)
        ]


class TestPaperYOLOv3(TestLightYOLOv3):
    """The paper's neck, leaky ReLU and squared errors."""

    # Squared errors fade as boxes get better: the last pixel takes longer than by GIoU.
    overfit_epochs = 240
    overfit_is_slow = True

    def build(self, **changes):
        return super().build(**{"neck": "paper", "channels": 16, "box_loss": "yolo"} | changes)


def test_named_backbone_survives_the_config():
    detector = YOLOv3(backbone="mobilenet_v2_0.35", image_size=64, freeze_until="P2", channels=16)
    again = YOLOv3.from_config(detector.get_config())
    assert [v.shape for v in again.weights] == [v.shape for v in detector.weights]
    assert len(again.trainable_variables) == len(detector.trainable_variables)
    assert keras.ops.shape(again.output["class_logits"]) == (None, 252, 1)
