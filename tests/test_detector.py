"""The base class: photos in, boxes out, `fit` and what it shows."""

import dataclasses
import shutil
import warnings

import keras
import numpy as np
import pytest
from harness import SHAPES, batch_of, tiny_backbone
from keras import layers, ops
from PIL import Image

from kerasdet import photo
from kerasdet.boxes.peaks import top_peaks
from kerasdet.data.dataset import Dataset
from kerasdet.detector import Detector
from kerasdet.ema import EMA
from kerasdet.layers.batch_norm import warn_of_random_statistics
from kerasdet.models.csp import CSP
from kerasdet.models.trident import TridentNet


class Brightest(Detector):
    """Finds the brightest 8x8 cell of the square; the score is its brightness, the box the cell.

    Nothing is learned that matters for that, so what it finds is known beforehand.
    """

    def __init__(self, **options):
        size = options.setdefault("image_size", 64)
        options.setdefault("classes", ("light",))
        images = keras.Input((size, size, 3), name="images")
        x = layers.AveragePooling2D(8)(layers.Rescaling(1 / 255)(images))
        x = layers.Conv2D(1, 1, use_bias=False, kernel_initializer=keras.initializers.Constant(1 / 3))(x)
        super().__init__(images, {"brightness": x}, **options)
        self.track_losses("dark_loss")

    def heads(self, raw):
        return raw

    def decode(self, heads):
        scores, labels, cells = top_peaks(heads["brightness"], 8)
        across = self.image_size // 8
        x, y = ops.cast(cells % across, "float32"), ops.cast(cells // across, "float32")
        boxes = ops.stack([x, y, x + 1, y + 1], -1) * 8
        found = {"boxes": boxes, "scores": scores, "labels": labels}
        if self.parts:
            found["parts"] = ops.stack([boxes, boxes / 2], 2)
        return found

    def loss_parts(self, targets, raw):
        return {"dark_loss": ops.mean(1 - raw["brightness"])}


def dark_photo(height, width, *boxes):
    """Black but for rectangles (x1, y1, x2, y2, brightness)."""
    image = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2, value in boxes:
        image[y1:y2, x1:x2] = value
    return image


@pytest.fixture(scope="module")
def brightest():
    return Brightest()


# === detect ===


def test_boxes_are_in_the_photos_own_pixels(brightest):
    # 128 x 256, so the square's cell (row 2, column 3) is 24..32 by 16..24: 96..128 by 32..48 here.
    image = dark_photo(128, 256, (96, 32, 128, 48, 255), (0, 112, 32, 128, 128))
    found = brightest.detect(image)
    np.testing.assert_allclose(found.boxes, [[96, 32, 128, 48], [0, 112, 32, 128]], atol=0.01)
    np.testing.assert_allclose(found.scores, [1, 128 / 255], atol=0.04)
    assert found.names == ["light", "light"] and found.labels.dtype == np.int32
    assert found.photo is image and found.path is None
    assert len(brightest.detect(image, score=0.9)) == 1


def test_letterboxed_boxes_find_the_way_back():
    # 32 x 64 lies at rows 16..48 of the square; mean colour above and below it is bright as well.
    found = Brightest(resize="letterbox").detect(dark_photo(32, 64, (24, 8, 32, 16, 255)), score=0.9)
    np.testing.assert_allclose(found.boxes, [[24, 8, 32, 16]], atol=0.01)


def test_path_array_and_lists(brightest, tmp_path):
    image = dark_photo(64, 64, (8, 8, 16, 16, 255))
    Image.fromarray(image).save(tmp_path / "a.png")
    single = brightest.detect(tmp_path / "a.png")
    assert single.path == str(tmp_path / "a.png")
    many = brightest.detect([str(tmp_path / "a.png"), image, dark_photo(64, 64)], batch_size=2)
    assert [len(found) for found in many] == [1, 1, 0]
    for found in (single, *many[:2]):
        np.testing.assert_allclose(found.boxes, [[8, 8, 16, 16]], atol=0.01)
    assert brightest.detect([]) == []
    assert len(brightest.detect((image, image))) == 2
    assert len(brightest.detect(Image.fromarray(image))) == 1


def test_photos_are_kept_on_demand(brightest, tmp_path):
    image = dark_photo(64, 64, (8, 8, 16, 16, 255))
    assert brightest.detect(image, keep_photo=False).photo is None
    assert brightest.detect(image).draw().size == (64, 64)


def test_the_size_of_a_batch_does_not_matter(brightest):
    photos = [dark_photo(64, 64, (8 * i, 0, 8 * i + 8, 8, 255)) for i in range(5)]
    for size in (1, 2, 16):
        found = brightest.detect(photos, batch_size=size)
        np.testing.assert_allclose([f.boxes[0, 0] for f in found], 8.0 * np.arange(5), atol=0.01)


def test_overlapping_boxes_are_dropped_as_told():
    image = dark_photo(64, 64, (8, 8, 16, 16, 255), (40, 8, 48, 16, 200))

    class Whole(Brightest):
        """Every box is the whole square."""

        def decode(self, heads):
            found = super().decode(heads)
            return found | {"boxes": found["boxes"] * 0 + ops.convert_to_tensor([0.0, 0, 64, 64])}

    assert len(Whole().detect(image)) == 1
    assert len(Whole(nms_iou=None).detect(image)) == 2
    assert len(Brightest(max_detections=1).detect(image)) == 1


def test_parts_come_row_for_row():
    detector = Brightest(parts=("self", "half"))
    found = detector.detect(dark_photo(64, 128, (32, 16, 48, 24, 200), (80, 40, 96, 48, 255)))
    np.testing.assert_allclose(found.parts["self"], found.boxes)
    np.testing.assert_allclose(found.parts["half"], found.boxes / 2)
    np.testing.assert_allclose(found.boxes[0], [80, 40, 96, 48], atol=0.01)


def test_what_is_no_photo_is_told(brightest):
    with pytest.raises(ValueError, match="array of float32; give uint8"):
        brightest.detect(np.zeros((8, 8, 3), np.float32))


def test_detecting_leaves_weights_and_layers_alone(brightest, tmp_path):
    fresh = Brightest()
    before = len(fresh.weights), len(fresh.layers)
    fresh.detect(dark_photo(64, 64))
    assert (len(fresh.weights), len(fresh.layers)) == before
    fresh.save_weights(tmp_path / "a.weights.h5")
    Brightest().load_weights(tmp_path / "a.weights.h5")


def test_forward_and_detect_agree(brightest):
    image = dark_photo(64, 64, (8, 8, 16, 16, 255), (40, 8, 48, 16, 200))
    square, _ = photo.to_square(image, 64)
    found = {k: ops.convert_to_numpy(v)[0] for k, v in brightest.forward(square[None]).items()}
    assert found["count"] == 2
    np.testing.assert_allclose(found["boxes_rel_yxyx"][:2] * 64, [[8, 8, 16, 16], [8, 40, 16, 48]], atol=0.01)
    mine = brightest.detect(image, score=0)
    np.testing.assert_allclose(mine.scores, found["scores"][:2], rtol=1e-5)


def test_detections_change_when_weights_do():
    """The graph that detects is made once and reads the weights anew."""
    detector, image = Brightest(), dark_photo(64, 64, (8, 8, 16, 16, 255))
    assert len(detector.detect(image)) == 1
    detector.set_weights([0.5 * value for value in detector.get_weights()])
    np.testing.assert_allclose(detector.detect(image).scores, [0.5], atol=0.02)


# === fit ===


def detector_of_shapes(**options):
    keras.utils.set_random_seed(0)
    options = {"stride": 8, "target": "dense", "channels": 16} | options
    return CSP(SHAPES, backbone=tiny_backbone(), image_size=64, **options)


def test_a_loss_is_refused(brightest):
    with pytest.raises(ValueError, match="brings its own losses; compile it without loss="):
        brightest.compile(loss="mse")


def test_fit_before_compile_is_told(shapes):
    detector = Brightest(classes=SHAPES)
    with pytest.raises(ValueError, match="compile"):
        detector.fit(shapes.batches(8, detector, training=True))


def test_fit_shows_named_losses_of_training_and_validation(shapes, capsys):
    detector = detector_of_shapes()
    detector.compile("adamw")
    batches = shapes.batches(4, detector, training=True)
    history = detector.fit(
        batches, epochs=3, validation_data=shapes[:6].batches(4, detector), verbose=2
    )
    names = {"loss", "center_loss", "box_loss"}
    assert set(history.history) == names | {f"val_{name}" for name in names}
    for values in history.history.values():
        assert len(values) == 3 and np.isfinite(values).all()
    for prefix in ("", "val_"):
        total = np.add(history.history[f"{prefix}center_loss"], history.history[f"{prefix}box_loss"])
        np.testing.assert_allclose(total, history.history[f"{prefix}loss"], rtol=0.02)
    shown = capsys.readouterr().out
    assert shown.count("box_loss") >= 6 and shown.count("val_center_loss") == 3
    # 16 photos make 4 steps an epoch, and the next `fit` goes on with the next epoch's order.
    assert int(detector.optimizer.iterations) == 12
    assert batches.epoch == 3
    assert detector.evaluate(shapes.batches(4, detector), verbose=0, return_dict=True).keys() == names


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.data is TensorFlow's")
def test_fit_takes_batches_of_ones_own(shapes, untraced):
    import tensorflow as tf

    detector = detector_of_shapes()
    images, targets = batch_of(shapes, detector, 8)
    # Of the kinds that NumPy makes of Python's numbers.
    own = {key: targets[key].astype("float64") for key in ("boxes", "ignore")} | {
        "labels": targets["labels"].astype("int64"), "weights": (targets["labels"] >= 0).astype("int64"),
    }
    batches = tf.data.Dataset.from_tensor_slices((images, own)).batch(4)
    detector.compile(keras.optimizers.SGD(0.0), ema=None)
    losses = detector.fit(batches, verbose=0).history["loss"]
    again = detector.fit(shapes[:8].batches(4, detector), verbose=0).history["loss"]
    np.testing.assert_allclose(losses, again, rtol=1e-4)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"boxes": np.zeros((1, 2, 4))}, "learns from targets with boxes, labels, and labels is missing in"),
        (np.zeros((1, 2, 4)), "and boxes is missing in ndarray; give a dict"),
    ],
)
def test_targets_without_labels_are_told(targets, message):
    with pytest.raises(ValueError, match=message):
        detector_of_shapes().training_targets(targets)


