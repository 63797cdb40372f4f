"""Mask R-CNN (He et al., ICCV 2017): Faster R-CNN with an outline for each object.

From top to bottom: network, targets, losses, what it finds. All but the outlines is `FasterRCNN`'s.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from kerasdet import outlines
from kerasdet.boxes.rows import at_rows
from kerasdet.distribution import batch_sum
from kerasdet.layers.heads import mask_head
from kerasdet.layers.roi import roi_align
from kerasdet.models.faster_rcnn import FasterRCNN

# Cells along each side that a region is looked at with, and that its outline is drawn in.
POOLED, DRAWN = 14, 28


@keras.saving.register_keras_serializable(package="kerasdet")
class MaskRCNN(FasterRCNN):
    """Mask R-CNN.

    Train it on a set with outlines: COCO json with polygons. What it finds has `masks` beside boxes, and
    `evaluate_detections` gives mask_AP and mask_AP50. A SavedModel has masks (batch, N, 28, 28) too, the
    cells of each box; a `.tflite` has the boxes alone, as MediaPipe takes them.

    Args:
        classes: names of the classes, without background.
        mask_channels: of the convolutions that find outlines.
        mask_blocks: how many of them there are before the cells are doubled.
        options: of `FasterRCNN`; its neck is not "c4".

    Differs from the paper as `FasterRCNN` does, and in two things more. An object's outline is learned from
    56 x 56 cells of its box, of which each region has its part; the paper cuts the region's part out of the
    polygon itself. And there is no C4 network, whose last stage every region would run twice.
    """

    # Twice as fine as what is learned of it: a region shows a part of an object, perhaps.
    mask_size = 2 * DRAWN
    named_losses = (*FasterRCNN.named_losses, "mask_loss")

    def __init__(self, classes, *, mask_channels=256, mask_blocks=4, **options):
        if options.get("neck") == "c4":
            raise ValueError("neck is 'c4'; outlines need one of the others, such as 'fpn'")
        super().__init__(classes, **options)
        width = self.roi_head.input.shape[-1]
        self.mask_head = mask_head(width, mask_channels, mask_blocks, len(self.classes))
        self._config |= {"mask_channels": mask_channels, "mask_blocks": mask_blocks}

    @property
    def named_outputs(self) -> dict:
        return super().named_outputs | dict(self.mask_head.output)

    def cells_of(self, raw: dict, boxes, labels, training: bool = False):
        """What the cells of boxes show of their own class.

        Args:
            raw: the raw outputs.
            boxes: (batch, n, 4) float32 xyxy pixels.
            labels: (batch, n) int32.

        Returns:
            (batch, n, 28, 28) float32, log-odds of the object.
        """
        pooled, count = self.pooled(raw, boxes, POOLED), boxes.shape[1]
        every = self.mask_head(ops.reshape(pooled, (-1, *pooled.shape[2:])), training=training)["mask_logits"]
        every = ops.cast(ops.reshape(every, (-1, count, DRAWN, DRAWN, len(self.classes))), "float32")
        own = ops.one_hot(labels, len(self.classes), dtype="float32")
        return ops.sum(every * own[:, :, None, None], axis=-1)

    # === Targets ===

    def mask_targets(self, goal: dict, targets: dict):
        """The part of each region's object that lies in the region (section 3.1, "Training").

        Args:
            goal: see `region_targets`.
            targets: boxes (batch, n, 4), masks (batch, n, m, m), 1 in the cells of the object's box that it
                fills.

        Returns:
            (batch, R, 28, 28) float32, 1 in cells of the object.
        """
        side, count = self.mask_size, goal["owner"].shape[1]
        masks = ops.reshape(targets["masks"], (-1, targets["masks"].shape[1], side * side))
        masks = ops.reshape(at_rows(ops.cast(masks, "float32"), goal["owner"]), (-1, side, side, 1))
        own = at_rows(targets["boxes"], goal["owner"])
        corner, sides = own[..., :2], ops.maximum(own[..., 2:] - own[..., :2], 1e-3)
        within = [(goal["boxes"][..., i : i + 2] - corner) / sides * side for i in (0, 2)]
        within = ops.reshape(ops.concatenate(within, axis=-1), (-1, 1, 4))
        share = roi_align([masks], [1], within, DRAWN)
        return ops.cast(ops.reshape(share, (-1, count, DRAWN, DRAWN)) >= 0.5, "float32")

    # === Losses ===

    def learn_regions(self, targets: dict, raw: dict, proposals) -> dict:
        """As of `FasterRCNN`, and the mean cross-entropy of cells (section 3): of a region that is an object
        its own class alone is asked for, so that classes do not compete."""
        goal = self.region_targets(targets, proposals)
        losses = self.region_losses(goal, self.regions_of(raw, goal["boxes"], training=self._learning))
        # Objects come first, and no more than this share is sampled.
        first = int(self.regions * self.share)
        goal = {key: value[:, :first] for key, value in goal.items()}
        logits = self.cells_of(raw, goal["boxes"], goal["label"], training=self._learning)
        truth = self.mask_targets(goal, targets)
        cost = ops.mean(ops.softplus(logits) - logits * truth, axis=(2, 3))
        weight = goal["positive"] * goal["weight"] * at_rows(targets["mask_weights"], goal["owner"])
        return losses | {"mask_loss": ops.sum(weight * cost) / ops.maximum(batch_sum(weight), 1.0)}

    # === What it finds ===

    def look_again(self, found: dict, raw: dict) -> dict:
        """masks (batch, n, 28, 28) float32, probabilities of the cells of each box that is left."""
        cells = ops.sigmoid(self.cells_of(raw, found["boxes"], found["labels"]))
        return {"masks": cells * ops.cast(found["scores"] > 0, "float32")[..., None, None]}

    def _detections(self, i, result, photo, picture, matrix, score, keep_photo):
        found = super()._detections(i, result, photo, picture, matrix, score, keep_photo)
        # Rows come in falling order, so these are the first.
        count, (height, width) = len(found), picture.shape[:2]
        scale, shift = np.diag(matrix[:, :2]), matrix[:, 2]
        boxes = ((result["boxes"][i][:count].reshape(-1, 2, 2) - shift) / scale).reshape(-1, 4)
        found.masks = tuple(
            outlines.encode(outlines.paste(grid, box, height, width))
            for grid, box in zip(result["masks"][i][:count], boxes, strict=True)
        )
        return found
