"""Testing at several scales: what is seen where, and how it becomes one."""

import math

import keras
import numpy as np
import pytest
from harness import tiny_backbone, with_corner_parts
from overfeats import small

import kerasdet
from kerasdet.models.centernet import CenterNet
from kerasdet.models.csp import CSP
from kerasdet.models.fast_rcnn import FastRCNN
from kerasdet.models.mask_rcnn import MaskRCNN


@pytest.fixture(scope="module")
def detector():
    keras.utils.set_random_seed(3)
    return small(("cat", "dog"))


def saying(pyramid, *looks):
    """Lets each size find what is given: rows of label, score and box in its own square's pixels."""
    for detector, rows in zip(pyramid.detectors, looks, strict=True):
        rows = np.array(rows, np.float32).reshape(1, -1, 6)
        found = {"boxes": rows[..., 2:], "scores": rows[..., 1], "labels": rows[..., 0].astype(int)}
        detector.infer = lambda images, flip, suppress, found=found: found
    return pyramid


PHOTO = np.zeros((100, 200, 3), np.uint8)


def test_one_size_finds_what_the_detector_finds(detector):
    photo = np.random.default_rng(0).integers(0, 256, (80, 60, 3), dtype=np.uint8)
    one, alone = kerasdet.image_pyramid(detector, [64]).detect(photo, 0.0), detector.detect(photo, 0.0)
    assert 1 < len(alone) <= 72
    np.testing.assert_allclose(one.boxes[: len(alone)], alone.boxes, atol=1e-3)
    np.testing.assert_allclose(one.scores[: len(alone)], alone.scores, atol=1e-6)
    assert one.names == alone.names and one.photo is not None