def test_rows_that_hold_nothing_weigh_nothing_whatever_is_given():
    targets = {
        "boxes": np.zeros((1, 4, 4)), "labels": np.array([[0, -1, 1, -1]]),
        "weights": np.array([[0.5, 1, 2, np.nan]]),
    }
    weights = detector_of_shapes().training_targets(targets)["weights"]
    assert ops.convert_to_numpy(weights).tolist() == [[0.5, 0, 2, 0]]


def test_losses_are_tracked_once():
    detector = detector_of_shapes()
    detector.compile("sgd")
    names = [metric.name for metric in detector.metrics]
    assert len(names) == len(set(names))


def test_an_average_is_kept_by_default(shapes, untraced):
    plain, averaged = detector_of_shapes(), detector_of_shapes()
    for detector, ema in ((plain, None), (averaged, 0.999)):
        detector.compile(keras.optimizers.SGD(0.05), ema=ema)
        detector.fit(shapes.batches(8, detector, seed=1), verbose=0)
    pairs = list(zip(plain.get_weights(), averaged.get_weights(), strict=True))
    assert any(not np.allclose(a, b, atol=1e-6) for a, b in pairs)


@pytest.mark.parametrize(("given", "kept"), [({}, [0.999]), ({"ema": 0.25}, [0.25]), ({"ema": None}, [])])
def test_the_average_that_fit_keeps_is_the_one_compiled(given, kept, shapes, monkeypatch, untraced):
    made = []

    class Recorded(EMA):
        def __init__(self, momentum):
            made.append(momentum)
            super().__init__(momentum)

    monkeypatch.setattr("kerasdet.learner.EMA", Recorded)
    detector = detector_of_shapes()
    detector.compile(keras.optimizers.SGD(0.01), **given)
    detector.fit(shapes[:8].batches(8, detector), verbose=0)
    assert made == kept


