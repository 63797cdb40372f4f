"""Fast R-CNN and R-CNN: regions by hand, what sharing leaves the same, and the harness of all detectors."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from handmade import arrays, objects
from harness import SHAPES, DetectorHarness, batch_of, tiny_backbone
from keras import ops
from needed import needed

from kerasdet.models.fast_rcnn import AT_ONCE, CONTEXT, RCNN, FastRCNN
from kerasdet.models.faster_rcnn import FasterRCNN
from kerasdet.training.check import overfit

GIVEN = 24


def fast(classes=SHAPES, neck="c4", **options):
    backbone = tiny_backbone(output_stride=16 if neck == "dc5" else 32)
    small = {
        "image_size": 64, "neck": neck, "channels": 24, "head_units": 48, "proposals": GIVEN, "regions": 16
    }
    return FastRCNN(classes, **{"backbone": backbone} | small | options)


def slow(classes=SHAPES, **options):
    small = {"image_size": 64, "warp_size": 64, "proposals": GIVEN, "regions": 16}
    return RCNN(classes, **{"backbone": tiny_backbone()} | small | options)


def with_boxes(dataset, count=GIVEN):
    """The set with its objects' boxes, a little off, and boxes drawn by chance, as proposals."""
    rng = np.random.default_rng(0)

    def add(sample):
        sides = np.tile(sample.boxes[:, 2:] - sample.boxes[:, :2], 2)
        near = sample.boxes + 0.08 * sides * rng.uniform(-1, 1, sample.boxes.shape)
        size = np.array([sample.width, sample.height])
        other = np.sort(rng.uniform(0, 1, (count - len(near), 2, 2)) * size, axis=1).reshape(-1, 4)
        proposals = np.concatenate([near, other]).astype(np.float32)
        return dataclasses.replace(sample, proposals=proposals)

    return type(dataset)(map(add, dataset), dataset.classes, dataset.parts, dataset.name, dataset.root)


# === Regions ===


def test_fast_takes_the_highest_value_of_each_bin():
    detector = fast(neck="dc5", backbone=tiny_backbone(output_stride=16))
    features = np.zeros((1, 4, 4, 64), np.float32)
    features[0, 1, 2] = 7
    boxes = ops.convert_to_tensor([[[0, 0, 63, 63], [0, 0, 15, 15]]], "float32")
    pooled = ops.convert_to_numpy(detector.pooled({"map_P5": ops.convert_to_tensor(features)}, boxes, 7))
    assert pooled.shape == (1, 2, 7, 7, 64)
    # The box ends in a fifth cell, by rounding: (1, 2) of 5 x 5 is in the bins 1 and 2 down, 2 to 4 across.
    rows, columns = np.nonzero(pooled[0, 0, :, :, 0] == 7)
    assert set(rows) == {1, 2} and set(columns) == {2, 3, 4}
    assert not pooled[0, 1].any()


def test_rcnn_cuts_regions_out_of_the_photo_with_context():
    detector = slow(image_size=128, warp_size=96, backbone=tiny_backbone(96))
    photo = np.zeros((1, 128, 128, 3), np.float32)
    photo[0, 32:96, 32:96] = 200
    mean = photo.mean()
    boxes = ops.convert_to_tensor([[[32, 32, 96, 96], [0, 0, 64, 64]]], "float32")
    cut = ops.convert_to_numpy(detector.pooled({"map_photo": ops.convert_to_tensor(photo)}, boxes, 96))
    assert cut.shape == (1, 2, 96, 96, 3)
    # The box of 64 px fills all but 16 px on each side of the 96.
    inner, outer = slice(CONTEXT + 1, -CONTEXT - 1), [*range(CONTEXT - 1), *range(97 - CONTEXT, 96)]
    np.testing.assert_allclose(cut[0, 0, inner, inner], 200, atol=1e-3)
    np.testing.assert_allclose(cut[0, 0, outer], 0, atol=1e-3)
    # Beyond the photo there is its mean colour.
    np.testing.assert_allclose(cut[0, 1, :13, :13], mean, atol=1e-2)


@pytest.mark.parametrize(
    "build", [slow, fast, lambda: fast(neck="fpn"), lambda: fast(neck="c4_light")],
    ids=["rcnn", "fast", "fast_fpn", "fast_light"],
)
def test_the_same_comes_out_some_regions_after_the_other(build, monkeypatch):
    detector = build()
    photo = ops.convert_to_tensor(np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 3)), "float32")
    corners = np.sort(np.random.default_rng(2).uniform(0, 64, (2, 11, 2, 2)), axis=2)
    boxes = ops.convert_to_tensor(corners.reshape(2, 11, 4), "float32")
    raw = detector(photo, training=False)
    at_once = detector.regions_of(raw, boxes)
    monkeypatch.setattr("kerasdet.models.fast_rcnn.AT_ONCE", 4)
    in_turn = detector.regions_of(raw, boxes)
    for key, value in at_once.items():
        a, b = ops.convert_to_numpy(value), ops.convert_to_numpy(in_turn[key])
        np.testing.assert_allclose(a, b, atol=1e-4, err_msg=key)


