"""The comparison of file and Keras has to fail when the file is wrong."""

import dataclasses
import math
import re

import numpy as np
import pytest
from discs import CLASSES, photos

from kerasdet import deploy
from kerasdet.deploy import parity
from kerasdet.deploy.report import Parity


class Faulty:
    """The disc detector with a fault that only shows in the exported graph."""

    def __init__(self, detector, fault):
        self._detector, self._fault = detector, fault

    def __getattr__(self, name):
        return getattr(self._detector, name)

    def forward(self, images, outputs="detections"):
        found = self._detector.forward(images, outputs)
        # Keras is asked with arrays; the converter traces with symbolic tensors.
        return found if isinstance(images, np.ndarray) else self._fault(found)


def swapped(found):
    return found | {"classes": found["scores"], "scores": found["classes"]}


def scaled(found):
    return found | {"boxes_rel_yxyx": found["boxes_rel_yxyx"] * 0.9}


def transposed(found):
    import tensorflow as tf

    return found | {"boxes_rel_yxyx": tf.gather(found["boxes_rel_yxyx"], [1, 0, 3, 2], axis=-1)}


def halved(found):
    return found | {"scores": found["scores"] * 0.6}


FAULTS = [swapped, scaled, transposed, halved]


@pytest.mark.filterwarnings("ignore:int8 is calibrated on")
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_stops_the_export_and_nothing_is_written(
    detector, disc_set, tmp_path, fault, precision
):
    path = tmp_path / "wrong.tflite"
    with pytest.raises(deploy.ParityError, match="Nothing was written"):
        deploy.export(
            Faulty(detector, fault), path, precision=precision, calibration=disc_set
        )
    assert not list(tmp_path.iterdir())


def test_a_planted_fault_in_raw_heads_or_parts_or_a_saved_model_fails(detector, tmp_path):
    def swap_heads(found):
        return found | {"scale": found["offset"], "offset": found["scale"]}

    def shift_parts(found):
        return found | {"parts_rel_yxyx": found["parts_rel_yxyx"] + 0.02}

    for name, outputs, fault in (
        ("a.tflite", "raw", swap_heads),
        ("b.tflite", "boxes", shift_parts),
        ("folder", "detections", scaled),
    ):
        with pytest.raises(deploy.ParityError):
            deploy.export(
                Faulty(detector, fault), tmp_path / name, outputs=outputs, check_photos=photos(6)
            )
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:int8 is calibrated on")
@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "int8_weights"])
def test_parts_that_are_elsewhere_or_objects_that_are_not_counted_fail_at_every_precision(
    detector, disc_set, tmp_path, precision
):
    def shift_parts(found):
        return found | {"parts_rel_yxyx": found["parts_rel_yxyx"] + 0.1}

    def count_none(found):
        return found | {"count": found["count"] * 0}

    # Without labels: AP would tell of the second.
    options = {"precision": precision, "check_photos": photos(6)}
    if precision == "int8":
        options["calibration"] = disc_set
    for outputs, fault, said in (
        ("boxes", shift_parts, "of the parts are where Keras has them"),
        ("detections", count_none, "of the boxes .* are found by both"),
    ):
        with pytest.raises(deploy.ParityError, match=said):
            deploy.export(Faulty(detector, fault), tmp_path / "wrong.tflite", outputs=outputs, **options)
    report = deploy.export(detector, tmp_path / "right.tflite", outputs="boxes", **options)
    assert report.parity.parts == 1 and report.parity.boxes > 0


@pytest.mark.filterwarnings("ignore:int8 is calibrated on")
@pytest.mark.parametrize("by", [0.6, [1.0, 0.5]])
def test_raw_heads_in_int8_that_are_near_in_numbers_but_find_other_boxes_fail(
    detector, disc_set, tmp_path, by
):
    def lowered(found):
        return found | {"center": found["center"] * by}

    with pytest.raises(deploy.ParityError, match="scores differ by|AP falls by") as told:
        deploy.export(
            Faulty(detector, lowered), tmp_path / "wrong.tflite", precision="int8", outputs="raw",
            calibration=disc_set,
        )
    assert "is off by" not in str(told.value)
    assert not list(tmp_path.iterdir())


def test_on_parity_warn_writes_the_file_and_says_what_is_wrong(detector, tmp_path):
    path = tmp_path / "wrong.tflite"
    with pytest.warns(UserWarning, match="found by both"):
        deploy.export(Faulty(detector, scaled), path, on_parity="warn", check_photos=photos(4))
    assert path.is_file()


def test_photos_without_anything_on_them_warn_that_the_check_says_nothing(detector, tmp_path):
    grey = [np.full((96, 96, 3), 120, np.uint8)] * 2
    with pytest.warns(UserWarning, match="says nothing"):
        deploy.export(detector, tmp_path / "grey.tflite", check_photos=grey)


