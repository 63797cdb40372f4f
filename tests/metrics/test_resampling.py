"""Figures of drawn sets against pycocotools on the same photos, and against counting by hand."""

import dataclasses

import numpy as np
import pytest

from kerasdet.data.dataset import Dataset
from kerasdet.data.sample import Sample
from kerasdet.detections import Detections
from kerasdet.metrics import bootstrap, bootstrap_recall, coco_metrics, interval
from kerasdet.metrics.resampling import _weights

CLASSES = ("cat", "dog")


def random_set(photos=25, seed=0):
    """Photos with objects of all sizes and a crowd here and there; boxes found near them and elsewhere."""
    rng = np.random.default_rng(seed)
    samples, found = [], []
    for number in range(photos):
        count = int(rng.integers(0, 4))
        corners = rng.uniform(0, 300, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(10, 200, (count, 2))], 1).astype(np.float32)
        labels = rng.integers(0, 2, count).astype(np.int32)
        ignore = boxes[:1] + 50 if number % 5 == 0 else np.zeros((0, 4), np.float32)
        samples.append(Sample(f"{number}.jpg", boxes, labels, ignore=ignore))
        near = boxes + rng.normal(0, 6, boxes.shape).astype(np.float32)
        stray = np.array([[5, 5, 60, 60]], np.float32)
        boxes = np.concatenate([near, near + 3, stray])
        scores = rng.uniform(0, 1, len(boxes)).astype(np.float32)
        labels = np.concatenate([labels, labels, [0]])
        found.append(Detections(boxes, scores, labels, CLASSES))
    return Dataset(samples, CLASSES), found


def test_every_draw_is_what_pycocotools_says_of_its_photos():
    data, found = random_set()
    drawn = bootstrap(data, found, draws=4, seed=1)
    for row, weights in enumerate(_weights(len(data), 4, seed=1)):
        photos = np.repeat(np.arange(len(data)), weights.astype(int))
        some = [dataclasses.replace(data[int(i)], image_id=number) for number, i in enumerate(photos)]
        expected = coco_metrics(Dataset(some, CLASSES), [found[i] for i in photos])
        assert 0.1 < expected["AP"] < 0.9
        for name in ("AP", "AP50", "AP_small", "AP_medium", "AP_large"):
            assert drawn[name][row] == pytest.approx(expected[name], abs=1e-6, nan_ok=True), name


def test_what_a_draw_has_no_object_of_is_nan():
    data = Dataset([Sample("a.jpg", np.array([[0, 0, 20, 20]], np.float32), np.zeros(1, np.int32))], CLASSES)
    found = [Detections([[0, 0, 20, 20]], [0.5], [0], CLASSES)]
    drawn = bootstrap(data, found, draws=2)
    assert drawn["AP"] == pytest.approx([1, 1, 1]) and np.isnan(drawn["AP_large"]).all()
    assert f"{interval(drawn['AP_large']):.3f}" == "nan (nan to nan)"
    assert f"{interval(np.array([0.5, np.nan, 0.4])):.1f}" == "0.5 (0.4 to 0.4)"


def test_recall_counts_objects_that_the_first_proposals_overlap():
    boxes = np.array([[0, 0, 100, 100], [200, 200, 220, 220]], np.float32)
    data = Dataset([Sample("a.jpg", boxes, np.array([0, 1], np.int32))], CLASSES)
    # The large object is overlapped by .72, so at 5 of 10 thresholds; the small one wholly, but last.
    proposals = [np.array([[0, 0, 100, 72], [300, 300, 310, 310], [200, 200, 220, 220]], np.float32)]
    drawn = bootstrap_recall(data, proposals, at=(2, 3), draws=0)
    assert {name: values[0] for name, values in drawn.items()} == pytest.approx({
        "AR@2": 0.25, "AR@2_small": 0, "AR@2_medium": np.nan, "AR@2_large": 0.5,
        "AR@3": 0.75, "AR@3_small": 1, "AR@3_medium": np.nan, "AR@3_large": 0.5,
    }, nan_ok=True)


def test_every_draw_of_recall_is_that_of_its_photos():
    data, found = random_set()
    proposals = [each.boxes for each in found]
    drawn = bootstrap_recall(data, proposals, at=(2, 10), draws=4, seed=1)
    assert len(set(drawn["AR@2"])) > 2
    for row, weights in enumerate(_weights(len(data), 4, seed=1)):
        photos = np.repeat(np.arange(len(data)), weights.astype(int))
        some = Dataset([dataclasses.replace(data[int(i)], image_id=n) for n, i in enumerate(photos)], CLASSES)
        alone = bootstrap_recall(some, [proposals[i] for i in photos], at=(2, 10), draws=0)
        assert 0.1 < alone["AR@10"][0] < 0.95
        for name, values in alone.items():
            assert drawn[name][row] == pytest.approx(values[0], abs=1e-9, nan_ok=True), name


def test_two_detectors_are_told_apart_by_their_difference():
    """One that finds a little less on every photo: each alone varies more than what lies between them."""
    data, found = random_set(60)
    worse = [Detections(f.boxes + 2.0, f.scores, f.labels, CLASSES) for f in found]
    one, other = (bootstrap(data, side, draws=200)["AP"] for side in (found, worse))
    alone, between = interval(one), interval(one - other)
    assert alone.low < alone.value < alone.high
    assert between.high - between.low < alone.high - alone.low
    assert between.low > 0
    assert f"{interval(np.array([0.5, 0.25, 0.25, 0.75, 0.75])):.2f}" == "0.50 (0.25 to 0.75)"


def test_an_interval_holds_95_percent_of_the_draws():
    found = interval(np.concatenate([[0.5], np.arange(1001) / 1000, [np.nan]]))
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.025, 0.975))
