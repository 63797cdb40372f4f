"""Greedy merging: match scores and means by hand, and against a plain loop over pairs."""

import numpy as np
import pytest

from kerasdet.boxes.merging import greedy_merge, match_scores


def test_match_scores_by_hand():
    boxes = np.array([[0, 0, 10, 10]])
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 0, 30, 10], [0, 0, 10, 5]])
    diagonal = np.sqrt(200)
    expected = [0, 5 / diagonal + 2 / 3, 20 / diagonal + 1, 2.5 / ((diagonal + np.sqrt(125)) / 2) + 0.5]
    np.testing.assert_allclose(match_scores(boxes, others)[0], expected)
    assert match_scores(boxes, boxes * 0)[0, 0] > 1  # an empty box is like none


def test_windows_that_agree_become_one_box():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10], [40, 0, 50, 10]], np.float32)
    found, scores, labels = greedy_merge(boxes, np.array([0.5, 0.25, 0.25, 0.8]), np.zeros(4, int))
    np.testing.assert_allclose(found, [[0.75, 0, 10.75, 10], [40, 0, 50, 10]], rtol=1e-6)
    np.testing.assert_allclose(scores, [1.0, 0.8])
    assert labels.tolist() == [0, 0] and found.dtype == scores.dtype == np.float32


def test_three_weak_windows_beat_a_strong_one():
    boxes = np.array([[40, 0, 50, 10], [0, 0, 10, 10], [0, 1, 10, 11], [0, 2, 10, 12]], np.float32)
    _, scores, _ = greedy_merge(boxes, np.array([0.6, 0.3, 0.3, 0.3]), np.zeros(4, int))
    np.testing.assert_allclose(scores, [0.9, 0.6], rtol=1e-6)


def test_classes_are_kept_apart():
    boxes = np.tile(np.array([[0.0, 0, 10, 10]]), (3, 1))
    found, scores, labels = greedy_merge(boxes, np.array([0.5, 0.4, 0.3]), np.array([2, 1, 2]))
    assert labels.tolist() == [2, 1]
    np.testing.assert_allclose(scores, [0.8, 0.4], rtol=1e-6)


def test_nothing_to_merge():
    found, scores, labels = greedy_merge(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    assert found.shape == (0, 4) and scores.shape == labels.shape == (0,)


@pytest.mark.parametrize("seed", range(4))
def test_it_merges_the_nearest_pair_until_none_is_near(seed):
    """A list, and all pairs looked at anew each time."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 60, (30, 2))
    boxes = np.concatenate([low, low + rng.uniform(15, 40, (30, 2))], -1)
    scores = rng.uniform(0.1, 1, 30)
    left = list(zip(boxes, scores, strict=True))
    while True:
        pairs = [
            (match_scores(a[0][None], b[0][None])[0, 0], i, j)
            for i, a in enumerate(left) for j, b in enumerate(left) if i < j
        ]
        best, i, j = min(pairs)
        if best > 0.8:
            break
        (a, p), (b, q) = left[i], left[j]
        left = [each for n, each in enumerate(left) if n not in (i, j)]
        left.append(((p * a + q * b) / (p + q), p + q))
    found, sums, _ = greedy_merge(boxes, scores, np.zeros(30, int), 0.8)
    assert 1 < len(found) < 25
    expected = sorted(left, key=lambda each: -each[1])
    np.testing.assert_allclose(sums, [each[1] for each in expected], rtol=1e-5)
    np.testing.assert_allclose(found, [each[0] for each in expected], rtol=1e-4)
