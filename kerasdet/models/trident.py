"""TridentNet: Scale-Aware Trident Networks (Li et al., ICCV 2019).

A Faster R-CNN on one map, the last stage of which runs three times, with the same weights and different
dilations: each branch sees areas of one size, and in scale-aware training proposes objects of that size. From
top to bottom: network, branches, targets, decoding.
"""

from __future__ import annotations

import math

import keras
from keras import ops

from kerasdet import backbones
from kerasdet.boxes import coders
from kerasdet.boxes.anchors import rpn_anchors
from kerasdet.boxes.iou import area, pairwise_iou
from kerasdet.layers.heads import rpn_head
from kerasdet.layers.trident import trident
from kerasdet.models.faster_rcnn import (
    RATIOS,
    check_sizes,
    end_of_trunk,
    needed_levels,
    roi_head,
    thin,
    to_p4,
)
from kerasdet.models.regions import PAPER_SIDE
from kerasdet.models.two_stage import RPN_NEGATIVE, TwoStage

# Valid ranges of sqrt(w h) of three branches (section 4.2), for photos with a short side of 800 px.
RANGES = ((0.0, 90.0), (30.0, 160.0), (90.0, math.inf))
# No box is longer than this in pixels, on any square: infinity would not survive a config of JSON.
ENDLESS = 1e6
INFERENCE = ("all", "middle")
NECKS = ("c4", "c4_light")


