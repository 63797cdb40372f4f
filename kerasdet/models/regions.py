"""What detectors share that look at regions of a photo: what a region shows, and where exactly.

Fast R-CNN (Girshick, ICCV 2015). The features of some boxes are brought to one size, and a network says
what class each is, background among them, and how it has to be moved.
"""

from __future__ import annotations

import math

import keras
from keras import ops

from kerasdet.boxes import assign, coders
from kerasdet.boxes.rows import at_rows, top_pairs
from kerasdet.detector import Detector
from kerasdet.distribution import batch_sum
from kerasdet.layers.roi import CANONICAL_SIDE, roi_align, roi_levels
from kerasdet.losses import background_cross_entropy, check_smoothing, class_cross_entropy

# The papers' sizes of anchors and objects are for photos with this short side in pixels.
PAPER_SIDE = 800
# A region is an object from this overlap on.
POSITIVE = 0.5
# Bytes that the features of regions may take in use.
MEMORY = 2**31
# What scores less is not looked at.
MIN_SCORE = 0.05


class RegionDetector(Detector):
    """A detector that says of regions of a photo what they show; a subclass says which regions.

    Args:
        inputs, outputs: of the functional graph, see `Detector`: outputs hold a map map_<level>
            (batch, h, w, c) for each level that regions are looked at on, from fine to coarse.
        roi_head: keras.Model, (regions, s, s, c) to what `layers.heads.box_head` gives.
        proposals: regions that are looked at in use.
        regions: proposals a photo that are learned from.
        share: of objects among these, at most; there has to be room for one.
        negative: overlaps with objects, from the first to under the second, of regions that are background.
        append_truth: the objects' own boxes are proposals too in training.
        candidates: pairs of a region and a class that are decoded.
        level_side: on a pyramid, the side of regions, in pixels of the square, that belong to P4 (FPN,
            equation 1); None scales the paper's 224, which are meant for photos with a short side of 800 px.
        label_smoothing: how soft the classes of regions, background among them, are learned, see
            `losses.soft_targets`; 0 as in the papers.
        options: of `Detector`.
    """

    def __init__(
        self, inputs, outputs, *, roi_head, proposals, regions, share, negative, append_truth, candidates,
        level_side=None, label_smoothing=0.0, **options,
    ):
        check_smoothing(label_smoothing)
        if level_side is not None and not level_side > 0:
            raise ValueError(f"level_side is {level_side}; give pixels of the square, or None")
        if regions < 1 or not 0 < share <= 1:
            raise ValueError(f"regions={regions}, share={share}: give 1 or more, and more than 0, up to 1")
        if int(regions * share) < 1:
            raise ValueError(
                f"regions={regions}, share={share}: at least one of them has to be an object; give regions "
                f"of at least {math.ceil(1 / share)}, or a larger share"
            )
        super().__init__(inputs, outputs, **options)
        self.roi_head, self._proposals = roi_head, proposals
        self.levels = tuple(name.removeprefix("map_") for name in outputs if name.startswith("map_"))
        self.regions, self.share, self.append_truth = regions, share, append_truth
        self.negative, self.label_smoothing = negative, label_smoothing
        self.level_side = level_side or CANONICAL_SIDE * self.image_size / PAPER_SIDE
        self.candidates = self.decoded(candidates, proposals * len(self.classes))
        self.sampler = keras.random.SeedGenerator(0)
        self._config |= {
            "regions": regions, "share": share, "candidates": candidates,
            "label_smoothing": label_smoothing, "classes": list(self.classes),
            "image_size": self.image_size, "resize": self.resize, "max_detections": self.max_detections,
            "nms_iou": self.nms_iou,
        }

    @property
    def at_once(self) -> int:
        """Regions of a photo that the second network looks at together in use."""
        return self._proposals

    @property
    def copies(self) -> int:
        """Of a photo's maps, beside themselves, that the second network needs in use."""
        return 0

    @property
    def most_at_once(self) -> int:
        """Photos, whose regions' features take most of the memory."""
        size = self.roi_head.input.shape[1]
        numbers = 0
        for level in self.levels:
            _, height, width, channels = self._map(level).shape
            numbers += self.at_once * size * (width + 2 * size) * channels
            numbers += self.copies * height * width * channels
        return max(1, MEMORY // (4 * numbers))

    def _map(self, level: str):
        return self.output[f"map_{level}"]

    @property
    def named_outputs(self) -> dict:
        return dict(self.output) | dict(self.roi_head.output)

    def propose(self, raw: dict, training: bool = False):
        """Boxes (batch, n, 4) float32 xyxy pixels to look at and their scores (batch, n); zeros where there
        are fewer."""
        raise NotImplementedError

    # === Regions ===

    def regions_of(self, raw: dict, boxes, training: bool = False) -> dict:
        """What the second network says of boxes.

        Args:
            raw: the raw outputs.
            boxes: (batch, n, 4) float32 xyxy pixels.

        Returns:
            logits (batch, n, 1 + classes), background first; deltas (batch, n, 1 or classes, 4), see
            `boxes.coders.encode`.
        """
        pooled, count = self.pooled(raw, boxes, self.roi_head.input.shape[1]), boxes.shape[1]
        said = self.roi_head(ops.reshape(pooled, (-1, *pooled.shape[2:])), training=training)
        logits = ops.concatenate([said["background_logit"], said["class_logits"]], axis=-1)
        deltas = said["deltas"] if "deltas" in said else said["deltas_per_class"]
        # In mixed precision the network's words are of 16 bits; losses are not.
        return {
            key: ops.cast(ops.reshape(value, (-1, count, *value.shape[1:])), "float32")
            for key, value in (("logits", logits), ("deltas", deltas))
        }

    def pooled(self, raw: dict, boxes, size: int):
        """The features of boxes (batch, n, 4), each brought to one size: (batch, n, size, size, c)."""
        maps = [raw[f"map_{level}"] for level in self.levels]
        strides = [self.image_size // x.shape[1] for x in maps]
        levels = roi_levels(boxes, 2, 5, self.level_side) - 2 if len(maps) > 1 else None
        return roi_align(maps, strides, boxes, size, levels=levels)

    # === Targets ===

    def region_targets(self, targets: dict, proposals) -> dict:
        """The regions that the second network learns from, and what (Fast R-CNN, section 2.3).

        Args:
            targets: boxes (batch, n, 4) float32 xyxy pixels, labels (batch, n) int32 with -1 in padding
                rows, weights (batch, n), ignore (batch, m, 4).
            proposals: (batch, n, 4) float32 xyxy pixels; rows of zeros are none.

        Returns:
            boxes (batch, R, 4), the regions sampled; positive (batch, R) and negative (batch, R) float32,
            1 for objects and for background, both 0 in rows that are there to fill up; label (batch, R)
            int32, weight (batch, R) and deltas (batch, R, 4) of the object; owner (batch, R) int32, its row
            in the targets. Objects come first.
        """
        if self.append_truth:
            proposals = ops.concatenate([proposals, targets["boxes"]], axis=1)
        sides = proposals[..., 2:] - proposals[..., :2]
        real = ops.min(sides, axis=-1) > 0
        # Rows that are none must not divide by their sides.
        places = ops.where(real[..., None], proposals, ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0]))
        owner, background = assign.by_overlap(
            targets["boxes"], targets["labels"], places, POSITIVE, self.negative
        )
        owner = ops.where(real, owner, -1)
        goal = assign.taught(owner, targets, places)
        negative = ops.logical_and(ops.logical_and(goal["negative"], background), real)
        chosen, other = assign.balanced(
            self._random(owner), goal["positive"], negative, self.regions, self.share
        )
        # Objects first, then background, then what fills up.
        _, rows = ops.top_k(2 * chosen + other, min(self.regions, owner.shape[1]))
        every = {
            "boxes": places, "positive": chosen, "negative": other, "label": goal["label"],
            "weight": goal["weight"], "deltas": coders.encode(goal["boxes"], places),
            "owner": ops.maximum(owner, 0),
        }
        return {key: at_rows(value, rows) for key, value in every.items()}

    def _random(self, like):
        """A number in [0, 1) for each place; another one in every step."""
        return keras.random.uniform(ops.shape(like), dtype="float32", seed=self.sampler)

    # === Losses ===

    def learn_regions(self, targets: dict, raw: dict, proposals) -> dict:
        """The losses of regions sampled from proposals (batch, n, 4)."""
        goal = self.region_targets(targets, proposals)
        return self.region_losses(goal, self.regions_of(raw, goal["boxes"], training=self._learning))

    def region_losses(self, goal: dict, said: dict) -> dict:
        """Cross-entropy and absolute errors of regions.

        Args:
            goal: see `region_targets`.
            said: see `regions_of`.
        """
        positive, negative = goal["positive"] * goal["weight"], goal["negative"]
        count = ops.maximum(batch_sum(positive + negative), 1.0)
        hit = class_cross_entropy(goal["label"] + 1, said["logits"], self.label_smoothing)
        miss = background_cross_entropy(said["logits"], self.label_smoothing)
        moved = said["deltas"]
        if moved.shape[2] > 1:
            # The box of the region's own class learns.
            own = ops.one_hot(goal["label"], len(self.classes), dtype="float32")
            moved = ops.sum(moved * own[..., None], axis=2)
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
            "class": ops.softmax(said["logits"], axis=-1)[..., 1:] * real, "boxes": said["deltas"],
            "proposals": boxes,
        }

    def decode(self, heads: dict) -> dict:
        """The pairs of region and class that score highest, moved to where they belong."""
        scores, rows, labels = top_pairs(heads["class"], self.candidates, MIN_SCORE)
        count, each = heads["boxes"].shape[1:3]
        deltas = ops.reshape(heads["boxes"], (-1, count * each, 4))
        deltas = at_rows(deltas, rows * each + labels if each > 1 else rows)
        boxes = ops.clip(coders.decode(deltas, at_rows(heads["proposals"], rows)), 0.0, self.image_size)
        return {"boxes": boxes, "scores": scores, "labels": labels}
