"""Box coders: worked examples, and decoding as the inverse of encoding."""

import math

import numpy as np
from keras import ops

from kerasdet.boxes import coders

rows = lambda *boxes: np.array(boxes, np.float32)  # noqa: E731


def test_encode_by_hand():
    anchors = rows([10, 20, 30, 40], [0, 0, 10, 20])
    boxes = rows([10, 10, 30, 50], [1, 4, 6, 24])
    # The second: centre 3.5, 14 against 5, 10; 5 x 20 against 10 x 20.
    expected = [[0, 0, 0, 5 * math.log(2)], [10 * -1.5 / 10, 10 * 4 / 20, -5 * math.log(2), 0]]
    np.testing.assert_allclose(ops.convert_to_numpy(coders.encode(boxes, anchors)), expected, atol=1e-5)


def test_decode_by_hand():
    found = coders.decode(rows([-1.5, 2, -5 * math.log(2), 0]), rows([0, 0, 10, 20]))
    np.testing.assert_allclose(ops.convert_to_numpy(found), [[1, 4, 6, 24]], atol=1e-5)


def test_what_is_encoded_is_decoded():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (2, 40, 2))
    boxes, anchors = (np.concatenate([c, c + rng.uniform(3, 100, (40, 2))], -1) for c in corners)
    boxes, anchors = boxes.astype("float32"), anchors.astype("float32")
    found = coders.decode(coders.encode(boxes, anchors), anchors)
    np.testing.assert_allclose(ops.convert_to_numpy(found), boxes, atol=1e-3)


def test_wild_deltas_and_empty_boxes_stay_finite():
    anchor = rows([0, 0, 10, 10])
    found = ops.convert_to_numpy(coders.decode(rows([0, 0, 1e4, -1e4]), anchor))
    np.testing.assert_allclose(found, [[-295, 5, 305, 5]], rtol=1e-4)
    assert np.isfinite(ops.convert_to_numpy(coders.encode(rows([3, 3, 3, 3]), anchor))).all()


def test_other_weights_by_hand():
    """Those of region proposal networks: plain differences."""
    anchors, boxes = rows([0, 0, 10, 20]), rows([1, 4, 6, 24])
    found = coders.encode(boxes, anchors, (1.0, 1.0))
    np.testing.assert_allclose(ops.convert_to_numpy(found), [[-0.15, 0.2, -math.log(2), 0]], atol=1e-6)
    again = coders.decode(found, anchors, (1.0, 1.0))
    np.testing.assert_allclose(ops.convert_to_numpy(again), boxes, atol=1e-5)
