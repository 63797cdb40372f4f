"""What detectors take where nothing is said: the figures of their papers and docstrings."""

import inspect

import pytest

from kerasdet.models import overfeat
from kerasdet.models.centernet import CenterNet
from kerasdet.models.csp import CSP
from kerasdet.models.fast_rcnn import RCNN, FastRCNN
from kerasdet.models.faster_rcnn import FasterRCNN
from kerasdet.models.ssd import SSD
from kerasdet.models.trident import TridentNet
from kerasdet.models.yolo_v3 import YOLOv3

# Half of Faster R-CNN's 2000 and 1000 boxes; regions and suppression are detectron2's, or as told there.
TWO_STAGES = {
    "before": (1000, 500), "proposals": (500, 300), "proposal_iou": 0.7, "regions": 128, "nms_iou": 0.5,
}


@pytest.mark.parametrize(("kind", "expected"), [
    # SSD, section 2.2: the 400 best go into suppression at .45, 200 come out.
    (SSD, {"nms_iou": 0.45, "max_detections": 200, "candidates": 400}),
    (YOLOv3, {"ignore_iou": 0.7, "nms_iou": 0.45, "box_loss": "yolo"}),
    # Objects as Points, section 4: the 100 best peaks, and nothing is suppressed.
    (CenterNet, {"candidates": 100, "nms_iou": None, "stride": 4, "radius": "original"}),
    (CSP, {"candidates": 100, "nms_iou": 0.5, "stride": 4, "target": "paper"}),
    # Fast R-CNN, section 2.3: 64 regions a photo, a quarter of them objects, background from .1 to .5.
    (FastRCNN, {"regions": 64, "share": 0.25, "background": (0.1, 0.5), "nms_iou": 0.3}),
    (RCNN, {"warp_size": 224, "nms_iou": 0.3}),
    (FasterRCNN, TWO_STAGES | {"share": 0.25}),
    (TridentNet, TWO_STAGES | {"share": 0.5, "dilations": (1, 2, 3), "share_weights": True}),
])
def test_figures_of_the_papers(kind, expected):
    options = inspect.signature(kind.__init__).parameters
    assert {name: options[name].default for name in expected} == expected


def test_overfeat_drops_half_and_looks_at_what_scores_a_hundredth():
    assert (overfeat.DROPOUT, overfeat.MIN_SCORE, overfeat.OVERLAP) == (0.5, 0.01, 0.5)
