"""YOLOv1: cells and responsible boxes by hand, equation 3 by loops, and the harness of all detectors."""

import math

import numpy as np
import pytest
from handmade import arrays, losses, objects, raw_maps
from harness import SHAPES, DetectorHarness, batch_of, tiny_backbone
from keras import ops

from kerasdet import zoo
from kerasdet.models import yolo_v1
from kerasdet.models.yolo_v1 import YOLOv1


def yolo(classes=("a", "b"), **options):
    options = {"image_size": 64, "grid": 4, "head": "light", "channels": 16} | options
    options.setdefault("backbone", tiny_backbone(output_stride=16))
    return YOLOv1(classes, **options)


@pytest.fixture(scope="module")
def detector():
    """4 x 4 cells of 16 px, two boxes each."""
    return yolo()


# === Cells and boxes ===


@pytest.mark.parametrize("head", ["paper", "light"])
@pytest.mark.parametrize("size", [224, 448])
def test_the_papers_grid_has_98_boxes(head, size):
    # At 224 px the backbone ends with 7 x 7 cells; at 448 px the head halves 14 x 14 as in the paper.
    detector = yolo(image_size=size, grid=7, head=head, backbone=tiny_backbone(size))
    assert detector.output["box"].shape == (None, 98, 4)
    assert detector.output["confidence"].shape == (None, 98, 1)
    assert detector.output["class_logits"].shape == (None, 49, 2)


def test_the_papers_head_has_30_values_a_cell():
    # 7 * 7 * (2 * 5 + 20) outputs of 4 * 16 units, beside the hidden layer and four convolutions.
    detector = yolo(tuple("abcdefghijklmnopqrst"), image_size=224, grid=7, head="paper",
                    backbone=tiny_backbone(224))
    layers = [detector.get_layer(f"head_{name}") for name in ("box", "confidence", "class")]
    assert sum(layer.count_params() for layer in layers) == (64 + 1) * 1470
    assert detector.get_layer("head_hidden").kernel.shape == (7 * 7 * 16, 64)


def test_the_cell_of_an_object_by_hand(detector):
    # Centre (28, 44): column 1, row 2. The second's centre lies on the far border.
    goal = arrays(detector.assign(objects([20, 36, 36, 52], [62, 0, 66, 10])))
    assert goal["cell"].tolist()[:2] == [9, 3] and goal["weight"].tolist()[:2] == [1, 1]
    assert goal["corner"][0].tolist() == [1, 2]
    assert np.flatnonzero(goal["background"] == 0).tolist() == [3, 9]


def test_drawn_shapes_are_given_to_cells_that_hold_their_centre(shapes):
    detector = yolo(SHAPES)
    _, targets = batch_of(shapes, detector)
    goal = {k: ops.convert_to_numpy(v) for k, v in detector.assign(targets).items()}
    real = np.argwhere(targets["labels"] >= 0)
    assert len(real) > 20
    for photo, row in real:
        x1, y1, x2, y2 = targets["boxes"][photo, row]
        line, column = divmod(int(goal["cell"][photo, row]), 4)
        assert column * 16 <= (x1 + x2) / 2 < column * 16 + 16
        assert line * 16 <= (y1 + y2) / 2 < line * 16 + 16
    cells = {(photo, goal["cell"][photo, row]) for photo, row in real}
    assert goal["weight"].sum() == len(cells)
    assert goal["background"].sum() == 16 * len(shapes) - len(cells)


def test_of_two_objects_in_a_cell_the_smaller_one_is_learned(detector):
    goal = arrays(detector.assign(objects([0, 0, 20, 20], [4, 4, 16, 16], [2, 2, 18, 18])))
    assert goal["weight"].tolist()[:3] == [0, 1, 0]


def test_cells_in_ignore_regions_are_no_background(detector):
    goal = arrays(detector.assign(objects([1, 1, 9, 9], ignore=[[0, 0, 25, 39]])))
    assert np.flatnonzero(goal["background"] == 0).tolist() == [0, 1, 4, 5]
    assert goal["weight"][0] == 1


# === Equation 3 ===