# One photo of 100 px with two boxes, worked by hand.
KERAS = {
    "boxes_rel_yxyx": np.array([[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.9, 0.9]], np.float32),
    "classes": np.array([0, 1], np.float32),
    "scores": np.array([0.9, 0.4], np.float32),
    "count": np.float32(2),
}


def check(of_keras=None, **changes):
    class Network:
        image_size, classes, parts, nms_iou = 100, CLASSES, (), 0.5

    empty = parity.CheckSet([], [], [], None, "check_photos")
    ours = KERAS | (of_keras or {})
    return parity.compare([ours], [KERAS | changes], empty, Network, "int8")


def test_worked_example_of_the_comparison():
    same = check()
    assert (same.boxes, same.matched, same.score_difference, same.box_difference) == (2, 1, 0, 0)
    # The second box 6 px lower: IoU 24/36 = .67 < .8, so one in two has no match.
    moved = KERAS["boxes_rel_yxyx"] + np.array([[0], [0.06]], np.float32) * [1, 0, 1, 0]
    result = check(boxes_rel_yxyx=moved.astype(np.float32))
    assert result.boxes == 2 and result.matched == 0.5
    # 2 px lower: IoU 28/32 = .875, a match that differs by 2 px.
    moved = KERAS["boxes_rel_yxyx"] + np.array([[0], [0.02]], np.float32) * [1, 0, 1, 0]
    result = check(boxes_rel_yxyx=moved.astype(np.float32))
    assert result.matched == 1 and result.box_difference == pytest.approx(2, abs=1e-4)
    result = check(scores=np.array([0.9, 0.28], np.float32))
    assert result.matched == 1 and result.score_difference == pytest.approx(0.12)
    assert result.mean_score_difference == pytest.approx(0.06)
    assert check(classes=np.zeros(2, np.float32)).matched == 0.5
    # The file finds the first box alone, or one more than Keras.
    assert check(scores=np.array([0.9, 0.0], np.float32)).matched == 0.5
    more = {name: np.concatenate([value, value[-1:]]) for name, value in KERAS.items() if name != "count"}
    more["boxes_rel_yxyx"][2] = 0.1, 0.6, 0.4, 0.9
    assert check(**more, count=np.float32(3)).matched == pytest.approx(2 / 3)
    # What stands behind the count is not there.
    assert check(**more).matched == 1 and check(count=np.float32(1)).matched == 0.5


def test_a_score_that_falls_on_the_other_side_of_the_limit_is_no_box_missed():
    above, below, gone = (np.array([score, 0], np.float32) for score in (0.301, 0.299, 0))
    for one, other, matched in ((above, below, 1), (below, above, 1), (above, gone, 0), (gone, above, 0)):
        assert check({"scores": one}, scores=other).matched == matched


def test_a_class_that_sinks_out_of_sight_is_missed():
    """On the mean of many sure boxes, two that fall from .4 to .1 are little."""
    boxes = np.zeros((20, 4), np.float32)
    boxes[:, 0] = boxes[:, 1] = np.arange(20) * 0.05
    boxes[:, 2:] = boxes[:, :2] + 0.04
    sure = np.full(20, 0.9, np.float32)
    sure[18:] = 0.4
    ours = {"boxes_rel_yxyx": boxes, "classes": (sure < 0.5).astype(np.float32), "scores": sure}
    ours["count"] = np.float32(20)
    for low, matched in ((0.11, 1), (0.09, 0.9), (0.01, 0.9)):
        fallen = np.where(sure < 0.5, low, sure).astype(np.float32)
        found = check(ours, **ours | {"scores": fallen})
        assert found.matched == matched and found.boxes == 20
        assert bool(parity.failures(found, "int8")) == (matched < 1)
        # And the other way round: what only the file is sure of.
        assert check(ours | {"scores": fallen}, **ours).matched == matched


def test_labels_of_classes_that_the_detector_does_not_know_are_not_scored(shapes):
    class Network:
        image_size, resize, classes = 64, "stretch", ("square", "circle")

    found = parity.load_squares(Network, shapes, 100, "calibration")
    assert set(found.dataset.classes) == {"square", "circle"} and len(found.squares) == len(shapes)
    Network.classes = ("cat",)
    assert parity.load_squares(Network, shapes, 100, "calibration").dataset is None


def test_photos_are_taken_from_all_over_the_set(shapes):
    """Sorted by class, the first ones would calibrate on that class alone."""
    class Network:
        image_size, resize, classes = 64, "stretch", ("square", "circle", "triangle")

    found = parity.load_squares(Network, shapes[:16], 4, "calibration")
    assert len(found.squares) == 4
    for square, place in zip(found.squares, (0, 5, 10, 15), strict=True):
        alone = parity.load_squares(Network, shapes[place : place + 1], 1, "calibration")
        np.testing.assert_array_equal(square, alone.squares[0])


