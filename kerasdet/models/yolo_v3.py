"""YOLOv3 (Redmon and Farhadi 2018, arXiv 1804.02767).

Every cell of three maps predicts three boxes, each as a correction of an anchor, with how sure it is
that there is an object and an independent probability of every class. From top to bottom: network,
targets, losses, decoding.
"""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import layers, ops

from kerasdet import backbones
from kerasdet.backbones.common import take_any_size
from kerasdet.backbones.darknet import convolution
from kerasdet.boxes.iou import area, ciou, giou, pairwise_iou
from kerasdet.boxes.rows import at_rows, top_pairs
from kerasdet.boxes.slots import inside, winners
from kerasdet.detector import Detector
from kerasdet.distribution import batch_sum
from kerasdet.layers.heads import head
from kerasdet.layers.necks import pyramid, separable
from kerasdet.layers.per_anchor import PerAnchor
from kerasdet.layers.upsample import NearestUpsample
from kerasdet.losses import check_smoothing, soft_targets

# Section 2.3: clusters of COCO's boxes at 416 px, three a level.
PAPER_ANCHORS = (
    (10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326),
)
PAPER_SIZE = 416
LEVELS, STRIDES = ("P3", "P4", "P5"), (8, 16, 32)
# What the box loss counts beside the others: 1 as in the paper; the losses by IoU, which are at most 2,
# would otherwise be small beside the objectness. That number is ours.
BOX_WEIGHTS = {"yolo": 1.0, "giou": 2.5, "ciou": 2.5}
# exp of a wild prediction must not overflow, in float16 least of all.
MAX_LOG_SCALE = 4.0


