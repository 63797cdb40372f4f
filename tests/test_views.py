"""Views of a photo: which windows they are, how their votes count, and where the boxes end up."""

import keras
import numpy as np
import pytest
from harness import SHAPES
from keras import ops
from overfeats import small

from kerasdet import views
from kerasdet.photo import to_square

RNG = np.random.default_rng(0)
# At 64 px already, so that no view resizes it.
PHOTO = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector():
    """Windows of 32 px, 8 px apart; heads with something to say."""
    keras.utils.set_random_seed(5)
    detector = small(SHAPES, background=False)
    for name in ("classifier3", "regressor3"):
        layer = detector.get_layer(name)
        layer.set_weights([np.random.default_rng(1).normal(0, 0.1, w.shape) for w in layer.get_weights()])
    return detector


def of_window(detector, crop):
    """Probabilities and boxes of a photo of one window, by the layers themselves."""
    raw = detector.one_window()(crop[None])
    assert all(value.shape[:3] == (1, 1, 1) for value in raw.values())
    scores = ops.convert_to_numpy(ops.softmax(raw["class_logits"]))[0, 0, 0]
    return scores, ops.convert_to_numpy(raw["boxes_per_class"])[0, 0, 0].reshape(4, 3).T


def test_single_is_the_middle_of_the_photo(detector):
    scores, moved = of_window(detector, PHOTO[16:48, 16:48])
    np.testing.assert_allclose(views.classify(detector, PHOTO, "single"), scores, atol=1e-5)
    found = views.localise(detector, PHOTO, "single")
    label = scores.argmax()
    assert found.labels.tolist() == [label] and found.scores[0] == pytest.approx(scores[label], abs=1e-5)
    box = np.array([16, 16, 48, 48]) + 32 * moved[label]
    np.testing.assert_allclose(found.boxes[0], np.clip(box, 0, 64), atol=1e-3)


def test_ten_crops_are_five_places_and_their_mirror_images(detector):
    crops = [PHOTO[y : y + 32, x : x + 32] for x, y in ((16, 16), (0, 0), (32, 0), (0, 32), (32, 32))]
    each = [of_window(detector, c)[0] for crop in crops for c in (crop, crop[:, ::-1])]
    np.testing.assert_allclose(views.classify(detector, PHOTO, "ten_crop"), np.mean(each, 0), atol=1e-5)


def test_dense_views_vote_by_their_best_window(detector):
    raw = detector(PHOTO[None])
    scores = ops.convert_to_numpy(ops.softmax(raw["class_logits"]))[0]
    assert scores.shape == (6, 6, 3)
    np.testing.assert_allclose(views.classify(detector, PHOTO), scores.max((0, 1)), atol=1e-5)
    # Without offsets: a network that has none, with the same weights.
    plain = small(SHAPES, background=False, offsets=False)
    plain.set_weights(detector.get_weights())
    coarse = ops.convert_to_numpy(ops.softmax(plain(PHOTO[None])["class_logits"]))[0]
    assert coarse.shape == (3, 3, 3)
    found = views.classify(detector, PHOTO, offsets=False)
    np.testing.assert_allclose(found, coarse.max((0, 1)), atol=1e-5)
    assert not np.allclose(found, scores.max((0, 1)))


def test_a_dense_view_knows_its_windows(detector):
    fine, coarse = (views.look(detector, PHOTO, offsets=offsets)[0] for offsets in (True, False))
    assert fine.windows.shape == (36, 4) and coarse.windows.shape == (9, 4)
    np.testing.assert_allclose(fine.windows[8], np.array([16, 8, 48, 40]) / 64)
    np.testing.assert_allclose(coarse.windows[4], np.array([16, 16, 48, 48]) / 64)
    np.testing.assert_allclose(coarse.scores[4], fine.scores[14], atol=1e-6)
    # A window and the box of a class, which is its way from the window's edges.
    raw = ops.convert_to_numpy(detector(PHOTO[None])["boxes_per_class"])[0, 1, 2].reshape(4, 3).T
    np.testing.assert_allclose(fine.boxes[8], fine.windows[8] + raw / 2, atol=1e-5)


def test_scales_and_mirror_images_count_alike(detector):
    square, _ = to_square(PHOTO, 96)
    each = [
        ops.convert_to_numpy(ops.softmax(detector(p[None])["class_logits"])).max((0, 1, 2))
        for p in (PHOTO, PHOTO[:, ::-1], square, square[:, ::-1])
    ]
    found = views.classify(detector, PHOTO, sizes=(64, 96), flip=True)
    np.testing.assert_allclose(found, np.mean(each, 0), atol=1e-5)


