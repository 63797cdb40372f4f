"""k-means anchors: worked overlaps, and the best of all partitions of a small set."""

import itertools

import numpy as np
import pytest

from kerasdet.boxes.kmeans import kmeans_anchors, size_iou


def test_size_iou_worked_examples():
    found = size_iou(np.array([[2.0, 4.0], [1.0, 1.0]]), np.array([[4.0, 2.0], [2.0, 4.0]]))
    np.testing.assert_allclose(found, [[4 / 12, 1], [1 / 8, 1 / 8]])


def best_partition(sizes, count):
    """By brute force: the means of the groups, of all ways to form them, that overlap the boxes best."""
    found = []
    for groups in itertools.product(range(count), repeat=len(sizes)):
        groups = np.array(groups)
        if len(set(groups)) == count:
            means = np.array([sizes[groups == i].mean(0) for i in range(count)])
            found.append((size_iou(sizes, means).max(1).mean(), means))
    return max(found, key=lambda pair: pair[0])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_what_brute_force_finds(seed):
    rng = np.random.default_rng(seed)
    middles = np.array([[10, 12], [30, 18], [60, 90]]).repeat(3, 0)
    sizes = middles * rng.uniform(0.85, 1.15, middles.shape)
    score, means = best_partition(sizes, 3)
    found = kmeans_anchors(rng.permutation(sizes), 3, seed=seed)
    np.testing.assert_allclose(found, means[np.argsort(means.prod(-1))], rtol=1e-9)
    assert size_iou(sizes, found).max(1).mean() == pytest.approx(score)


def test_anchors_are_means_of_their_boxes_by_rising_area_and_hang_on_the_seed_alone():
    sizes = np.random.default_rng(0).lognormal(3, 0.6, (300, 2))
    found = kmeans_anchors(sizes, 9, seed=4)
    np.testing.assert_array_equal(found, kmeans_anchors(sizes, 9, seed=4))
    assert found.shape == (9, 2) and (np.diff(found.prod(-1)) > 0).all()
    owner = size_iou(sizes, found).argmax(1)
    np.testing.assert_allclose(found, [sizes[owner == i].mean(0) for i in range(9)])
    # Better than boxes drawn at random, and than a single anchor.
    mean = size_iou(sizes, found).max(1).mean()
    assert mean > size_iou(sizes, sizes[:9]).max(1).mean()
    assert mean > size_iou(sizes, kmeans_anchors(sizes, 1)).max(1).mean() + 0.1


def test_as_many_anchors_as_sizes_are_the_sizes():
    sizes = np.array([[1, 1], [4, 4], [2, 2], [2, 2]])
    np.testing.assert_allclose(kmeans_anchors(sizes, 3), [[1, 1], [2, 2], [4, 4]])


def test_what_cannot_be_clustered_is_told():
    with pytest.raises(ValueError, match="4 anchors of 3 different box sizes"):
        kmeans_anchors([[1, 1], [2, 2], [2, 2], [3, 3]], 4)
    with pytest.raises(ValueError, match=r"sizes\[1\] is \[0.0, 3.0\]"):
        kmeans_anchors([[1, 1], [0, 3]], 2)
