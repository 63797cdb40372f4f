"""CenterNet: objects as points (Zhou et al. 2019).

An object is the peak of its class's heat-map; at that cell stand its height and width, and where in
the cell its middle lies. There are no anchors. From top to bottom: network, targets, losses, decoding.
"""

from __future__ import annotations

import math

import keras
from keras import layers, ops

from kerasdet import backbones
from kerasdet.backbones.common import take_any_size
from kerasdet.boxes import centers, gaussians
from kerasdet.boxes.peaks import take, top_peaks
from kerasdet.detector import Detector
from kerasdet.distribution import batch_sum
from kerasdet.layers.heads import branch, head
from kerasdet.layers.necks import centernet_deconv_neck, fpn_neck, light_neck, needed_levels
from kerasdet.losses import center_loss, dense_box_loss

NECKS = {"deconv": centernet_deconv_neck, "fpn": fpn_neck, "light": light_neck}
TARGETS = ("paper", "dense")
RADII = {"original": gaussians.original_radius, "exact": gaussians.exact_radius}
# Weights of heat-map, size and offset loss: the paper's equation 4; TTFNet's heat-map 1 and box 5.
PAPER_WEIGHTS = {"center_loss": 1.0, "size_loss": 0.1, "offset_loss": 1.0}
DENSE_WEIGHTS = {"center_loss": 1.0, "box_loss": 5.0}
# Channels of the 3x3 convolution before each head, as published for ResNets (section 5).
HEAD_CHANNELS = 64
# What the heat-map's logits start from: a probability of one in ten.
CENTER_BIAS = -2.19


