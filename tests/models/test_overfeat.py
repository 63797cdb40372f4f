"""OverFeat: the paper's tables, windows as convolutions, targets and losses by hand, and the harness."""

import math
import types

import keras
import numpy as np
import pytest
from handmade import arrays, losses, objects, raw_maps
from harness import SHAPES, DetectorHarness, tiny_backbone
from keras import ops
from overfeats import fine_backbone, small

from kerasdet import views, zoo
from kerasdet.backbones.common import leaves
from kerasdet.models import overfeat
from kerasdet.models.overfeat import SCALES, OverFeat, map_sizes, parameters


@pytest.fixture(scope="module")
def detector():
    return small()


def numbers(*shape):
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


# === The paper's networks ===

TABLE_5 = {  # features, pooled, classified, joined
    (245, 245): ((17, 17), (5, 5), (1, 1), (3, 3)),
    (281, 317): ((20, 23), (6, 7), (2, 3), (6, 9)),
    (317, 389): ((23, 29), (7, 9), (3, 5), (9, 15)),
    (389, 461): ((29, 35), (9, 11), (5, 7), (15, 21)),
    (425, 497): ((32, 38), (10, 12), (6, 8), (18, 24)),  # the paper has 32 x 35, a misprint
    (461, 569): ((35, 44), (11, 14), (7, 10), (21, 30)),
}


@pytest.mark.parametrize("scale", SCALES)
def test_maps_of_the_accurate_network_at_six_scales(scale):
    names = ("features", "pooled", "classified", "joined")
    assert map_sizes("accurate", *scale) == dict(zip(names, TABLE_5[scale], strict=True))


def test_a_photo_of_one_window_gives_one_window():
    for name, plan in overfeat.NETWORKS.items():
        found = map_sizes(name, plan.side, plan.side)
        assert found["features"] == (plan.pool * plan.window,) * 2
        assert found["classified"] == (1, 1) and found["joined"] == (plan.pool, plan.pool)
        assert map_sizes(name, plan.side - 1, plan.side)["classified"] == (0, 1)


def test_parameters_are_the_published_ones():
    assert parameters("fast", 1000) == pytest.approx(145.9e6, abs=0.05e6)
    assert parameters("accurate", 1000) == pytest.approx(144.7e6, abs=0.05e6)


@pytest.mark.parametrize("network", ["fast", "accurate"])
def test_the_networks_are_built_as_they_are_counted(network, monkeypatch):
    """At a tenth of the width, with the counts of the tables taken a tenth of."""
    plan = overfeat.NETWORKS[network]
    detector = OverFeat(
        tuple("abcdefghij"), network=network, width=0.1, image_size=plan.side, background=False
    )
    tenth = lambda row: row if isinstance(row, int) else (round(row[0] / 10), *row[1:])  # noqa: E731
    narrow = overfeat.dataclasses.replace(
        plan, features=tuple(map(tenth, plan.features)), units=tuple(round(n / 10) for n in plan.units)
    )
    monkeypatch.setitem(overfeat.NETWORKS, network, narrow)
    found = sum(
        layer.count_params() for layer in detector.layers if not layer.name.startswith("regressor")
    )
    assert found == parameters(network, 10)
    assert detector.output["class_logits"].shape == (None, plan.pool, plan.pool, 10)
    assert detector.get_layer("regressor3").kernel.shape == (1, 1, 102, 40)
    assert detector.window_side == plan.side and detector.step == plan.stride


# === Windows ===


def test_windows_by_hand(detector):
    windows = ops.convert_to_numpy(detector.windows(6, 6))
    assert detector.output["class_logits"].shape == (None, 6, 6, 2)
    np.testing.assert_array_equal(windows[0, 0], [0, 0, 32, 32])
    np.testing.assert_array_equal(windows[1, 3], [24, 8, 56, 40])
    coarse = small(offsets=False)
    assert coarse.output["class_logits"].shape == (None, 3, 3, 2)
    np.testing.assert_array_equal(ops.convert_to_numpy(coarse.windows(3, 3))[1, 2], [32, 16, 64, 48])