@keras.saving.register_keras_serializable(package="kerasdet")
class YOLOv3(Detector):
    """You Only Look Once, version 3.

    Args:
        classes: names of the classes.
        backbone: a name for `backbones.build`, "darknet53" in the paper, or a keras.Model with outputs
            P3, P4, P5.
        backbone_weights: "imagenet", a file, a detector on the same backbone, or None (random).
        freeze_bn: a named backbone's batch norms keep their statistics, as ImageNet weights want it; False
            for a backbone that starts from random weights.
        freeze_until: level up to which the backbone is not trained, such as "P2"; None trains all.
        image_size: side of the network's square in pixels, a multiple of 32. It can be trained on squares
            of other sizes as well: `Dataset.batches(..., sizes=...)`.
        anchors: (width, height) pairs in pixels of the square, by rising area, as many for each of the
            strides 8, 16 and 32; `kerasdet data anchors` finds them for a set. None takes the paper's
            nine, which are for 416 px, scaled to `image_size`.
        neck: "paper"; "light", for phones: depthwise convolutions; or "fpn", FPN's pyramid with a depthwise
            convolution before the outputs.
        channels: of the finest level; the paper's 128, twice that at stride 16 and four times at 32. The
            other necks have `channels` at all levels (light: 96, fpn: 256).
        box_loss: "yolo", the paper's squared error, or "giou" or "ciou": 1 less that measure.
        ignore_iou: predictions that overlap an object by more are not blamed for finding it. 0.7 as in
            the authors' configuration; the paper's text has 0.5.
        label_smoothing: how soft the classes are learned, see `losses.soft_targets`: a number, or "yolo" for
            what a logistic loss of each class is usually given. With one class a number changes nothing.
        resize, max_detections, nms_iou: see `Detector`.
        candidates: pairs of a box and a class that are decoded.

    The raw outputs have one row for each of N = anchors * (cells of the three maps), by level, row,
    column, anchor: box (batch, N, 4), the paper's t_x, t_y, t_w, t_h; object_logit (batch, N, 1);
    class_logits (batch, N, classes).

    Differs from the paper: losses are divided by the number of objects (darknet: of photos); of two
    objects with the same cell and anchor the smaller one is learned (darknet: the last one); objectness
    begins at 1 %.
    """

    size_multiple = STRIDES[-1]

    def __init__(
        self, classes=("person",), *, backbone="mobilenet_v2", backbone_weights=None, freeze_bn=True,
        freeze_until=None, image_size=320, anchors=None, neck="light", channels=None, box_loss="yolo",
        ignore_iou=0.7, label_smoothing=0.0, resize="stretch", max_detections=100, nms_iou=0.45,
        candidates=200, name=None,
    ):
        if neck not in NECKS:
            raise ValueError(f"neck is {neck!r}; give one of {', '.join(NECKS)}")
        if box_loss not in BOX_WEIGHTS:
            raise ValueError(f"box_loss is {box_loss!r}; give one of {', '.join(BOX_WEIGHTS)}")
        if image_size % 32:
            raise ValueError(f"image_size is {image_size}; give a multiple of 32")
        check_smoothing(label_smoothing, yolo=True)
        anchors = _check_anchors(anchors, image_size)
        per_cell = len(anchors) // len(LEVELS)
        make_neck, usual_channels = NECKS[neck]
        channels = channels or usual_channels
        body = backbones.resolve(
            backbone, weights=backbone_weights, image_size=image_size, freeze_bn=freeze_bn,
            freeze_until=freeze_until, levels=LEVELS,
        )
        take_any_size(body)
        # === Functional Model ===
        images = keras.Input((image_size, image_size, 3), name="images")
        features = make_neck(body(images), channels)
        for level, stride in zip(LEVELS, STRIDES, strict=True):
            backbones.check_cells(body, features[level].shape[1], image_size, stride)
        outputs = {
            "box": _head(features, "box", 4, per_cell),
            # The first guess is one object in a hundred rows, since almost all are background.
            "object_logit": _head(features, "object", 1, per_cell, -math.log(99.0)),
            "class_logits": _head(features, "class", len(classes), per_cell),
        }
        super().__init__(
            images, outputs, classes=classes, image_size=image_size, resize=resize,
            max_detections=max_detections, nms_iou=nms_iou, name=name,
        )
        take_any_size(self)
        # === Config ===
        self.anchors, self.per_cell = anchors, per_cell
        self.box_loss, self.ignore_iou, self.label_smoothing = box_loss, ignore_iou, label_smoothing
        self.candidates = self.decoded(candidates, self.output["box"].shape[1] * len(classes))
        self._config = {
            "classes": list(classes), "backbone": backbone, "freeze_bn": freeze_bn,
            "freeze_until": freeze_until, "image_size": image_size,
            "anchors": [list(pair) for pair in anchors], "neck": neck, "channels": channels,
            "box_loss": box_loss, "ignore_iou": ignore_iou, "label_smoothing": label_smoothing,
            "resize": resize, "max_detections": max_detections, "nms_iou": nms_iou,
            "candidates": candidates,
        }
        self.track_losses("box_loss", "object_loss", "class_loss")

    # === Targets ===

    def priors(self, rows):
        """What each row of the raw outputs corrects.

        Args:
            rows: N, a number or a tensor: on squares of several sizes it is known at run time only.

        Returns:
            (N, 5) float32: column and row of the cell, its stride, width and height of the anchor in
            pixels.
        """
        # Where N is known, by NumPy: LiteRT would divide whole numbers at every photo, and does so slowly.
        xp = np if isinstance(rows, int) else ops
        cells = self._coarse_cells(rows)
        found = []
        for level, stride in enumerate(STRIDES):
            side = cells * (STRIDES[-1] // stride)
            index = xp.arange(side * side * self.per_cell)
            cell, anchor = index // self.per_cell, index % self.per_cell
            pairs = self.anchors[level * self.per_cell : (level + 1) * self.per_cell]
            sides = xp.take(xp.array(pairs, "float32"), anchor, axis=0)
            place = xp.stack([cell % side, cell // side, xp.full_like(cell, stride)], -1)
            found.append(xp.concatenate([place, sides], axis=-1))
        return ops.convert_to_tensor(xp.concatenate(found, axis=0), "float32")

    def _coarse_cells(self, rows):
        """Cells along a side of the coarsest map: N = anchors * cells^2 * (1 + 4 + 16)."""
        per_square = self.per_cell * sum((STRIDES[-1] // stride) ** 2 for stride in STRIDES)
        if isinstance(rows, int):
            return math.isqrt(rows // per_square)
        return ops.cast(ops.round(ops.sqrt(ops.cast(rows, "float32") / per_square)), "int32")

    def assign(self, targets: dict, rows) -> dict:
        """The one row that each object is predicted by (section 2.1): its cell's, of the anchor whose
        shape overlaps its own best.

        Args:
            targets: boxes (batch, n, 4) float32 xyxy pixels, labels (batch, n) int32 with -1 in padding
                rows, weights (batch, n), ignore (batch, m, 4).
            rows: N, see `priors`.

        Returns:
            row (batch, n) int32; weight (batch, n), 0 in padding rows and where a smaller object has the
            row; positive (batch, N), the weight of the row's object; negative (batch, N), 1 in rows that
            no object claims and whose cell's middle is in no ignore region.
        """
        boxes, real = targets["boxes"], targets["labels"] >= 0
        sides, centre = boxes[..., 2:] - boxes[..., :2], (boxes[..., :2] + boxes[..., 2:]) / 2
        anchors = ops.convert_to_tensor(self.anchors, "float32")
        shared = ops.prod(ops.minimum(sides[..., None, :], anchors), axis=-1)
        union = ops.prod(anchors, axis=-1) - (shared - area(boxes)[..., None])
        best = ops.cast(ops.argmax(shared / union, axis=-1), "int32")
        level, anchor = best // self.per_cell, best % self.per_cell
        # On the square of a unit of coarsest cells, the maps have 4, 2 and 1 cells a side.
        factors = [STRIDES[-1] // stride for stride in STRIDES]
        before = [self.per_cell * sum(f * f for f in factors[:i]) for i in range(len(factors))]
        cells = self._coarse_cells(rows)
        side = cells * ops.take(ops.convert_to_tensor(factors, "int32"), level)
        first = cells * cells * ops.take(ops.convert_to_tensor(before, "int32"), level)
        stride = ops.take(ops.convert_to_tensor(STRIDES, "float32"), level)
        column, line = (
            ops.clip(ops.cast(centre[..., a] / stride, "int32"), 0, side - 1) for a in (0, 1)
        )
        row = first + (line * side + column) * self.per_cell + anchor
        weight = targets["weights"] * winners(row, area(boxes), real)
        claimed = ops.logical_and(ops.equal(row[..., None], ops.arange(rows)), real[..., None])
        positive = ops.max(ops.cast(claimed, "float32") * weight[..., None], axis=1)
        priors = self.priors(rows)
        middle = (priors[:, :2] + 0.5) * priors[:, 2:3]
        excused = ops.logical_or(ops.any(claimed, axis=1), inside(middle, targets["ignore"]))
        negative = ops.cast(ops.logical_not(excused), "float32")
        return {"row": row, "weight": weight, "positive": positive, "negative": negative}

    # === Losses ===

    def loss_parts(self, targets: dict, raw: dict) -> dict:
        """Section 2.1 and 2.2: squared error of the box (or 1 - IoU), logistic losses of the rest."""
        rows = ops.shape(raw["box"])[1]
        priors, goal, boxes = self.priors(rows), self.assign(targets, rows), targets["boxes"]
        weight = goal["weight"]
        count = ops.maximum(batch_sum(weight), 1.0)

        # Predictions that find an object well, though another row has it, are not background.
        found = ops.stop_gradient(_boxes(raw["box"], priors))
        overlap = ops.max(pairwise_iou(found, boxes), axis=-1)
        negative = goal["negative"] * ops.cast(overlap <= self.ignore_iou, "float32")
        logit = raw["object_logit"][..., 0]
        objects = goal["positive"] * ops.softplus(-logit) + negative * ops.softplus(logit)

        at = {key: at_rows(raw[key], goal["row"]) for key in raw}
        prior = ops.take(priors, goal["row"], axis=0)
        # Small objects count more: 2 - w h, of the square (in darknet, not in the text).
        side = ops.cast(self._coarse_cells(rows) * STRIDES[-1], "float32")
        scale = weight * (2 - area(boxes) / ops.square(side))
        if self.box_loss == "yolo":
            cost = _squared_error(at["box"], boxes, prior)
        else:
            measure = giou if self.box_loss == "giou" else ciou
            cost = 1 - measure(_boxes(at["box"], prior), boxes)
        logits = at["class_logits"]
        wanted = soft_targets(targets["labels"], len(self.classes), self.label_smoothing)
        classes = ops.sum(ops.softplus(logits) - logits * wanted, axis=-1)
        return {
            "box_loss": BOX_WEIGHTS[self.box_loss] * ops.sum(scale * cost) / count,
            "object_loss": ops.sum(objects) / count,
            "class_loss": ops.sum(weight * classes) / count,
        }

    # === Decoding ===

    def heads(self, raw: dict) -> dict:
        """The raw outputs with objectness and classes as probabilities."""
        return {
            "object": ops.sigmoid(raw["object_logit"]), "class": ops.sigmoid(raw["class_logits"]),
            "box": raw["box"],
        }

    def decode(self, heads: dict) -> dict:
        """The best pairs of a box and a class, scored by objectness times the class's probability."""
        scores, row, labels = top_pairs(heads["object"] * heads["class"], self.candidates)
        priors = ops.take(self.priors(heads["box"].shape[1]), row, axis=0)
        boxes = _boxes(at_rows(heads["box"], row), priors)
        return {"boxes": ops.clip(boxes, 0.0, self.image_size), "scores": scores, "labels": labels}


def _boxes(box, priors):
    """Section 2.1: b_x = sigmoid(t_x) + c_x, b_w = p_w exp(t_w); xyxy pixels (..., 4)."""
    centre = (ops.sigmoid(box[..., :2]) + priors[..., :2]) * priors[..., 2:3]
    half = priors[..., 3:5] * ops.exp(ops.clip(box[..., 2:], -2 * MAX_LOG_SCALE, MAX_LOG_SCALE)) / 2
    return ops.concatenate([centre - half, centre + half], axis=-1)


def _squared_error(box, boxes, prior):
    """Half the sum of squared errors of sigmoid(t_x), sigmoid(t_y), t_w and t_h; (batch, n)."""
    centre, sides = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    place = ops.sigmoid(box[..., :2]) - (centre / prior[..., 2:3] - prior[..., :2])
    shape = box[..., 2:] - ops.log(ops.maximum(sides, 1e-3) / prior[..., 3:5])
    return 0.5 * (ops.sum(ops.square(place), axis=-1) + ops.sum(ops.square(shape), axis=-1))


def _check_anchors(anchors, image_size: int) -> tuple[tuple[float, float], ...]:
    if anchors is None:
        anchors = [(w * image_size / PAPER_SIZE, h * image_size / PAPER_SIZE) for w, h in PAPER_ANCHORS]
    pairs = tuple((float(w), float(h)) for w, h in anchors)
    areas = [w * h for w, h in pairs]
    if not pairs or len(pairs) % len(LEVELS) or areas != sorted(areas) or min(min(p) for p in pairs) <= 0:
        raise ValueError(
            f"anchors are {pairs}; give (width, height) pairs above 0 by rising area, a multiple of "
            f"{len(LEVELS)} of them"
        )
    return pairs


# === Network ===


def _paper_neck(features: dict, channels: int) -> dict:
    """Section 2.3: five convolutions a level and one before its outputs, coarse levels handed down."""
    maps, x = {}, None
    for level, width in (("P5", 4 * channels), ("P4", 2 * channels), ("P3", channels)):
        if x is None:
            x = features[level]
        else:
            x = convolution(x, width, 1, f"neck_{level}_reduce")
            x = NearestUpsample(name=f"neck_{level}_up")(x)
            x = layers.Concatenate(name=f"neck_{level}_join")([x, features[level]])
        for number in range(1, 6):
            narrow = number % 2
            x = convolution(
                x, width if narrow else 2 * width, 1 if narrow else 3, f"neck_{level}_conv{number}"
            )
        maps[level] = convolution(x, 2 * width, 3, f"head_{level}_conv")
    return maps


def _light_neck(features: dict, channels: int) -> dict:
    """The same way down by 1x1 laterals and separable 5x5 convolutions."""
    maps, x = {}, None
    for level in reversed(LEVELS):
        lateral = layers.Conv2D(channels, 1, use_bias=False, name=f"neck_{level}_lateral")(features[level])
        lateral = layers.BatchNormalization(name=f"neck_{level}_lateral_bn")(lateral)
        lateral = layers.ReLU(6.0, name=f"neck_{level}_lateral_relu")(lateral)
        if x is not None:
            x = NearestUpsample(name=f"neck_{level}_up")(x)
            lateral = layers.Concatenate(name=f"neck_{level}_join")([x, lateral])
        x = separable(lateral, channels, 5, f"neck_{level}_block")
        maps[level] = separable(x, channels, 5, f"head_{level}_block")
    return maps


def _fpn_neck(features: dict, channels: int) -> dict:
    """FPN's pyramid (Lin et al. 2017); nothing in it is bent, so a block stands before each output."""
    maps = pyramid(features, channels, LEVELS)
    return {level: separable(x, channels, 5, f"head_{level}_block") for level, x in maps.items()}


# How each neck is made, and its usual channels.
NECKS = {"paper": (_paper_neck, 128), "light": (_light_neck, 96), "fpn": (_fpn_neck, 256)}


def _head(maps: dict, name: str, channels: int, per_cell: int, bias: float = 0.0):
    """(batch, N, channels): a 1x1 convolution a level, one row an anchor."""
    rows = []
    for level in LEVELS:
        x = head(maps[level], per_cell * channels, f"{level}_{name}", bias)
        rows.append(PerAnchor(per_cell, name=f"head_{level}_{name}_rows")(x))
    return layers.Concatenate(axis=1, name=f"head_{name}")(rows)
