"""Faster R-CNN (Ren et al., NeurIPS 2015), and its form on FPN (Lin et al., CVPR 2017).

A region proposal network says of anchors on every cell whether they hold an object; the features of the
best boxes are brought to one size, and a second network says what class each is, and where exactly. From
top to bottom: network, proposals, regions, targets, losses, decoding.
"""

from __future__ import annotations

import keras
from keras import layers, ops

from kerasdet import backbones
from kerasdet.backbones.common import freeze_batch_norm, take_any_size
from kerasdet.boxes import assign, coders
from kerasdet.boxes.anchors import rpn_anchors
from kerasdet.boxes.proposals import RPN_WEIGHTS, propose
from kerasdet.detector import Detector
from kerasdet.layers.heads import box_head, rpn_head
from kerasdet.layers.necks import PYRAMIDS, pyramid
from kerasdet.layers.roi import CANONICAL_SIDE, roi_align, roi_levels

# "c4": one map at stride 16, and the backbone's last stage on every region; "dc5": the last stage on the
# whole photo, dilated; the others: a pyramid (see `layers.necks.pyramid`).
NECKS = ("c4", "dc5", *PYRAMIDS)
LEVELS = ("P2", "P3", "P4", "P5")
# Sides of anchors (section 4.1 of FPN), for photos with this short side in pixels.
ANCHOR_SIZES, PAPER_SIDE = (32, 64, 128, 256, 512), 800
RATIOS = (0.5, 1.0, 2.0)
# Section 3.1.2: overlaps from which an anchor is an object, and up to which it is none.
RPN_POSITIVE, RPN_NEGATIVE = 0.7, (0.0, 0.3)
# Section 3.1.3.
RPN_SAMPLES, RPN_SHARE = 256, 0.5
# A region is an object from this overlap on, and background below it.
ROI_POSITIVE, ROI_NEGATIVE = 0.5, (0.0, 0.5)
# What scores less is not looked at.
MIN_SCORE = 0.05