def test_boxes_come_back_from_scales_and_mirror_images(monkeypatch, detector):
    """A regressor that always means the same place of the photo, wherever the window is."""
    place = np.array([0.25, 0.5, 0.5, 0.75], np.float32)

    def knowing(network):
        def call(squares, training=False):
            raw = {key: ops.convert_to_numpy(v).copy() for key, v in network(squares, training=False).items()}
            size, (h, w) = squares.shape[1], raw["class_logits"].shape[1:3]
            windows = ops.convert_to_numpy(detector.windows(h, w))
            for i in range(len(squares)):
                mirrored = np.array_equal(squares[i, :, ::-1], squares[0]) and i > 0
                x1, y1, x2, y2 = place
                box = np.array([1 - x2, y1, 1 - x1, y2] if mirrored else place) * size
                raw["boxes_per_class"][i] = ((box - windows) / 32)[..., None].repeat(3, -1).reshape(h, w, 12)
            return {key: ops.convert_to_tensor(value) for key, value in raw.items()}

        return call

    class Knowing:
        classes, image_size, resize, window_side, pool = detector.classes, 64, "stretch", 32, 2
        offsets = True
        windows = detector.windows

        def looking(self, size, crops):
            assert not crops
            return self

        def predict_on_batch(self, squares):
            raw = knowing(detector)(squares)
            return {"class": detector.heads(raw)["class"], "boxes": detector.class_boxes(raw)}

    tall = RNG.integers(0, 256, (120, 60, 3), dtype=np.uint8)
    found = views.localise(Knowing(), tall, sizes=(64, 96), flip=True)
    np.testing.assert_allclose(found.boxes, [[15, 60, 30, 90]], atol=1e-3)


def test_lists_and_what_is_refused(detector):
    votes = detector.classify([PHOTO, PHOTO])
    assert votes.shape == (2, 3)
    np.testing.assert_allclose(votes.sum(1) >= 1, True)
    both = detector.localise([PHOTO, PHOTO], "ten_crop", keep_photo=False)
    assert len(both) == 2 and all(len(found) == 1 and found.photo is None for found in both)
    assert detector.classify([]).shape == (0, 3) and detector.localise([]) == []
    np.testing.assert_array_equal(detector.classify(PHOTO, sizes=64), detector.classify(PHOTO))
    with pytest.raises(ValueError, match="kind is 'many'; give one of single, ten_crop, dense"):
        detector.classify(PHOTO, "many")
    with pytest.raises(ValueError, match=r"sizes are \(64, 24\); give sides of 32 px, a window's, or more"):
        detector.classify(PHOTO, sizes=(64, 24))
    with pytest.raises(ValueError, match="sizes, offsets and flip are for kind='dense'"):
        detector.classify(PHOTO, "single", flip=True)


def test_letterboxed_photos(detector):
    """A photo twice as wide as high lies in the middle of its square, and the boxes find back."""
    letterbox = small(SHAPES, background=False, resize="letterbox")
    letterbox.set_weights(detector.get_weights())
    wide = RNG.integers(0, 256, (32, 64, 3), dtype=np.uint8)
    square = np.full((64, 64, 3), (124, 116, 104), np.uint8)
    square[16:48] = wide
    np.testing.assert_allclose(letterbox.classify(wide), detector.classify(square), atol=1e-5)
    found, whole = letterbox.localise(wide, "single"), detector.localise(square, "single")
    expected = np.clip(whole.boxes - np.array([0, 16, 0, 16]), 0, [64, 32, 64, 32])
    np.testing.assert_allclose(found.boxes, expected, atol=1e-3)


def test_the_window_network_shares_its_weights(detector):
    weights = len(detector.weights)
    before = detector.classify(PHOTO, "single")
    assert len(detector.weights) == weights
    layer = detector.get_layer("classifier3")
    kept = layer.get_weights()
    layer.set_weights([weight * 3 for weight in kept])
    assert not np.allclose(detector.classify(PHOTO, "single"), before)
    layer.set_weights(kept)
    np.testing.assert_allclose(detector.classify(PHOTO, "single"), before, atol=1e-6)


def test_six_sizes_grow_by_a_step_of_the_deepest_map(detector):
    assert views.six_sizes(detector) == (64, 96, 128, 160, 192, 224)
