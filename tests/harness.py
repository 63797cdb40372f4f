"""The checks that every detector has to pass, and what they need: a small backbone, a small set.

A detector's test file says how to build it, small and at 64 px, and inherits the rest:

    class TestMine(DetectorHarness):
        def build(self, **changes):
            return Mine(SHAPES, **{"backbone": tiny_backbone(), "image_size": 64} | changes)

        def known_heads(self, detector):
            return heads, expected     # see DetectorHarness.known_heads
"""

import dataclasses
import inspect
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers, ops

from kerasdet import zoo
from kerasdet.data.scenes import SHAPES

__all__ = ["SHAPES", "DetectorHarness", "batch_of", "tiny_backbone", "with_corner_parts"]


def tiny_backbone(size: int = 64, output_stride: int = 32) -> keras.Model:
    """A backbone that learns from scratch in seconds: RGB 0..255 to P2..P5 at strides 4 to 32 (16)."""
    image = keras.Input((size, size, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    levels = {}
    for level, width in enumerate((16, 24, 32, 48, 64), 1):
        strides = 1 if 2**level > output_stride else 2
        x = layers.Conv2D(width, 3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
        if level >= 2:
            levels[f"P{level}"] = x
    return keras.Model(image, levels, name="tiny")


def with_corner_parts(dataset, name="corner"):
    """The set with one more box an object: the left upper quarter of its own."""
    def add(sample):
        x1, y1, x2, y2 = sample.boxes.T
        corner = np.stack([x1, y1, (x1 + x2) / 2, (y1 + y2) / 2], -1)[:, None].astype(np.float32)
        weights = np.ones(corner.shape[:2], np.float32)
        return dataclasses.replace(sample, parts=corner, part_weights=weights)

    return type(dataset)(map(add, dataset), dataset.classes, (name,), dataset.name, dataset.root)


def batch_of(dataset, detector, photos=None):
    """The whole set (or its first photos) as one batch, unchanged: images, targets."""
    photos = len(dataset) if photos is None else photos
    return next(iter(dataset[:photos].batches(photos, detector)))


def equal(a, b, atol=1e-5):
    """Asserts that two dicts of tensors are the same."""
    assert list(a) == list(b)
    for key in a:
        x, y = ops.convert_to_numpy(a[key]), ops.convert_to_numpy(b[key])
        np.testing.assert_allclose(x, y, atol=atol, rtol=1e-5, err_msg=key)


def options_of(kind) -> set[str]:
    """What a detector's constructor takes by name, with what it hands on to the class that it extends."""
    taken = inspect.signature(kind.__init__).parameters.values()
    own = {each.name for each in taken if each.kind is each.KEYWORD_ONLY}
    hands_on = any(each.kind is each.VAR_KEYWORD for each in taken)
    return own | options_of(kind.__base__) if hands_on else own


def without_chance(detector, monkeypatch):
    """Samples the same places in every step, where a detector samples some."""
    if hasattr(detector, "_random"):
        monkeypatch.setattr(detector, "_random", lambda like: ops.zeros_like(like, dtype="float32"))


# The detector of the class whose tests run.
_kept: dict[type, keras.Model] = {}


class DetectorHarness:
    """Inherit it, say `build` and `known_heads`, and set what differs."""

    overfit_epochs = 120
    overfit_rate = 5e-3
    overfit_ap = 0.95
    overfit_is_slow = False  # then it is left to the slow tests
    narrow_loss = 0.05  # of AP, in float16 and int8, on the few photos learned by heart
    narrow_is_slow = True  # then float16 and int8 are left to the slow tests
    classes = SHAPES
    parts = ()
    further = ()  # what `look_again` adds

    # === What a detector's own test says ===

    def build(self, **changes):
        """A new small detector of `classes` and `parts` for 64x64 pixels; `changes` go over it."""
        raise NotImplementedError

    def known_heads(self, detector):
        """Head tensors made by hand, and what has to be decoded from them.

        Returns:
            heads: what `detector.heads` would return, numpy, batch 1.
            expected: rows (label, score, x1, y1, x2, y2) by falling score, with as many more boxes
                x1, y1, x2, y2 as the detector has parts; every other candidate has to score 0.
        """
        raise NotImplementedError

    def given(self, detector, targets):
        """What `forward` and `infer` take beside images, made of a batch's targets."""
        return {}

    # === Checks ===

    @pytest.fixture
    def data(self, shapes):
        return with_corner_parts(shapes, *self.parts) if self.parts else shapes

    @pytest.fixture
    def fresh(self):
        """One of the test's own, to train."""
        keras.utils.set_random_seed(1)
        return self.build()

    @pytest.fixture
    def detector(self):
        """For tests that leave it as it is: one serves them all."""
        if type(self) not in _kept:
            keras.utils.set_random_seed(1)
            _kept.clear()
            _kept[type(self)] = self.build()
        return _kept[type(self)]

    def test_outputs_are_finite_and_do_not_hang_on_the_batch(self, detector, data):
        images, _ = batch_of(data, detector, 3)
        assert images.dtype == np.uint8 and images.shape == (3, 64, 64, 3)
        raw = detector(images, training=False)
        assert all(np.isfinite(ops.convert_to_numpy(value)).all() for value in raw.values())
        equal({k: v[1:2] for k, v in raw.items()}, detector(images[1:2], training=False), atol=1e-4)
        equal(raw, detector(images.astype("float32"), training=False))

    def test_forward_ends_at_three_depths(self, detector, data, untraced):
        images, targets = batch_of(data, detector, 2)
        given = self.given(detector, targets)
        boxes = detector.forward(images, "boxes", **given)
        names = ["boxes_rel_yxyx", "classes", "scores"]
        assert list(boxes) == names + (["parts_rel_yxyx"] if self.parts else [])
        found = detector.forward(images, "detections", **given)
        assert list(found) == [*names, "count", *self.further]
        for value in (boxes["boxes_rel_yxyx"], found["boxes_rel_yxyx"]):
            assert 0 <= ops.min(value) and ops.max(value) <= 1
        for row in range(2):
            count = int(found["count"][row])
            scores = ops.convert_to_numpy(found["scores"][row])
            assert (scores[:count] > 0).all() and not scores[count:].any()
            assert (np.diff(scores) <= 0).all()
            assert not ops.convert_to_numpy(found["boxes_rel_yxyx"][row, count:]).any()
        # `infer` runs a graph made from symbolic tensors, `forward` the same on real ones.
        mine = detector.infer(images, **given)
        np.testing.assert_allclose(mine["scores"], ops.convert_to_numpy(found["scores"]), atol=1e-5)
        with pytest.raises(ValueError, match="outputs is 'head'"):
            detector.forward(images, "head")

    def test_config_makes_the_same_detector_again(self, detector, data):
        config = json.loads(json.dumps(detector.get_config()))
        # An option that is forgotten here would have its default in all that is compared below.
        missing = options_of(type(detector)) - {"backbone_weights"} - set(config)
        assert not missing, missing
        again = type(detector).from_config(config)
        assert json.loads(json.dumps(again.get_config())) == config
        assert again.classes == tuple(self.classes) and again.parts == tuple(self.parts)
        again.set_weights(detector.get_weights())
        images, _ = batch_of(data, detector, 2)
        equal(detector(images, training=False), again(images, training=False))
        odd = self.build(nms_iou=0.33, max_detections=7, candidates=9)
        again = type(odd).from_config(odd.get_config())
        assert (again.nms_iou, again.max_detections, again.candidates) == (0.33, 7, 9)

    def test_one_step_is_finite_and_moves_every_weight_that_can_learn(self, fresh, data):
        """One on photos with objects; then, from the same weights, one on photos without any."""
        detector, start = fresh, fresh.get_weights()
        images, targets = batch_of(data, detector, 4)
        nothing = {key: np.zeros_like(value) for key, value in targets.items()}
        nothing["labels"] -= 1
        detector.compile(keras.optimizers.SGD(1.0), ema=None)
        before = [ops.convert_to_numpy(v) for v in detector.trainable_variables]
        for given in (targets, nothing):
            detector.set_weights(start)
            history = detector.fit(images, given, batch_size=4, verbose=0).history
            names = [name for name in history if name.endswith("_loss")]
            assert names and all(np.isfinite(values).all() for values in history.values())
            np.testing.assert_allclose(sum(history[n][0] for n in names), history["loss"][0], rtol=1e-4)
            after = [ops.convert_to_numpy(v) for v in detector.trainable_variables]
            assert all(np.isfinite(value).all() for value in after)
            if given is targets:
                still = [
                    v.path for v, a, b in zip(detector.trainable_variables, before, after, strict=True)
                    if np.array_equal(a, b)
                ]
                assert not still, still

    def test_losses_of_replicas_add_up(self, fresh, data, monkeypatch):
        """Each replica has a part of the batch, and what its losses are divided by from all of them."""
        detector = fresh
        without_chance(detector, monkeypatch)
        for layer in detector._flatten_layers():
            if isinstance(layer, layers.BatchNormalization):
                layer.trainable = False  # in `fit` their statistics are those of the whole batch
        images, targets = batch_of(data, detector, 4)
        # Two photos with all of their objects, one without any, one with one.
        for key, padding in (("labels", -1), ("weights", 0)):
            targets[key][2], targets[key][3, 1:] = padding, padding
        raw = {key: ops.convert_to_numpy(value) for key, value in detector(images, training=False).items()}
        totals = []

        def losses(rows, all_reduce):
            replica = SimpleNamespace(num_replicas_in_sync=2, all_reduce=lambda kind, own: all_reduce(own))
            monkeypatch.setattr("kerasdet.distribution._replica_context", lambda: replica)
            found = detector.loss_parts(
                *({k: ops.convert_to_tensor(v[rows]) for k, v in part.items()} for part in (targets, raw))
            )
            return {key: float(ops.convert_to_numpy(value)) for key, value in found.items()}

        whole = losses(slice(4), lambda own: totals.append(own) or own)
        parts = []
        for rows in (slice(2), slice(2, 4)):
            known = iter(totals)
            parts.append(losses(rows, lambda own, known=known: next(known)))
        for name, value in whole.items():
            assert parts[0][name] + parts[1][name] == pytest.approx(value, rel=1e-4, abs=1e-5), name

    def test_losses_on_another_size_are_those_of_a_detector_of_that_size(self, fresh, data):
        """And `fit` takes squares of several sizes, where a detector says that it does."""
        detector = fresh
        if detector.size_multiple is None:
            pytest.skip("it is trained on squares of one size")
        large = zoo.adapt(detector, image_size=96)
        images, targets = batch_of(data, large, 3)
        equal(*(one.loss_parts(targets, one(images, training=False)) for one in (detector, large)), 1e-4)
        if keras.backend.backend() != "tensorflow":
            return  # where every size is compiled anew, with its own fixed shapes
        detector.compile(keras.optimizers.SGD(1e-4), ema=None)
        batches = data.batches(4, detector, training=True, sizes=(64, 96), every=1)
        history = detector.fit(batches, verbose=0).history
        assert all(np.isfinite(values).all() for values in history.values())

    def test_boxes_and_labels_are_enough_to_learn_from(self, detector, data, monkeypatch):
        """Of batches that are not the loader's, which leave out what else it gives; what is in rows of no
        object is nobody's business."""
        without_chance(detector, monkeypatch)
        images, targets = batch_of(data, detector, 2)
        assert (targets["labels"] == -1).any() and not targets["ignore"].any()
        if self.parts:
            targets["part_weights"][:] = 0
        raw = detector(images, training=False)
        needed = {"boxes", "labels", "proposals", "masks", "mask_weights"} & targets.keys()
        bare = {key: targets[key] for key in needed} | {"labels": targets["labels"].astype("int64")}
        empty = targets["labels"] == -1
        for filling in ([3, 5, 40, 50], [np.nan] * 4):
            filled = targets["boxes"].copy()
            filled[empty] = filling
            bare["boxes"] = filled
            equal(*(detector.loss_parts(detector.training_targets(some), raw) for some in (targets, bare)))

    def test_raw_outputs_export(self, detector, data, tmp_path):
        """Before it has learned anything: every operator of the network converts to the same."""
        if keras.backend.backend() != "tensorflow":
            pytest.skip("only TensorFlow exports")
        report = detector.export(tmp_path / "raw.tflite", outputs="raw", check_photos=data[:2])
        assert report is not None

    def test_overfits_one_batch(self, fresh, data, tmp_path, request):
        """Learns a few photos by heart, is the same after saving, and exports to the same."""
        detector = fresh
        few = data[:6]
        images, targets = batch_of(few, detector)
        steps = 4
        images = np.concatenate([images] * steps)
        targets = {key: np.concatenate([value] * steps) for key, value in targets.items()}
        epochs = self.overfit_epochs // steps
        rate = keras.optimizers.schedules.CosineDecay(self.overfit_rate, epochs * steps)
        for layer in detector._flatten_layers():
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = 0.9  # statistics of 0.99 lag behind so short a run
        detector.compile(keras.optimizers.Adam(rate))
        detector.fit(images, targets, batch_size=len(few), epochs=epochs, verbose=0, shuffle=False)
        metrics = detector.evaluate_detections(few)
        assert metrics["AP"] >= self.overfit_ap, metrics
        for part in self.parts:
            assert metrics[f"{part}_AP50"] >= 0.95, metrics

        path = tmp_path / "detector.keras"
        detector.save(path)
        loaded = keras.models.load_model(path)  # in safe mode: nothing but registered classes
        assert loaded.classes == detector.classes
        equal(detector(images[:2], training=False), loaded(images[:2], training=False))
        narrow = not self.narrow_is_slow or "not slow" not in request.config.option.markexpr
        self.check_export(detector, few, tmp_path, narrow)

    def check_export(self, detector, data, folder, narrow):
        """The trained detector as files of all precisions: `export` checks the float32 one's parity by
        itself, and here it is checked that they score what the detector scores."""
        if keras.backend.backend() != "tensorflow":
            return
        from kerasdet.deploy import LiteRTDetector

        path = folder / "detections.tflite"
        assert detector.export(path, check_photos=data) is not None and path.stat().st_size
        mine = detector.detect([sample.path for sample in data])
        theirs = LiteRTDetector(path).detect([sample.path for sample in data])
        for a, b in zip(mine, theirs, strict=True):
            assert a.names == b.names
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-3)
            np.testing.assert_allclose(a.boxes, b.boxes, atol=0.5)
        right = detector.evaluate_detections(data)["AP"]
        for precision in ("float16", "int8") if narrow else ():
            path = folder / f"{precision}.tflite"
            # So few boxes that one which falls below the score breaks the rule of 95 %.
            detector.export(
                path, precision=precision, calibration=data, check_photos=data, on_parity="warn"
            )
            assert LiteRTDetector(path).evaluate_detections(data)["AP"] >= right - self.narrow_loss, precision

    def test_decodes_heads_made_by_hand(self, detector):
        heads, expected = self.known_heads(detector)
        heads = {key: ops.convert_to_tensor(value.astype("float32")) for key, value in heads.items()}
        found = {k: ops.convert_to_numpy(v)[0] for k, v in detector.decode(heads).items()}
        count = len(expected)
        expected = np.array(expected, np.float32)
        np.testing.assert_array_equal(found["labels"][:count], expected[:, 0])
        np.testing.assert_allclose(found["scores"][:count], expected[:, 1], rtol=1e-5)
        np.testing.assert_allclose(found["boxes"][:count], expected[:, 2:6], atol=1e-3)
        assert not found["scores"][count:].any()
        if self.parts:
            parts = found["parts"][:count].reshape(count, -1)
            np.testing.assert_allclose(parts, expected[:, 6:], atol=1e-3)
