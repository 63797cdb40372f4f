"""CSP: Center and Scale Prediction (Liu et al., CVPR 2019, "High-level Semantic Feature Detection").

An object is the peak of a heat-map and, at that cell, the logarithm of its height and width. There are
no anchors. From top to bottom: network, targets, losses, decoding.
"""

from __future__ import annotations

import math
import warnings

import keras
from keras import layers, ops

from kerasdet import backbones
from kerasdet.backbones.common import take_any_size
from kerasdet.boxes import centers, gaussians
from kerasdet.boxes.iou import area, giou
from kerasdet.boxes.peaks import take, top_peaks
from kerasdet.detector import Detector
from kerasdet.distribution import batch_sum
from kerasdet.layers.heads import branch, head
from kerasdet.layers.necks import deconv_neck, fpn_neck, light_neck, needed_levels
from kerasdet.losses import center_loss, dense_box_loss, smooth_l1

NECKS = {"deconv": deconv_neck, "fpn": fpn_neck, "light": light_neck}
TARGETS = ("paper", "dense")
# Weights of centre, scale and offset loss: the paper's equation 7; TTFNet's heat-map 1 and box 5.
PAPER_WEIGHTS = {"center_loss": 0.01, "scale_loss": 1.0, "offset_loss": 0.1}
DENSE_WEIGHTS = {"center_loss": 1.0, "box_loss": 5.0}
# log of the shortest side, in cells, that the relative scale loss divides by (12 px at stride 4).
MIN_LOG_SIDE = math.log(3.0)
# Further boxes of an object, which the papers do not have: twice what the centre counts. With 2 beside the
# paper's .01 the network learned little else.
PART_WEIGHTS = {"paper": 0.02, "dense": 2.0}
# A prediction of scale is painted over (2 r + 1)^2 cells (section 3.3).
SCALE_RADIUS = 2


