"""Fast R-CNN (Girshick, ICCV 2015), and R-CNN (Girshick et al., CVPR 2014), which it made fast.

Both are given boxes that may hold an object. Fast R-CNN runs its backbone once on the photo and takes each
box's features out of the one map; R-CNN cuts each box out of the photo and runs the backbone on every one of
them. From top to bottom: what they share, Fast R-CNN, R-CNN. Targets, losses and decoding are those of
`RegionDetector`.
"""

from __future__ import annotations

import keras
from keras import layers, ops

from kerasdet import backbones
from kerasdet.layers.heads import box_head
from kerasdet.layers.roi import roi_align, roi_pool
from kerasdet.models.faster_rcnn import NECKS, needed_levels, region_maps, roi_head
from kerasdet.models.regions import MEMORY, RegionDetector

# R-CNN, appendix A: pixels of context about each box, on the warped square.
CONTEXT = 16
# Regions that go through what looks at them together.
AT_ONCE = 32


def _turns(count: int) -> int:
    """How many it takes to look at so many regions."""
    return -(-count // AT_ONCE)


class _Given(RegionDetector):
    """A detector that is given its proposals; see `FastRCNN` for its arguments."""

    def __init__(self, inputs, outputs, *, proposals, append_truth, **options):
        if proposals < 1:
            raise ValueError(f"proposals is {proposals}; give 1 or more")
        super().__init__(inputs, outputs, proposals=proposals, append_truth=append_truth, **options)
        self.given_proposals = proposals
        self._config |= {"proposals": proposals, "append_truth": append_truth}
        self.track_losses("class_loss", "box_loss")

    def propose(self, raw: dict, training: bool = False):
        """As of `RegionDetector`: what is given; all score 1."""
        boxes = raw["proposals"]
        sides = boxes[..., 2:] - boxes[..., :2]
        return boxes, ops.cast(ops.min(sides, axis=-1) > 0, "float32")

    @property
    def at_once(self) -> int:
        return min(AT_ONCE, self._proposals)

    @property
    def copies(self) -> int:
        """Of a photo's maps, one for each turn of `regions_of`."""
        return _turns(self._proposals) if self._proposals > AT_ONCE else 0

    def loss_parts(self, targets: dict, raw: dict) -> dict:
        """Section 2.3, "Multi-task loss", over the regions sampled.

        Args:
            targets: as of all detectors, and proposals (batch, n, 4) float32 xyxy pixels.
        """
        return self.learn_regions(targets, raw, targets["proposals"])

    def regions_of(self, raw: dict, boxes, training: bool = False) -> dict:
        """As of `RegionDetector`, in use some regions after the other: all at once fill the memory."""
        count = boxes.shape[1]
        if training or count <= AT_ONCE:
            return super().regions_of(raw, boxes, training)
        turns = _turns(count)
        boxes = ops.pad(boxes, ((0, 0), (0, turns * AT_ONCE - count), (0, 0)))
        some = ops.transpose(ops.reshape(boxes, (-1, turns, AT_ONCE, 4)), (1, 0, 2, 3))
        # Where a graph is built, what is looped over has to hold all that the loop sees.
        names = [f"map_{level}" for level in self.levels]
        maps = [ops.stack([raw[name]] * turns) for name in names]

        def look(each):
            return super(_Given, self).regions_of(dict(zip(names, each[:-1], strict=True)), each[-1])

        said = ops.map(look, (*maps, some))
        joined = {}
        for key, value in said.items():
            rest = value.shape[3:]
            value = ops.transpose(value, (1, 0, *range(2, len(value.shape))))
            joined[key] = ops.reshape(value, (-1, turns * AT_ONCE, *rest))[:, :count]
        return joined


@keras.saving.register_keras_serializable(package="kerasdet")
class FastRCNN(_Given):
    """Fast R-CNN, on proposals that come with each photo.

    Train it on a set with proposals (`Dataset.with_proposals`); `detect` takes proposals=, or finds them by
    selective search.

    Args:
        classes, backbone, backbone_weights, freeze_bn, freeze_until, image_size, head_units, agnostic: as of
            `FasterRCNN`.
        neck: "c4": regions of P4 go through the backbone's last stage; "dc5": that stage, dilated, runs on
            the photo, and its regions go through two fully connected layers, as the paper's; or "c4_light",
            "fpn" and its variants, as of `FasterRCNN` (FPN, section 4.2).
        channels: of the pyramid's maps or the thin one.
        proposals: how many each photo comes with; further ones are left out.
        regions, share, append_truth, candidates, level_side, label_smoothing: see `RegionDetector`.
        background: overlaps with objects, from the first to under the second, of regions that are background;
            the others teach nothing. (0.0, 0.5) takes all, as later detectors do: where few of the proposals
            are near objects, what is far from them is never seen otherwise.
        resize, max_detections, nms_iou: see `Detector`.

    The raw output is the map map_P4 or map_P5 (batch, h, w, c), or those of the pyramid. `heads` goes on to
    the regions.

    Differs from the paper: on a pyramid regions go by RoI align, since pooling would take every level for
    every region; boxes learn by the sum of absolute errors (smooth-L1 with beta 0, as in
    detectron2), all layers of the backbone that are not frozen learn, and it is VGG16 there.
    """

    def __init__(
        self, classes, *, backbone="resnet50v2", backbone_weights=None, freeze_bn=True, freeze_until=None,
        image_size=320, neck="c4", channels=256, head_units=1024, agnostic=False, proposals=1000, regions=64,
        share=0.25, append_truth=True, background=(0.1, 0.5), resize="stretch", max_detections=100,
        nms_iou=0.3, candidates=300, level_side=None, label_smoothing=0.0, name=None,
    ):
        if neck not in NECKS:
            raise ValueError(f"neck is {neck!r}; give one of {', '.join(NECKS)}")
        if not 0 <= background[0] < background[1] <= 0.5:
            raise ValueError(f"background is {tuple(background)}; give two overlaps, rising from 0 to 0.5")
        if image_size % 32:
            raise ValueError(f"image_size is {image_size}; give a multiple of 32")
        body = backbones.resolve(
            backbone, weights=backbone_weights, image_size=image_size, freeze_bn=freeze_bn,
            freeze_until=freeze_until, output_stride=16 if neck == "dc5" else 32,
            levels=needed_levels(neck),
        )
        # === Functional Model ===
        images = keras.Input((image_size, image_size, 3), name="images")
        maps = region_maps(body, images, neck, channels)
        width = next(iter(maps.values())).shape[-1]
        super().__init__(
            images, {f"map_{level}": x for level, x in maps.items()}, classes=classes, image_size=image_size,
            roi_head=roi_head(body, neck, width, head_units, len(classes), agnostic),
            proposals=proposals, regions=regions, share=share, negative=tuple(background),
            append_truth=append_truth, candidates=candidates, level_side=level_side,
            label_smoothing=label_smoothing, resize=resize, max_detections=max_detections, nms_iou=nms_iou,
            name=name,
        )
        # === Config ===
        self._config |= {
            "backbone": backbone, "freeze_bn": freeze_bn, "freeze_until": freeze_until, "neck": neck,
            "channels": channels, "head_units": head_units, "agnostic": agnostic,
            "background": list(background), "level_side": self.level_side,
        }

    def pooled(self, raw: dict, boxes, size: int):
        """Section 2.1: the highest value in each of size x size bins of whole cells."""
        if len(self.levels) > 1:
            return super().pooled(raw, boxes, size)
        features = raw[f"map_{self.levels[0]}"]
        return roi_pool(features, self.image_size // features.shape[1], boxes, size)


@keras.saving.register_keras_serializable(package="kerasdet")
class RCNN(_Given):
    """R-CNN: the backbone runs on every region anew. What `FastRCNN` is compared with.

    Args:
        classes, backbone, backbone_weights, freeze_bn, freeze_until, image_size, agnostic: as of
            `FasterRCNN`.
        warp_size: side, in pixels, that each region is warped to, a multiple of 32 above 32.
        proposals: how many each photo comes with; further ones are left out.
        regions: a photo that are learned from; each one is a pass of the backbone.
        share, append_truth, candidates, label_smoothing: see `RegionDetector`.
        resize, max_detections, nms_iou: see `Detector`.

    The raw output is map_photo (batch, S, S, 3), the photo itself. `heads` goes on to the regions.

    Differs from the paper: one softmax in place of a support vector machine a class, boxes learn with it and
    not afterwards, from an IoU of .5 on and not .6, and by absolute errors; pixels beyond the photo have its
    own mean, not ImageNet's.
    """

    def __init__(
        self, classes, *, backbone="resnet50v2", backbone_weights=None, freeze_bn=True, freeze_until=None,
        image_size=320, warp_size=224, agnostic=False, proposals=1000, regions=32, share=0.25,
        append_truth=True, resize="stretch", max_detections=100, nms_iou=0.3, candidates=300,
        label_smoothing=0.0, name=None,
    ):
        if warp_size <= 2 * CONTEXT or warp_size % 32:
            raise ValueError(f"warp_size is {warp_size}; give a multiple of 32 above {2 * CONTEXT}")
        body = backbones.resolve(
            backbone, weights=backbone_weights, image_size=warp_size, freeze_bn=freeze_bn,
            freeze_until=freeze_until, levels=("P5",),
        )
        # === Functional Model ===
        images = keras.Input((image_size, image_size, 3), name="images")
        photo = layers.Rescaling(1.0, name="photo")(images)
        warped = keras.Input((warp_size, warp_size, 3), name="regions")
        features = layers.GlobalAveragePooling2D(name="head_mean")(body(warped)["P5"])
        super().__init__(
            images, {"map_photo": photo}, classes=classes, image_size=image_size,
            roi_head=keras.Model(warped, box_head(features, len(classes), agnostic), name="roi_head"),
            proposals=proposals, regions=regions, share=share, negative=(0.0, 0.5),
            append_truth=append_truth, candidates=candidates, label_smoothing=label_smoothing, resize=resize,
            max_detections=max_detections, nms_iou=nms_iou, name=name,
        )
        # === Config ===
        self._config |= {
            "backbone": backbone, "freeze_bn": freeze_bn, "freeze_until": freeze_until,
            "warp_size": warp_size, "agnostic": agnostic,
        }

    @property
    def most_at_once(self) -> int:
        """Photos, whose regions go through the whole backbone; a pixel's features take some 320 bytes."""
        return max(1, MEMORY // (320 * self.at_once * self._config["warp_size"] ** 2))

    def pooled(self, raw: dict, boxes, size: int):
        """Appendix A: each box with some context, warped to a square whatever its shape."""
        photo = raw["map_photo"]
        middle, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
        half = half * (size / (size - 2 * CONTEXT))
        wide = ops.concatenate([middle - half, middle + half], axis=-1)
        # What lies beyond the photo is 0 to RoI align.
        mean = ops.mean(photo, axis=(1, 2), keepdims=True)
        return roi_align([photo - mean], [1], wide, size) + mean[:, None]