@keras.saving.register_keras_serializable(package="kerasdet")
class CenterNet(Detector):
    """Objects as Points, for any number of classes.

    Args:
        classes: names of the classes.
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
        channels: of the neck's result; the paper's 256.
        context: blocks of the light neck that look around on P5, for objects that fill the square; 0 for
            the other necks. See `necks.light_neck`.
        target: "paper", one positive cell an object and L1 losses of size and offset there, or "dense",
            in which every cell near the middle learns the whole box by GIoU (TTFNet, Liu et al. 2020):
            learns faster, for small budgets.
        radius: of the Gaussians of "paper": "original", as the published numbers have it, or "exact",
            what its definition says, 3.3 times smaller for a square.
        head_blocks: separable 5x5 convolutions before the heat-map's head, and as many before those of
            size and offset together; 0 is the paper's 3x3 convolution before each of the three.
        resize, max_detections, nms_iou: see `Detector`; the paper has no suppression beyond peaks.
        candidates: peaks that are decoded; the paper's 100.

    The raw outputs are, at S / stride cells a side: center_logits (.., classes); offset (.., 2), from
    the cell's upper left corner to the middle in cells, y and x; and size (.., 2), height and width in
    cells, for which "dense" has log_size, their logarithms: under GIoU a size below zero would have no
    gradient to come back by. The heads are center, probabilities, and offset and size for both.

    Differs from the published code: the first guess of a size is a quarter of the square and of an offset the
    middle of the cell, where those start at 0.
    """

    size_multiple = 32

    def __init__(
        self, classes, *, backbone="mobilenet_v2", backbone_weights=None, freeze_bn=True,
        freeze_until=None, image_size=320, stride=4, neck="light", channels=None, context=0,
        target="paper", radius="original", head_blocks=0, resize="stretch", max_detections=100, nms_iou=None,
        candidates=100, name=None,
    ):
        for option, value, known in (
            ("neck", neck, NECKS), ("target", target, TARGETS), ("radius", radius, RADII)
        ):
            if value not in known:
                raise ValueError(f"{option} is {value!r}; give one of {', '.join(known)}")
        if stride not in (4, 8):
            raise ValueError(f"stride is {stride}; give 4 (the paper's) or 8")
        if image_size % 32:
            raise ValueError(f"image_size is {image_size}; give a multiple of 32")
        if context < 0 or (context and neck != "light"):
            raise ValueError(f"context is {context} and neck {neck!r}; give blocks to neck='light', or 0")
        channels = channels or {"deconv": 256, "fpn": 256, "light": 96}[neck]
        body = backbones.resolve(
            backbone, weights=backbone_weights, image_size=image_size, freeze_bn=freeze_bn,
            freeze_until=freeze_until, levels=needed_levels(neck, stride),
        )
        take_any_size(body)
        # === Functional Model ===
        images = keras.Input((image_size, image_size, 3), name="images")
        further = {"context": context} if context else {}
        features = NECKS[neck](body(images), stride, channels, **further)
        outputs = _heads(features, len(classes), image_size / stride, target, head_blocks, channels)
        backbones.check_cells(body, outputs["offset"].shape[1], image_size, stride)
        super().__init__(
            images, outputs, classes=classes, image_size=image_size, resize=resize,
            max_detections=max_detections, nms_iou=nms_iou, name=name,
        )
        take_any_size(self)
        # === Config ===
        self.stride, self.target, self.radius = stride, target, radius
        self.cells = image_size // stride
        self.candidates = self.decoded(candidates, self.cells**2 * len(classes))
        self._config = {
            "classes": list(classes), "backbone": backbone, "freeze_bn": freeze_bn,
            "freeze_until": freeze_until, "image_size": image_size, "stride": stride, "neck": neck,
            "channels": channels, "context": context, "target": target, "radius": radius,
            "head_blocks": head_blocks, "resize": resize, "max_detections": max_detections,
            "nms_iou": nms_iou, "candidates": candidates,
        }
        self.track_losses(*(PAPER_WEIGHTS if target == "paper" else DENSE_WEIGHTS))

    # === Targets ===

    def paper_targets(self, targets: dict, cells=None) -> dict:
        """One positive cell an object (section 3 of the paper).

        Args:
            targets: boxes (batch, n, 4) float32 xyxy pixels, labels (batch, n) int32 with -1 in padding
                rows, weights (batch, n), ignore (batch, m, 4).
            cells: side of the grid, a number or a tensor; None takes that of `image_size`.

        Returns:
            heat (batch, h, w, classes), Gaussians exp(-d^2 / 2 sigma^2) about the middle's cell, as far
            as the radius r, sigma = (2 r + 1) / 6; where two of a class overlap the larger one;
            positive (batch, h, w, classes), the weight of each middle's cell;
            valid (batch, h, w, 1), 0 in ignored cells outside every object;
            cell (batch, n) int32, row * w + column of each object's middle;
            size (batch, n, 2), height and width in cells; offset (batch, n, 2), y and x, from the
            cell's upper left corner to the middle.
        """
        boxes, classes = targets["boxes"] / self.stride, len(self.classes)
        cells = self.cells if cells is None else cells
        middle, cell = centers.middle_cells(boxes, cells)
        size = (boxes[..., 2:] - boxes[..., :2])[..., ::-1]
        # The published code rounds sides up before it takes the radius.
        radius = ops.floor(RADII[self.radius](ops.ceil(size[..., 0]), ops.ceil(size[..., 1])))
        down, across = (
            gaussians.profile(cells, at, (2 * radius + 1) / 6, at - radius, at + radius)
            for at in (cell[..., 0], cell[..., 1])
        )
        return {
            "heat": gaussians.splat(down, across, targets["labels"], classes),
            "positive": centers.positives(cell, targets, cells, classes),
            "valid": centers.learned_cells(targets, self.stride, cells),
            "cell": ops.cast(cell[..., 0], "int32") * cells + ops.cast(cell[..., 1], "int32"),
            "size": size, "offset": middle - cell,
        }

    def dense_targets(self, targets: dict, cells=None) -> dict:
        """`centers.dense_targets` on this detector's grid; cells as of `paper_targets`."""
        cells = self.cells if cells is None else cells
        return centers.dense_targets(targets, self.stride, cells, len(self.classes))

    # === Losses ===

    def loss_parts(self, targets: dict, raw: dict) -> dict:
        """The named losses of a batch, weighted as the paper (or TTFNet) weights them."""
        if self.target == "paper":
            losses, weights = self._paper_losses(targets, raw), PAPER_WEIGHTS
        else:
            losses, weights = self._dense_losses(targets, raw), DENSE_WEIGHTS
        return {name: weight * losses[name] for name, weight in weights.items()}

    def _paper_losses(self, targets: dict, raw: dict) -> dict:
        goal, weights = self.paper_targets(targets, ops.shape(raw["offset"])[1]), targets["weights"]
        return {
            "center_loss": center_loss(raw["center_logits"], goal),  # equation 1
            "size_loss": _mean_l1(take(raw["size"], goal["cell"]), goal["size"], weights),  # 3
            "offset_loss": _mean_l1(take(raw["offset"], goal["cell"]), goal["offset"], weights),  # 2
        }

    def _dense_losses(self, targets: dict, raw: dict) -> dict:
        cells = ops.shape(raw["offset"])[1]
        goal, place = self.dense_targets(targets, cells), gaussians.places(cells)
        predicted = self._boxes(place[:, None], place[None, :], self._size(raw), raw["offset"])
        return {
            "center_loss": center_loss(raw["center_logits"], goal),
            "box_loss": dense_box_loss(predicted, targets["boxes"], goal),
        }

    # === Decoding ===

    def _size(self, raw: dict):
        """Height and width in cells (batch, h, w, 2), as the raw outputs have them or from their log."""
        if self.target == "paper":
            return raw["size"]
        # A wild prediction must not overflow in exp, in float16 least of all.
        return ops.exp(ops.clip(raw["log_size"], -4.0, math.log(2.0 * self.cells)))

    def heads(self, raw: dict) -> dict:
        """The raw outputs with the heat-map as probabilities and sizes in cells."""
        return {
            "center": ops.sigmoid(raw["center_logits"]), "size": self._size(raw), "offset": raw["offset"]
        }

    def merge_flipped(self, heads: dict, mirrored: dict) -> dict:
        """The heads of a photo and of its mirror image as one (section 5, "Inference").

        Heat-map and size are means of both; the offset is the photo's own.
        """
        return {
            key: value if key == "offset" else (value + ops.flip(mirrored[key], axis=2)) / 2
            for key, value in heads.items()
        }

    def _boxes(self, row, column, size, offset):
        """Section 4: the middle is cell + offset, the sides stand about it; (.., 4) xyxy pixels."""
        y, x = row + offset[..., 0], column + offset[..., 1]
        # The paper's sizes are free to fall below zero; such a box is empty, not inside out.
        height, width = ops.maximum(size[..., 0], 0.0), ops.maximum(size[..., 1], 0.0)
        corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        return ops.stack(corners, -1) * self.stride

    def decode(self, heads: dict) -> dict:
        """Peaks of the heat-maps and their boxes (section 4, "From points to bounding boxes")."""
        scores, labels, cells = top_peaks(heads["center"], self.candidates)
        row, column = ops.cast(cells // self.cells, "float32"), ops.cast(cells % self.cells, "float32")
        boxes = self._boxes(row, column, take(heads["size"], cells), take(heads["offset"], cells))
        return {"boxes": ops.clip(boxes, 0.0, self.image_size), "scores": scores, "labels": labels}


def _mean_l1(predicted, right, weights):
    """Mean of |error| over objects and both coordinates, as the published code normalises it.

    Args:
        predicted, right: (batch, n, 2) float32.
        weights: (batch, n), 0 in padding rows.
    """
    error = weights[..., None] * ops.abs(predicted - right)
    return ops.sum(error) / (2 * batch_sum(weights) + 1e-4)


def _heads(features, classes: int, cells: float, target: str, blocks: int, channels: int) -> dict:
    """The 3x3 convolution, ReLU and 1x1 for each head; or, with `blocks`, separable ones."""

    def before(name):
        if blocks:
            return branch(features, name, channels, blocks)
        return layers.Conv2D(
            HEAD_CHANNELS, 3, padding="same", activation="relu", name=f"head_{name}_conv"
        )(features)

    center = before("center")
    size, offset = [before("box")] * 2 if blocks else (before("size"), before("offset"))
    outputs = {"center_logits": head(center, classes, "center", CENTER_BIAS)}
    # The first guess of a side is a quarter of the square, that of a middle the cell's.
    if target == "paper":
        outputs["size"] = head(size, 2, "size", cells / 4)
    else:
        outputs["log_size"] = head(size, 2, "size", math.log(cells / 4))
    outputs["offset"] = head(offset, 2, "offset", 0.5)
    return outputs
