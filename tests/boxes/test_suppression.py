"""Suppression against the sequential algorithm, written out, and against TensorFlow's own."""

import keras
import numpy as np
import pytest
from keras import ops

from kerasdet.boxes.anchors import rpn_anchors
from kerasdet.boxes.suppression import greedy_keep, soft_nms


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return shared / (sum(areas) - shared)


def sequential(boxes, scores, labels, threshold):
    kept = []
    for i in range(len(boxes)):
        rivals = (j for j in kept if labels[j] == labels[i])
        if scores[i] > 0 and all(iou(boxes[j], boxes[i]) <= threshold for j in rivals):
            kept.append(i)
    return kept


def crowd(seed, count=100, classes=2, side=60):
    """Boxes that overlap each other heavily, best first, the last few with score 0."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, side, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(8, 30, (count, 2))], -1).astype(np.float32)
    scores = np.sort(rng.uniform(0.01, 1, count))[::-1].astype(np.float32)
    scores[-5:] = 0
    return boxes, scores, rng.integers(0, classes, count).astype(np.int32)


def keep(boxes, scores, labels, threshold):
    arrays = (boxes[None], scores[None], labels[None])
    found = greedy_keep(*map(ops.convert_to_tensor, arrays), threshold)
    return ops.convert_to_numpy(found)[0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.3, 0.5])
@pytest.mark.parametrize("count", [60, 200, 300])  # one block, two, three
def test_keeps_what_the_sequential_algorithm_keeps(seed, threshold, count):
    boxes, scores, labels = crowd(seed, count, side=[20, 60, 150][seed % 3])
    kept = sequential(boxes, scores, labels, threshold)
    np.testing.assert_array_equal(np.flatnonzero(keep(boxes, scores, labels, threshold)), kept)
    assert 2 <= len(kept) <= count - 5


def test_long_chains_of_many_boxes_end():
    """1000 anchors whose scores fall from left to right: each hangs on the one before, thirty times over."""
    (anchors,) = rpn_anchors([20], [16.0], [(13, 26, 51, 102, 205)])
    boxes = np.clip(anchors, 0, 320)
    boxes = boxes[np.argsort(boxes[:, 0], kind="stable")][:1000].astype(np.float32)
    scores = np.linspace(1, 0.1, 1000, dtype=np.float32)
    labels = np.zeros(1000, np.int32)
    found = keep(boxes, scores, labels, 0.7)
    assert np.flatnonzero(found).tolist() == sequential(boxes, scores, labels, 0.7)
    # Two rounds are too few.
    few = greedy_keep(*(ops.convert_to_tensor(one[None]) for one in (boxes, scores, labels)), 0.7, rounds=2)
    assert (ops.convert_to_numpy(few)[0] != found).sum() > 10


def test_keeps_what_tensorflow_keeps():
    tf = pytest.importorskip("tensorflow")
    boxes, scores, labels = crowd(9)
    found = keep(boxes, scores, labels, 0.5)
    for label in (0, 1):
        rows = np.flatnonzero((labels == label) & (scores > 0))
        theirs = tf.image.non_max_suppression(boxes[rows], scores[rows], len(rows), 0.5).numpy()
        np.testing.assert_array_equal(rows[np.sort(theirs)], rows[found[rows] == 1])


def test_keeps_the_same_inside_a_model():
    """Symbolic tensors compare differently from real ones."""
    boxes, scores, labels = crowd(4)
    inputs = [
        keras.Input((100, 4)), keras.Input((100,)), keras.Input((100,), dtype="int32")
    ]
    model = keras.Model(inputs, greedy_keep(*inputs, 0.5))
    found = ops.convert_to_numpy(model([boxes[None], scores[None], labels[None]]))[0]
    np.testing.assert_array_equal(np.flatnonzero(found), sequential(boxes, scores, labels, 0.5))


def test_a_dropped_box_does_not_drop_others():
    """A chain: each overlaps the next by 3/5 and the one after it by 1/3."""
    boxes = np.array([[x, 0, x + 8, 8] for x in range(0, 20, 2)], np.float32)
    scores = np.linspace(0.9, 0.1, 10).astype(np.float32)
    found = keep(boxes, scores, np.zeros(10, np.int32), 0.5)
    np.testing.assert_array_equal(found, [1, 0] * 5)


def test_a_box_of_score_zero_neither_stays_nor_drops():
    boxes = np.array([[0, 0, 8, 8]] * 3, np.float32)
    found = keep(boxes, np.array([0.0, 0.5, 0.4], np.float32), np.zeros(3, np.int32), 0.5)
    np.testing.assert_array_equal(found, [0, 1, 0])


def test_equal_overlap_is_not_more():
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 2]], np.float32)  # IoU is exactly .5
    scores = np.array([0.9, 0.8], np.float32)
    assert keep(boxes, scores, np.zeros(2, np.int32), 0.5).sum() == 2
    assert keep(boxes, scores, np.zeros(2, np.int32), 0.49).sum() == 1


def test_a_file_compares_no_pairs_and_holds_none():
    """LiteRT takes many times as long for comparisons of pairs as for arithmetic with them."""
    tf = pytest.importorskip("tensorflow")
    from kerasdet.deploy import flatbuffer

    def suppress(boxes, scores):
        return greedy_keep(boxes, scores, tf.zeros((1, 40), tf.int32), 0.5)  # one class, known beforehand

    specs = tf.TensorSpec((1, 40, 4)), tf.TensorSpec((1, 40))
    function = tf.function(suppress, autograph=False).get_concrete_function(*specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    model = flatbuffer.read(bytes(converter.convert()))
    tensors = model.subgraphs[0].tensors
    pairs = {number for number, tensor in enumerate(tensors) if np.prod(tensor.shape) >= 40 * 40}
    made_by = {
        number: flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators for number in op.outputs
    }
    assert pairs and pairs <= set(made_by)  # no constant among them
    assert not {"LESS", "GREATER", "EQUAL", "LOGICAL_AND", "CAST"} & {made_by[number] for number in pairs}


# === Soft-NMS ===


def soften(boxes, scores, labels, *options):
    arrays = (boxes[None], scores[None], labels[None])
    return ops.convert_to_numpy(soft_nms(*map(ops.convert_to_tensor, arrays), *options))[0]


def soft_sequential(boxes, scores, labels, decay):
    """Figure 2 of the paper, box by box; `decay` gives the factor of an overlap."""
    scores, left = scores.astype(np.float64), list(range(len(boxes)))
    while left:
        best = max(left, key=lambda i: scores[i])
        left.remove(best)
        for i in left:
            if labels[i] == labels[best]:
                scores[i] *= decay(iou(boxes[best], boxes[i]))
    return scores


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("options", "decay"),
    [
        (("gaussian", 0.5), lambda overlap: np.exp(-(overlap**2) / 0.5)),
        (("gaussian", 0.2), lambda overlap: np.exp(-(overlap**2) / 0.2)),
        (("linear", 0.5, 0.3), lambda overlap: 1 - overlap if overlap > 0.3 else 1.0),
    ],
)
def test_soft_nms_decays_as_the_sequential_algorithm(seed, options, decay):
    boxes, scores, labels = crowd(seed, count=40, side=30)
    shuffled = np.random.default_rng(seed).permutation(40)  # no order is asked for
    boxes, scores, labels = boxes[shuffled], scores[shuffled], labels[shuffled]
    found = soften(boxes, scores, labels, *options)
    np.testing.assert_allclose(found, soft_sequential(boxes, scores, labels, decay), rtol=1e-4, atol=1e-7)
    assert (found < 0.5 * scores).sum() >= 10 and (found == scores).sum() >= 2


def test_soft_nms_by_hand():
    # The second box is half of the first, IoU .5; the third is of another class.
    boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 2], [0, 0, 4, 4]], np.float32)
    scores, labels = np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 0, 1], np.int32)
    np.testing.assert_allclose(soften(boxes, scores, labels), [0.9, 0.48522, 0.7], rtol=1e-5)
    np.testing.assert_allclose(soften(boxes, scores, labels, "linear"), [0.9, 0.4, 0.7], rtol=1e-6)
    with pytest.raises(ValueError, match="method is 'hard'"):
        soften(boxes, scores, labels, "hard")


def test_soft_nms_is_tensorflow_s():
    tf = pytest.importorskip("tensorflow")
    boxes, scores, labels = crowd(5, count=40, side=30)
    found = soften(boxes, scores, labels, "gaussian", 0.6)
    for label in (0, 1):
        rows = np.flatnonzero((labels == label) & (scores > 0))
        # A threshold of 1 drops nothing; their Gaussian is exp(-IoU^2 / (2 sigma)).
        order, theirs = tf.image.non_max_suppression_with_scores(
            boxes[rows], scores[rows], len(rows), iou_threshold=1.0, soft_nms_sigma=0.3
        )
        assert len(order) == len(rows) > 10
        np.testing.assert_allclose(found[rows[order.numpy()]], theirs.numpy(), rtol=1e-4)


def test_soft_nms_takes_a_batch_of_a_model():
    boxes, scores, labels = map(np.stack, zip(*(crowd(s, count=20) for s in (1, 2)), strict=True))
    inputs = keras.Input((20, 4)), keras.Input((20,)), keras.Input((20,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: soft_nms(*x), output_shape=(20,))(inputs))
    found = ops.convert_to_numpy(model([boxes, scores, labels]))
    for row in range(2):
        alone = soften(boxes[row], scores[row], labels[row])
        np.testing.assert_allclose(found[row], alone, rtol=1e-5)