def test_looking_at_losses_changes_no_statistics(shapes, untraced):
    """Of batch norms that regions go through and that are trained."""
    detector = slow(backbone=tiny_backbone())
    detector.compile("adamw", ema=None)
    given = with_boxes(shapes)
    before = [value.copy() for value in detector.get_weights()]
    detector.evaluate(given.batches(4, detector), verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, detector.get_weights(), strict=True))
    detector.compile(keras.optimizers.SGD(0.0), ema=None)
    detector.fit(given.batches(4, detector), verbose=0)
    assert not all(np.array_equal(a, b) for a, b in zip(before, detector.get_weights(), strict=True))


def test_regions_that_overlap_nothing_teach_fast_rcnn_nothing():
    detector = fast(append_truth=False)
    targets = objects((10, 10, 30, 30), labels=[2])
    # IoU 1; .25; .08, under .1; none; and a padding row.
    given = [[10, 10, 30, 30], [10, 10, 30, 15], [10, 10, 18, 14], [40, 40, 60, 60], [0, 0, 0, 0]]
    goal = arrays(detector.region_targets(targets, ops.convert_to_tensor([given], "float32")))
    np.testing.assert_array_equal(goal["boxes"][:2], given[:2])
    assert goal["positive"].sum() == 1 and goal["negative"].sum() == 1 and goal["label"][0] == 2
    everything = slow(append_truth=False)
    goal = arrays(everything.region_targets(targets, ops.convert_to_tensor([given], "float32")))
    assert goal["negative"].sum() == 3


# === Proposals ===


def test_proposals_decide_what_is_looked_at(untraced):
    detector = fast()
    photo = np.random.default_rng(3).integers(0, 255, (100, 200, 3)).astype("uint8")
    boxes = np.array([[0, 0, 100, 50], [100, 50, 200, 100]], np.float32)
    found = detector.detect(photo, score=0.0, proposals=boxes)
    # Barely trained, it moves boxes by next to nothing.
    distance = np.abs(found.boxes[:, None] - boxes).max(-1).min(-1)
    assert len(found) and (distance < 3).all()
    nothing = detector.detect(photo, score=0.0, proposals=np.zeros((0, 4)))
    assert len(nothing) == 0
    with pytest.raises(ValueError, match="1 arrays for 2 photos"):
        detector.detect([photo, photo], proposals=[boxes])


def test_without_proposals_it_searches(shapes):
    needed("cv2.ximgproc")
    detector = fast()
    path = shapes[0].path
    found = detector.detect(path, score=0.0)
    assert len(found)


def test_training_needs_proposals(shapes):
    with pytest.raises(ValueError, match=r"no proposals.*FastRCNN.*with_proposals"):
        shapes.batches(4, fast())


def test_who_is_given_proposals_and_who_is_not_is_told_every_time(untraced):
    photo = np.zeros((64, 64, 3), np.uint8)
    given = fast()
    given.detect(photo, proposals=np.zeros((0, 4)))
    with pytest.raises(ValueError, match="FastRCNN needs proposals"):
        given.infer(photo[None])
    own = FasterRCNN(
        SHAPES, backbone=tiny_backbone(), image_size=64, channels=8, head_units=8, before=(20, 20),
        proposals=(10, 10),
    )
    own.detect(photo)
    with pytest.raises(ValueError, match="FasterRCNN finds its own boxes; leave proposals out"):
        own.detect(photo, proposals=np.zeros((3, 4)))