def test_losses_by_hand(detector):
    # Outputs of 1/2: boxes of 16 x 16 px in the middle of their cell, [16, 32, 32, 48] in cell 9. The
    # object is 4 px farther down and right: x and y are .75; w and h are right. Shared: 144 of 368.
    raw = raw_maps(detector, box=0.5, confidence=0.25)
    found = losses(detector, objects([20, 36, 36, 52], labels=[1]), raw)
    assert list(found) == ["box_loss", "confidence_loss", "class_loss"]
    assert found["box_loss"] == pytest.approx(5 * 2 * 0.25**2, rel=1e-5)
    expected = (0.25 - 144 / 368) ** 2 + 0.5 * 31 * 0.25**2
    assert found["confidence_loss"] == pytest.approx(expected, rel=1e-5)
    assert found["class_loss"] == pytest.approx(1.0, rel=1e-5)


def test_equation_3_agrees_with_loops():
    detector = yolo(("a", "b", "c"), boxes=3)
    rng = np.random.default_rng(2)
    raw = {
        key: rng.uniform(0.1, 0.9, (1, *value.shape[1:])).astype(np.float32)
        for key, value in detector.output.items()
    }
    boxes = [[3, 5, 40, 30], [30, 30, 50, 62], [50, 2, 63, 14]]
    labels, weights = [2, 0, 1], [1.0, 0.5, 1.0]
    found = losses(detector, objects(*boxes, labels=labels, weights=weights), raw)
    box, sure, wrong = 0.0, 0.0, 0.0
    owners = {}
    for (x1, y1, x2, y2), label, weight in zip(boxes, labels, weights, strict=True):
        x, y, w, h = (x1 + x2) / 128, (y1 + y2) / 128, (x2 - x1) / 64, (y2 - y1) / 64
        column, line = int(4 * x), int(4 * y)
        overlaps = []
        for px, py, root_w, root_h in raw["box"][0, 3 * (4 * line + column) :][:3]:
            px, py, pw, ph = (column + px) / 4, (line + py) / 4, root_w**2, root_h**2
            across = min(x + w / 2, px + pw / 2) - max(x - w / 2, px - pw / 2)
            down = min(y + h / 2, py + ph / 2) - max(y - h / 2, py - ph / 2)
            shared = max(across, 0) * max(down, 0)
            overlaps.append(shared / (w * h + pw * ph - shared))
        best = int(np.argmax(overlaps))
        row = 3 * (4 * line + column) + best
        wanted = [4 * x - column, 4 * y - line, math.sqrt(w), math.sqrt(h)]
        box += 5 * weight * ((raw["box"][0, row] - wanted) ** 2).sum()
        for other in range(3):
            owners[3 * (4 * line + column) + other] = weight
        owners[row] = 0
        sure += weight * (raw["confidence"][0, row, 0] - overlaps[best]) ** 2
        one_hot = np.eye(3)[label]
        wrong += weight * ((raw["class_logits"][0, 4 * line + column] - one_hot) ** 2).sum()
    for row in range(48):
        sure += 0.5 * owners.get(row, 1.0) * raw["confidence"][0, row, 0] ** 2
    expected = {"box_loss": box, "confidence_loss": sure, "class_loss": wrong}
    assert found == pytest.approx({key: value / 2.5 for key, value in expected.items()}, rel=1e-4)


def test_confidence_learns_an_overlap_that_does_not_learn_from_it(detector):
    tf = pytest.importorskip("tensorflow")
    raw = {key: tf.constant(value) for key, value in raw_maps(detector, box=0.5, confidence=0.25).items()}
    targets = {k: ops.convert_to_tensor(v) for k, v in objects([20, 36, 36, 52]).items()}
    with tf.GradientTape() as tape:
        tape.watch(list(raw.values()))
        loss = detector.loss_parts(targets, raw)["confidence_loss"]
    box, confidence = tape.gradient(loss, [raw["box"], raw["confidence"]])
    assert box is None or not np.abs(box).max()
    assert np.abs(confidence).max() > 0


def responsible(detector, raw, box):
    """Which of cell 9's two boxes has its coordinates' gradient: the one whose change moves the loss."""
    before = losses(detector, objects(box), raw)["box_loss"]
    moved = []
    for row in (18, 19):
        changed = raw["box"].copy()
        changed[0, row, 0] += 0.01
        after = losses(detector, objects(box), raw | {"box": changed})["box_loss"]
        moved.append(after != pytest.approx(before, rel=1e-6))
    return moved