def test_windows_without_offsets_are_every_other_one_with_them(detector):
    coarse = small(offsets=False)
    coarse.set_weights(detector.get_weights())
    photos = numbers(2, 64, 64, 3)
    fine, found = detector(photos), coarse(photos)
    for key in fine:
        every = ops.convert_to_numpy(fine[key])[:, ::2, ::2]
        np.testing.assert_allclose(ops.convert_to_numpy(found[key]), every, atol=1e-4)


@pytest.mark.parametrize("network", ["fast", "accurate"])
def test_one_pass_gives_what_each_window_gives(network, monkeypatch):
    """Photos cut to every window and run on their own; the network is not padded, so they are equal."""
    plan = overfeat.NETWORKS[network]
    bare = overfeat.dataclasses.replace(
        plan, window=2,
        features=tuple(row if isinstance(row, int) else (*row[:3], "valid") for row in plan.features[:4]),
    )
    monkeypatch.setitem(overfeat.NETWORKS, network, bare)
    # Two pooled cells, back through pools and convolutions: 4 * 23 + 11 and 2 * 53 + 7 px.
    side = {"fast": 103, "accurate": 113}[network]
    assert map_sizes(network, side, side)["features"] == (2 * plan.pool,) * 2
    monkeypatch.setitem(overfeat.NETWORKS, network, overfeat.dataclasses.replace(bare, side=side))
    size = side + (plan.pool + 1) * plan.stride
    dense = OverFeat(("a", "b"), network=network, width=0.05, image_size=size)
    one = OverFeat(("a", "b"), network=network, width=0.05, image_size=side, offsets=False)
    one.set_weights(dense.get_weights())
    photo = numbers(1, size, size, 3)
    found = {key: ops.convert_to_numpy(value) for key, value in dense(photo).items()}
    windows = ops.convert_to_numpy(dense.windows(*found["class_logits"].shape[1:3])).astype(int)
    # As many as fit, and those of later offsets that reach over the border.
    last = plan.pool + 1
    assert windows[last, last, 2] == size and len(windows) == 2 * plan.pool
    for row, column in ((0, 0), (1, 0), (last, 1), (last, last)):
        x1, y1, x2, y2 = windows[row, column]
        assert x2 - x1 == side
        alone = one(photo[:, y1:y2, x1:x2])
        for key, value in found.items():
            np.testing.assert_allclose(
                ops.convert_to_numpy(alone[key])[0, 0, 0], value[0, row, column], rtol=1e-3, atol=1e-4
            )


def test_photos_of_any_size(detector):
    raw = detector(numbers(1, 96, 64, 3))
    assert tuple(raw["class_logits"].shape) == (1, 10, 6, 2)
    assert tuple(raw["boxes_per_class"].shape) == (1, 10, 6, 8)


def test_photos_smaller_than_a_window_are_refused():
    with pytest.raises(ValueError, match="image_size is 24; a window is 32 px wide, give 32 or more"):
        small(image_size=24, backbone=fine_backbone(24))
    with pytest.raises(ValueError, match="image_size is 20; a window is 221 px wide, give 221 or more"):
        OverFeat(("a",), width=0.01, image_size=20, offsets=False)
    with pytest.raises(ValueError, match="image_size is 128; a window is 144 px wide, give 160 or more"):
        OverFeat(("a",), network="accurate", window=3, backbone="mobilenet_v2_0.35", image_size=128)


def test_a_backbone_ends_where_the_windows_begin():
    """Layers behind P4 are no part of the detector, nor of what is saved of it."""
    tiny = tiny_backbone()
    assert tiny.output["P5"].shape[-1] == 64
    detector = small(backbone=tiny, window=1)
    for each in (detector, type(detector).from_config(detector.get_config())):
        kernels = [tuple(weight.shape) for weight in each.weights]
        assert (3, 3, 32, 48) in kernels and (3, 3, 48, 64) not in kernels


