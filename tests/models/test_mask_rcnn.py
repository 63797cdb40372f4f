"""Mask R-CNN: what regions learn of outlines, by hand; losses; and the harness of all detectors."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from handmade import objects, raw_maps
from harness import SHAPES, tiny_backbone
from keras import ops
from test_faster_rcnn import FasterHarness

from kerasdet import photo, zoo
from kerasdet.deploy import ParityError, saved_model
from kerasdet.models.mask_rcnn import MaskRCNN


def mask_rcnn(classes=SHAPES, **options):
    small = {
        "channels": 24, "head_units": 64, "before": (100, 60), "proposals": (60, 30), "regions": 32,
        "anchor_sizes": (6, 12, 20, 32, 48), "mask_channels": 16, "mask_blocks": 1, "neck": "fpn",
        "image_size": 64,
    }
    return MaskRCNN(classes, **{"backbone": tiny_backbone()} | small | options)


@pytest.fixture(scope="module")
def detector():
    return mask_rcnn(append_truth=False, share=0.5, regions=4)


def with_masks(targets, *filled):
    """The targets of `handmade.objects` with outlines: of each object the columns that it fills, or None."""
    size, rows = MaskRCNN.mask_size, targets["labels"].shape[1]
    masks, weights = np.zeros((1, rows, size, size), np.uint8), np.zeros((1, rows), np.float32)
    for row, share in enumerate(filled):
        if share is not None:
            masks[0, row, :, : round(share * size)] = 1
            weights[0, row] = 1
    return targets | {"masks": masks, "mask_weights": weights}


# === Targets ===


def test_a_region_learns_the_part_of_the_outline_that_it_shows(detector):
    targets = with_masks(objects((10, 10, 30, 30), (40, 40, 60, 60)), 0.5, 1.0)
    goal = {
        # The first object's own box, its right half, the second and its like shifted by half its width.
        "boxes": np.array([[[10, 10, 30, 30], [20, 10, 30, 30], [40, 40, 60, 60], [50, 40, 70, 60]]], "f4"),
        "owner": np.array([[0, 0, 1, 1]], np.int32),
    }
    found = ops.convert_to_numpy(detector.mask_targets(goal, targets))[0]
    assert found.shape == (4, 28, 28)
    np.testing.assert_array_equal(found[0, :, :14], 1)
    assert not found[0, :, 14:].any() and not found[1].any() and found[2].all()
    assert found[3, :, :14].all() and not found[3, :, 15:].any()


# === Losses ===


def test_outlines_cost_their_cells_of_the_own_class(detector, monkeypatch):
    raw = raw_maps(detector)
    box, other = [10.0, 10, 30, 30], [40.0, 40, 60, 60]
    proposals = ops.convert_to_tensor([[box, other]], "float32")
    logits = ops.convert_to_tensor(np.full((1, 2, 28, 28), 2.0, np.float32))
    monkeypatch.setattr(detector, "cells_of", lambda *_, training: logits)

    def cost(*filled, weights=None):
        targets = with_masks(objects(box, other, labels=[0, 1], weights=weights), *filled)
        targets = {key: ops.convert_to_tensor(value) for key, value in targets.items()}
        return float(detector.learn_regions(targets, raw, proposals)["mask_loss"])

    right, wrong = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert cost(1.0, 1.0) == pytest.approx(right, rel=1e-5)
    assert cost(0.5, 1.0) == pytest.approx((right + wrong) / 4 + right / 2, rel=1e-5)
    # No outline, no lesson; and a weight of its own.
    assert cost(0.0, None) == pytest.approx(wrong, rel=1e-5)
    assert cost(None, None) == 0
    assert cost(0.0, 1.0, weights=[0.5, 1.0]) == pytest.approx((0.5 * wrong + right) / 1.5, rel=1e-5)


# === Options ===


def test_c4_is_refused():
    with pytest.raises(ValueError, match="neck is 'c4'; outlines need"):
        mask_rcnn(neck="c4")


def test_training_needs_outlines(shapes, detector):
    bare = type(shapes)([dataclasses.replace(sample, masks=()) for sample in shapes], shapes.classes)
    with pytest.raises(ValueError, match=r"no outlines, which MaskRCNN learns; .*segmentation"):
        bare.batches(4, detector)


def test_other_classes_take_over_outlines():
    keras.utils.set_random_seed(0)
    detector = mask_rcnn(("a", "b", "c"))
    other = zoo.adapt(detector, ("c", "d"))
    photo = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3)).astype("uint8")
    boxes = ops.convert_to_tensor([[[10, 10, 40, 40]]], "float32")
    before = detector.cells_of(detector(photo), boxes, ops.convert_to_tensor([[2]], "int32"))
    after = other.cells_of(other(photo), boxes, ops.convert_to_tensor([[0]], "int32"))
    np.testing.assert_allclose(ops.convert_to_numpy(after), ops.convert_to_numpy(before), atol=1e-5)


# === What it finds ===


def test_masks_of_a_letterboxed_photo_lie_in_their_boxes(detector):
    letterboxed = mask_rcnn(resize="letterbox", nms_iou=None)
    photo = np.random.default_rng(1).integers(0, 255, (40, 100, 3)).astype("uint8")
    found = letterboxed.detect(photo, score=0.0)
    assert len(found) and len(found.masks) == len(found)
    seen = 0
    for row, (x1, y1, x2, y2) in enumerate(found.boxes):
        mask = found.mask(row)
        assert mask.shape == (40, 100)
        rows, columns = np.nonzero(mask)
        if len(rows):
            seen += 1
            assert columns.min() >= np.floor(x1) and columns.max() < np.ceil(x2)
            assert rows.min() >= np.floor(y1) and rows.max() < np.ceil(y2)
    assert seen
    best = found.above(found.scores[0])
    assert len(best.masks) == len(best)
    row = best.to_coco(7)[0]
    assert row["segmentation"]["size"] == [40, 100] and isinstance(row["segmentation"]["counts"], str)


# === Export ===


@pytest.mark.slow
def test_a_saved_model_has_outlines_and_a_tflite_has_none(detector, shapes, tmp_path, monkeypatch):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("only TensorFlow exports")
    tf = pytest.importorskip("tensorflow")
    data = shapes[:2]
    report = detector.export(tmp_path / "saved", check_photos=data)
    assert report.output_shapes["masks"][2:] == (28, 28)
    images = np.stack([photo.to_square(photo.read(sample.path), 64, "stretch")[0] for sample in data])
    served = tf.saved_model.load(str(tmp_path / "saved")).signatures["serving_default"](tf.constant(images))
    masks, mine = served["masks"].numpy(), detector.infer(images)["masks"]
    assert masks.any()
    np.testing.assert_allclose(masks, mine, atol=1e-3)
    assert "masks" not in detector.export(tmp_path / "boxes.tflite", check_photos=data).output_shapes
    # Outlines that are not Keras' fail.
    run = saved_model.run

    def wrong(*given):
        found, *rest = run(*given)
        return [one | {"masks": one["masks"] + 0.1} for one in found], *rest

    monkeypatch.setattr(saved_model, "run", wrong)
    with pytest.raises(ParityError, match="a score differs by"):
        detector.export(tmp_path / "other", check_photos=data)
    assert not (tmp_path / "other").exists()


# === The harness of all detectors ===


class TestMaskRCNN(FasterHarness):
    overfit_epochs, overfit_rate = 480, 3e-3
    overfit_is_slow = True
    overfit_ap = 0.9
    further = ("masks",)

    def build(self, **changes):
        return mask_rcnn(**{"share": 0.5} | changes)

    def test_raw_outputs_export(self):
        pytest.skip("its raw heads are Faster R-CNN's: it looks at outlines afterwards")

    def check_export(self, detector, data, folder, narrow):
        super().check_export(detector, data, folder, narrow)
        found = detector.evaluate_detections(data)
        assert found["mask_AP50"] >= 0.9 and found["mask_AP"] >= 0.65, found
        picture = detector.detect(data[0].path).draw()
        assert picture.size == (64, 64)