@keras.saving.register_keras_serializable(package="kerasdet")
class FasterRCNN(Detector):
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
        neck: "c4", the paper's: proposals on P4, and the backbone's last stage on every region; "dc5":
            that stage, dilated, on the photo; "fpn"; or, to compare FPN with, "bottom_up", "no_lateral" and
            "finest" (see `layers.necks.pyramid`).
        channels: of the pyramid's maps, and of the convolution of the proposal network.
        anchor_sizes: five sides of anchors in pixels of the square, rising; None scales the paper's 32 to
            512, which are meant for 800 px. On a pyramid each of P2 to P6 has one, elsewhere the one map has
            all.
        head_units: of the two fully connected layers on each region; "c4" has none.
        agnostic: one box a region, in place of one for each class.
        before: boxes a level that go into the suppression of proposals: in training, and after it.
        proposals: boxes that come out: in training, and after it.
        proposal_iou: overlap above which the lower of two proposals is dropped.
        regions: proposals a photo that the second network learns from.
        share: of objects among these, at most.
        append_truth: the objects' own boxes are proposals too in training.
        per_level_nms: False suppresses the proposals of all levels together.
        resize, max_detections, nms_iou: see `Detector`.
        candidates: pairs of a region and a class that are decoded.

    The raw outputs are object_logits (batch, N) and deltas (batch, N, 4) of the N anchors, and a map
    map_<level> (batch, h, w, c) for each level that regions are looked at on. `heads` goes on to the
    regions: see there.

    Differs from the paper, as detectron2 does: regions by RoI align, a logistic loss of one logit for
    objects, anchors that reach over the border are learned, both networks are trained at once.
    """

    def __init__(
        self, classes, *, backbone="resnet50v2", backbone_weights=None, freeze_bn=True, freeze_until=None,
        image_size=320, neck="fpn", channels=256, anchor_sizes=None, head_units=1024, agnostic=False,
        before=(1000, 500), proposals=(500, 300), proposal_iou=0.7, regions=128, share=0.25,
        append_truth=True, per_level_nms=True, resize="stretch", max_detections=100, nms_iou=0.5,
        candidates=300, name=None,
    ):
        if neck not in NECKS:
            raise ValueError(f"neck is {neck!r}; give one of {', '.join(NECKS)}")
        if image_size % 32:
            raise ValueError(f"image_size is {image_size}; give a multiple of 32")
        sizes = _check_sizes(anchor_sizes, image_size)
        for key, pair in (("before", before), ("proposals", proposals)):
            if len(pair) != 2 or min(pair) < 1:
                raise ValueError(f"{key} is {pair}; give two numbers above 0: in training, and after it")
        if regions < 1 or not 0 < share <= 1:
            raise ValueError(f"regions={regions}, share={share}: give 1 or more, and more than 0, up to 1")
        body = backbones.resolve(
            backbone, weights=backbone_weights, image_size=image_size, freeze_bn=freeze_bn,
            freeze_until=freeze_until, output_stride=16 if neck == "dc5" else 32,
        )
        # === Functional Model ===
        images = keras.Input((image_size, image_size, 3), name="images")
        maps, coarser = _maps(body, images, neck, channels, image_size)
        per_cell = len(RATIOS) * (1 if neck in PYRAMIDS and neck != "finest" else len(sizes))
        outputs = rpn_head([*maps.values(), *coarser], channels, per_cell)
        outputs |= {f"map_{level}": x for level, x in maps.items()}
        super().__init__(
            images, outputs, classes=classes, image_size=image_size, resize=resize,
            max_detections=max_detections, nms_iou=nms_iou, name=name,
        )
        # === Regions ===
        self.levels = tuple(maps)
        self.roi_size = 14 if neck == "c4" else 7
        self.roi_head = _roi_head(
            body, neck, self.roi_size, next(iter(maps.values())).shape[-1], head_units, len(classes), agnostic
        )
        # === Config ===
        cells = [x.shape[1] for x in [*maps.values(), *coarser]]
        each = [sizes] if len(cells) == 1 else [[side] for side in sizes[: len(cells)]]
        self.anchors = rpn_anchors(cells, [image_size / count for count in cells], each, RATIOS)
        self.strides = [image_size // x.shape[1] for x in maps.values()]
        self.before, self.proposals = tuple(before), tuple(proposals)
        self.proposal_iou, self.per_level_nms = proposal_iou, per_level_nms
        self.regions, self.share, self.append_truth = regions, share, append_truth
        self.sampler = keras.random.SeedGenerator(0)
        self.candidates = min(candidates, self.proposals[1] * len(classes))
        self._config = {
            "classes": list(classes), "backbone": backbone, "freeze_bn": freeze_bn,
            "freeze_until": freeze_until, "image_size": image_size, "neck": neck, "channels": channels,
            "anchor_sizes": list(sizes), "head_units": head_units, "agnostic": agnostic,
            "before": list(before), "proposals": list(proposals), "proposal_iou": proposal_iou,
            "regions": regions, "share": share, "append_truth": append_truth,
            "per_level_nms": per_level_nms, "resize": resize, "max_detections": max_detections,
            "nms_iou": nms_iou, "candidates": candidates,
        }
        self.track_losses("object_loss", "proposal_loss", "class_loss", "box_loss")

    # === Proposals ===

    def propose(self, raw: dict, training: bool = False):
        """The boxes that the proposal network takes for objects.

        Args:
            raw: the raw outputs.
            training: as many as training asks for.

        Returns:
            boxes (batch, n, 4) float32 xyxy pixels and scores (batch, n), falling; zeros where there are
            fewer. No gradient goes through them (section 3.2, "Approximate joint training").
        """
        which = 0 if training else 1
        return propose(
            raw["object_logits"], raw["deltas"], self.anchors, self.image_size, before=self.before[which],
            after=self.proposals[which], iou_threshold=self.proposal_iou, per_level=self.per_level_nms,
        )

    # === Regions ===

    def regions_of(self, raw: dict, boxes, training: bool = False) -> dict:
        """What the second network says of boxes.

        Args:
            raw: the raw outputs.
            boxes: (batch, n, 4) float32 xyxy pixels.

        Returns:
            class_logits (batch, n, 1 + classes), background first; deltas (batch, n, 1 or classes, 4), see
            `boxes.coders.encode`.
        """
        maps = [raw[f"map_{level}"] for level in self.levels]
        levels = None
        if len(maps) > 1:
            canonical = CANONICAL_SIDE * self.image_size / PAPER_SIDE
            levels = roi_levels(boxes, 2, 5, canonical) - 2
        pooled = roi_align(maps, self.strides, boxes, self.roi_size, levels=levels)
        count = boxes.shape[1]
        said = self.roi_head(ops.reshape(pooled, (-1, *pooled.shape[2:])), training=training)
        return {key: ops.reshape(value, (-1, count, *value.shape[1:])) for key, value in said.items()}

    # === Targets ===

    def rpn_targets(self, targets: dict) -> dict:
        """What every anchor learns (section 3.1.2), before some are sampled.

        Args:
            targets: boxes (batch, n, 4) float32 xyxy pixels, labels (batch, n) int32 with -1 in padding
                rows, weights (batch, n), ignore (batch, m, 4).

        Returns:
            positive (batch, N) bool, anchors that are objects; negative (batch, N) bool, those that are
            none, but for those with their middle in an ignore region; weight (batch, N) of the object;
            deltas (batch, N, 4), see `boxes.coders.encode`.
        """
        anchors = ops.concatenate([ops.convert_to_tensor(level) for level in self.anchors], axis=0)
        owner, background = assign.by_overlap(
            targets["boxes"], targets["labels"], anchors, RPN_POSITIVE, RPN_NEGATIVE, best=True
        )
        goal = assign.taught(owner, targets, anchors)
        return {
            "positive": goal["positive"], "negative": ops.logical_and(goal["negative"], background),
            "weight": goal["weight"], "deltas": coders.encode(goal["boxes"], anchors, RPN_WEIGHTS),
        }

    def region_targets(self, targets: dict, proposals) -> dict:
        """The regions that the second network learns from, and what (Fast R-CNN, section 2.3).

        Args:
            targets: as in `rpn_targets`.
            proposals: (batch, n, 4) float32 xyxy pixels; rows of zeros are none.

        Returns:
            boxes (batch, R, 4), the regions sampled; positive (batch, R) and negative (batch, R) float32,
            1 for objects and for background, both 0 in rows that are there to fill up; label (batch, R)
            int32, weight (batch, R) and deltas (batch, R, 4) of the object.
        """
        if self.append_truth:
            proposals = ops.concatenate([proposals, targets["boxes"]], axis=1)
        sides = proposals[..., 2:] - proposals[..., :2]
        real = ops.min(sides, axis=-1) > 0
        # Rows that are none must not divide by their sides.
        places = ops.where(real[..., None], proposals, ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0]))
        owner, background = assign.by_overlap(
            targets["boxes"], targets["labels"], places, ROI_POSITIVE, ROI_NEGATIVE
        )
        owner = ops.where(real, owner, -1)
        goal = assign.taught(owner, targets, places)
        negative = ops.logical_and(ops.logical_and(goal["negative"], background), real)
        chosen, other = assign.balanced(
            self._random(owner), goal["positive"], negative, self.regions, self.share
        )
        # Objects first, then background, then what fills up.
        _, rows = ops.top_k(2 * chosen + other, min(self.regions, owner.shape[1]))

        def of(values):
            if len(values.shape) == 3:
                return ops.take_along_axis(values, rows[..., None], axis=1)
            return ops.take_along_axis(values, rows, axis=1)

        deltas = coders.encode(goal["boxes"], places)
        return {
            "boxes": of(places), "positive": of(chosen), "negative": of(other), "label": of(goal["label"]),
            "weight": of(goal["weight"]), "deltas": of(deltas),
        }

    def _random(self, like):
        """A number in [0, 1) for each place; another one in every step."""
        return keras.random.uniform(ops.shape(like), dtype="float32", seed=self.sampler)

    # === Losses ===

    def loss_parts(self, targets: dict, raw: dict) -> dict:
        """Equation 1 for proposals, and Fast R-CNN's equation 1 for regions.

        Each is a mean over the places sampled; boxes by the sum of absolute errors (detectron2's smooth-L1
        with beta 0).
        """
        goal = self.rpn_targets(targets)
        chosen, other = assign.balanced(
            self._random(goal["weight"]), goal["positive"], goal["negative"], RPN_SAMPLES, RPN_SHARE
        )
        chosen = chosen * goal["weight"]
        logits, count = raw["object_logits"], ops.maximum(ops.sum(chosen) + ops.sum(other), 1.0)
        miss = ops.sum(chosen * ops.softplus(-logits)) + ops.sum(other * ops.softplus(logits))
        error = ops.sum(ops.abs(raw["deltas"] - goal["deltas"]), axis=-1)
        losses = {"object_loss": miss / count, "proposal_loss": ops.sum(chosen * error) / count}

        boxes, _ = self.propose(raw, training=True)
        goal = self.region_targets(targets, boxes)
        return losses | self.region_losses(goal, self.regions_of(raw, goal["boxes"], training=True))

    def region_losses(self, goal: dict, said: dict) -> dict:
        """Cross-entropy and absolute errors of regions.

        Args:
            goal: see `region_targets`.
            said: see `regions_of`.
        """
        positive, negative = goal["positive"] * goal["weight"], goal["negative"]
        count = ops.maximum(ops.sum(positive) + ops.sum(negative), 1.0)
        log_p = ops.log_softmax(said["class_logits"], axis=-1)
        truth = ops.one_hot(goal["label"] + 1, len(self.classes) + 1, dtype="float32")
        hit, miss = -ops.sum(truth * log_p, axis=-1), -log_p[..., 0]
        moved = said["deltas"]
        if moved.shape[2] > 1:
            # The box of the region's own class learns.
            moved = ops.sum(moved * truth[..., 1:, None], axis=2)
        else:
            moved = moved[..., 0, :]
        error = ops.sum(ops.abs(moved - goal["deltas"]), axis=-1)
        return {
            "class_loss": ops.sum(positive * hit + negative * miss) / count,
            "box_loss": ops.sum(positive * error) / count,
        }

    # === Decoding ===

    def heads(self, raw: dict) -> dict:
        """class (batch, n, classes), probabilities without background's; boxes (batch, n, 1 or classes, 4),
        as `boxes.coders` has them; proposals (batch, n, 4) xyxy pixels; rows that are none have class 0."""
        boxes, scores = self.propose(raw)
        said = self.regions_of(raw, boxes)
        real = ops.cast(scores > 0, "float32")[..., None]
        return {
            "class": ops.softmax(said["class_logits"], axis=-1)[..., 1:] * real, "boxes": said["deltas"],
            "proposals": boxes,
        }

    def decode(self, heads: dict) -> dict:
        """The pairs of region and class that score highest, moved to where they belong."""
        count, classes = heads["class"].shape[1:]
        scores = ops.reshape(heads["class"], (-1, count * classes))
        scores, index = ops.top_k(ops.where(scores >= MIN_SCORE, scores, 0.0), self.candidates)
        rows, labels = index // classes, index % classes
        each = heads["boxes"].shape[2]
        deltas = ops.reshape(heads["boxes"], (-1, count * each, 4))
        deltas = ops.take_along_axis(deltas, (index if each > 1 else rows)[..., None], axis=1)
        places = ops.take_along_axis(heads["proposals"], rows[..., None], axis=1)
        boxes = ops.clip(coders.decode(deltas, places), 0.0, self.image_size)
        return {"boxes": boxes, "scores": scores, "labels": labels}


# === Network ===


def _maps(body, images, neck: str, channels: int, image_size: int) -> tuple[dict, list]:
    """The maps that regions are looked at on, by level, and those that have anchors alone."""
    if neck == "c4":
        trunk = keras.Model(body.input, body.output["P4"], name=body.name)
        return {"P4": trunk(images)}, []
    features = body(images)
    if neck == "dc5":
        if features["P5"].shape[1] != image_size // 16:
            raise ValueError(
                f"neck is 'dc5' and {body.name}'s P5 has {features['P5'].shape[1]} cells a side; give a "
                f"backbone whose last stage is dilated: {image_size // 16} cells"
            )
        return {"P5": features["P5"]}, []
    maps = pyramid(features, channels, LEVELS, neck)
    if neck == "finest":
        return maps, []
    return maps, [layers.MaxPooling2D(1, 2, name="fpn_P6")(maps["P5"])]


def _roi_head(body, neck: str, size: int, channels: int, units: int, classes: int, agnostic: bool):
    """From a region's features (size, size, channels) to its class and box."""
    regions = keras.Input((size, size, channels), name="regions")
    if neck == "c4":
        stage = keras.Model(body.output["P4"], body.output["P5"], name=f"{body.name}_stage5")
        # Statistics of the regions sampled in training are not those of the proposals afterwards.
        freeze_batch_norm(stage)
        take_any_size(stage)
        x = layers.GlobalAveragePooling2D(name="head_mean")(stage(regions))
    else:
        x = layers.Flatten(name="head_rows")(regions)
        for number in (1, 2):
            x = layers.Dense(units, activation="relu", name=f"head_dense{number}")(x)
    return keras.Model(regions, box_head(x, classes, agnostic), name="roi_head")


def _check_sizes(sizes, image_size: int) -> tuple:
    if sizes is None:
        return tuple(side * image_size / PAPER_SIDE for side in ANCHOR_SIZES)
    if len(sizes) != len(ANCHOR_SIZES) or list(sizes) != sorted(sizes) or min(sizes) <= 0:
        raise ValueError(f"anchor_sizes is {tuple(sizes)}; give five rising numbers of pixels")
    return tuple(sizes)