def test_the_box_that_overlaps_best_is_responsible(detector):
    raw = raw_maps(detector, box=0.5)
    # Inside the object, but so small that 33 of 256 overlap, against 144 of 368.
    raw["box"][0, 18] = [0.9, 0.9, 0.3, 0.3]
    assert responsible(detector, raw, [20, 36, 36, 52]) == [False, True]
    raw["box"][0, 18] = [0.7, 0.75, 0.5, 0.5]
    assert responsible(detector, raw, [20, 36, 36, 52]) == [True, False]


def test_where_none_overlaps_the_nearest_box_is_responsible(detector):
    raw = raw_maps(detector, box=0.5)
    raw["box"][0, 18], raw["box"][0, 19] = [-2, 0.5, 0.1, 0.1], [3, 0.5, 0.1, 0.1]
    # The object's x is .75: 2.75 cells from the first, 2.25 from the second.
    assert responsible(detector, raw, [26, 38, 30, 42]) == [False, True]
    # 40 px wide in place of 4, and so wrong by 36 px in x and in width; the first is by 44 px in x.
    raw["box"][0, 19] = [3, 0.5, math.sqrt(40 / 64), 0.1]
    assert responsible(detector, raw, [26, 38, 30, 42]) == [True, False]


def test_perfect_heads_cost_nothing_and_decode_to_the_objects(detector):
    raw = raw_maps(detector)
    raw["box"][0, 19] = [0.75, 0.5, math.sqrt(20 / 64), math.sqrt(12 / 64)]
    raw["confidence"][0, 19], raw["class_logits"][0, 9] = 1, [0, 1]
    targets = objects([18, 34, 38, 46], labels=[1])
    assert max(losses(detector, targets, raw).values()) < 1e-6
    raw = {key: ops.convert_to_tensor(value) for key, value in raw.items()}
    found = detector.decode(detector.heads(raw))
    np.testing.assert_allclose(ops.convert_to_numpy(found["boxes"])[0, 0], [18, 34, 38, 46], atol=1e-4)
    assert int(found["labels"][0, 0]) == 1 and float(found["scores"][0, 0]) == 1


def test_what_is_beyond_a_probability_is_cut(detector):
    """Two negatives make no score; the paper's outputs are linear."""
    raw = raw_maps(detector, confidence=-0.5, class_logits=-0.8)
    raw["confidence"][0, 5], raw["class_logits"][0, 2] = 1.7, [0.5, 1.2]
    found = detector.decode(detector.heads({key: ops.convert_to_tensor(v) for key, v in raw.items()}))
    scores = ops.convert_to_numpy(found["scores"])[0]
    np.testing.assert_allclose(scores[scores > 0], [1, 0.5])


@pytest.mark.parametrize("head", ["paper", "light"])
def test_the_first_guess_is_a_quarter_of_the_square_about_each_cells_middle(head):
    fresh = yolo(head=head)
    layer = fresh.get_layer("head_box")
    kernel, bias = layer.get_weights()
    layer.set_weights([np.zeros_like(kernel), bias])
    raw = fresh(np.zeros((1, 64, 64, 3), np.float32))
    corner = ops.convert_to_tensor([[x, y] for y in range(4) for x in range(4) for _ in (0, 1)], "float32")
    boxes = ops.convert_to_numpy(fresh._corners(raw["box"][0], corner))
    np.testing.assert_allclose(boxes[0], [0, 0, 16, 16], atol=1e-3)
    np.testing.assert_allclose(boxes[-1], [48, 48, 64, 64], atol=1e-3)


def test_the_papers_head_drops_half_of_its_hidden_units():
    """Section 2.2."""
    assert yolo(head="paper").get_layer("head_dropout").rate == 0.5


def test_an_object_of_weight_zero_teaches_nothing_and_is_no_background(detector):
    raw = raw_maps(detector, box=0.5, confidence=0.25)
    found = losses(detector, objects([20, 36, 36, 52], weights=[0.0]), raw)
    assert found["box_loss"] == found["class_loss"] == 0
    assert found["confidence_loss"] == pytest.approx(0.5 * 30 * 0.25**2, rel=1e-5)


