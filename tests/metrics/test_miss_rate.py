"""MR^-2 on examples worked out by hand. The reference points are .01, .0178, ..., .5623, 1."""

import numpy as np
import pytest

from kerasdet.data.dataset import Dataset
from kerasdet.data.sample import Sample
from kerasdet.detections import Detections
from kerasdet.metrics import log_average_miss_rate

A, B, C, STRAY = [0, 0, 40, 100], [100, 0, 140, 100], [200, 0, 240, 100], [300, 0, 340, 100]


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def photo(*objects, ignore=()):
    labels = np.zeros(len(objects), np.int32)
    return Sample("photo.jpg", boxes(*objects), labels, ignore=boxes(*ignore))


def people(*photos):
    return Dataset(photos, classes=("person",))


def found(*rows):
    """Detections from (box, score) pairs."""
    return Detections(
        [box for box, _ in rows], [score for _, score in rows], [0] * len(rows), ("person",)
    )


def test_ten_photos_by_hand():
    # Ten photos, four people. In order of score: hit, stray, hit, stray, hit; the fourth is missed.
    # The curve (FPPI, miss rate): (0, 3/4) (.1, 3/4) (.1, 2/4) (.2, 2/4) (.2, 1/4).
    # .01 .0178 .0316 .0562 see 3/4; .1 and .1778 see the last point at .1, 2/4; .3162 .5623 1: 1/4.
    data = people(photo(A, B), photo(A), photo(A), *[photo()] * 7)
    detections = [
        found((A, 0.9), (STRAY, 0.8), (B, 0.7)),
        found((STRAY, 0.6), (A, 0.5)),
        *[found()] * 8,
    ]
    result = log_average_miss_rate(data, detections)
    np.testing.assert_allclose(result["miss_rate"], [0.75] * 4 + [0.5] * 2 + [0.25] * 3)
    # (.75^4 * .5^2 * .25^3)^(1/9) = (.00123596)^(1/9)
    assert result["MR"] == pytest.approx((0.75**4 * 0.5**2 * 0.25**3) ** (1 / 9))
    assert result["MR"] == pytest.approx(0.475, abs=5e-4)
    assert result["objects"] == 4
    np.testing.assert_allclose(
        result["fppi"], [0.01, 0.0178, 0.0316, 0.0562, 0.1, 0.1778, 0.3162, 0.5623, 1], atol=5e-5
    )


def test_points_that_the_curve_starts_beyond_count_as_all_missed():
    # Two photos: the best detection is a stray, FPPI .5 at once. Only .5623 and 1 see the hit.
    data = people(photo(A), photo())
    result = log_average_miss_rate(data, [found((STRAY, 0.9), (A, 0.8)), found()])
    np.testing.assert_allclose(result["miss_rate"], [1] * 7 + [0] * 2)
    assert result["MR"] == pytest.approx(np.exp(2 * np.log(1e-10) / 9))


def test_a_perfect_detector_scores_the_clamp():
    result = log_average_miss_rate(people(photo(A), photo(B)), [found((A, 0.9)), found((B, 0.8))])
    assert result["MR"] == pytest.approx(1e-10)


def test_a_curve_without_strays_keeps_its_last_miss_rate():
    result = log_average_miss_rate(people(photo(A, B)), [found((A, 0.9))])
    np.testing.assert_allclose(result["miss_rate"], 0.5)
    assert result["MR"] == pytest.approx(0.5)


def test_nothing_found_or_only_strays_misses_everything():
    assert log_average_miss_rate(people(photo(A)), [found()])["MR"] == 1
    strays = [found((STRAY, 0.9), (C, 0.8))]
    assert log_average_miss_rate(people(photo(A)), strays)["MR"] == 1


def test_nothing_to_find_is_nan():
    result = log_average_miss_rate(people(photo()), [found((A, 0.9))])
    assert np.isnan(result["MR"]) and result["objects"] == 0


def test_a_second_detection_of_one_person_is_false():
    # One photo: the double makes FPPI 1, so the second person is found only at the last point.
    data = people(photo(A, B))
    result = log_average_miss_rate(data, [found((A, 0.9), (A, 0.8), (B, 0.7))])
    np.testing.assert_allclose(result["miss_rate"], [0.5] * 8 + [0])