def test_a_compiled_detector_goes_on_training_after_loading(shapes, tmp_path, untraced):
    detector = detector_of_shapes()
    detector.compile(keras.optimizers.AdamW(1e-3), ema=0.9, steps_per_execution=2)
    detector.fit(shapes.batches(8, detector, training=True), verbose=0)
    detector.detect(shapes[0].path)
    detector.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    assert int(loaded.optimizer.iterations) == 2 and loaded._ema == 0.9
    assert loaded.steps_per_execution == 2
    loaded.fit(shapes.batches(8, loaded, training=True), verbose=0)
    assert int(loaded.optimizer.iterations) == 4


@pytest.mark.parametrize(
    ("optimizer", "rate"),
    [("adamw", 3e-4), ("adam", 3e-4), ("sgd", 0.01), ("adagrad", 1e-3), (keras.optimizers.Adam(1e-3), 1e-3)],
)
def test_adam_by_name_takes_a_rate_that_pretrained_backbones_survive(optimizer, rate):
    detector = Brightest()
    detector.compile(optimizer)
    assert float(detector.optimizer.learning_rate) == pytest.approx(rate)


@pytest.mark.parametrize("name", ["traffic\nlight", "dog\x1b[2J", "a\u2028b"])
def test_names_that_break_a_line_or_move_a_terminal_are_refused(name):
    with pytest.raises(ValueError, match="classes has .*with a line break or another control character"):
        Brightest(classes=("cat", name))


