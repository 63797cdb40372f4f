"""SSD and SSDLite: sizes as published, targets and losses by hand, and the harness of all detectors."""

import math

import keras
import numpy as np
import pytest
from handmade import arrays, losses, objects, raw_maps
from harness import SHAPES, DetectorHarness, tiny_backbone
from keras import ops

from kerasdet.models.ssd import SSD


def fine_backbone():
    """The tiny backbone with every level at half its stride: P4 at 8, P5 at 16."""
    tiny = tiny_backbone()
    levels = tiny.output
    return keras.Model(
        tiny.input, {"P2": levels["P2"], "P3": levels["P2"], "P4": levels["P3"], "P5": levels["P4"]}
    )


def ssd(classes=SHAPES, **options):
    """Three maps of 8x8, 4x4 and 2x2 cells."""
    options = {"network": "lite", "anchor_sizes": (0.16, 0.24, 0.32, 0.4)} | options
    options.setdefault(
        "backbone", tiny_backbone(output_stride=16) if options["network"] == "paper" else fine_backbone()
    )
    return SSD(classes, image_size=64, **options)


@pytest.fixture(scope="module")
def paper():
    return ssd(network="paper")


# === The published networks ===
# SSD300 on VGG16 is checked with its backbone, in tests/backbones/test_vgg.py.


@pytest.mark.parametrize("backbone", ["mobilenet_v2_0.35", "mobilenet_v3_large"])
def test_ssdlite_has_six_maps_of_six_boxes(backbone):
    detector = SSD(("a", "b"), backbone=backbone)
    counts = [detector.get_layer(f"head{k}_class").output.shape[1] for k in range(6)]
    assert counts == [20, 10, 5, 3, 2, 1]
    assert len(detector.anchors) == 6 * sum(n * n for n in counts) == 3234
    assert [detector.get_layer(f"extra{k}_expand").filters for k in (2, 3, 4, 5)] == [512, 256, 256, 128]
    # The smallest is a fifth of the square; the largest .95 of it.
    widths = detector.anchors[:, 2] - detector.anchors[:, 0]
    assert widths[0] == pytest.approx(64) and widths[-6] == pytest.approx(304)


def test_p3_starts_at_length_20(paper):
    """Section 3.1; ParseNet's scale."""
    assert (ops.convert_to_numpy(paper.get_layer("norm").gamma) == 20).all()


# === Targets ===
# The 8x8 map: 4 boxes a cell, of 10.24 px, sqrt(10.24 * 15.36) = 12.54 px and of ratio 2.


def test_targets_of_one_object_by_hand(paper):
    # About the cell (2, 3), whose middle is (28, 20): 12 x 12 px, moved by (.5, 0).
    goal = arrays(paper.targets(objects([22.5, 14, 34.5, 26], labels=[2])))
    first = (2 * 8 + 3) * 4
    # IoU with the squares: 10.24^2 / 144 = .73 and, 11.77 * 12 shared, .81; ratio 2 (14.48 x 7.24):
    # 12 * 7.24 of 162 = .54, less what the shift costs; (7.24 x 14.48): as much.
    chosen = np.flatnonzero(goal["positive"]).tolist()
    assert chosen == [first, first + 1, first + 2, first + 3]
    assert goal["label"][chosen].tolist() == [2] * 4 and goal["weight"][chosen].tolist() == [1] * 4
    side = math.sqrt(10.24 * 15.36)
    np.testing.assert_allclose(
        goal["deltas"][first + 1],
        [10 * 0.5 / side, 0, 5 * math.log(12 / side), 5 * math.log(12 / side)], atol=1e-4,
    )
    rest = np.delete(np.arange(len(paper.anchors)), chosen)
    assert goal["negative"][rest].all() and not goal["negative"][chosen].any()
    assert not goal["weight"][rest].any() and not goal["deltas"][rest].any()


def test_ignored_default_boxes_are_neither_unless_they_match(paper):
    goal = arrays(paper.targets(objects([22, 14, 34, 26], ignore=[[24, 16, 40, 64]])))
    first = (2 * 8 + 3) * 4
    assert goal["positive"][first : first + 4].all()
    centres = (paper.anchors[:, :2] + paper.anchors[:, 2:]) / 2
    x, y = centres.T
    ignored = (x >= 24) & (x < 40) & (y >= 16)
    assert ignored.sum() > 4
    expected = ~ignored
    expected[first : first + 4] = False
    np.testing.assert_array_equal(goal["negative"], expected & ~goal["positive"])


def test_no_objects_no_positives(paper):
    goal = arrays(paper.targets(objects()))
    assert not goal["positive"].any() and goal["negative"].all()
    assert all(np.isfinite(value).all() for value in goal.values())


# === Losses ===