def test_ignore_regions_absorb_strays_by_the_detections_own_area():
    # Both strays lie in the region, which is far larger than they: their IoU with it is small.
    region = [250, 0, 500, 300]
    strays = ((STRAY, 0.9), ([400, 0, 440, 100], 0.8))
    clean = log_average_miss_rate(people(photo(A, B, ignore=[region])), [found(*strays, (A, 0.7))])
    np.testing.assert_allclose(clean["miss_rate"], 0.5)
    # Half of a detection inside is enough at iou .5, less is a stray (FPPI 1 on the one photo).
    half, less = [230, 0, 270, 100], [229, 0, 269, 100]
    inside = log_average_miss_rate(
        people(photo(A, ignore=[region])), [found((half, 0.9), (A, 0.5))]
    )
    assert inside["MR"] == pytest.approx(1e-10)
    beside = log_average_miss_rate(
        people(photo(A, ignore=[region])), [found((less, 0.9), (A, 0.5))]
    )
    np.testing.assert_allclose(beside["miss_rate"], [1] * 8 + [0])


def test_a_person_inside_an_ignore_region_is_still_found():
    data = people(photo(A, ignore=[[0, 0, 500, 300]]))
    assert log_average_miss_rate(data, [found((A, 0.9))])["MR"] == pytest.approx(1e-10)


def tall(height, x=0):
    return [x, 0, x + 40, height]


def test_people_outside_the_range_of_heights_neither_count_nor_harm():
    # The 60 px person counts; the 100 px one is found too, which is neither a hit nor a stray.
    data = people(photo(tall(60), tall(100, 100)))
    detections = [found((tall(95, 100), 0.9), (tall(60), 0.8))]
    result = log_average_miss_rate(data, detections, height=(30, 80))
    assert result["objects"] == 1
    assert result["MR"] == pytest.approx(1e-10)


@pytest.mark.parametrize(
    ("height", "dropped"),
    # Range 40 to 80, widened to 32 ... 100: strays inside the widened range are strays.
    [(31, True), (32, False), (99, False), (100, True)],
)
def test_strays_beyond_the_widened_range_are_dropped(height, dropped):
    data = people(photo(tall(60)))
    detections = [found((tall(height, 300), 0.9), (tall(60), 0.8))]
    miss_rate = log_average_miss_rate(data, detections, height=(40, 80))["miss_rate"]
    np.testing.assert_allclose(miss_rate, [0] * 9 if dropped else [1] * 8 + [0])


def test_a_detection_somewhat_out_of_range_still_finds_its_person():
    # 78 px person found by a box of 90 px: IoU 78/90, and 90 < 80 * 1.25.
    data = people(photo(tall(78)))
    found_it = log_average_miss_rate(data, [found((tall(90), 0.9))], height=(30, 80))
    assert found_it["MR"] == pytest.approx(1e-10)


def test_ranges_are_half_open():
    data = people(photo(tall(80)))
    for height, objects in (((30, 80), 0), ((80, np.inf), 1)):
        assert log_average_miss_rate(data, [found()], height=height)["objects"] == objects


def test_only_the_class_asked_for_counts():
    labels = np.array([0, 1], np.int32)
    data = Dataset([Sample("photo.jpg", boxes(A, B), labels)], classes=("dog", "person"))
    detections = [Detections(boxes(B, A), [0.9, 0.8], [0, 1], ("person", "dog"))]
    result = log_average_miss_rate(data, detections, label=1)
    assert result["objects"] == 1 and result["MR"] == pytest.approx(1e-10)
    assert log_average_miss_rate(data, detections, label=None)["objects"] == 2


def test_the_thousand_best_of_a_photo_count():
    # A thousand strays, absorbed by a region, push the hit out of the thousand best.
    far = [1000, 0, 1040, 100]
    data = people(photo(A, ignore=[far]))
    within = log_average_miss_rate(data, [found(*[(far, 0.9)] * 999, (A, 0.5))])
    beyond = log_average_miss_rate(data, [found(*[(far, 0.9)] * 1000, (A, 0.5))])
    assert within["MR"] == pytest.approx(1e-10)
    assert beyond["MR"] == 1