def test_without_objects_all_is_background(detector):
    found = losses(detector, objects(), raw_maps(detector, box=0.5, confidence=0.25))
    assert found == pytest.approx(
        {"box_loss": 0, "confidence_loss": 0.5 * 32 * 0.25**2, "class_loss": 0}, rel=1e-5
    )


@pytest.mark.parametrize("head", ["paper", "light"])
def test_known_classes_keep_what_every_cell_learned_of_them(shapes, head):
    before = yolo(("a", "b"), head=head)
    layer = before.get_layer("head_class")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel, 1.0 + np.arange(len(bias))])
    after = zoo.adapt(before, classes=("c", "b", "d"))
    images, _ = batch_of(shapes, yolo(SHAPES), 2)
    old, new = (ops.convert_to_numpy(m(images, training=False)["class_logits"]) for m in (before, after))
    np.testing.assert_allclose(new[..., 1], old[..., 1], atol=1e-5)
    assert np.abs(new[..., 0]).max() < 0.5 < old.min()


# === Options ===


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"head": "fc"}, "head is 'fc'; give one of paper, light"),
        ({"grid": 7}, "image_size is 64, grid 7; give sizes so that a cell has 16, 32 or 64 pixels"),
        ({"grid": 8}, "a cell has 16, 32 or 64 pixels"),
        ({"grid": 1}, "the backbone's P5 has 4 cells a side; grid 1 needs 1 or 2"),
    ],
)
def test_wrong_options_are_told(option, message):
    with pytest.raises(ValueError, match=message):
        yolo(**option)


def test_named_backbone_keeps_its_resolution_for_small_cells():
    detector = YOLOv1(backbone="mobilenet_v2_0.35", image_size=64, grid=4, head="light", channels=16)
    again = YOLOv1.from_config(detector.get_config())
    assert again.output["class_logits"].shape == (None, 16, 1)
    assert [v.shape for v in again.weights] == [v.shape for v in detector.weights]


# === The harness of all detectors ===


class TestLightYOLOv1(DetectorHarness):
    """The head for phones."""

    overfit_is_slow = True

    def build(self, **changes):
        return yolo(SHAPES, **{"channels": 32} | changes)

    def known_heads(self, detector):
        heads = {
            "confidence": np.zeros((1, 32, 1)), "class": np.zeros((1, 16, 3)), "box": np.zeros((1, 32, 4))
        }
        # Row 2, column 1, its second box; row 0, column 3, its first.
        heads["confidence"][0, [19, 6]] = [[0.5], [0.8]]
        heads["class"][0, 9], heads["class"][0, 3] = [0, 0.9, 0.2], [0.75, 0, 0]
        heads["box"][0, 19] = [0.75, 0.5, math.sqrt(20 / 64), math.sqrt(12 / 64)]
        heads["box"][0, 6] = [0.5, 0.25, 0.5, 0.5]
        # 20 x 12 px about (28, 40); 16 x 16 px about (56, 4), cut at the border.
        return heads, [
            (0, 0.6, 48, 0, 64, 12), (1, 0.45, 18, 34, 38, 46), (2, 0.1, 18, 34, 38, 46)
        ]


class TestPaperYOLOv1(TestLightYOLOv1):
    """Four convolutions and two fully connected layers."""

    @pytest.fixture(autouse=True)
    def no_dropout(self, monkeypatch):
        # Of few photos learned by heart, half of the units would forget too much.
        monkeypatch.setattr(yolo_v1, "DROPOUT", 0.0)

    def build(self, **changes):
        return super().build(**{"head": "paper", "channels": 32} | changes)


def test_another_size_has_the_same_weights():
    """At twice the size the backbone's map is pooled before the head, by a layer without weights."""
    small = YOLOv1(SHAPES, backbone="mobilenet_v2_0.35", image_size=224, head="light", channels=8)
    large = zoo.adapt(small, image_size=448)
    assert large.image_size == 448 and large.output["box"].shape == small.output["box"].shape
    for one, other in zip(small.get_weights(), large.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
