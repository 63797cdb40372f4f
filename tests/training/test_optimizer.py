"""The optimizer's rates, read off one step: Adam's first moves every weight by just its rate."""

import keras
import numpy as np
import pytest
from harness import tiny_backbone

import kerasdet
from kerasdet.models.csp import CSP
from kerasdet.models.faster_rcnn import FasterRCNN
from kerasdet.models.ssd import SSD
from kerasdet.models.trident import TridentNet
from kerasdet.training import lr_find
from kerasdet.training.optimizer import adamw

pytestmark = pytest.mark.usefixtures("untraced")


@pytest.fixture
def detector():
    return CSP(("person",), backbone=tiny_backbone(64), image_size=64, channels=8)


@pytest.fixture
def batches(detector, tmp_path):
    return kerasdet.data.scenes.write_scenes(tmp_path / "scenes", 2, size=(64, 64)).batches(
        2, detector, training=True
    )


def moved(detector, batches) -> dict[str, float]:
    """How far one step moves the weight that it moves furthest, in the backbone and outside of it."""
    inside = {id(v) for body in detector.layers if isinstance(body, keras.Model) for v in body.weights}
    before = [keras.ops.convert_to_numpy(v) for v in detector.trainable_variables]
    images, targets = next(iter(batches))
    detector.train_on_batch(images, targets)
    furthest = {"backbone": 0.0, "rest": 0.0}
    for old, variable in zip(before, detector.trainable_variables, strict=True):
        step = np.abs(keras.ops.convert_to_numpy(variable) - old).max()
        where = "backbone" if id(variable) in inside else "rest"
        furthest[where] = max(furthest[where], float(step))
    return furthest


def test_a_backbone_learns_at_a_rate_of_its_own(detector, batches):
    detector.compile(adamw(1e-2, detector, backbone_rate=1e-4), ema=None)
    assert moved(detector, batches) == pytest.approx({"backbone": 1e-4, "rest": 1e-2}, rel=0.02)


@pytest.mark.parametrize("backbone_rate", [None, 1e-4])
def test_weights_decay_and_gradients_are_clipped_everywhere(detector, backbone_rate):
    optimizer = adamw(1e-2, detector, backbone_rate)
    each = [optimizer] if backbone_rate is None else optimizer.optimizers
    assert [(one.weight_decay, one.clipnorm) for one in each] == [(1e-3, 10.0)] * len(each)
    assert len(each) == (1 if backbone_rate is None else 2)


def test_without_one_it_learns_like_the_rest(detector, batches):
    detector.compile(adamw(1e-2), ema=None)
    assert moved(detector, batches) == pytest.approx({"backbone": 1e-2, "rest": 1e-2}, rel=0.02)


@pytest.mark.filterwarnings("error:Skipping variable loading")
def test_both_rates_come_back_from_a_file_with_all_state(detector, batches, tmp_path):
    detector.compile(adamw(1e-2, detector, backbone_rate=1e-4), ema=None)
    moved(detector, batches)
    detector.save(tmp_path / "model.keras")
    again = kerasdet.load(tmp_path / "model.keras")
    assert moved(again, batches) == pytest.approx(moved(detector, batches), rel=1e-3)


def test_a_range_test_raises_one_rate_for_all(detector, batches):
    detector.compile(adamw(1e-2, detector, backbone_rate=1e-4), ema=None)
    assert lr_find(detector, batches, lowest=1e-6, highest=1e-4, steps=10).rates[-1] == pytest.approx(1e-4)


def test_stages_that_run_apart_are_the_backbones_too():
    detector = FasterRCNN(
        ("person",), backbone="mobilenet_v2_0.35", image_size=64, neck="c4", channels=8, freeze_bn=False
    )
    optimizer = adamw(1e-2, detector, backbone_rate=1e-4)
    optimizer.build(detector.trainable_variables)
    slow, rest = ({v.path for v in one._trainable_variables} for one in optimizer.optimizers)
    # The first convolution, in front of the proposals; and one that runs on every region.
    assert {"Conv1/kernel", "block_16_expand/kernel"} <= slow
    assert rest and not any(path.startswith(("block_", "Conv")) for path in rest)


def test_copies_of_a_backbones_layers_are_the_backbones():
    detector = TridentNet(
        ("person",), backbone="mobilenet_v2_0.35", image_size=64, channels=8, blocks=1, dilations=(1, 2),
        share_weights=False,
    )
    optimizer = adamw(1e-2, detector, backbone_rate=1e-4)
    optimizer.build(detector.trainable_variables)
    _, rest = ({v.path for v in one._trainable_variables} for one in optimizer.optimizers)
    copies = {v.path for v in detector.trainable_variables if "_branch2_" in v.path}
    assert copies and not copies & rest


def test_a_detector_without_backbone_is_refused():
    with pytest.raises(ValueError, match="has no backbone; leave backbone_rate out"):
        adamw(1e-2, keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), backbone_rate=1e-4)


def nested():
    """A backbone within another model, as KerasHub's become, with a layer of layers in it."""
    class Unit(keras.layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.inner = keras.layers.Conv2D(64, 1, name="inner")

        def build(self, shape):
            self.inner.build(shape)

        def call(self, x):
            return self.inner(x)

    image = keras.Input((64, 64, 3))
    inside = tiny_backbone(64)
    inside = keras.Model(inside.input, dict(inside.output, P5=Unit(name="unit")(inside.output["P5"])))
    return keras.Model(image, inside(image), name="outside")


@pytest.mark.parametrize(("make", "known"), [
    (lambda: SSD(("person",), network="paper", backbone="vgg16", image_size=300), {"fc6/kernel"}),
    (lambda: CSP(("person",), backbone=nested(), image_size=64, channels=8), {"unit/inner/kernel"}),
])
def test_a_backbone_of_any_kind_has_a_rate_of_its_own(make, known):
    detector = make()
    body = next(layer for layer in detector.layers if isinstance(layer, keras.Model))
    optimizer = adamw(1e-2, detector, backbone_rate=1e-4)
    optimizer.build(detector.trainable_variables)
    slow, rest = ({v.path for v in one._trainable_variables} for one in optimizer.optimizers)
    assert known <= slow == {v.path for v in body.trainable_variables}
    assert len(rest) == len(detector.trainable_variables) - len(slow) > 0
