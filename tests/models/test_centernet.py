"""CenterNet: targets worked out by hand, losses by loops, the flip test, and the harness."""

import math

import keras
import numpy as np
import pytest
from handmade import arrays, losses, objects, raw_maps
from harness import SHAPES, DetectorHarness, tiny_backbone
from keras import ops

from kerasdet.models.centernet import CenterNet
from kerasdet.models.csp import CSP


def centernet(classes=("a", "b"), **options):
    options = {"backbone": tiny_backbone(), "image_size": 64, "channels": 16} | options
    return CenterNet(classes, **options)


@pytest.fixture(scope="module")
def paper():
    """Two classes, stride 4, so 16x16 cells."""
    return centernet()


@pytest.fixture(scope="module")
def dense():
    """Two classes, stride 8, so 8x8 cells."""
    return centernet(stride=8, target="dense")


def gaussian(row, column, radius, cells=16):
    """The Gaussian of the paper, cell by cell."""
    heat, sigma = np.zeros((cells, cells)), (2 * radius + 1) / 6
    for y, x in np.ndindex(cells, cells):
        if max(abs(y - row), abs(x - column)) <= radius:
            heat[y, x] = math.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * sigma**2))
    return heat


# === The paper's targets ===


def test_targets_of_one_box_by_hand(paper):
    # 8.5 by 9.5 cells, which count as 9 by 10: b = 1.4 * 19 = 26.6, (sqrt(b^2 + 3.36 * 90) - b) / 2 =
    # 2.588, so the radius is 2. The middle is at x 5.25, y 6.25 cells.
    goal = arrays(paper.paper_targets(objects([4, 6, 38, 44], labels=[1])))
    np.testing.assert_allclose(goal["heat"][..., 1], gaussian(6, 5, 2), atol=1e-6)
    assert not goal["heat"][..., 0].any() and goal["valid"].all()
    assert np.argwhere(goal["positive"]).tolist() == [[6, 5, 1]]
    assert goal["cell"][0] == 6 * 16 + 5
    np.testing.assert_allclose(goal["size"][0], [9.5, 8.5])
    np.testing.assert_allclose(goal["offset"][0], [0.25, 0.25])


def test_exact_radius_is_smaller():
    # (1 - sqrt .7) / 2 of 16 is 1.3, the published .273 of it 4.4.
    box = objects([0, 0, 64, 64])
    for kind, radius in (("exact", 1), ("original", 4)):
        heat = arrays(centernet(radius=kind).paper_targets(box))["heat"]
        np.testing.assert_allclose(heat[..., 0], gaussian(8, 8, radius), atol=1e-6)


def test_where_two_of_a_class_overlap_the_larger_value_stands(paper):
    one, two = [4, 6, 38, 44], [16, 12, 50, 50]
    both = arrays(paper.paper_targets(objects(one, two)))
    alone = [arrays(paper.paper_targets(objects(box)))["heat"] for box in (one, two)]
    np.testing.assert_allclose(both["heat"], np.maximum(*alone))
    assert both["positive"].sum() == 2
    apart = arrays(paper.paper_targets(objects(one, two, labels=[0, 1])))["heat"]
    np.testing.assert_allclose(apart[..., 0], alone[0][..., 0])
    np.testing.assert_allclose(apart[..., 1], alone[1][..., 0])


@pytest.mark.parametrize(
    ("box", "cell", "offset"),
    [
        ([0, 0, 2, 2], (0, 0), (0.25, 0.25)),
        ([62, 60, 64, 64], (15, 15), (0.5, 0.75)),
        ([64, 10, 64, 10], (2, 15), (0.5, 1.0)),  # an empty box at the very border stays within
    ],
)
def test_small_boxes_have_one_cell(paper, box, cell, offset):
    goal = arrays(paper.paper_targets(objects(box)))
    assert np.argwhere(goal["heat"][..., 0]).tolist() == [list(cell)]
    assert goal["heat"][(*cell, 0)] == 1
    np.testing.assert_allclose(goal["offset"][0], offset)