GOOD = Parity(photos=10, source="calibration", boxes=100)


@pytest.mark.parametrize(
    "precision, change, limit",
    [
        ("float32", {"score_difference": 0.0011}, "score differs"),
        ("float32", {"box_difference": 0.51}, "box differs"),
        ("float32", {"parts": 0.94}, "94.0% of the parts"),
        ("int8", {"parts": 0.94}, "94.0% of the parts"),
        ("float32", {"matched": 0.98}, "98.0% of the boxes \\(100 of Keras"),
        ("float32", {"mean_score_difference": 0.0011}, "on average"),
        ("float32", {"ap": 0.5, "keras_ap": 0.521}, "AP falls by 0.021"),
        ("float32", {"raw_error": {"scale": 0.002}}, "scale is off"),
        ("float32", {"score_difference": math.nan}, "score differs"),
        ("float16", {"score_difference": 0.36}, "score differs"),
        ("float16", {"mean_score_difference": 0.011}, "on average"),
        ("float16", {"matched": 0.94}, "94.0% of the boxes \\(100 of Keras"),
        ("float16", {"ap": 0.5, "keras_ap": 0.521}, "AP falls by 0.021"),
        ("float16", {"raw_error": {"scale": 0.051}}, "scale is off"),
        ("int8", {"mean_score_difference": 0.11}, "on average"),
        ("int8", {"matched": 0.94}, "94.0% of the boxes \\(100 of Keras"),
        ("int8", {"ap": 0.5, "keras_ap": 0.521}, "AP falls by 0.021"),
        ("int8", {"raw_error": {"scale": 0.51}}, "scale is off"),
        ("int8_weights", {"mean_score_difference": 0.051}, "on average"),
        ("int8_weights", {"matched": 0.94}, "94.0% of the boxes \\(100 of Keras"),
        ("int8_weights", {"ap": 0.5, "keras_ap": 0.521}, "AP falls by 0.021"),
        ("int8_weights", {"raw_error": {"scale": 0.21}}, "scale is off"),
    ],
)
def test_limits(precision, change, limit):
    assert parity.failures(GOOD, precision) == []
    (text,) = parity.failures(dataclasses.replace(GOOD, **change), precision)
    assert re.search(limit, text)


# === Raw heads of detectors with proposals ===

REGIONS = np.array([[0, 0, 20, 20], [30, 30, 50, 60], [5, 40, 25, 50], [0, 0, 0, 0]], np.float32)


def regions(order=(0, 1, 2, 3), **changes):
    side = {"proposals": REGIONS, "class": np.array([[0.9], [0.5], [0.5], [0]], np.float32)} | changes
    return [{name: value[list(order)] for name, value in side.items()}] * 2


def test_regions_that_change_places_are_the_same_regions():
    found = parity.compare(regions(), regions((0, 2, 1, 3)), Photos(), None, "float32")
    assert found.raw_error == {"proposals": 0, "class": 0}
    assert (found.boxes, found.matched) == (6, 1.0) and parity.failures(found, "float32") == []


def test_regions_that_lie_close_are_told_apart():
    """Two branches of a network may propose nearly the same: IoU .9."""
    close = REGIONS.copy()
    close[1] = [0, 0, 20, 18]
    found = parity.compare(
        regions(proposals=close), regions((1, 0, 2, 3), proposals=close), Photos(), None, "float32"
    )
    assert found.raw_error == {"proposals": 0, "class": 0} and found.matched == 1


def test_other_heads_of_a_region_are_off():
    wrong = np.array([[0.9], [0.4], [0.5], [0]], np.float32)
    found = parity.compare(regions(), regions((0, 2, 1, 3), **{"class": wrong}), Photos(), None, "float32")
    assert found.raw_error["class"] == pytest.approx(0.1)
    assert [text.partition(" is off")[0] for text in parity.failures(found, "float32")] == ["class"]


def test_regions_that_one_side_lacks_are_told():
    moved = REGIONS + [[0] * 4, [15, 0, 15, 0], [0] * 4, [0] * 4]
    found = parity.compare(regions(), regions(proposals=moved), Photos(), None, "float32")
    assert found.matched == pytest.approx(2 / 3)
    assert "only 66.7% of the boxes" in parity.failures(found, "float32")[0]
    none = parity.compare(regions(), regions(proposals=REGIONS * 0), Photos(), None, "float32")
    assert none.matched == 0


class Photos:
    source, dataset = "synthetic", None