def test_losses_by_hand(paper):
    # Exactly a default box of the 2x2 map's first cell, 20.48 px about (16, 16); it alone is positive but
    # for boxes of that cell and, in finer maps, of cells about it that overlap by half or more.
    box = [5.76, 5.76, 26.24, 26.24]
    targets = objects(box, labels=[1])
    goal = arrays(paper.targets(targets))
    positives = int(goal["positive"].sum())
    raw = raw_maps(paper)
    # Everywhere the same probabilities: background 1 / 8, classes 1/8, 4/8 (the right one), 2/8.
    raw["class_logits"][:] = np.log([1, 4, 2])
    found = losses(paper, targets, raw)
    # Each positive costs log 2; three times as many negatives cost log 8.
    assert found["class_loss"] == pytest.approx(math.log(2) + 3 * math.log(8), rel=1e-5)
    error = np.abs(goal["deltas"][goal["positive"]])
    smooth = np.where(error < 1, error**2 / 2, error - 0.5).sum()
    assert found["box_loss"] == pytest.approx(smooth / positives, rel=1e-4)
    assert smooth > 0 and list(found) == ["class_loss", "box_loss"]


def test_only_the_hardest_negatives_count(paper):
    targets = objects([22, 14, 34, 26])
    goal = arrays(paper.targets(targets))
    assert goal["positive"].sum() == 4  # so 12 negatives
    raw = raw_maps(paper)
    raw["background_logit"][:] = 50.0
    raw["background_logit"][0, goal["positive"]] = -50.0
    raw["class_logits"][0, goal["positive"], 0] = 50.0
    raw["boxes"][0] = goal["deltas"]
    perfect = losses(paper, targets, raw)
    assert max(perfect.values()) < 1e-6
    # Fourteen negatives become wrong: their cost is about 10, 11, .. 23; the two lowest do not count.
    wrong = np.flatnonzero(goal["negative"])[::7][:14]
    raw["class_logits"][0, wrong, 2] = 50 + np.arange(10, 24)
    assert losses(paper, targets, raw)["class_loss"] == pytest.approx(sum(range(12, 24)) / 4, rel=1e-3)
    # In an ignore region they cost nothing.
    targets["ignore"][0, 0] = [-50, -50, 200, 200]
    assert losses(paper, targets, raw)["class_loss"] < 1e-6


def test_losses_are_means_over_the_positives_of_the_batch(paper):
    one, two = objects([22, 14, 34, 26]), objects([5.76, 5.76, 26.24, 26.24], labels=[1])
    both = {key: np.concatenate([one[key], two[key]]) for key in one}
    rng = np.random.default_rng(0)
    raw = {key: rng.normal(size=value.shape).astype("float32") for key, value in raw_maps(paper).items()}
    twice = {key: np.concatenate([value, value]) for key, value in raw.items()}
    counts = [arrays(paper.targets(t))["positive"].sum() for t in (one, two)]
    alone = [losses(paper, t, raw) for t in (one, two)]
    for name, value in losses(paper, both, twice).items():
        expected = sum(n * each[name] for n, each in zip(counts, alone, strict=True)) / sum(counts)
        assert value == pytest.approx(expected, rel=1e-4), name


def test_weights_scale_what_an_object_teaches(paper):
    raw = raw_maps(paper)
    far = [46, 46, 58, 58]
    half = losses(paper, objects([22, 14, 34, 26], far, weights=[0.5, 1]), raw)
    full = losses(paper, objects([22, 14, 34, 26], far), raw)
    # All places cost the same, so weights cancel: three negatives count as much as a positive, mean of .75.
    assert half["class_loss"] == pytest.approx(math.log(4) * (1 + 24 * 0.75 / 6), rel=1e-4)
    assert full["class_loss"] == pytest.approx(math.log(4) * (1 + 24 / 8), rel=1e-4)
    faint = losses(paper, objects([22, 14, 34, 26], weights=[0.1]), raw)
    # Less than one positive is divided by one.
    assert faint["class_loss"] == pytest.approx(math.log(4) * (4 * 0.1 + 12 * 0.1), rel=1e-4)
    none = losses(paper, objects([22, 14, 34, 26], weights=[0.0]), raw)
    assert none == pytest.approx({"class_loss": 3 * math.log(4), "box_loss": 0}, rel=1e-4)


def test_a_photo_without_objects_teaches_three_negatives(paper):
    """As if it had one positive: photos that are added against false alarms are learned."""
    empty = losses(paper, objects(), raw_maps(paper))
    assert empty == pytest.approx({"class_loss": 3 * math.log(4), "box_loss": 0}, rel=1e-4)
    # Beside a photo with four positives, by which all is divided.
    box = [22, 14, 34, 26]
    some, none = objects(box), objects(box, weights=[0.0])
    both = {key: np.concatenate([some[key], none[key]]) for key in some}
    found = losses(paper, both, raw_maps(paper, batch=2))
    assert found["class_loss"] == pytest.approx(math.log(4) * (4 + 12 + 3) / 4, rel=1e-4)
    # The hardest three.
    raw = raw_maps(paper)
    raw["background_logit"][:] = 50.0
    raw["class_logits"][0, [5, 50, 100, 200], 1] = 50 + np.arange(10, 14)
    assert losses(paper, objects(), raw)["class_loss"] == pytest.approx(11 + 12 + 13, rel=1e-3)