def test_ignored_cells_are_not_learned_but_objects_in_them_are(paper, dense):
    targets = objects([40, 40, 56, 64], ignore=[[32, 32, 64, 64]])
    for detector, cell in ((paper, 4), (dense, 8)):
        expected = np.ones((64 // cell, 64 // cell))
        expected[32 // cell :, 32 // cell :] = 0
        expected[40 // cell :, 40 // cell : 56 // cell] = 1
        find = detector.paper_targets if detector is paper else detector.dense_targets
        np.testing.assert_array_equal(arrays(find(targets))["valid"][..., 0], expected)


@pytest.mark.parametrize("radius", ["original", "exact"])
def test_no_objects_no_targets_and_a_finite_loss(radius):
    detector = centernet(radius=radius)
    goal = arrays(detector.paper_targets(objects()))
    assert goal["valid"].all() and not goal["heat"].any() and not goal["positive"].any()
    found = losses(detector, objects(), raw_maps(detector))
    # p = .5 everywhere: .25 log 2 a cell and class, not divided.
    assert found["center_loss"] == pytest.approx(2 * 256 * 0.25 * math.log(2), rel=1e-5)
    assert found["size_loss"] == found["offset_loss"] == 0


# === The paper's losses ===


def test_paper_losses_by_hand(paper):
    targets = objects([4, 6, 38, 44], [16, 12, 50, 50], labels=[1, 0])
    raw = raw_maps(paper, size=[9, 10], offset=[0.5, 0.0])
    found = losses(paper, targets, raw)
    # Sizes (h, w) 9.5, 8.5 both times: errors .5 and 1.5. Offsets (.25, .25), and of the middle
    # (33, 31) px = (8.25, 7.75) cells x .25, y .75: errors .25 + .25 and .25 + .25.
    assert found["size_loss"] == pytest.approx(0.1 * 4.0 / 4, rel=1e-4)
    assert found["offset_loss"] == pytest.approx(1.0 / 4, rel=1e-4)
    heats = [(gaussian(7, 8, 2), (7, 8)), (gaussian(6, 5, 2), (6, 5))]
    cells = 0.0
    for heat, peak in heats:
        heat[peak] = 1.0
        cells += 1 + ((1 - heat) ** 4).sum()
    assert found["center_loss"] == pytest.approx(0.25 * math.log(2) * cells / 2, rel=1e-4)
    assert list(found) == ["center_loss", "size_loss", "offset_loss"]


def test_two_objects_in_one_cell_both_teach_their_size(paper):
    # The middles are in cell (4, 4); sizes 4 and 2 cells.
    found = losses(paper, objects([8, 8, 24, 24], [12, 12, 20, 20]), raw_maps(paper))
    assert found["size_loss"] == pytest.approx(0.1 * (4 + 4 + 2 + 2) / 4, rel=1e-4)


def test_weights_of_objects_count(paper):
    box, other = [4, 6, 38, 44], [0, 0, 8, 8]
    raw = raw_maps(paper)
    found = losses(paper, objects(box, other, weights=[1, 0.5]), raw)
    assert found["size_loss"] == pytest.approx(0.1 * (18 + 0.5 * 4) / 3, rel=1e-4)
    nothing = losses(paper, objects(box, weights=[0.0]), raw)
    assert nothing["size_loss"] == nothing["offset_loss"] == 0
    # Its place is not background either: cells under its Gaussian stay excused.
    assert nothing["center_loss"] < losses(paper, objects(), raw)["center_loss"]


@pytest.mark.parametrize("target", ["paper", "dense"])
def test_perfect_heads_cost_nothing_and_decode_to_the_object(paper, dense, target):
    detector, stride = {"paper": (paper, 4), "dense": (dense, 8)}[target]
    box = [4, 6, 38, 44]  # its middle at x 21, y 25
    cell = 25 // stride, 21 // stride
    size = np.array([38, 34]) / stride
    sizes = {"size": size} if target == "paper" else {"log_size": np.log(size)}
    raw = raw_maps(detector, **sizes)
    # Each cell says how far the middle is from its own corner, which "paper" asks of one cell alone.
    rows, columns = np.mgrid[: 64 // stride, : 64 // stride]
    raw["offset"][0] = np.stack([25 / stride - rows, 21 / stride - columns], -1)
    raw["center_logits"] -= 40
    raw["center_logits"][(0, *cell, 1)] = 40
    found = losses(detector, objects(box, labels=[1]), raw)
    assert max(found.values()) < 1e-5, found
    decoded = arrays(detector.decode(detector.heads({k: ops.convert_to_tensor(v) for k, v in raw.items()})))
    np.testing.assert_allclose(decoded["boxes"][0], box, atol=1e-4)
    assert decoded["labels"][0] == 1 and decoded["scores"][0] == pytest.approx(1)


# === Dense targets ===


def test_dense_box_loss_by_hand(dense):
    # Every cell predicts 16 x 16 px about its own middle. Under the object are the cells (2, 2..4)
    # with middles (20, 20), (28, 20), (36, 20), all within the object's 8..24 and 8..40 save their edges.
    raw = raw_maps(dense, log_size=[math.log(2)] * 2, offset=[0.5, 0.5])
    weight, cost = np.array([math.exp(-2), 1, math.exp(-2)]), []
    for x in (20, 28, 36):
        shared = (min(x + 8, 40) - max(x - 8, 8)) * (24 - 12)
        union, hull = 32 * 16 + 256 - shared, (max(x + 8, 40) - 8) * (28 - 8)
        cost.append(1 - (shared / union - (hull - union) / hull))
    found = losses(dense, objects([8, 8, 40, 24]), raw)
    assert found["box_loss"] == pytest.approx(5 * (weight * cost).sum() / weight.sum(), rel=1e-4)
    assert list(found) == ["center_loss", "box_loss"]


@pytest.mark.parametrize("wild", [-1e4, 1e4])
def test_wild_sizes_stay_finite(dense, wild):
    raw = raw_maps(dense, log_size=[wild] * 2)
    assert all(np.isfinite(list(losses(dense, objects([8, 8, 40, 24]), raw).values())))


# === The network ===


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"neck": "pan"}, "neck is 'pan'; give one of deconv, fpn, light"),
        ({"target": "sparse"}, "target is 'sparse'; give one of paper, dense"),
        ({"radius": "right"}, "radius is 'right'; give one of original, exact"),
        ({"stride": 16}, "stride is 16"),
        ({"image_size": 100}, "image_size is 100; give a multiple of 32"),
        ({"context": -1}, "context is -1"),
        ({"context": 1, "neck": "fpn"}, "context is 1 and neck 'fpn'; give blocks to neck='light', or 0"),
    ],
)
def test_wrong_options_are_told(option, message):
    with pytest.raises(ValueError, match=message):
        centernet(**option)


@pytest.mark.parametrize("target", ["paper", "dense"])
def test_first_guesses(target):
    detector = centernet(target=target)
    raw = detector(np.full((1, 64, 64, 3), 128, np.uint8), training=False)
    heads = {key: ops.convert_to_numpy(value) for key, value in detector.heads(raw).items()}
    assert list(heads) == ["center", "size", "offset"]
    np.testing.assert_allclose(heads["center"], 0.1, atol=0.03)
    np.testing.assert_allclose(heads["size"], 4, rtol=0.2)  # a quarter of 16 cells
    np.testing.assert_allclose(heads["offset"], 0.5, atol=0.2)


def test_heads_of_the_paper_and_of_phones():
    paper, light = centernet(), centernet(head_blocks=1)
    assert paper.get_layer("head_size_conv").kernel.shape == (3, 3, 16, 64)
    names = {layer.name for layer in light.layers}
    assert {"head_center_block1_depthwise", "head_box_block1_depthwise"} <= names
    assert not any(name.endswith("_conv") and name.startswith("head_") for name in names)


def test_context_reaches_the_neck():
    for count, wanted in ((0, set()), (2, {"neck_context1_sum", "neck_context2_sum"})):
        names = {layer.name for layer in centernet(context=count).layers}
        assert {name for name in names if "context" in name and name.endswith("_sum")} == wanted


# === The flip test ===


def lopsided(target="paper"):
    """A network that finds other things in a photo's mirror image: random weights do."""
    keras.utils.set_random_seed(5)
    detector = centernet(SHAPES, target=target, stride=8)
    # Differences of heat, size and offset from cell to cell that are well above rounding.
    for name in ("center", "size", "offset"):
        layer = detector.get_layer(f"head_{name}")
        layer.set_weights([layer.kernel * 30, layer.bias])
    return detector


@pytest.mark.parametrize("target", ["paper", "dense"])
def test_flip_test_decodes_the_mean_of_both(shapes, target):
    detector = lopsided(target)
    photo = np.asarray(detector.detect(shapes[0].path).photo)
    both = np.stack([photo, photo[:, ::-1]])
    heads = detector.heads(detector(both, training=False))
    mine, mirror = ({k: ops.convert_to_numpy(v)[i] for k, v in heads.items()} for i in (0, 1))
    merged = {k: np.zeros_like(v) for k, v in mine.items()}
    cells = mine["center"].shape[1]
    for row, column in np.ndindex(cells, cells):
        for key in ("center", "size"):
            other = mirror[key][row, cells - 1 - column]
            merged[key][row, column] = (mine[key][row, column] + other) / 2
        merged["offset"][row, column] = mine["offset"][row, column]
    decoded = detector.decode({k: ops.convert_to_tensor(v[None]) for k, v in merged.items()})
    expected = arrays(decoded)
    found = detector.detect(photo, score=0.0, flip=True)
    count = len(found)
    assert count
    np.testing.assert_allclose(found.scores, expected["scores"][:count], atol=1e-5)
    np.testing.assert_allclose(found.boxes, expected["boxes"][:count], atol=1e-2)
    plain = detector.detect(photo, score=0.0)
    assert len(plain) != count or not np.allclose(plain.scores, found.scores, atol=1e-3)


def test_evaluation_takes_the_flip_test(shapes):
    detector, few = lopsided(), shapes[:3]
    seen = []
    detect = detector.detect
    detector.detect = lambda *args, **options: seen.append(options["flip"]) or detect(*args, **options)
    assert 0 <= detector.evaluate_detections(few, flip=True)["AP"] <= 1
    detector.evaluate_detections(few)
    assert seen == [True, False]


def test_a_detector_without_a_flip_test_says_so(shapes):
    csp = CSP(SHAPES, backbone=tiny_backbone(), image_size=64, channels=16)
    with pytest.raises(ValueError, match="CSP cannot be tested with flipping; leave flip=True out"):
        csp.detect(shapes[0].path, flip=True)


# === The harness of all detectors ===


def hand_made(detector, peaks):
    """Heads with peaks (row, column, label, score, height, width, offset y, offset x), in cells."""
    channels = {"center": len(detector.classes), "size": 2, "offset": 2}
    heads = {key: np.zeros((1, detector.cells, detector.cells, n)) for key, n in channels.items()}
    for row, column, label, score, height, width, y, x in peaks:
        heads["center"][0, row, column, label] = score
        heads["size"][0, row, column] = height, width
        heads["offset"][0, row, column] = y, x
    return heads


class TestPaperCenterNet(DetectorHarness):
    """The paper's network: three deconvolutions, stride 4, one positive cell an object."""

    overfit_is_slow = True

    def build(self, **changes):
        detector = centernet(SHAPES, **{"neck": "deconv", "channels": 32} | changes)
        # The first guess, 4 cells, is the very median of the set's sides: L1 would leave the bias alone.
        detector.get_layer("head_size").bias.assign([3.0, 3.0])
        return detector

    def known_heads(self, detector):
        heads = hand_made(
            detector,
            [
                (4, 8, 1, 0.9, 5, 3, 0.75, 0), (4, 9, 1, 0.8, 5, 3, 0, 0), (4, 9, 2, 0.7, 2, 4, 0.5, 0.5),
                (0, 15, 0, 0.5, 4, 4, 0.5, 0.5), (12, 2, 0, 0.25, -3, 2, 0, 0.5),
            ],
        )
        # Middle (8, 4.75) cells = (32, 19) px, 12 x 20 px. The second is no peak: .9 is next to it in its
        # class. The third, of another class, is one, though it overlaps: (9.5, 4.5) = (38, 18), 16 x 8.
        # (15.5, .5) cells = (62, 2) px, 16 x 16 px, cut at the border. No height below zero.
        return heads, [
            (1, 0.9, 26, 9, 38, 29), (2, 0.7, 30, 14, 46, 22), (0, 0.5, 54, 0, 64, 10),
            (0, 0.25, 6, 48, 14, 48),
        ]


class TestDenseCenterNet(DetectorHarness):
    """The network for phones: the light neck, stride 8, dense targets."""

    overfit_is_slow = True  # two minutes; DenseCSP learns the same kind of targets by heart

    def build(self, **changes):
        options = {"stride": 8, "target": "dense", "channels": 32, "head_blocks": 1}
        return centernet(SHAPES, **options | changes)

    def known_heads(self, detector):
        peaks = [(2, 3, 2, 0.75, 2, 1, 0.5, 0.5), (6, 6, 0, 0.5, 1, 2, -0.5, 1.5)]
        heads = hand_made(detector, peaks)
        heads["center"][0, 6, 6, 1] = 0.25
        # (3.5, 2.5) cells = (28, 20) px, 8 x 16; (7.5, 5.5) = (60, 44), 16 x 8, which two classes claim.
        return heads, [
            (2, 0.75, 24, 12, 32, 28), (0, 0.5, 52, 40, 64, 48), (1, 0.25, 52, 40, 64, 48),
        ]