@keras.saving.register_keras_serializable(package="kerasdet")
class TridentNet(TwoStage):
    """TridentNet, and TridentNet Fast.

    Args:
        classes, backbone, backbone_weights, freeze_bn, freeze_until, image_size, channels, anchor_sizes,
            head_units: as of `FasterRCNN`, which this is but for its branches.
        neck: "c4", the paper's, or "c4_light", as of `FasterRCNN`.
        dilations: of each branch.
        blocks: how many 3x3 convolutions of the stage before P4 are dilated; None takes all that can be.
        share_weights: of the branches; False gives each its own, to compare with (the paper's table 1).
        ranges: of each branch the smallest and the largest sqrt(w h), in pixels of the square, of the objects
            that its anchors learn, of its proposals in training, and of what it finds (scale-aware training);
            "paper" scales 0 to 90, 30 to 160 and 90 on, which are meant for 800 px, and makes it the paper's
            TridentNet; None leaves all open, as TridentNet Fast is trained.
        inference: "all" branches, or the "middle" one alone: TridentNet Fast, which costs no more than the
            network that it was made of; see `fast`.
        agnostic: as of `FasterRCNN`.
        before, proposals, proposal_iou, regions, share, candidates, label_smoothing: see `TwoStage` and
            `RegionDetector`; regions and proposals are those of a branch. The objects' own boxes are no
            proposals.
        resize, max_detections, nms_iou: see `Detector`.

    The raw outputs are object_logit_<k>, deltas_<k> and map_P4_<k> of each branch k, from 0.

    Differs from the paper as `FasterRCNN` does, but for the numbers: 500 boxes are left of 1000 a branch in
    training and 300 of 500 in use, where simpledet has as many left of 12000 and 6000 (1000 in use of
    TridentNet Fast). The best `candidates` pairs of region and class are of all branches together; the
    paper has no such limit. In scale-aware training the paper leaves objects that are not of a branch's size
    out of all that the branch learns; here, as in simpledet, they are left out of what its anchors learn.
    Its proposals are of its size too, but its regions learn from objects of every size.
    """

    def __init__(
        self, classes, *, backbone="resnet50v2", backbone_weights=None, freeze_bn=True, freeze_until=None,
        image_size=320, neck="c4", channels=256, anchor_sizes=None, head_units=1024, dilations=(1, 2, 3),
        blocks=None, share_weights=True, ranges=None, inference="all", agnostic=True, before=(1000, 500),
        proposals=(500, 300), proposal_iou=0.7, regions=128, share=0.5, resize="stretch",
        max_detections=100, nms_iou=0.5, candidates=300, label_smoothing=0.0, name=None,
    ):
        if neck not in NECKS:
            raise ValueError(f"neck is {neck!r}; give one of {', '.join(NECKS)}")
        if inference not in INFERENCE:
            raise ValueError(f"inference is {inference!r}; give one of {', '.join(INFERENCE)}")
        if not len(dilations) or min(dilations) < 1:
            raise ValueError(f"dilations is {tuple(dilations)}; give numbers from 1 on, one a branch")
        if image_size % 32:
            raise ValueError(f"image_size is {image_size}; give a multiple of 32")
        pixels = _in_pixels(ranges, len(dilations), image_size)
        sizes = check_sizes(anchor_sizes, image_size)
        body = backbones.resolve(
            backbone, weights=backbone_weights, image_size=image_size, freeze_bn=freeze_bn,
            freeze_until=freeze_until, output_stride=32, levels=needed_levels(neck),
        )
        # === Functional Model ===
        images = keras.Input((image_size, image_size, 3), name="images")
        stem, branches, _ = trident(body, end_of_trunk(body, neck), dilations, blocks, share_weights)
        shared = stem(images)
        maps = [branch(shared) for branch in branches]
        if neck == "c4_light":
            few = thin(channels)
            maps = shown = [few(x) for x in maps]
        else:
            p4 = to_p4(body)
            shown = [p4(x) for x in maps]
        cells, width = maps[0].shape[1], maps[0].shape[-1]
        rpn = rpn_head(width, channels, len(RATIOS) * len(sizes))
        outputs = {}
        for k, (x, seen) in enumerate(zip(maps, shown, strict=True)):
            said = rpn(seen)
            outputs |= {f"{key}_{k}": value for key, value in said.items()} | {f"map_P4_{k}": x}
        super().__init__(
            images, outputs, roi_head=roi_head(body, neck, width, head_units, len(classes), agnostic),
            anchors=rpn_anchors([cells], [image_size / cells], [sizes], RATIOS), classes=classes,
            image_size=image_size, before=before, proposals=proposals, proposal_iou=proposal_iou,
            regions=regions, share=share, append_truth=False, candidates=candidates,
            label_smoothing=label_smoothing, resize=resize, max_detections=max_detections, nms_iou=nms_iou,
            name=name,
        )
        # === Config ===
        self.levels, self.dilations = ("P4",), tuple(dilations)
        self.ranges, self.inference = pixels, inference
        self._config |= {
            "backbone": backbone, "freeze_bn": freeze_bn, "freeze_until": freeze_until,
            "neck": neck, "channels": channels, "anchor_sizes": list(sizes), "head_units": head_units,
            "dilations": list(dilations), "blocks": blocks,
            "share_weights": share_weights, "inference": inference, "agnostic": agnostic,
            "ranges": pixels and [list(pair) for pair in pixels],
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # Files of before have it; of a single level it says nothing.
        config = {key: value for key, value in config.items() if key != "per_level_nms"}
        return super().from_config(config, custom_objects)

    def fast(self) -> TridentNet:
        """The same weights, of which the middle branch alone is looked at (section 4.4)."""
        return self._looking_at("middle")

    def full(self) -> TridentNet:
        """The same weights, of which all branches are looked at: what `fast` came from."""
        return self._looking_at("all")

    def _looking_at(self, inference: str) -> TridentNet:
        other = type(self).from_config(self.get_config() | {"inference": inference})
        other.set_weights(self.get_weights())
        return other

    # === Branches ===

    @property
    def at_once(self) -> int:
        return super().at_once * (len(self.dilations) if self.inference == "all" else 1)

    def _map(self, level: str):
        return self.output[f"map_{level}_0"]

    def _stacked(self, raw: dict, branches) -> dict:
        """Raw outputs of some branches as one, along the batch: branch by branch, photo by photo."""
        keys = ("object_logit", "deltas", "map_P4")
        return {key: ops.concatenate([raw[f"{key}_{k}"] for k in branches], axis=0) for key in keys}

    def _in_range(self, boxes):
        """Which boxes (branches * batch, n, 4), see `_stacked`, are of the size of their branch; bool."""
        grouped = ops.reshape(boxes, (len(self.ranges), -1, boxes.shape[1], 4))
        return ops.reshape(self._fits(grouped, 0), (-1, boxes.shape[1]))

    def _fits(self, boxes, axis: int):
        """Which boxes (.., 4) are of the size of their branch, the branches lying along one of the axes."""
        side = ops.sqrt(area(boxes))
        shape = [1] * len(side.shape)
        shape[axis] = len(self.ranges)
        low, high = (ops.reshape(ops.convert_to_tensor(end), shape) for end in zip(*self.ranges, strict=True))
        return ops.logical_and(side >= low, side <= high)

    # === Targets ===

    def loss_parts(self, targets: dict, raw: dict) -> dict:
        """As of `TwoStage`, over all branches: anchors with the objects of their branch's range (section
        3.3), regions with all."""
        count = len(self.dilations)
        targets = {key: ops.concatenate([value] * count, axis=0) for key, value in targets.items()}
        return super().loss_parts(targets, self._stacked(raw, range(count)))

    def rpn_targets(self, targets: dict) -> dict:
        """As of `TwoStage`, of stacked branches; objects of other branches are neither learned nor
        background: anchors that overlap them by more than .3 are left out, whatever else they lie on."""
        if self.ranges is None:
            return super().rpn_targets(targets)
        fits = self._in_range(targets["boxes"])
        others = ops.where(fits[..., None], 0.0, targets["boxes"])
        goal = super().rpn_targets(targets | {
            "labels": ops.where(fits, targets["labels"], -1),
            "weights": ops.where(fits, targets["weights"], 0.0),
        })
        overlap = pairwise_iou(others, ops.convert_to_tensor(self.anchors[0])[None])
        near = ops.any(overlap > RPN_NEGATIVE[1], axis=1)
        return goal | {
            key: ops.logical_and(goal[key], ops.logical_not(near)) for key in ("positive", "negative")
        }

    @property
    def proposable(self):
        """Proposals of other sizes are no branch's in training; those that are left learn from every object
        that they lie on, whatever its size."""
        return None if self.ranges is None else self._in_range

    # === Decoding ===

    def heads(self, raw: dict) -> dict:
        """As of `TwoStage`, the regions of one branch behind those of the other."""
        count = len(self.dilations)
        branches = range(count) if self.inference == "all" else [count // 2]
        heads = super().heads(self._stacked(raw, branches))
        return {key: _side_by_side(value, len(branches)) for key, value in heads.items()}

    def decode(self, heads: dict) -> dict:
        """As of `TwoStage`; boxes that are not of their branch's size are left out."""
        if self.ranges is None or self.inference == "middle":
            return super().decode(heads)
        moved = coders.decode(heads["boxes"], heads["proposals"][:, :, None])
        _, n, each, _ = moved.shape
        count = len(self.ranges)
        moved = ops.reshape(ops.clip(moved, 0.0, self.image_size), (-1, count, n // count, each, 4))
        fits = ops.reshape(ops.cast(self._fits(moved, 1), "float32"), (-1, n, each))
        return super().decode(heads | {"class": heads["class"] * fits})


def _side_by_side(values, branches: int):
    """(branches * batch, n, ...) to (batch, branches * n, ...)."""
    if branches == 1:
        return values
    shape = values.shape[1:]
    values = ops.reshape(values, (branches, -1, *shape))
    order = (1, 0, *range(2, len(shape) + 2))
    return ops.reshape(ops.transpose(values, order), (-1, branches * shape[0], *shape[1:]))


def _in_pixels(ranges, branches: int, image_size: int):
    """Each branch's limits in pixels of the square, or None."""
    if ranges is None:
        return None
    if ranges == "paper":
        ranges = [[limit * image_size / PAPER_SIDE for limit in pair] for pair in RANGES]
    if len(ranges) != branches or any(len(pair) != 2 or pair[0] >= pair[1] for pair in ranges):
        raise ValueError(
            f"ranges is {ranges}; give 'paper' for three branches, or a smallest and a largest side for "
            f"each of the {branches}"
        )
    return tuple((float(low), float(min(high, ENDLESS))) for low, high in ranges)
