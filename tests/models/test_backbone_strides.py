"""A backbone with finer maps than a detector takes them to be is refused: its boxes would be elsewhere."""

import keras
import pytest
from harness import tiny_backbone

from kerasdet import backbones
from kerasdet.models.centernet import CenterNet
from kerasdet.models.csp import CSP
from kerasdet.models.ssd import SSD
from kerasdet.models.yolo_v3 import YOLOv3


def finer():
    """Every level at half of its stride."""
    tiny = tiny_backbone()
    levels = tiny.output
    given = {"P2": levels["P2"], "P3": levels["P2"], "P4": levels["P3"], "P5": levels["P4"]}
    return keras.Model(tiny.input, given, name="finer")


@pytest.mark.parametrize(
    ("build", "found", "stride"),
    [
        (lambda: YOLOv3(("a",), backbone=finer(), image_size=64), 16, 8),
        (lambda: CSP(("a",), backbone=finer(), image_size=64, stride=8), 16, 8),
        (lambda: CenterNet(("a",), backbone=finer(), image_size=64, neck="deconv"), 32, 4),
        (lambda: SSD(("a",), backbone=finer(), image_size=64, network="paper",
                     anchor_sizes=(0.16, 0.24, 0.32, 0.4)), 16, 8),
    ],
)
def test_other_strides_are_told(build, found, stride):
    with pytest.raises(ValueError, match=f"finer the maps have {found} cells.*64 px.*means {64 // stride};"):
        build()


def test_a_dilated_last_stage_is_told():
    dilated = backbones.build("mobilenet_v2_0.35", image_size=64, output_stride=16)
    with pytest.raises(ValueError, match="the maps have 32 cells a side at 64 px, where stride 4 means 16"):
        CenterNet(("a",), backbone=dilated, image_size=64, neck="deconv")


def test_maps_that_do_not_halve_have_no_pyramid():
    options = {"backbone": "vgg16", "network": "paper", "anchor_sizes": (0.16, 0.24, 0.32, 0.4)}
    with pytest.raises(ValueError, match="200 and neck 'fpn': maps of 25 and 13 cells a side do not halve"):
        SSD(("a",), image_size=200, neck="fpn", **options)
    # The papers' own sizes are rounded up by VGG16.
    assert SSD(("a",), image_size=200, **options).output["class_logits"].shape[1] > 25**2


def test_vgg16_is_for_the_papers_network_alone():
    with pytest.raises(ValueError, match="SSD on VGG16 is network='paper'"):
        SSD(("a",), backbone="vgg16", image_size=300)
