"""Offset max-pooling: by hand, against brute force, and back into one map."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasdet.deploy.delegates import gpu
from kerasdet.layers import Interleave, OffsetMaxPool


def numbers(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_twenty_columns_are_six_pools_at_three_offsets():
    """Figure 3 of the paper: one dimension, 20 cells, pools of 3."""
    row = numbers(20)
    pooled = ops.convert_to_numpy(OffsetMaxPool(3)(np.tile(row, (3, 1))[None, :5 * 3, :, None].repeat(5, 1)))
    assert pooled.shape == (9, 5, 6, 1)
    for x in range(3):
        expected = [row[x + 3 * i : x + 3 * i + 3].max() for i in range(6)]
        for y in range(3):
            np.testing.assert_array_equal(pooled[3 * y + x, 0, :, 0], expected)


def test_by_hand():
    picture = np.arange(30.0, dtype="float32").reshape(1, 5, 6, 1)
    pooled = ops.convert_to_numpy(OffsetMaxPool(2)(picture))[..., 0]
    # The lower right corner of a pool holds the most; the last pool of six columns, begun at the second, is
    # one column wide.
    assert pooled.tolist() == [
        [[7, 9, 11], [19, 21, 23]], [[8, 10, 11], [20, 22, 23]],
        [[13, 15, 17], [25, 27, 29]], [[14, 16, 17], [26, 28, 29]],
    ]


def test_pools_at_the_border_hold_what_is_left_of_them():
    picture = numbers(1, 7, 8, 2)
    pooled = ops.convert_to_numpy(OffsetMaxPool(3)(picture)).reshape(3, 3, 2, 2, 2)
    for y, x, row, column in np.ndindex(3, 3, 2, 2):
        top, left = 3 * row + y, 3 * column + x
        expected = picture[0, top : top + 3, left : left + 3].max((0, 1))
        np.testing.assert_array_equal(pooled[y, x, row, column], expected)


@pytest.mark.parametrize("pool, window", [(3, 5), (2, 3), (2, 1)])
def test_a_classifier_on_it_equals_brute_force_on_every_window(pool, window):
    """Every window of the map that is a multiple of the pool wide, cut out and run on its own."""
    channels, side = 4, pool * window
    maps = numbers(2, side + 5, side + 7, channels)
    classifier = keras.Sequential([layers.Conv2D(3, window, activation="relu"), layers.Conv2D(2, 1)])
    dense = ops.convert_to_numpy(Interleave(pool)(classifier(OffsetMaxPool(pool)(maps))))
    rows, columns = (cells - side + 1 for cells in maps.shape[1:3])
    windows = []
    for y in range(rows):
        cut = np.concatenate([maps[:, y : y + side, x : x + side] for x in range(columns)])
        one = ops.convert_to_numpy(classifier(ops.max_pool(cut, pool, pool)))
        assert one.shape[1:] == (1, 1, 2)
        windows.append(one[:, 0, 0].reshape(columns, 2, 2).transpose(1, 0, 2))
    # None is missing; beyond them are those that reach over the border.
    np.testing.assert_allclose(dense[:, :rows, :columns], np.stack(windows, 1), rtol=1e-5, atol=1e-6)
    assert all(0 <= have - want < pool for have, want in zip(dense.shape[1:3], (rows, columns), strict=True))


def test_shapes_are_known_before_the_layers_run():
    for size in ((17, 20), (5, 9), (None, 11)):
        images = keras.Input((*size, 3), batch_size=2)
        pooled = OffsetMaxPool(3)(images)
        known = [None if side is None else side // 3 for side in size]
        assert pooled.shape == (18, *known, 3)
        joined = Interleave(3)(pooled)
        assert joined.shape == (2, *(None if side is None else 3 * side for side in known), 3)
        height, width = (side or 17 for side in size)
        found = keras.Model(images, joined)(numbers(2, height, width, 3))
        assert tuple(found.shape) == (2, height // 3 * 3, width // 3 * 3, 3)


def test_one_pool_changes_nothing():
    picture = numbers(2, 4, 5, 3)
    np.testing.assert_array_equal(ops.convert_to_numpy(OffsetMaxPool(1)(picture)), picture)
    np.testing.assert_array_equal(ops.convert_to_numpy(Interleave(1)(picture)), picture)


def test_they_are_saved_with_their_pool(tmp_path):
    images = keras.Input((9, 9, 2))
    model = keras.Model(images, Interleave(2)(OffsetMaxPool(2)(images)))
    model.save(tmp_path / "pools.keras")
    picture = numbers(1, 9, 9, 2)
    again = keras.models.load_model(tmp_path / "pools.keras")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(again(picture)), ops.convert_to_numpy(model(picture))
    )


@pytest.mark.parametrize("pool, batch", [(1, 2), (2, 1), (2, 3), (3, 1), (3, 2)])
def test_cells_of_every_offset_go_between_each_other(pool, batch):
    """Cell (i, j) of offset (y, x) at (p * i + y, p * j + x), photo by photo."""
    height, width, channels = 4, 5, 3
    maps = numbers(pool * pool * batch, height, width, channels)
    found = ops.convert_to_numpy(Interleave(pool)(maps))
    assert found.shape == (batch, pool * height, pool * width, channels)
    offsets = maps.reshape(pool, pool, batch, height, width, channels)
    for y, x in np.ndindex(pool, pool):
        np.testing.assert_array_equal(found[:, y::pool, x::pool], offsets[y, x])


@pytest.mark.parametrize("pool", [2, 3])
def test_in_a_tflite_they_have_four_dimensions(pool, operators_of):
    images = keras.Input((9, 11, 2), batch_size=1)
    operators = operators_of(keras.Model(images, Interleave(pool)(OffsetMaxPool(pool)(images))))
    assert {"MAX_POOL_2D", "RESHAPE", "TRANSPOSE"} <= {op.name for op in operators}
    assert {len(tensor.shape) for op in operators for tensor in op.outputs} == {4}
    assert all(gpu(op) is None for op in operators)