def test_the_stride_is_the_maps_at_any_size():
    larger = zoo.adapt(small(), image_size=96)
    assert (larger.step, larger.window_side) == (8, 32)


@pytest.mark.parametrize(
    "options, message",
    [({"network": "slow"}, "network is 'slow'; give one of fast, accurate"),
     ({"regression": "both"}, "regression is 'both'; give one of per_class, single"),
     ({"width": 0}, "width is 0, window 2; give a width above 0, and 1 cell or more"),
     ({"window": 0}, "window 0; give a width above 0, and 1 cell or more")],
)
def test_options_that_do_not_exist(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


# === Targets ===


def test_targets_by_hand(detector):
    # As large as a window; shown by half and more where 32 - |x| times 32 - |y| px is 512 or more, x and y
    # being how far away the window is: 10, 2, 6 and 14 across, 8, 0 and 8 down.
    goal = arrays(detector.targets(objects([18, 8, 50, 40], labels=[1], weights=[0.5]), 6, 6))
    positive = goal["positive"].reshape(6, 6)
    assert np.argwhere(positive).tolist() == [
        [0, 1], [0, 2], [0, 3], [1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [2, 3]
    ]
    assert (goal["label"].reshape(6, 6) == positive).all()
    assert (goal["weight"].reshape(6, 6) == 0.5 * positive).all()
    boxes = goal["boxes"].reshape(6, 6, 4)
    np.testing.assert_allclose(boxes[1, 2], [2 / 32, 0, 2 / 32, 0])
    np.testing.assert_allclose(boxes[0, 2], [2 / 32, 8 / 32, 2 / 32, 8 / 32])
    assert (goal["negative"].reshape(6, 6) == ~positive).all() and not boxes[~positive].any()


def test_a_small_object_is_learned_by_all_windows_that_show_it(detector):
    # 8 x 8 px: whole in windows that begin at 0, 8 or 16 px, by half in those at 24 px.
    goal = arrays(detector.targets(objects([20, 20, 28, 28]), 6, 6))
    expected = np.zeros((6, 6), bool)
    expected[:4, :4] = True
    expected[3, 3] = False
    np.testing.assert_array_equal(goal["positive"].reshape(6, 6), expected)


def test_of_two_objects_a_window_learns_the_nearer_one(detector):
    # Middles at 20 and 44 px across; windows' middles at 16, 24, .. 56 px: the fourth sees both, and is
    # nearer to the second.
    targets = objects([16, 20, 24, 28], [40, 20, 48, 28], labels=[0, 1])
    goal = arrays(detector.targets(targets, 6, 6))
    assert goal["positive"].reshape(6, 6)[1].tolist() == [True] * 6
    assert goal["label"].reshape(6, 6)[1].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_large_object_fills_windows(detector):
    goal = arrays(detector.targets(objects([0, 0, 64, 64]), 6, 6))
    # All but those in the corner that show less than half a window of photo: 24 px by 24 px do.
    assert goal["positive"].all()
    np.testing.assert_allclose(goal["boxes"].reshape(6, 6, 4)[2, 2], [-0.5, -0.5, 0.5, 0.5])


def test_an_object_that_no_window_shows_enough_of_is_learned_by_the_nearest(detector):
    # 96 x 4 px, of which a window shows a third; middle at (48, 42), windows' at 16, 24, ..
    goal = arrays(detector.targets(objects([0, 40, 96, 44]), 10, 10))
    assert np.argwhere(goal["positive"].reshape(10, 10)).tolist() == [[3, 4]]
    # Two such at the same place: the smaller one has it.
    two = objects([0, 40, 96, 44], [0, 41, 96, 43], labels=[0, 1])
    goal = arrays(detector.targets(two, 10, 10))
    assert goal["positive"].sum() == 1 and goal["label"].reshape(10, 10)[3, 4] == 1


def test_windows_on_ignore_regions_are_no_background(detector):
    goal = arrays(detector.targets(objects(ignore=[[0, 0, 30, 30]]), 6, 6))
    # Middles at 16, 24, 32 px and so on.
    expected = np.ones((6, 6), bool)
    expected[:2, :2] = False
    assert (goal["negative"].reshape(6, 6) == expected).all() and not goal["positive"].any()


# === Losses ===


def test_losses_by_hand(detector):
    targets = objects([18, 8, 50, 40], labels=[1])
    raw = raw_maps(detector)
    raw["class_logits"][:] = np.log([1, 4])
    raw["background_logit"][:] = np.log(3)
    found = losses(detector, targets, raw)
    # Ten windows on the object, each log 2; of thirty negatives there are 26, each log(8 / 3).
    assert found["class_loss"] == pytest.approx(math.log(2) + 26 / 10 * math.log(8 / 3), rel=1e-5)
    # Two edges have to go each way: 10, 2, 6 px across and 8 down, twice; 10, 2, 6, 14 px across.
    squares = 2 * (2 * (100 + 4 + 36 + 3 * 64) + 100 + 4 + 36 + 196) / 32**2
    assert found["box_loss"] == pytest.approx(5 * squares / 10, rel=1e-5)


def test_only_the_objects_own_class_learns_its_box(detector):
    targets = objects([16, 8, 48, 40], labels=[1])
    raw = raw_maps(detector)
    right = losses(detector, targets, raw)["box_loss"]
    # Channels are x1 of each class, y1 of each class and so on.
    raw["boxes_per_class"][..., ::2] = 7.0
    assert losses(detector, targets, raw)["box_loss"] == pytest.approx(right)
    raw["boxes_per_class"][..., 1] = 7.0
    assert losses(detector, targets, raw)["box_loss"] > right + 100


def test_one_box_for_all_classes():
    single = small(regression="single")
    assert single.output["boxes"].shape == (None, 6, 6, 4)
    found = [
        losses(single, objects([18, 8, 50, 40], labels=[label]), raw_maps(single))["box_loss"]
        for label in (0, 1)
    ]
    assert found[0] == pytest.approx(found[1]) and found[0] > 0


def test_without_background_only_windows_on_objects_teach():
    plain = small(background=False)
    assert "background_logit" not in plain.output
    raw = raw_maps(plain)
    raw["class_logits"][:] = np.log([1, 3])
    assert losses(plain, objects([18, 8, 50, 40], labels=[1]), raw)["class_loss"] == pytest.approx(
        math.log(4 / 3), rel=1e-5
    )
    nothing = losses(plain, objects(), raw)
    assert nothing == {"class_loss": 0, "box_loss": 0}
    heads = plain.heads({key: ops.convert_to_tensor(value) for key, value in raw.items()})
    np.testing.assert_allclose(ops.convert_to_numpy(heads["class"])[0, 0, 0], [0.25, 0.75], rtol=1e-5)


def test_background_is_learned_where_there_are_no_objects(detector):
    raw = raw_maps(detector)
    raw["class_logits"][0, 2, 1] = 5.0
    found = losses(detector, objects(), raw)
    # Three windows: the one that is most taken for an object, and two of those with log 3.
    hard = math.log(1 + 2 * math.exp(5.0))
    assert found["class_loss"] == pytest.approx(hard + 2 * math.log(3), rel=1e-5)
    assert found["box_loss"] == 0


# === Phases ===


def test_phases_train_what_they_say():
    backbone = fine_backbone()
    frozen = backbone.layers[2]
    frozen.trainable = False
    detector = small(backbone=backbone)
    whole = {variable.path for variable in detector.trainable_variables}
    regressor = {path for path in whole if "regressor" in path}
    assert len(regressor) == 6 and not any(v.path in whole for v in frozen.weights)
    for phase, expected in (("regressor", regressor), ("classifier", whole - regressor), ("all", whole)):
        detector.train_only(phase)
        assert {variable.path for variable in detector.trainable_variables} == expected
    with pytest.raises(ValueError, match="phase is 'boxes'; give one of all, classifier, regressor"):
        detector.train_only("boxes")


def test_a_regressor_that_does_not_learn_yet_teaches_no_features(shapes, monkeypatch):
    """With boxes that are elsewhere, of the same windows, the classifier's phase learns the same."""
    detector = small(SHAPES)
    # With the seeds of dropout, which weights are without.
    start = [ops.convert_to_numpy(variable) for variable in detector.variables]
    images, given = next(iter(shapes.batches(4, detector)))
    learned = {}
    for phase in ("classifier", "all"):
        for moved in (False, True):
            for variable, value in zip(detector.variables, start, strict=True):
                variable.assign(value)
            detector.train_only(phase)
            detector.compile(keras.optimizers.SGD(0.1), ema=None)
            own = detector.targets

            def elsewhere(*given, own=own, by=float(moved)):
                goal = own(*given)
                return goal | {"boxes": goal["boxes"] + by}

            monkeypatch.setattr(detector, "targets", elsewhere)
            detector.train_on_batch(images, given)
            monkeypatch.undo()
            features = [v for v in detector.get_layer("features").trainable_variables]
            learned[phase, moved] = [ops.convert_to_numpy(v) for v in features]
    for phase in ("classifier", "all"):
        pairs = zip(learned[phase, False], learned[phase, True], strict=True)
        same = [np.allclose(one, other, atol=1e-7) for one, other in pairs]
        assert len(same) > 2 and (all(same) if phase == "classifier" else not all(same))


def test_what_is_frozen_after_building_stays_so_in_every_phase():
    detector = small(SHAPES)
    detector.get_layer("classifier2").trainable = False
    again = type(detector).from_config(detector.get_config())
    for each in (detector, again):
        for phase in ("classifier", "regressor", "all"):
            each.train_only(phase)
            assert not each.get_layer("classifier2").trainable
        assert each.get_layer("classifier1").trainable


def test_the_regressor_learns_on_features_that_stay(shapes):
    detector = small(SHAPES)
    detector.train_only("regressor")
    detector.compile(keras.optimizers.SGD(0.1), ema=None)
    before = {v.path: ops.convert_to_numpy(v) for v in detector.weights}
    detector.fit(shapes.batches(4, detector, training=True), epochs=1, verbose=0)
    after = {v.path: ops.convert_to_numpy(v) for v in detector.weights}
    changed = {path for path, value in after.items() if not np.array_equal(before[path], value)}
    assert changed == {path for path in before if "regressor" in path}


def test_a_phase_is_chosen_after_photos_were_looked_at():
    detector = small()
    detector.classify(np.zeros((64, 64, 3), np.uint8), "single")
    for phase in ("classifier", "all"):
        detector.train_only(phase)
        assert detector.get_layer("classifier1").trainable


def test_what_looked_at_photos_adds_no_layers():
    detector = small()
    before = leaves(detector)
    detector.classify(np.zeros((64, 64, 3), np.uint8), "single")
    detector.detect(np.zeros((64, 64, 3), np.uint8))
    assert leaves(detector) == before
    larger = zoo.adapt(detector, image_size=96)
    for one, other in zip(detector.get_weights(), larger.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_phase_is_saved(tmp_path):
    detector = small()
    detector.train_only("regressor")
    detector.compile(ema=None)
    detector.save(tmp_path / "mine.keras")
    loaded = keras.models.load_model(tmp_path / "mine.keras")
    assert len(loaded.trainable_variables) == 6
    loaded.train_only("all")
    assert len(loaded.trainable_variables) > 6


def test_what_is_frozen_by_hand_is_saved_in_a_phase_too(tmp_path):
    detector = small()
    detector.get_layer("classifier2").trainable = False
    whole = len(detector.trainable_variables)
    detector.train_only("classifier")
    detector.compile(ema=None)
    detector.save(tmp_path / "mine.keras")
    loaded = keras.models.load_model(tmp_path / "mine.keras")
    assert len(loaded.trainable_variables) == len(detector.trainable_variables)
    loaded.train_only("all")
    assert len(loaded.trainable_variables) == whole
    assert not loaded.get_layer("classifier2").trainable


# === Decoding ===


def test_edges_that_cross_are_put_in_order():
    """Of a window at 0 0 32 32: x1 24 px to the right, x2 24 px to the left, y as they are."""
    detector = small(("cat", "dog"), regression="single")
    heads = {"class": np.zeros((1, 6, 6, 2), "float32"), "boxes": np.zeros((1, 6, 6, 4), "float32")}
    heads["class"][0, 0, 0, 1], heads["boxes"][0, 0, 0] = 0.5, [0.75, 0.0, -0.75, 0.0]
    found = detector.decode(heads)
    np.testing.assert_allclose(ops.convert_to_numpy(found["boxes"])[0, 0], [8, 0, 24, 32])
    seen = {"class": heads["class"], "boxes": heads["boxes"].reshape(1, 36, 1, 4)}
    looking = types.SimpleNamespace(predict_on_batch=lambda squares: seen)
    detector.looking = lambda size, crops=False: looking
    (view,) = views._run(detector, np.zeros((1, 64, 64, 3), np.uint8))
    np.testing.assert_allclose(view.boxes[0, 1] * 64, [8, 0, 24, 32])


# === Other classes ===


def test_boxes_go_with_their_classes():
    detector = small(("cat", "dog"))
    other = zoo.adapt(detector, classes=("dog", "bird", "cat"))
    photo = numbers(1, 64, 64, 3)
    old = {key: ops.convert_to_numpy(value) for key, value in detector(photo).items()}
    new = {key: ops.convert_to_numpy(value) for key, value in other(photo).items()}
    np.testing.assert_allclose(new["class_logits"][..., [2, 0]], old["class_logits"], atol=1e-5)
    np.testing.assert_allclose(
        new["boxes_per_class"].reshape(1, 6, 6, 4, 3)[..., [2, 0]],
        old["boxes_per_class"].reshape(1, 6, 6, 4, 2), atol=1e-5,
    )
    np.testing.assert_allclose(new["background_logit"], old["background_logit"], atol=1e-5)


# === The harness ===


class TestOverFeat(DetectorHarness):
    regression = "per_class"

    @pytest.fixture(autouse=True)
    def no_dropout(self, monkeypatch):
        # Of few photos learned by heart, half of the units would forget too much.
        monkeypatch.setattr(overfeat, "DROPOUT", 0.0)

    def build(self, **changes):
        return small(SHAPES, **{"width": 1 / 32, "regression": self.regression} | changes)

    def known_heads(self, detector):
        key = "boxes" if self.regression == "single" else "boxes_per_class"
        heads = {"class": np.zeros((1, 6, 6, 3)), key: np.zeros((1, 6, 6, 4 if key == "boxes" else 12))}
        # Row 1, column 3: the window 24 8 56 40.
        heads["class"][0, 1, 3] = [0, 0.75, 0.25]
        heads["class"][0, 0, 0] = [0.5, 0, 0]
        moves = np.array([-0.25, 0.125, 0.5, 0.0])
        if key == "boxes":
            heads[key][0, 1, 3] = moves
            third = (16, 12, 64, 40)
        else:
            heads[key][0, 1, 3, 1::3] = moves
            third = (24, 8, 56, 40)
        # 8 px to the left, 4 down; 16 to the right, which the border cuts to 8.
        return heads, [(1, 0.75, 16, 12, 64, 40), (0, 0.5, 0, 0, 32, 32), (2, 0.25, *third)]


class TestSingleBoxOverFeat(TestOverFeat):
    """One regressor for all classes."""

    regression = "single"
    overfit_is_slow = True
