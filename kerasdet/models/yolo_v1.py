"""YOLOv1: You Only Look Once (Redmon et al., CVPR 2016, arXiv 1506.02640).

The photo is divided into a grid; the cell where an object's centre lies predicts it: a few boxes, how
well each fits, and the classes once for the cell. From top to bottom: network, targets, losses,
decoding.
"""

from __future__ import annotations

import math

import keras
from keras import layers, ops

from kerasdet import backbones
from kerasdet.backbones.darknet import convolution
from kerasdet.boxes.iou import area, iou
from kerasdet.boxes.rows import at_rows, top_pairs
from kerasdet.boxes.slots import inside, winners
from kerasdet.detector import Detector
from kerasdet.distribution import batch_sum
from kerasdet.layers.heads import head
from kerasdet.layers.necks import separable
from kerasdet.layers.per_anchor import PerAnchor
from kerasdet.losses import check_smoothing, soft_targets

HEADS = ("paper", "light")
# Section 2.2: lambda_coord and lambda_noobj.
COORD_WEIGHT, NO_OBJECT_WEIGHT = 5.0, 0.5
# Section 2.2.
DROPOUT = 0.5
LEVEL_STRIDE = 32


@keras.saving.register_keras_serializable(package="kerasdet")
class YOLOv1(Detector):
    """You Only Look Once, version 1.

    Args:
        classes: names of the classes.
        backbone: a name for `backbones.build`, or a keras.Model with output P5.
        backbone_weights: "imagenet", a file, a detector on the same backbone, or None (random).
        freeze_bn: a named backbone's batch norms keep their statistics, as ImageNet weights want it; False
            for a backbone that starts from random weights.
        freeze_until: level up to which the backbone is not trained, such as "P2"; None trains all.
        image_size: side of the network's square in pixels, the paper's 448.
        grid: S, cells along a side of the photo; the paper's 7. A cell has 16, 32 or 64 pixels.
        boxes: B, predicted by every cell; the paper's 2.
        head: "paper", four 3x3 convolutions, a fully connected layer with dropout and one more for the
            outputs, or "light", for phones: separable 5x5 convolutions and 1x1 ones for the outputs.
        channels: of the head's convolutions, 1024 in the paper, whose fully connected layer has four times
            as many units; the light head's 256.
        resize, max_detections, nms_iou: see `Detector`.
        candidates: pairs of a box and a class that are decoded.
        label_smoothing: how soft the classes are learned, see `losses.soft_targets`; 0 as in the paper.

    The raw outputs, rows going by row of the grid, column and box: box (batch, S S B, 4), the centre's x
    and y in units of the cell from its left upper corner, and the *square roots* of width and height as
    fractions of the square; confidence (batch, S S B, 1); class_logits (batch, S S, classes). As in the
    paper all are linear and learn what they stand for, probabilities too, by squared error: class_logits
    are no logits of a sigmoid.

    Differs from the paper: `backbone` in place of its first 20 convolutions; batch norm in the head;
    losses are divided by the number of objects (the paper: none, darknet: of photos); of two objects in
    a cell the smaller one is learned (darknet: the first one); boxes start in the middle of their cells, a
    quarter of the photo wide and high.
    """

    def __init__(
        self, classes=("person",), *, backbone="mobilenet_v2", backbone_weights=None, freeze_bn=True,
        freeze_until=None, image_size=448, grid=7, boxes=2, head="paper", channels=None, resize="stretch",
        max_detections=100, nms_iou=0.5, candidates=100, label_smoothing=0.0, name=None,
    ):
        check_smoothing(label_smoothing)
        if head not in HEADS:
            raise ValueError(f"head is {head!r}; give one of {', '.join(HEADS)}")
        stride, rest = divmod(image_size, grid)
        if rest or stride not in (16, 32, 64) or image_size % 32:
            raise ValueError(
                f"image_size is {image_size}, grid {grid}; give sizes so that a cell has 16, 32 or 64 "
                "pixels and the square a multiple of 32, such as 448 and 7"
            )
        channels = channels or {"paper": 1024, "light": 256}[head]
        body = backbones.resolve(
            backbone, weights=backbone_weights, image_size=image_size, freeze_bn=freeze_bn,
            freeze_until=freeze_until, output_stride=min(stride, LEVEL_STRIDE), levels=("P5",),
        )
        # === Functional Model ===
        images = keras.Input((image_size, image_size, 3), name="images")
        features = body(images)["P5"]
        step = features.shape[1] // grid
        if features.shape[1] not in (grid, 2 * grid):
            raise ValueError(
                f"the backbone's P5 has {features.shape[1]} cells a side; grid {grid} needs {grid} or "
                f"{2 * grid}"
            )
        outputs = (_paper_head if head == "paper" else _light_head)(
            features, step, channels, boxes, len(classes)
        )
        super().__init__(
            images, outputs, classes=classes, image_size=image_size, resize=resize,
            max_detections=max_detections, nms_iou=nms_iou, name=name,
        )
        # === Config ===
        self.stride, self.grid, self.boxes = stride, grid, boxes
        self.label_smoothing = label_smoothing
        self.candidates = self.decoded(candidates, grid * grid * boxes * len(classes))
        self._config = {
            "classes": list(classes), "backbone": backbone, "freeze_bn": freeze_bn,
            "freeze_until": freeze_until, "image_size": image_size, "grid": grid, "boxes": boxes,
            "head": head, "channels": channels, "resize": resize, "max_detections": max_detections,
            "nms_iou": nms_iou, "candidates": candidates, "label_smoothing": label_smoothing,
        }
        self.track_losses("box_loss", "confidence_loss", "class_loss")

    # === Targets ===

    def assign(self, targets: dict) -> dict:
        """The cell that each object's centre is in (section 2).

        Args:
            targets: boxes (batch, n, 4) float32 xyxy pixels, labels (batch, n) int32 with -1 in padding
                rows, weights (batch, n), ignore (batch, m, 4).

        Returns:
            cell (batch, n) int32, row * S + column; corner (batch, n, 2), the cell's column and row;
            weight (batch, n), 0 in padding rows and where a smaller object has the cell; background
            (batch, S S), 1 in cells that no object claims and whose middle is in no ignore region.
        """
        boxes, real, stride = targets["boxes"], targets["labels"] >= 0, self.image_size / self.grid
        centre = (boxes[..., :2] + boxes[..., 2:]) / 2
        corner = ops.clip(ops.floor(centre / stride), 0, self.grid - 1)
        cell = ops.cast(corner[..., 1] * self.grid + corner[..., 0], "int32")
        every = ops.arange(self.grid**2)
        claimed = ops.any(
            ops.logical_and(ops.equal(cell[..., None], every), real[..., None]), axis=1
        )
        places = ops.cast(ops.stack([every % self.grid, every // self.grid], -1), "float32")
        excused = ops.logical_or(claimed, inside((places + 0.5) * stride, targets["ignore"]))
        return {
            "cell": cell, "corner": corner,
            "weight": targets["weights"] * winners(cell, area(boxes), real),
            "background": ops.cast(ops.logical_not(excused), "float32"),
        }

    # === Losses ===

    def loss_parts(self, targets: dict, raw: dict) -> dict:
        """Equation 3; the confidence of a box that is responsible learns the box's overlap."""
        goal = self.assign(targets)
        weight, cell = goal["weight"], goal["cell"]
        count = ops.maximum(batch_sum(weight), 1.0)

        # What the objects' cells predict, (batch, n, B, ...).
        boxes = self._at(raw["box"], cell)
        confidence = self._at(raw["confidence"], cell)[..., 0]
        wanted = self._coordinates(targets["boxes"], goal["corner"])[..., None, :]
        found = self._corners(boxes, goal["corner"][..., None, :])
        overlap = ops.stop_gradient(iou(found, targets["boxes"][..., None, :]))
        error = ops.sum(ops.square(boxes - wanted), axis=-1)
        responsible = self._responsible(overlap, found, targets["boxes"]) * weight[..., None]
        coordinates = ops.sum(responsible * error)
        sure = ops.sum(responsible * ops.square(confidence - overlap))
        # Boxes without an object: all in background cells, and the others of an object's cell.
        empty = ops.reshape(raw["confidence"], (-1, self.grid**2, self.boxes))
        nothing = ops.sum(goal["background"][..., None] * ops.square(empty))
        others = weight[..., None] - responsible
        nothing += ops.sum(others * ops.square(confidence))

        labels = soft_targets(targets["labels"], len(self.classes), self.label_smoothing)
        classes = at_rows(raw["class_logits"], cell)
        wrong = ops.sum(weight * ops.sum(ops.square(classes - labels), axis=-1))
        return {
            "box_loss": COORD_WEIGHT * coordinates / count,
            "confidence_loss": (sure + NO_OBJECT_WEIGHT * nothing) / count,
            "class_loss": wrong / count,
        }

    def _at(self, rows, cell):
        """(batch, n, B, c): the boxes' rows (batch, S S B, c) of cells (batch, n)."""
        channels = rows.shape[-1]
        cells = ops.reshape(rows, (-1, self.grid**2, self.boxes * channels))
        taken = at_rows(cells, cell)
        return ops.reshape(taken, (-1, cell.shape[1], self.boxes, channels))

    def _responsible(self, overlap, found, boxes):
        """1 for the box of each cell that overlaps the object best, 0 for its others (batch, n, B).

        Where none overlaps at all it is the one whose centre, width and height have the smallest root
        mean square error (in darknet, not in the text).
        """
        distance = ops.sum(ops.square(_centres(found) - _centres(boxes)[..., None, :]), axis=-1)
        touches = ops.max(overlap, axis=-1, keepdims=True) > 0
        best = ops.argmax(ops.where(touches, overlap, -distance), axis=-1)
        return ops.one_hot(best, self.boxes)

    def _coordinates(self, boxes, corner):
        """What the outputs learn: section 2.2's x, y, square roots of w and h; (..., 4)."""
        centre = (boxes[..., :2] + boxes[..., 2:]) / 2 * (self.grid / self.image_size)
        sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 0.0) / self.image_size
        return ops.concatenate([centre - corner, ops.sqrt(sides)], axis=-1)

    def _corners(self, box, corner):
        """The way back: xyxy pixels (..., 4)."""
        centre = (box[..., :2] + corner) * (self.image_size / self.grid)
        half = ops.square(box[..., 2:]) * (self.image_size / 2)
        return ops.concatenate([centre - half, centre + half], axis=-1)

    # === Decoding ===

    def heads(self, raw: dict) -> dict:
        """The raw outputs, confidence and classes kept to [0, 1]."""
        return {
            "confidence": ops.clip(raw["confidence"], 0.0, 1.0),
            "class": ops.clip(raw["class_logits"], 0.0, 1.0), "box": raw["box"],
        }

    def decode(self, heads: dict) -> dict:
        """The best pairs of a box and a class, scored by equation 1: class probability times IoU."""
        cells, classes = self.grid**2, len(self.classes)
        confidence = ops.reshape(heads["confidence"], (-1, cells, self.boxes, 1))
        scores = confidence * ops.reshape(heads["class"], (-1, cells, 1, classes))
        scores = ops.reshape(scores, (-1, cells * self.boxes, classes))
        scores, row, labels = top_pairs(scores, self.candidates)
        cell = row // self.boxes
        corner = ops.cast(ops.stack([cell % self.grid, cell // self.grid], -1), "float32")
        boxes = self._corners(at_rows(heads["box"], row), corner)
        return {"boxes": ops.clip(boxes, 0.0, self.image_size), "scores": scores, "labels": labels}


def _centres(boxes):
    """xyxy (..., 4) as centre, width and height."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return ops.concatenate([(low + high) / 2, high - low], axis=-1)


# === Network ===


def _paper_head(x, step: int, channels: int, boxes: int, classes: int) -> dict:
    """Figure 3 from its 21st convolution on."""
    grid = x.shape[1] // step
    for number, strides in enumerate((1, step, 1, 1), 1):
        x = convolution(x, channels, 3, f"head_conv{number}", strides=strides)
    x = layers.Dense(4 * channels, name="head_hidden")(layers.Flatten(name="head_flatten")(x))
    x = layers.LeakyReLU(0.1, name="head_hidden_leaky")(x)
    x = layers.Dropout(DROPOUT, name="head_dropout")(x)
    cells = grid * grid

    def output(name, rows, width, bias):
        flat = layers.Dense(
            rows * width, bias_initializer=keras.initializers.Constant(bias),
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01), name=f"head_{name}",
        )(x)
        return layers.Reshape((rows, width), name=f"head_{name}_rows")(flat)

    return _outputs(output, cells, boxes, classes)


def _light_head(x, step: int, channels: int, boxes: int, classes: int) -> dict:
    x = layers.Conv2D(channels, 1, use_bias=False, name="head_lateral")(x)
    x = layers.BatchNormalization(name="head_lateral_bn")(x)
    x = layers.ReLU(6.0, name="head_lateral_relu")(x)
    if step == 2:
        x = layers.AveragePooling2D(2, name="head_pool")(x)
    for number in (1, 2, 3):
        x = separable(x, channels, 5, f"head_block{number}")
    cells = x.shape[1] ** 2

    def output(name, rows, width, bias):
        per_cell = rows // cells
        maps = head(x, per_cell * width, name, bias)
        return PerAnchor(per_cell, name=f"head_{name}_rows")(maps)

    return _outputs(output, cells, boxes, classes)


def _outputs(output, cells: int, boxes: int, classes: int) -> dict:
    # The first guess of a box is the middle of its cell and a quarter of the square either way: in all
    # four coordinates 1/2.
    return {
        "box": output("box", cells * boxes, 4, math.sqrt(0.25)),
        "confidence": output("confidence", cells * boxes, 1, 0.0),
        "class_logits": output("class", cells, classes, 0.0),
    }
