"""evaluate, and CocoMetrics inside a real `fit`, with detectors that only pretend to look."""

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest

from kerasdet.data.dataset import Dataset
from kerasdet.data.sample import Sample
from kerasdet.detections import Detections
from kerasdet.metrics import CocoMetrics, evaluate

BOX, HEAD = [10, 10, 50, 110], [20, 10, 40, 30]


def people(photos=5, label="person"):
    boxes, labels = np.array([BOX], np.float32), np.zeros(1, np.int32)
    parts, weights = np.array([[HEAD]], np.float32), np.ones((1, 1), np.float32)
    samples = [
        Sample(f"{i}.jpg", boxes, labels, parts=parts, part_weights=weights) for i in range(photos)
    ]
    return Dataset(samples, classes=(label,), parts=("head",))


class Pretender:
    """Finds the same box on every photo, off by `shift` pixels to the right."""

    def __init__(self, shift=0, classes=("person",), parts=True):
        self.shift, self.classes, self.parts, self.calls = shift, classes, parts, []

    def detect(self, paths, score, batch_size, keep_photo):
        assert len(paths) <= batch_size
        self.calls.append((list(paths), score, batch_size, keep_photo))
        box = np.array([BOX], np.float32) + [self.shift, 0, self.shift, 0]
        parts = {"head": np.array([HEAD], np.float32)} if self.parts else {}
        return [Detections(box, [0.9], [0], self.classes, parts, path=path) for path in paths]


def test_photos_go_through_in_chunks_and_are_not_kept():
    detector = Pretender()
    evaluate(detector, people(5), batch_size=2)
    assert [paths for paths, *_ in detector.calls] == [
        ["0.jpg", "1.jpg"],
        ["2.jpg", "3.jpg"],
        ["4.jpg"],
    ]
    assert {(score, size, keep) for _, score, size, keep in detector.calls} == {(0.0, 2, False)}


def test_people_get_every_metric():
    metrics = evaluate(Pretender(), people())
    assert [metrics["AP"], metrics["AP50/person"], metrics["head_AP"]] == pytest.approx([1] * 3)
    assert [metrics["MR"], metrics["MR_near"]] == pytest.approx([1e-10] * 2)  # 100 px high
    assert np.isnan(metrics["MR_medium"]) and np.isnan(metrics["MR_far"])


@pytest.mark.parametrize(
    ("height", "scale"), [(29, "far"), (30, "medium"), (79, "medium"), (80, "near")]
)
def test_people_are_far_medium_or_near_by_their_height(height, scale):
    """Caltech's scales: near from 80 px, medium from 30."""
    box = np.array([[10, 10, 40, 10 + height]], np.float32)
    data = Dataset([Sample("a.jpg", box, np.zeros(1, np.int32))], classes=("person",))
    metrics = evaluate(Pretender(parts=False), data)
    assert [name for name in ("far", "medium", "near") if not np.isnan(metrics[f"MR_{name}"])] == [scale]


def test_shifted_detections_cost_ap():
    # 10 of 40 px aside: IoU 30/50.
    metrics = evaluate(Pretender(shift=10), people())
    assert metrics["AP"] == pytest.approx(0.3) and metrics["AP75"] == 0


def test_the_miss_rate_is_for_people_and_parts_for_those_who_have_them():
    metrics = evaluate(Pretender(classes=("face",), parts=False), people(label="face"))
    assert metrics["AP"] == pytest.approx(1)
    assert not [key for key in metrics if key.startswith(("MR", "head"))]
    for name in ("pedestrian", "Person", "people"):
        assert "MR" in evaluate(Pretender(classes=(name,)), people(label=name))


def test_the_miss_rate_is_that_of_people_alone():
    """The dog is found and the person missed."""
    boxes, labels = np.array([BOX, [60, 10, 100, 110]], np.float32), np.array([0, 1], np.int32)
    data = Dataset([Sample("a.jpg", boxes, labels)], classes=("dog", "person"))
    metrics = evaluate(Pretender(classes=data.classes, parts=False), data)
    assert metrics["MR"] == metrics["MR_near"] == 1


def test_a_misfit_of_classes_is_told_before_the_first_photo():
    detector = Pretender(classes=("cat", "dog"))
    with pytest.raises(ValueError, match="finds 'cat', 'dog' and the data set has 'person'"):
        evaluate(detector, people())
    assert detector.calls == []


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="no photos"):
        evaluate(Pretender(), people(0))


def test_progress_goes_through_all_photos():
    assert evaluate(Pretender(), people(3), batch_size=2, progress=True)["AP"] == pytest.approx(1)