def test_each_size_is_a_network_of_its_own_with_the_same_weights(detector):
    pyramid = kerasdet.image_pyramid(detector, (64, 96))
    assert [each.image_size for each in pyramid.detectors] == [64, 96]
    assert pyramid.classes == ("cat", "dog")
    large = pyramid.detectors[1]
    assert large.output["class_logits"].shape == (None, 10, 10, 2)
    # A window is as wide on the larger square: it is the photo that has grown.
    assert (large.window_side, large.step) == (32, 8)
    for a, b in zip(large.get_weights(), detector.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(pyramid.detect([PHOTO, PHOTO], 0.0)) == 2


def test_boxes_of_all_sizes_are_in_the_photos_pixels(detector):
    looks = [(0, 0.9, 0, 0, 32, 32)], [(1, 0.5, 48, 48, 96, 96)]
    found = saying(kerasdet.image_pyramid(detector, (64, 96)), *looks).detect(PHOTO, 0.1)
    np.testing.assert_allclose(found.boxes, [[0, 0, 100, 50], [100, 50, 200, 100]])
    assert found.names == ["cat", "dog"]
    np.testing.assert_allclose(found.scores, [0.9, 0.5])


SAME = [(0, 0.6, 0, 0, 32, 32)], [(0, 0.8, 0, 0, 48, 48), (1, 0.7, 0, 0, 48, 48)]


def test_nms_keeps_the_better_of_two_sizes(detector):
    found = saying(kerasdet.image_pyramid(detector, (64, 96)), *SAME).detect(PHOTO, 0.1)
    assert found.names == ["cat", "dog"]
    np.testing.assert_allclose(found.scores, [0.8, 0.7])


def test_soft_nms_lowers_the_other_one(detector):
    found = saying(kerasdet.image_pyramid(detector, (64, 96), "soft_nms"), *SAME).detect(PHOTO, 0.01)
    np.testing.assert_allclose(found.scores, [0.8, 0.7, 0.6 * math.exp(-1 / 0.5)], rtol=1e-5)


def test_greedy_merging_adds_up_what_agrees(detector):
    looks = [(0, 0.5, 0, 0, 32, 32)], [(0, 0.5, 0, 0, 48, 54), (0, 0.9, 60, 60, 96, 96)]
    found = saying(kerasdet.image_pyramid(detector, (64, 96), "greedy"), *looks).detect(PHOTO, 0.1)
    np.testing.assert_allclose(found.scores, [1 / 2, 0.9 / 1.9], rtol=1e-5)
    np.testing.assert_allclose(found.boxes, [[0, 0, 100, 53.125], [125, 62.5, 200, 100]], rtol=1e-5)


def test_many_windows_that_agree_are_still_told_apart(detector):
    """Of thirty and of twenty windows; in float32 an exponential would make both 1."""
    many = [(0, 0.99, 0, 0, 32, 32)] * 30 + [(0, 0.99, 40, 40, 64, 64)] * 20
    found = saying(kerasdet.image_pyramid(detector, (64,), "greedy"), many).detect(PHOTO, 0.1)
    assert len(found) == 2 and 1 > found.scores[0] > found.scores[1] > 0.9
    near = [(0, 0.5, 0, 0, 32, 32), (0, 0.5, 0, 4, 32, 36)]
    for threshold, count in ((0.05, 2), (0.5, 1)):
        pyramid = kerasdet.image_pyramid(detector, (64,), "greedy", threshold=threshold)
        assert len(saying(pyramid, near).detect(PHOTO, 0.1)) == count


def test_boxes_that_score_too_low_take_no_part(detector):
    looks = [(0, 0.5, 0, 0, 32, 32)], [(0, 0.05, 0, 0, 48, 48)]
    pyramid = kerasdet.image_pyramid(detector, (64, 96), "greedy", min_score=0.1)
    np.testing.assert_allclose(saying(pyramid, *looks).detect(PHOTO, 0.1).scores, [1 / 3], rtol=1e-6)


def test_mirror_images_at_every_size(shapes, untraced):
    detector = CenterNet(shapes.classes, backbone=tiny_backbone(), image_size=64, channels=8)
    found = kerasdet.image_pyramid(detector, (64,), flip=True).detect(shapes[0].path, 0.0)
    alone = detector.detect(shapes[0].path, 0.0, flip=True)
    np.testing.assert_allclose(found.scores[0], alone.scores[0], atol=1e-6)
    with pytest.raises(ValueError, match="OverFeat cannot be tested with flipping"):
        kerasdet.image_pyramid(small(), (64,), flip=True).detect(PHOTO)


def test_only_the_best_classes_of_each_size_take_part(detector):
    looks = [(0, 0.5, 0, 0, 32, 32), (1, 0.4, 0, 0, 32, 32)], [(1, 0.7, 0, 0, 9, 9), (0, 0.6, 0, 0, 9, 9)]
    found = saying(kerasdet.image_pyramid(detector, (64, 96), top=1), *looks).detect(PHOTO, 0.1)
    assert found.names == ["dog", "cat"]
    np.testing.assert_allclose(found.scores, [0.7, 0.5])


def test_nothing_found(detector):
    for merge in ("nms", "soft_nms", "greedy"):
        pyramid = saying(kerasdet.image_pyramid(detector, (64, 96), merge), [], [])
        assert len(pyramid.detect(PHOTO)) == 0


def test_a_set_is_evaluated(shapes):
    pyramid = kerasdet.image_pyramid(small(shapes.classes), (64, 96), "greedy")
    at = next(i for i, sample in enumerate(shapes) if len(sample.boxes))
    found = zip(shapes[at].labels.tolist(), shapes[at].boxes.tolist(), strict=True)
    rows = [(label, 0.9, *box) for label, box in found]
    assert saying(pyramid, rows, []).evaluate_detections(shapes[at : at + 1])["AP"] == pytest.approx(1)


def test_parts_go_with_their_boxes(shapes, untraced):
    data = with_corner_parts(shapes)
    detector = CSP(data.classes, backbone=tiny_backbone(), image_size=64, channels=8, parts=data.parts)
    found = kerasdet.image_pyramid(detector, (64, 96)).detect(shapes[0].path, 0.0)
    assert found.parts["corner"].shape == found.boxes.shape and len(found)
    with pytest.raises(ValueError, match=r"leaves their parts \('corner',\) behind; give merge=\"nms\""):
        kerasdet.image_pyramid(detector, (64,), "greedy")


def test_who_is_given_boxes_or_draws_outlines_is_refused():
    small_net = {"backbone": tiny_backbone(), "image_size": 64, "channels": 8, "head_units": 8}
    with pytest.raises(ValueError, match="FastRCNN is given the boxes to look at"):
        kerasdet.image_pyramid(FastRCNN(("a",), neck="fpn", **small_net), (64, 96))
    with pytest.raises(ValueError, match="MaskRCNN draws outlines"):
        kerasdet.image_pyramid(MaskRCNN(("a",), mask_channels=8, **small_net), (64, 96))


@pytest.mark.parametrize(
    "sizes, merge, message",
    [((), "nms", "sizes is empty"), ((64,), "mean", "merge is 'mean'; give one of nms")],
)
def test_what_makes_no_sense_is_refused(detector, sizes, merge, message):
    with pytest.raises(ValueError, match=message):
        kerasdet.image_pyramid(detector, sizes, merge)


def test_no_more_come_out_than_of_the_detector():
    far = [(0, 0.9, 0, 0, 16, 16), (0, 0.8, 40, 40, 60, 60)]
    for most in (1, 2):
        pyramid = kerasdet.image_pyramid(small(("cat", "dog"), max_detections=most), (64,), merge="nms")
        assert len(saying(pyramid, far).detect(PHOTO, 0.1)) == most


@pytest.mark.parametrize(("limit", "count"), [(0.9, 2), (0.5, 1)])
def test_overlaps_are_suppressed_by_the_detectors_limit(limit, count):
    pair = [(0, 0.9, 0, 0, 40, 40), (0, 0.8, 0, 0, 40, 28)]  # IoU .7
    pyramid = kerasdet.image_pyramid(small(("cat", "dog"), nms_iou=limit), (64,), merge="nms")
    assert len(saying(pyramid, pair).detect(PHOTO, 0.1)) == count
