"""Losses against plain loops."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.losses import (
    center_loss,
    check_smoothing,
    class_cross_entropy,
    dense_box_loss,
    penalty_reduced_focal,
    smooth_l1,
    soft_targets,
)


def number(x):
    return float(ops.convert_to_numpy(x))


def test_focal_loss_by_hand():
    # p = .5 everywhere: a hit costs .25 log 2, a cell under heat .5 costs (1/2)^4 of that.
    heat = np.array([1, 0.5, 0], np.float32).reshape(1, 1, 3, 1)
    positive = np.array([1, 0, 0], np.float32).reshape(1, 1, 3, 1)
    valid = np.ones((1, 1, 3, 1), np.float32)
    loss = penalty_reduced_focal(np.zeros((1, 1, 3, 1), np.float32), heat, positive, valid)
    assert number(loss) == pytest.approx(0.25 * math.log(2) * (1 + 1 / 16 + 1), rel=1e-5)


def test_focal_loss_is_the_sum_over_all_cells():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 4, 5, 3)).astype(np.float32)
    heat = rng.uniform(0, 1, logits.shape).astype(np.float32)
    positive = np.where(rng.random(logits.shape) < 0.1, 0.7, 0).astype(np.float32)
    valid = (rng.random((2, 4, 5, 1)) < 0.8).astype(np.float32)
    expected = 0.0
    for b, y, x, c in np.ndindex(*logits.shape):
        p = 1 / (1 + math.exp(-logits[b, y, x, c]))
        weight = positive[b, y, x, c]
        if weight > 0:
            cost = -weight * (1 - p) ** 2 * math.log(p)
        else:
            cost = -((1 - heat[b, y, x, c]) ** 4) * p**2 * math.log(1 - p)
        expected += valid[b, y, x, 0] * cost
    found = number(penalty_reduced_focal(logits, heat, positive, valid))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_focal_loss_of_certain_cells_is_finite(logit):
    one = np.ones((1, 1, 1, 1), np.float32)
    hit = number(penalty_reduced_focal(logit * one, one, one, one))
    miss = number(penalty_reduced_focal(logit * one, 0 * one, 0 * one, one))
    assert hit == pytest.approx(200.0 if logit < 0 else 0.0)
    assert miss == pytest.approx(200.0 if logit > 0 else 0.0)


def test_smooth_l1_by_hand():
    error = np.array([-2.0, -0.5, 0.0, 1.0, 3.0], np.float32)
    found = ops.convert_to_numpy(smooth_l1(error))
    np.testing.assert_allclose(found, [1.5, 0.125, 0, 0.5, 2.5])
    np.testing.assert_allclose(ops.convert_to_numpy(smooth_l1(error, 0.5)), [1.75, 0.25, 0, 0.75, 2.75])


def test_center_loss_is_shared_by_the_objects():
    ones = np.ones((1, 1, 1, 1), np.float32)
    goal = {"heat": ones, "positive": 1 * ones, "valid": ones}
    three = {key: np.concatenate([value] * 3, 1) for key, value in goal.items()}
    one = number(center_loss(0 * ones, goal))
    assert one == pytest.approx(0.25 * math.log(2), rel=1e-5)
    assert number(center_loss(np.zeros((1, 3, 1, 1), np.float32), three)) == pytest.approx(one, rel=1e-5)
    nothing = {"heat": 0 * ones, "positive": 0 * ones, "valid": ones}
    assert number(center_loss(0 * ones, nothing)) == pytest.approx(one, rel=1e-5)


def test_dense_box_loss_by_hand():
    # Two cells: one a third of the object's box beyond it (GIoU -1/3), one right; weights 1 and 3.
    predicted = np.array([[2, 0, 3, 1], [0, 0, 1, 1]], np.float32).reshape(1, 1, 2, 4)
    boxes = np.array([[[0, 0, 1, 1], [5, 5, 9, 9]]], np.float32)
    owner = np.array([[1, 1], [0, 0]], np.float32).reshape(1, 2, 1, 2)
    weight = np.array([[1, 3], [0, 0]], np.float32).reshape(1, 2, 1, 2)
    loss = number(dense_box_loss(predicted, boxes, {"owner": owner, "weight": weight}))
    assert loss == pytest.approx((1 + 1 / 3) / 4, rel=1e-5)
    none = {"owner": 0 * owner, "weight": 0 * weight}
    assert number(dense_box_loss(predicted, boxes, none)) == 0


# === Soft labels ===


def soft(*arguments, **options):
    return ops.convert_to_numpy(soft_targets(*arguments, **options))


def test_soft_targets_by_hand():
    # The lecture's example: what is taken goes to the others.
    np.testing.assert_allclose(soft([0], 3, 0.1, others=True), [[0.9, 0.05, 0.05]])
    np.testing.assert_allclose(soft([2, 0], 4, 0.1), [[0.025, 0.025, 0.925, 0.025], [0.925] + [0.025] * 3])
    np.testing.assert_allclose(soft([1], 2, 0.0), [[0, 1]])
    np.testing.assert_allclose(soft([0], 1, 0.3), [[1]])


@pytest.mark.parametrize("count", [2, 3, 20])
def test_both_ways_to_spread_are_one(count):
    one = soft([1], count, 0.1, others=True)
    np.testing.assert_allclose(one, soft([1], count, 0.1 * count / (count - 1)), rtol=1e-6)
    np.testing.assert_allclose(one.sum(), 1, rtol=1e-6)


@pytest.mark.parametrize(("count", "low"), [(1, 1 / 40), (20, 1 / 40), (80, 1 / 80)])
def test_soft_targets_of_yolo(count, low):
    expected = np.full((1, count), low)
    expected[0, -1] = 1 - low
    np.testing.assert_allclose(soft([count - 1], count, "yolo"), expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [1.0, -0.1, "soft", math.nan])
def test_smoothing_out_of_range_is_told(smoothing):
    with pytest.raises(ValueError, match=f"label_smoothing is {smoothing!r}; give 0 for none"):
        soft_targets([0], 3, smoothing)
    with pytest.raises(ValueError, match=r"label_smoothing is 'yolo'; .* a part of 1, as .1$"):
        check_smoothing("yolo")
    with pytest.raises(ValueError, match="there are 1 classes"):
        soft_targets([0], 1, 0.1, others=True)


def test_smoothed_cross_entropy_is_that_of_keras():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (5, 4)).astype(np.float32)
    labels = np.array([0, 3, 1, 1, 2], np.int32)
    for smoothing in (0.0, 0.2):
        theirs = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=smoothing, reduction="none"
        )(np.eye(4)[labels], logits)
        found = class_cross_entropy(labels, logits, smoothing)
        np.testing.assert_allclose(
            ops.convert_to_numpy(found), ops.convert_to_numpy(theirs), rtol=1e-5, atol=1e-6
        )