def test_metrics_are_imported_without_keras_or_pycocotools():
    code = (
        "import sys, kerasdet.metrics as m; m.log_average_miss_rate; m.evaluate; m.coco_metrics;"
        "print([n for n in ('keras', 'tensorflow', 'pycocotools', 'rich') if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# === Inside fit ===


def pretending_model(shifts):
    """A Keras model whose n-th evaluation is off by `shifts[n]` pixels."""
    import keras

    class Model(keras.Sequential):
        classes = ("person",)

        def evaluate_detections(self, dataset, batch_size):
            detector = Pretender(shift=self.shifts.pop(0))
            metrics = evaluate(detector, dataset, batch_size)
            self.chunks = [len(paths) for paths, *_ in detector.calls]
            return metrics

    model = Model([keras.Input((2,)), keras.layers.Dense(1)])
    model.shifts = list(shifts)
    model.compile(optimizer="sgd", loss="mse")
    return model


@pytest.fixture
def unread(monkeypatch):
    """Photos that nobody looks at need not be there."""
    from kerasdet import photo

    monkeypatch.setattr(photo, "check", lambda photos: None)


def test_a_photo_that_cannot_be_read_is_told_before_the_first_batch(tmp_path):
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(noise).save(tmp_path / name)
    whole = [dataclasses.replace(sample, path=str(tmp_path / "a.jpg")) for sample in people(2)]
    data = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(data[: len(data) // 2])
    cut = [whole[0], dataclasses.replace(whole[1], path=str(tmp_path / "b.jpg"))]
    model = pretending_model([0, 0])
    for samples in (whole, cut):
        batches = []
        count = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs, seen=batches: seen.append(batch)
        )
        evaluation = CocoMetrics(Dataset(samples, ("person",), parts=("head",)))
        if samples is whole:
            fit(model, [evaluation, count], epochs=1)
            assert batches == [0]
        else:
            with pytest.raises(ValueError, match=r"b\.jpg: .*truncated"):
                fit(model, [evaluation, count], epochs=1)
            assert not batches


def fit(model, callbacks, epochs):
    x, y = np.zeros((4, 2), np.float32), np.zeros((4, 1), np.float32)
    return model.fit(x, y, epochs=epochs, verbose=0, callbacks=callbacks).history


@pytest.mark.usefixtures("unread")
def test_history_has_the_figures_of_every_epoch():
    model = pretending_model([40, 10, 0])
    callback = CocoMetrics(people(), batch_size=2)
    history = fit(model, [callback], epochs=3)
    assert history["val_AP"] == pytest.approx([0, 0.3, 1])
    assert history["val_AP50"] == pytest.approx([0, 1, 1])
    assert {"loss", "val_MR", "val_head_AP", "val_AR"} <= set(history)
    assert not [key for key in history if "/" in key]
    assert callback.metrics["AP/person"] == pytest.approx(1)
    assert model.chunks == [2, 2, 1]


@pytest.mark.usefixtures("unread")
def test_early_stopping_watches_ap():
    from keras.callbacks import EarlyStopping

    stop = EarlyStopping(monitor="val_AP", mode="max", patience=1)
    history = fit(pretending_model([10, 0, 10, 0]), [CocoMetrics(people()), stop], epochs=4)
    assert history["val_AP"] == pytest.approx([0.3, 1, 0.3])  # worse in the third: no fourth


@pytest.mark.usefixtures("unread")
def test_csv_has_the_figures_from_the_first_row_on(tmp_path):
    from keras.callbacks import CSVLogger

    log = tmp_path / "log.csv"
    fit(pretending_model([0, 0]), [CocoMetrics(people(), every=5), CSVLogger(log)], epochs=2)
    head, *rows = [line.split(",") for line in log.read_text().splitlines()]
    assert [float(row[head.index("val_AP")]) for row in rows] == pytest.approx([1, 1])


@pytest.mark.usefixtures("unread")
def test_every_skips_epochs_but_not_the_last():
    model = pretending_model([40, 10, 0, 5])
    history = fit(model, [CocoMetrics(people(), every=2)], epochs=6)
    # Measured after epochs 1, 3, 5 and 6, repeated between.
    assert history["val_AP75"] == pytest.approx([0, 0, 0, 0, 1, 1])
    assert history["val_AP50"] == pytest.approx([0, 0, 1, 1, 1, 1])
    assert model.shifts == []


@pytest.mark.usefixtures("unread")
def test_a_run_that_goes_on_measures_the_epochs_that_it_would_have():
    """Killed after the fourth epoch of nine: the first that it goes on with, and then 7 and 9 as ever."""
    measured = []

    class Watch(CocoMetrics):
        def on_epoch_end(self, epoch, logs=None):
            before = self.metrics
            super().on_epoch_end(epoch, logs)
            if self.metrics is not before:
                measured.append(epoch + 1)

    x, y = np.zeros((4, 2), np.float32), np.zeros((4, 1), np.float32)
    for start, epochs in ((0, 4), (4, 9)):
        model = pretending_model([0] * 9)
        model.fit(
            x, y, epochs=9, initial_epoch=start, verbose=0,
            callbacks=[Watch(people(), every=3), StopAfter(epochs)],
        )
    assert measured == [1, 4, 5, 7, 9]


class StopAfter(keras.callbacks.Callback):
    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 == self.epochs


@pytest.mark.usefixtures("unread")
def test_a_second_fit_measures_anew():
    model, callback = pretending_model([40, 0]), CocoMetrics(people(), every=10)
    assert fit(model, [callback], epochs=1)["val_AP"] == [0]
    assert fit(model, [callback], epochs=1)["val_AP"] == pytest.approx([1])


def test_unknown_classes_stop_training_before_it_begins():
    model = pretending_model([0])
    with pytest.raises(ValueError, match="the data set has 'face'"):
        fit(model, [CocoMetrics(people(label="face"))], epochs=1)
    assert model.shifts == [0]


def test_callback_arguments_are_checked():
    with pytest.raises(ValueError, match="has none"):
        CocoMetrics(people(0))
    with pytest.raises(ValueError, match="every=0"):
        CocoMetrics(people(), every=0)