@keras.saving.register_keras_serializable(package="kerasdet")
class CSP(Detector):
    """Center and Scale Prediction.

    Args:
        classes: names of the classes; the paper has one.
        backbone: a name for `backbones.build`, or a keras.Model with outputs P2, P3, P4, P5.
        backbone_weights: "imagenet", a file, a detector on the same backbone, or None (random).
        freeze_bn: a named backbone's batch norms keep their statistics, as ImageNet weights want it; False
            for a backbone that starts from random weights.
        freeze_until: level up to which the backbone is not trained, such as "P2"; None trains all.
        image_size: side of the network's square in pixels, a multiple of 32. It can be trained on squares
            of other sizes as well: `Dataset.batches(..., sizes=...)`.
        stride: pixels of the square a cell of the heads: 4, the paper's, or 8, which is faster.
        neck: "deconv", the paper's; "light", for phones: depthwise convolutions and bilinear upsampling;
            or "fpn", the finest map of FPN's pyramid.
        channels: of the features that the heads share; the paper's 256.
        target: "paper", one positive cell an object, or "dense", in which every cell near the centre
            learns the whole box (TTFNet, Liu et al. 2020): learns faster, for small budgets.
        aspect_ratio: None predicts height and width; a number (0.41 for pedestrians in the paper)
            predicts the height alone, the width is aspect_ratio times that on the square: give
            resize="letterbox" too, or photos of one shape and the ratio that they have once stretched.
        parts: names of further boxes of the same object, such as ("head",).
        head_blocks: separable 5x5 convolutions of its own that the centre, the box and each part have
            before their 1x1 convolutions; the paper has none.
        resize, max_detections, nms_iou: see `Detector`.
        candidates: peaks that are decoded.

    The raw outputs are, at S / stride cells a side: center_logits (.., classes); scale (.., 2), log of
    height and width in cells (or (.., 1), height alone); offset (.., 2), from the cell's middle to the
    centre in cells, y and x; and for each part P its P_scale (.., 2), log of its height and width
    relative to the object's, and P_offset (.., 2), from the object's centre to the part's, y and x, in
    units of the object's height and width.

    Differs from the published code: errors of log sides are relative to at least log 3, since a side of one
    cell has a logarithm of 0; a cell of several objects is the smallest one's, where there the last one has
    it; sides start at a quarter of the square, and heads at N(0, .01).
    """

    size_multiple = 32

    def __init__(
        self, classes=("person",), *, backbone="mobilenet_v2", backbone_weights=None, freeze_bn=True,
        freeze_until=None, image_size=320, stride=4, neck="light", channels=None, target="paper",
        aspect_ratio=None, parts=(), head_blocks=0, resize="stretch", max_detections=100, nms_iou=0.5,
        candidates=100, name=None,
    ):
        if neck not in NECKS:
            raise ValueError(f"neck is {neck!r}; give one of {', '.join(NECKS)}")
        if target not in TARGETS:
            raise ValueError(f"target is {target!r}; give one of {', '.join(TARGETS)}")
        if stride not in (4, 8):
            raise ValueError(f"stride is {stride}; give 4 (the paper's) or 8")
        if image_size % 32:
            raise ValueError(f"image_size is {image_size}; give a multiple of 32")
        if target == "dense" and aspect_ratio is not None:
            raise ValueError("dense targets learn height and width; leave aspect_ratio out")
        if aspect_ratio is not None and resize == "stretch":
            warnings.warn(
                f"aspect_ratio is {aspect_ratio} and resize 'stretch', which changes widths and heights of a "
                "photo that is not square: unless all photos have one shape, give resize='letterbox', or "
                "leave aspect_ratio out",
                stacklevel=2,
            )
        channels = channels or {"deconv": 256, "fpn": 256, "light": 96}[neck]
        body = backbones.resolve(
            backbone, weights=backbone_weights, image_size=image_size, freeze_bn=freeze_bn,
            freeze_until=freeze_until, output_stride=16 if neck == "deconv" else 32,
            levels=needed_levels(neck, stride),
        )
        take_any_size(body)
        # === Functional Model ===
        images = keras.Input((image_size, image_size, 3), name="images")
        features = NECKS[neck](body(images), stride, channels)
        if neck == "fpn":
            # As behind the paper's last 3x3 convolution: the pyramid ends in one too, and in nothing else.
            features = layers.BatchNormalization(name="neck_bn")(features)
            features = layers.ReLU(name="neck_relu")(features)
        outputs = _heads(
            features, classes, parts, image_size, stride, aspect_ratio, head_blocks, channels
        )
        backbones.check_cells(body, outputs["offset"].shape[1], image_size, stride)
        super().__init__(
            images, outputs, classes=classes, image_size=image_size, parts=parts, resize=resize,
            max_detections=max_detections, nms_iou=nms_iou, name=name,
        )
        take_any_size(self)
        # === Config ===
        self.stride, self.target, self.aspect_ratio = stride, target, aspect_ratio
        self.cells = image_size // stride
        self.candidates = self.decoded(candidates, self.cells**2 * len(classes))
        self._config = {
            "classes": list(classes), "backbone": backbone, "freeze_bn": freeze_bn,
            "freeze_until": freeze_until, "image_size": image_size, "stride": stride, "neck": neck,
            "channels": channels, "target": target, "aspect_ratio": aspect_ratio, "parts": list(parts),
            "head_blocks": head_blocks, "resize": resize,
            "max_detections": max_detections, "nms_iou": nms_iou, "candidates": candidates,
        }
        weights = PAPER_WEIGHTS if target == "paper" else DENSE_WEIGHTS
        self.track_losses(*weights, *(["part_loss"] if parts else []))

    # === Targets ===

    def paper_targets(self, targets: dict, cells=None) -> dict:
        """One positive cell an object (section 3.3 of the paper).

        Args:
            targets: boxes (batch, n, 4) float32 xyxy pixels, labels (batch, n) int32 with -1 in padding
                rows, weights (batch, n), ignore (batch, m, 4).
            cells: side of the grid, a number or a tensor; None takes that of `image_size`.

        Returns:
            heat (batch, h, w, classes), the Gaussians of equation 2, where two overlap the larger one;
            positive (batch, h, w, classes), the weight of each centre cell;
            valid (batch, h, w, 1), 0 in ignored cells outside every object;
            scale_owner and centre_owner (batch, n, h, w), 1 in the cells where an object teaches its
            scale (5x5 around its centre) and its offset (the centre's cell);
            size (batch, n, 2), height and width in cells; offset (batch, n, 2), y and x, from the
            middle of the centre's cell to the centre.
        """
        boxes, labels = targets["boxes"] / self.stride, targets["labels"]
        cells = self.cells if cells is None else cells
        x, y = _axis_target(boxes[..., 0], boxes[..., 2]), _axis_target(boxes[..., 1], boxes[..., 3])
        centre, cell = centers.middle_cells(boxes, cells)
        real = ops.cast(labels >= 0, "float32")[..., None]

        def square(radius):
            """1 in the cells up to `radius` around each object's centre."""
            places = gaussians.places(cells)
            row, column = (
                ops.cast(ops.abs(places - cell[..., axis, None]) <= radius, "float32") for axis in (0, 1)
            )
            return (row * real)[..., :, None] * column[..., None, :]

        sizes = area(boxes)
        return {
            "heat": gaussians.splat(
                gaussians.profile(cells, *y), gaussians.profile(cells, *x), labels, len(self.classes)
            ),
            "positive": centers.positives(cell, targets, cells, len(self.classes)),
            "valid": centers.learned_cells(targets, self.stride, cells),
            "scale_owner": gaussians.owners(square(SCALE_RADIUS), sizes),
            "centre_owner": gaussians.owners(square(0), sizes),
            "size": (boxes[..., 2:] - boxes[..., :2])[..., ::-1], "offset": centre - cell - 0.5,
        }

    def dense_targets(self, targets: dict, cells=None) -> dict:
        """`centers.dense_targets` on this detector's grid; cells as of `paper_targets`."""
        cells = self.cells if cells is None else cells
        return centers.dense_targets(targets, self.stride, cells, len(self.classes))

    # === Losses ===

    def loss_parts(self, targets: dict, raw: dict) -> dict:
        """The named losses of a batch, weighted as the paper (or TTFNet) weights them."""
        losses = self._paper_losses if self.target == "paper" else self._dense_losses
        return losses(targets, raw)

    def _paper_losses(self, targets: dict, raw: dict) -> dict:
        goal = self.paper_targets(targets, ops.shape(raw["offset"])[1])
        weights = targets["weights"][..., None]
        # Equation 5: smooth-L1 of the error relative to log(side), over the cells around the centre.
        sides = goal["size"][..., :1] if self.aspect_ratio else goal["size"]
        log_side = gaussians.paint(goal["scale_owner"], ops.log(ops.maximum(sides, 1e-3)))
        relative = (raw["scale"] - log_side) / ops.maximum(log_side, MIN_LOG_SIDE)
        near = gaussians.paint(goal["scale_owner"], weights)
        # Equation 6: smooth-L1 of the offset in the centre's cell.
        error = raw["offset"] - gaussians.paint(goal["centre_owner"], goal["offset"])
        centre = gaussians.paint(goal["centre_owner"], weights)
        losses = {
            "center_loss": center_loss(raw["center_logits"], goal),
            "scale_loss": _mean(smooth_l1(relative), near),
            "offset_loss": _mean(smooth_l1(error), centre),
        }
        losses = {name: PAPER_WEIGHTS[name] * value for name, value in losses.items()}
        if self.parts:
            losses["part_loss"] = self._part_loss(targets, raw, goal["scale_owner"] * weights[..., None])
        return losses

    def _dense_losses(self, targets: dict, raw: dict) -> dict:
        goal = self.dense_targets(targets, ops.shape(raw["offset"])[1])
        losses = {
            "center_loss": center_loss(raw["center_logits"], goal),
            "box_loss": dense_box_loss(self._box_map(raw), targets["boxes"], goal),
        }
        losses = {name: DENSE_WEIGHTS[name] * value for name, value in losses.items()}
        if self.parts:
            losses["part_loss"] = self._part_loss(targets, raw, goal["weight"])
        return losses

    def _part_loss(self, targets: dict, raw: dict, weight):
        """1 - GIoU of every labelled part, at the cells (and with the weights) of its object.

        Args:
            weight: (batch, n, h, w), how much a cell counts for an object.
        """
        part_maps = self._part_maps(raw, self._box_map(raw))
        total = 0.0
        for column, name in enumerate(self.parts):
            labelled = weight * targets["part_weights"][:, :, column][..., None, None]
            at_cell = ops.sum(labelled, axis=1)
            owner = ops.cast(labelled > 0, "float32")
            boxes = gaussians.paint(owner, targets["parts"][:, :, column])
            loss = ops.sum(at_cell * (1 - giou(part_maps[name], boxes)))
            total += loss / ops.maximum(batch_sum(at_cell), 1.0)
        return PART_WEIGHTS[self.target] * total

    # === Decoding ===

    def heads(self, raw: dict) -> dict:
        """The raw outputs with the centre map as probabilities."""
        rest = {key: value for key, value in raw.items() if key != "center_logits"}
        return {"center": ops.sigmoid(raw["center_logits"]), **rest}

    def _box_map(self, raw: dict):
        """(batch, h, w, 4) xyxy pixels: the box that every cell predicts."""
        middle = gaussians.places(ops.shape(raw["offset"])[1]) + 0.5
        return self._boxes(middle[:, None], middle[None, :], raw["scale"], raw["offset"])

    def _boxes(self, y, x, scale, offset):
        """Section 3.4: side = exp(scale), centre = cell + offset + 0.5, all times the stride."""
        # A wild prediction must not overflow in exp, in float16 least of all.
        sides = ops.exp(ops.clip(scale, -4.0, math.log(2.0 * self.cells)))
        height = sides[..., 0]
        width = height * self.aspect_ratio if self.aspect_ratio else sides[..., 1]
        y, x = y + offset[..., 0], x + offset[..., 1]
        corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        return ops.stack(corners, -1) * self.stride

    def _part_maps(self, raw: dict, boxes) -> dict:
        """Boxes of each part, from the boxes (..., 4) of their objects."""
        sides = (boxes[..., 2:] - boxes[..., :2])[..., ::-1]
        centre = (boxes[..., 2:] + boxes[..., :2])[..., ::-1] / 2
        found = {}
        for name in self.parts:
            half = sides * ops.exp(ops.clip(raw[f"{name}_scale"], -6.0, 1.0)) / 2
            middle = centre + raw[f"{name}_offset"] * sides
            found[name] = ops.concatenate([(middle - half)[..., ::-1], (middle + half)[..., ::-1]], -1)
        return found

    def decode(self, heads: dict) -> dict:
        """Peaks of the centre map and their boxes.

        The paper takes every cell above a threshold and leaves the rest to suppression; here cells have
        to be peaks of their 3x3 neighbourhood first, as in CenterNet, so that shapes are fixed.
        """
        scores, labels, cells = top_peaks(heads["center"], self.candidates)
        y = ops.cast(cells // self.cells, "float32") + 0.5
        x = ops.cast(cells % self.cells, "float32") + 0.5
        at = {key: take(value, cells) for key, value in heads.items() if key != "center"}
        boxes = self._boxes(y, x, at["scale"], at["offset"])
        found = {"boxes": ops.clip(boxes, 0.0, self.image_size), "scores": scores, "labels": labels}
        if self.parts:
            parts = ops.stack(list(self._part_maps(at, boxes).values()), axis=2)
            found["parts"] = ops.clip(parts, 0.0, self.image_size)
        return found


def _axis_target(low, high):
    """Centre, sigma and reach of the Gaussian of section 3.3 along one axis, in cells.

    The object covers the cells from ceil(low) to floor(high), but at least one, that of its centre:
    boxes smaller than a cell would otherwise have no Gaussian at all.

    Args:
        low, high: (batch, n) float32, sides of the box in cells.

    Returns:
        centre, sigma, first and last cell, each (batch, n).
    """
    length = ops.floor(high) - ops.ceil(low)
    first = ops.where(length < 1, ops.floor((low + high) / 2), ops.ceil(low))
    length = ops.maximum(length, 1.0)
    sigma = ((length - 1) * 0.5 - 1) * 0.3 + 0.8
    return first + ops.floor(length / 2), sigma, first, first + length - 1


def _mean(values, weight):
    """Mean over cells (batch, h, w, c) weighted by (batch, h, w, 1), summed over c."""
    return ops.sum(values * weight) / ops.maximum(batch_sum(weight), 1.0)


def _heads(
    features, classes, parts, image_size, stride, aspect_ratio, blocks, channels
) -> dict:
    """The 1x1 convolutions of section 3.2, and a pair of them for each part."""
    # The first guess of a side is a quarter of the square; that of a centre, one cell in a hundred.
    box = branch(features, "box", channels, blocks)
    center = branch(features, "center", channels, blocks)
    side = math.log(image_size / 4 / stride)
    outputs = {
        "center_logits": head(center, len(classes), "center", -math.log(99.0)),
        "scale": head(box, 1 if aspect_ratio else 2, "scale", side),
        "offset": head(box, 2, "offset"),
    }
    for part in parts:
        x = branch(features, part, channels, blocks)
        outputs[f"{part}_scale"] = head(x, 2, f"{part}_scale", math.log(0.25))
        outputs[f"{part}_offset"] = head(x, 2, f"{part}_offset")
    return outputs