# === Options ===


@pytest.mark.parametrize(("network", "fine", "coarse"), [("paper", "P3", "P5"), ("lite", "P4", "P5")])
def test_fpns_pyramid_as_a_neck(network, fine, coarse):
    """The coarser map's meaning reaches the default boxes of the finer one, whose number stays."""
    detector, plain = ssd(network=network, neck="fpn", channels=16), ssd(network=network)
    assert {f"fpn_{fine}_sum", f"fpn_{coarse}_lateral"} <= {layer.name for layer in detector.layers}
    np.testing.assert_array_equal(detector.anchors, plain.anchors)
    again = SSD.from_config(detector.get_config())
    assert again.get_config() == detector.get_config() and again.get_config()["neck"] == "fpn"
    photo = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype("uint8")
    before = ops.convert_to_numpy(detector(photo)["class_logits"])
    detector.get_layer(f"fpn_{coarse}_lateral").bias.assign_add(np.ones(16))
    moved = np.abs(ops.convert_to_numpy(detector(photo)["class_logits"]) - before).max(axis=-1)
    # All 64 cells of the first map, of 4 (paper) or 6 boxes.
    assert (moved[0, : 64 * (4 if network == "paper" else 6)] > 0).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"network": "512"}, "network is '512'; give one of paper, lite"),
        ({"neck": "light"}, "neck is 'light'; give None or 'fpn'"),
        ({"anchor_sizes": (0.1, 0.2)}, "anchor_sizes is .*give 3 to 7 rising"),
        ({"anchor_sizes": (0.3, 0.2, 0.4)}, "anchor_sizes is .*give 3 to 7 rising"),
        ({"backbone": "vgg17"}, "vgg17"),
    ],
)
def test_wrong_options_are_told(option, message):
    with pytest.raises(ValueError, match=message):
        ssd(**option)


# === The harness of all detectors ===


class SSDHarness(DetectorHarness):
    network = "lite"

    @pytest.fixture
    def data(self, shapes):
        # The first photos hold objects for every map, or a map's heads would have nothing to learn.
        return shapes.subset([4, 5, 7, 9, 1, 3, 14, 15])

    def build(self, **changes):
        return ssd(network=self.network, **changes)


class TestPaperSSD(SSDHarness):
    """The paper's network: P3 with its norm, P5 at stride 16, plain convolutions."""

    network = "paper"
    overfit_is_slow = True

    def known_heads(self, detector):
        count = len(detector.anchors)
        heads = {"class": np.zeros((1, count, 3)), "boxes": np.zeros((1, count, 4))}
        # The 8x8 map's cell (row 2, column 3), first square, 10.24 px about (28, 20): moved right by a
        # tenth of its width and made twice as high, for two classes.
        first = (2 * 8 + 3) * 4
        heads["class"][0, first] = [0.25, 0, 0.75]
        heads["boxes"][0, first] = [1, 0, 0, 5 * math.log(2)]
        # The 2x2 map's last cell, about (48, 48), first square: 20.48 px, as it is; and one under .01.
        last = count - 6
        heads["class"][0, last] = [0, 0.5, 0.009]
        box = (23.904, 9.76, 34.144, 30.24)
        return heads, [
            (2, 0.75, *box), (1, 0.5, 37.76, 37.76, 58.24, 58.24), (0, 0.25, *box),
        ]


class TestSSDLite(SSDHarness):
    """The network for phones."""

    def known_heads(self, detector):
        count = len(detector.anchors)
        heads = {"class": np.zeros((1, count, 3)), "boxes": np.zeros((1, count, 4))}
        # The 8x8 map's first cell, about (4, 4), third box: 10.24 * sqrt 2 wide, half as high; cut at 0.
        heads["class"][0, 2, 1] = 0.9
        # The 2x2 map's second cell, about (48, 16), first square: 20.48 px made half as wide.
        second = count - 18
        heads["class"][0, second, 0] = 0.02
        heads["boxes"][0, second] = [0, 0, -5 * math.log(2), 0]
        half, side = 10.24 / math.sqrt(2), 10.24 / math.sqrt(8)
        return heads, [
            (1, 0.9, 0, 4 - side, 4 + half, 4 + side), (0, 0.02, 42.88, 5.76, 53.12, 26.24),
        ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:int8 is calibrated on", "ignore:nothing scored")
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_ssdlite_on_mobilenet_v3_is_exported(shapes, tmp_path, precision):
    """Hard swish and squeeze-and-excitation, which MobileNetV2 has not."""
    keras.utils.set_random_seed(0)
    detector = SSD(SHAPES, backbone="mobilenet_v3_small", image_size=96)
    report = detector.export(
        tmp_path / "v3.tflite", precision=precision, outputs="raw", calibration=shapes, on_parity="error",
    )
    assert report.parity.matched == 1 and set(report.operators) & {"HARD_SWISH", "MUL"}