def test_a_tflite_has_no_place_for_proposals(tmp_path):
    with pytest.raises(ValueError, match="FastRCNN is given proposals too; give a folder"):
        fast().export(tmp_path / "fast.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fast(neck="c5"), "neck is 'c5'; give one of c4, c4_light, dc5, fpn"),
        (lambda: fast(neck="fpn", level_side=0), "level_side is 0; give pixels"),
        (lambda: fast(proposals=0), "proposals is 0; give 1 or more"),
        (lambda: fast(image_size=72), "image_size is 72; give a multiple of 32"),
        (lambda: fast(background=(0.5, 0.1)), r"background is \(0.5, 0.1\); give two overlaps"),
        (lambda: slow(warp_size=32), "warp_size is 32; give a multiple of 32 above 32"),
        (lambda: slow(regions=0), "regions=0"),
        (lambda: slow(regions=3), r"regions=3, share=0.25: .* an object; give regions of at least 4"),
    ],
)
def test_wrong_options_are_told(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.usefixtures("untraced")
def test_the_overfit_check_looks_at_the_proposals_that_it_trained_on(shapes, monkeypatch):
    def search(*given):
        raise AssertionError("proposals were searched for, though the set has some")

    monkeypatch.setattr("kerasdet.data.selective_search", search)
    found = overfit(fast(), with_boxes(shapes), photos=2, steps=1)
    assert found.steps == 1 and len(found.losses) == 1


def test_some_regions_after_the_other_in_a_saved_model(shapes, tmp_path, monkeypatch):
    """What loops over regions is exported too: six turns, and all at once in Keras."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow exports")
    import tensorflow as tf

    data = with_boxes(shapes[:2])
    at_once, detector = fast(), fast()
    detector.set_weights(at_once.get_weights())
    images, targets = batch_of(data, at_once)
    expected = at_once.forward(images, "boxes", proposals=targets["proposals"])
    monkeypatch.setattr("kerasdet.models.fast_rcnn.AT_ONCE", 4)
    detector.export(tmp_path / "saved", outputs="boxes", check_photos=data)
    serve = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
    # The one loop there is: boxes are not suppressed yet.
    parts = serve.graph.as_graph_def().library.function
    assert sum(node.op == "LoopCond" for part in parts for node in part.node_def) == 1
    served = serve(images=tf.constant(images), proposals=tf.constant(targets["proposals"]))
    for key, value in expected.items():
        np.testing.assert_allclose(served[key].numpy(), ops.convert_to_numpy(value), atol=1e-3)


# === The harness of all detectors ===


class GivenHarness(DetectorHarness):
    @pytest.fixture
    def data(self, shapes):
        return with_boxes(shapes)

    def given(self, detector, targets):
        return {"proposals": targets["proposals"]}

    def known_heads(self, detector):
        boxes = np.zeros((1, GIVEN, 4), np.float32)
        boxes[0, 0], boxes[0, 3] = [10, 10, 30, 50], [40, 0, 60, 20]
        heads = {"class": np.zeros((1, GIVEN, 3)), "proposals": boxes, "boxes": np.zeros((1, GIVEN, 3, 4))}
        heads["class"][0, 0, 1], heads["class"][0, 3] = 0.8, [0.3, 0.04, 0.1]
        heads["boxes"][0, 0, 1] = [0, 1, -5 * math.log(2), 0]
        return heads, [(1, 0.8, 15, 14, 25, 54), (0, 0.3, 40, 0, 60, 20), (2, 0.1, 40, 0, 60, 20)]

    def check_export(self, detector, data, folder, narrow):
        """What `test_raw_outputs_export` looks at does not hang on what was learned."""

    def test_raw_outputs_export(self, detector, data, tmp_path):
        """A SavedModel takes proposals as its second input."""
        if keras.backend.backend() != "tensorflow":
            pytest.skip("only TensorFlow exports")
        import tensorflow as tf

        data = data[:2]
        detector.export(tmp_path / "saved", check_photos=data)
        images, targets = batch_of(data, detector)
        serve = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"]
        served = serve(images=tf.constant(images), proposals=tf.constant(targets["proposals"]))
        mine = detector.forward(images, proposals=targets["proposals"])
        for key, value in mine.items():
            np.testing.assert_allclose(served[key].numpy(), ops.convert_to_numpy(value), atol=1e-3)


def test_photos_together_are_fewer_where_their_maps_are_copied_for_many_regions(monkeypatch):
    few, many = (fast(neck="fpn", proposals=count) for count in (AT_ONCE, 10 * AT_ONCE))
    maps = sum(np.prod(value.shape[1:]) for name, value in many.output.items() if name.startswith("map_"))
    monkeypatch.setattr("kerasdet.models.regions.MEMORY", 2**50)
    few, many = (2**50 / detector.most_at_once for detector in (few, many))
    assert many - few == pytest.approx(4 * 10 * maps, rel=1e-3)


class TestFastRCNN(GivenHarness):
    overfit_epochs, overfit_rate = 320, 4e-3
    overfit_is_slow = True
    # Proposals that round to the same cells, of 16 px here, look the same: boxes stay a pixel or two off.
    overfit_ap = 0.8

    @pytest.fixture
    def data(self, shapes):
        # The largest objects first: its one map has 4x4 cells here.
        return with_boxes(shapes.subset([12, 6, 11, 2, 10, 7, 4, 13]))

    def build(self, **changes):
        # Most of its proposals overlap nothing.
        return fast(neck="dc5", **{"share": 0.5, "background": (0.0, 0.5)} | changes)


class TestFastRCNNOnAPyramid(GivenHarness):
    overfit_epochs, overfit_rate = 320, 4e-3
    overfit_is_slow = True

    def build(self, **changes):
        return fast(neck="fpn", **{"share": 0.5, "background": (0.0, 0.5)} | changes)


class TestRCNN(GivenHarness):
    overfit_epochs, overfit_rate = 320, 4e-3
    overfit_is_slow = True

    def build(self, **changes):
        return slow(**{"share": 0.5} | changes)
