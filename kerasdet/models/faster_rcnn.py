"""Faster R-CNN (Ren et al., NeurIPS 2015), and its form on FPN (Lin et al., CVPR 2017).

The two networks; proposals, targets, losses and decoding are those of all detectors of two stages, see
`TwoStage`.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers

from kerasdet import backbones
from kerasdet.backbones.common import freeze_batch_norm, inputs_of, take_any_size
from kerasdet.boxes.anchors import rpn_anchors
from kerasdet.layers.heads import box_head, rpn_head
from kerasdet.layers.necks import PYRAMIDS, pyramid
from kerasdet.models.regions import PAPER_SIDE
from kerasdet.models.two_stage import TwoStage

# "c4": one map at stride 16, and the backbone's last stage on every region; "c4_light": that map alone, thin;
# "dc5": the last stage on the whole photo, dilated; the others: a pyramid (see `layers.necks.pyramid`).
NECKS = ("c4", "c4_light", "dc5", *PYRAMIDS)
LEVELS = ("P2", "P3", "P4", "P5")
# Sides of anchors (section 4.1 of FPN), for photos with a short side of 800 px.
ANCHOR_SIZES = (32, 64, 128, 256, 512)
RATIOS = (0.5, 1.0, 2.0)


@keras.saving.register_keras_serializable(package="kerasdet")
class FasterRCNN(TwoStage):
    """Faster R-CNN.

    Args:
        classes: names of the classes, without background.
        backbone: a name for `backbones.build`, or a keras.Model with outputs P2, P3, P4, P5; for "dc5" P5
            has to be at stride 16.
        backbone_weights: "imagenet", a file, a detector on the same backbone, or None (random).
        freeze_bn: a named backbone's batch norms keep their statistics; those of the stage that "c4" runs on
            regions always do.
        freeze_until: level up to which the backbone is not trained, such as "P2"; None trains all.
        image_size: side of the network's square in pixels, a multiple of 32.
        neck: "c4", the paper's: proposals on P4, and the backbone's last stage on every region; "c4_light":
            P4 brought to `channels` by a 1x1 convolution, for both, and no last stage (a thin map is
            Light-Head R-CNN's, Li et al. 2017); "dc5": the last stage, dilated, on the photo; "fpn"; or, to
            compare FPN with, "bottom_up", "no_lateral" and "finest" (see `layers.necks.pyramid`).
        channels: of the pyramid's maps or the thin one, and of the convolution of the proposal network.
        anchor_sizes: five sides of anchors in pixels of the square, rising; None scales the paper's 32 to
            512, which are meant for 800 px. On a pyramid each of P2 to P6 has one, elsewhere the one map has
            all.
        head_units: of the two fully connected layers on each region; "c4" has none.
        agnostic: one box a region, in place of one for each class.
        before, proposals, proposal_iou, regions, share, append_truth, per_level_nms, candidates, level_side,
            label_smoothing: see `TwoStage` and `RegionDetector`.
        resize, max_detections, nms_iou: see `Detector`.

    The raw outputs are object_logit (batch, N) and deltas (batch, N, 4) of the N anchors, and a map
    map_<level> (batch, h, w, c) for each level that regions are looked at on. `heads` goes on to the
    regions: see there.

    Differs from the paper, as detectron2 does: regions by RoI align, a logistic loss of one logit for
    objects, anchors that reach over the border are learned, both networks are trained at once. Not as there:
    an anchor that is the best of some object learns that one, also if it overlaps another more. To be light:
    500 boxes are left of 1000 a level in training and 300 of 500 in use, where FPN has 2000 and 1000 left,
    and the one map of "c4" has 2000 left of 12000 and 1000 of 6000; 128 regions are learned from, where FPN
    has 512; bins are sampled at 2 x 2 places.
    """

    def __init__(
        self, classes, *, backbone="resnet50v2", backbone_weights=None, freeze_bn=True, freeze_until=None,
        image_size=320, neck="fpn", channels=256, anchor_sizes=None, head_units=1024, agnostic=False,
        before=(1000, 500), proposals=(500, 300), proposal_iou=0.7, regions=128, share=0.25,
        append_truth=True, per_level_nms=True, resize="stretch", max_detections=100, nms_iou=0.5,
        candidates=300, level_side=None, label_smoothing=0.0, name=None,
    ):
        if neck not in NECKS:
            raise ValueError(f"neck is {neck!r}; give one of {', '.join(NECKS)}")
        if image_size % 32:
            raise ValueError(f"image_size is {image_size}; give a multiple of 32")
        sizes = check_sizes(anchor_sizes, image_size)
        body = backbones.resolve(
            backbone, weights=backbone_weights, image_size=image_size, freeze_bn=freeze_bn,
            freeze_until=freeze_until, output_stride=16 if neck == "dc5" else 32,
            levels=needed_levels(neck),
        )
        # === Functional Model ===
        images = keras.Input((image_size, image_size, 3), name="images")
        maps = region_maps(body, images, neck, channels)
        every = _anchor_maps(body, maps, neck)
        width = every[0].shape[-1]
        sides = [sizes] if len(every) == 1 else [[side] for side in sizes]
        rpn = rpn_head(width, channels, len(RATIOS) * len(sides[0]))
        outputs = _joined([rpn(x) for x in every]) | {f"map_{level}": x for level, x in maps.items()}
        super().__init__(
            images, outputs, roi_head=roi_head(body, neck, width, head_units, len(classes), agnostic),
            anchors=_anchors([x.shape[1] for x in every], image_size, sides), classes=classes,
            image_size=image_size, before=before, proposals=proposals, proposal_iou=proposal_iou,
            regions=regions, share=share, append_truth=append_truth, per_level_nms=per_level_nms,
            candidates=candidates, level_side=level_side, label_smoothing=label_smoothing, resize=resize,
            max_detections=max_detections, nms_iou=nms_iou, name=name,
        )
        # === Config ===
        self._config |= {
            "backbone": backbone, "freeze_bn": freeze_bn, "freeze_until": freeze_until, "neck": neck,
            "channels": channels, "anchor_sizes": list(sizes), "level_side": self.level_side,
            "head_units": head_units, "agnostic": agnostic, "append_truth": append_truth,
            "per_level_nms": per_level_nms,
        }


# === Network ===


def needed_levels(neck: str) -> tuple[str, ...]:
    """The backbone's levels that a neck looks at."""
    return {"c4": ("P4", "P5"), "c4_light": ("P4",), "dc5": ("P5",)}.get(neck, LEVELS)


def region_maps(body, images, neck: str, channels: int) -> dict:
    """The maps that regions are looked at on, by level."""
    if neck in PYRAMIDS:
        return pyramid(body(images), channels, LEVELS, neck)
    level, features = one_map(body, images, neck)
    return {level: thin(channels)(features) if neck == "c4_light" else features}


def _anchor_maps(body, maps: dict, neck: str) -> list:
    """The maps that have anchors, made of those that regions are looked at on."""
    if neck == "c4":
        return [to_p4(body)(maps["P4"])]
    if neck in ("c4_light", "dc5", "finest"):
        return [*maps.values()]
    return [*maps.values(), layers.MaxPooling2D(1, 2, name="fpn_P6")(maps["P5"])]


def _anchors(cells: list[int], image_size: int, sides: list) -> list:
    """Anchors around what each cell sees."""
    steps = [image_size / count for count in cells]
    firsts = [step / 2 for step in steps]
    if len(cells) > 1:
        # P6 is every second cell of P5, from the first one on; of an odd number of cells it has half and one.
        steps[-1], firsts[-1] = 2 * steps[-2], firsts[-2]
    return rpn_anchors(cells, steps, sides, RATIOS, firsts)


def thin(channels: int) -> layers.Layer:
    """What brings P4 to few channels, so that the layers on each region have few weights."""
    return layers.Conv2D(channels, 1, kernel_initializer="he_normal", name="thin_P4")


def one_map(body, images, neck: str) -> tuple:
    """Name of a level and its map: P4, of a backbone that ends there, or P5 at stride 16 ("dc5")."""
    if neck == "dc5":
        return "P5", body(images)["P5"]
    trunk = keras.Model(body.input, end_of_trunk(body, neck), name=body.name)
    return "P4", trunk(images)


def end_of_trunk(body, neck: str):
    """The map at P4 that the backbone ends in: where its last stage goes on ("c4"), or what it calls P4."""
    return body.output["P4"] if neck == "c4_light" else before_stage5(body)


def before_stage5(body):
    """The map that the backbone's last stage begins with, which "c4" runs on regions.

    That is P4, but for a ResNet v2: its P4 is a sum behind a normalisation that the next stage's first
    shortcut leads past, so the stage begins with the bare sum.

    Raises ValueError if P5 does not come from one map of P4's size.
    """
    start = body.output["P4"]
    while True:
        try:
            keras.Model(start, body.output["P5"])
            return start
        except ValueError:
            before = inputs_of(start)
        if len(before) != 1 or before[0].shape[1:3] != start.shape[1:3]:
            raise ValueError(
                f"{body.name}: its P5 does not come from P4 alone, so neck 'c4' cannot run its last stage on "
                "regions; give neck='fpn' or 'dc5', or another backbone"
            )
        (start,) = before


def to_p4(body) -> Callable:
    """From that map to P4: nothing to do, but for a ResNet v2."""
    start, end = before_stage5(body), body.output["P4"]
    return (lambda features: features) if start is end else keras.Model(start, end, name=f"{body.name}_P4")


def _joined(levels: list[dict]) -> dict:
    """Rows of all levels, one level after the other."""
    if len(levels) == 1:
        return dict(levels[0])
    return {
        key: layers.Concatenate(axis=1, name=f"rpn_{key}")([level[key] for level in levels])
        for key in levels[0]
    }


def roi_head(body, neck: str, channels: int, units: int, classes: int, agnostic: bool) -> keras.Model:
    """From a region's features to its class and box, see `RegionDetector`."""
    size = 14 if neck == "c4" else 7
    regions = keras.Input((size, size, channels), name="regions")
    if neck == "c4":
        stage = keras.Model(before_stage5(body), body.output["P5"], name=f"{body.name}_stage5")
        # Statistics of the regions sampled in training are not those of the proposals afterwards.
        freeze_batch_norm(stage)
        take_any_size(stage)
        x = layers.GlobalAveragePooling2D(name="head_mean")(stage(regions))
    else:
        x = layers.Flatten(name="head_rows")(regions)
        for number in (1, 2):
            x = layers.Dense(units, activation="relu", name=f"head_dense{number}")(x)
    return keras.Model(regions, box_head(x, classes, agnostic), name="roi_head")


def check_sizes(sizes, image_size: int) -> tuple:
    if sizes is None:
        return tuple(side * image_size / PAPER_SIDE for side in ANCHOR_SIZES)
    if len(sizes) != len(ANCHOR_SIZES) or list(sizes) != sorted(sizes) or min(sizes) <= 0:
        raise ValueError(f"anchor_sizes is {tuple(sizes)}; give five rising numbers of pixels")
    return tuple(sizes)