def test_one_callback_need_not_be_a_list(shapes, untraced):
    class Counts(keras.callbacks.Callback):
        epochs = 0

        def on_epoch_end(self, epoch, logs=None):
            self.epochs += 1

    detector, counts = Brightest(classes=SHAPES), Counts()
    detector.compile("adamw")
    detector.fit(shapes[:8].batches(8, detector), verbose=0, callbacks=counts)
    assert counts.epochs == 1


def test_a_photo_that_breaks_off_is_named_by_fit(shapes, tmp_path):
    """Beyond the batches that are looked at before training, where TensorFlow makes an error of its own."""
    def moved(number, sample):
        path = tmp_path / f"{number}.png"
        shutil.copyfile(sample.path, path)
        return dataclasses.replace(sample, path=str(path))

    samples = [moved(number, sample) for number, sample in enumerate([*shapes][:16])]
    data = Dataset(samples, shapes.classes, shapes.parts, shapes.name, str(tmp_path))
    detector = Brightest(classes=SHAPES)
    detector.compile("adamw", ema=None)
    batches = data.batches(2, detector)
    last = (tmp_path / "15.png").read_bytes()
    (tmp_path / "15.png").write_bytes(last[: len(last) // 2])
    with pytest.raises(ValueError, match=r"^\S*15\.png: "):
        detector.fit(batches, verbose=0)


def test_frozen_norms_of_a_random_network_warn(untraced):
    options = {"backbone": "mobilenet_v1_0.25", "image_size": 64, "stride": 8, "channels": 8}
    targets = {"boxes": np.zeros((1, 1, 4)), "labels": np.full((1, 1), -1)}
    detector = CSP(("person",), **options)
    detector.compile("sgd", ema=None)
    with pytest.warns(UserWarning, match="has frozen batch norms that have seen nothing.*freeze_bn=False"):
        detector.fit(np.zeros((1, 64, 64, 3)), targets, verbose=0)
    free = CSP(("person",), freeze_bn=False, **options)
    free.compile("sgd", ema=None)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*has frozen batch norms")
        free.fit(np.zeros((1, 64, 64, 3)), targets, verbose=0)
    # Branches stay frozen, so that only weights would do.
    options = {"backbone": "mobilenet_v1_0.25", "image_size": 64, "channels": 8}
    branches = TridentNet(("person",), freeze_bn=False, **options)
    with pytest.warns(UserWarning, match="seen nothing.*give backbone_weights$"):
        warn_of_random_statistics(branches)


def test_more_detections_than_candidates_are_told():
    with pytest.warns(UserWarning, match="max_detections is 300, .*the 100 best .*give candidates=300"):
        CSP(("person",), backbone=tiny_backbone(64), image_size=64, max_detections=300)
