"""The optimizer's rates, read off one step: Adam's first moves every weight by just its rate."""

import types

import keras
import numpy as np
import pytest
from harness import tiny_backbone

import kerasdet
from kerasdet.models.csp import CSP
from kerasdet.models.faster_rcnn import FasterRCNN
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


def test_the_backbone_that_ssd_alone_has():
    def variable(layer):
        with keras.name_scope(layer):
            return keras.Variable(np.zeros(1), name="kernel")

    detector = types.SimpleNamespace(name="ssd", get_config=lambda: {"backbone": "vgg16"})
    optimizer = adamw(1e-2, detector, backbone_rate=1e-4)
    optimizer.build([variable("block1_conv1"), variable("fc6"), variable("class_0")])
    slow, rest = ({v.path for v in one._trainable_variables} for one in optimizer.optimizers)
    assert (slow, rest) == ({"block1_conv1/kernel", "fc6/kernel"}, {"class_0/kernel"})
