"""SSD: Single Shot MultiBox Detector (Liu et al., ECCV 2016), and SSDLite (Sandler et al., CVPR 2018).

Every cell of several maps, from fine to coarse, holds default boxes; for each the network says what class
it is, background among them, and how it has to be moved. From top to bottom: network, targets, losses,
decoding.
"""

from __future__ import annotations

import keras
from keras import layers, ops

from kerasdet import backbones
from kerasdet.boxes import assign, coders
from kerasdet.boxes.anchors import boxes_per_cell, default_boxes
from kerasdet.boxes.rows import at_rows, top_pairs
from kerasdet.detector import Detector
from kerasdet.distribution import batch_sum
from kerasdet.layers import L2Norm
from kerasdet.layers.necks import pyramid
from kerasdet.losses import check_smoothing, class_cross_entropy, hard_background, smooth_l1

NETWORKS = ("paper", "lite")
# The backbone's maps that have default boxes; the others are made of the last.
LEVELS = {"paper": ("P3", "P5"), "lite": ("P4", "P5")}
# Ratios of the default boxes of each map: SSD300 (section 3.1), and SSDLite in torchvision.
RATIOS = {"paper": ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)), "lite": ((2, 3),) * 6}
# Their sizes as fractions of the square, and one more: SSD300 for VOC, and SSDLite in torchvision.
SIZES = {
    "paper": tuple(side / 300 for side in (30, 60, 111, 162, 213, 264, 315)),
    "lite": (0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0),
}
# Pixels between the cells of SSD300's first maps; of others, the square divided by the cells.
STEPS = (8, 16, 32, 64)
# Channels of the maps behind the backbone.
EXTRAS = {"paper": (512, 256, 256, 256), "lite": (512, 256, 256, 128)}
# SSDLite's starting kernels and batch norms, as in torchvision.
LITE_INITIAL = {"kernel_initializer": keras.initializers.RandomNormal(stddev=0.03)}
LITE_NORM = {"epsilon": 1e-3, "momentum": 0.97}
MATCH_IOU, NEGATIVES_PER_POSITIVE = 0.5, 3
# What scores less is not looked at (section 3.1, "inference").
MIN_SCORE = 0.01


@keras.saving.register_keras_serializable(package="kerasdet")
class SSD(Detector):
    """Single Shot MultiBox Detector.

    `SSD(classes, network="paper", backbone="vgg16", image_size=300)` is SSD300 with its 8732 default boxes;
    `SSD(classes)` is SSDLite on MobileNetV2 at 320 px.

    Args:
        classes: names of the classes, without background.
        network: "paper": the maps P3, L2-normalised, and P5 at stride 16, plain 3x3 convolutions
            behind and on them; or "lite": P4 and P5 at stride 32, and depthwise-separable
            convolutions.
        backbone: "vgg16", a name for `backbones.build`, or a keras.Model with outputs P2, P3, P4, P5.
        backbone_weights: "imagenet", a file, a detector on the same backbone, or None (random).
        freeze_bn: a named backbone's batch norms keep their statistics.
        freeze_until: level up to which the backbone is not trained, such as "P2"; None trains all.
        image_size: side of the network's square in pixels, but for VGG16 a multiple of 32.
        neck: None, the paper's: each map as the backbone has it; or "fpn": the finer of the backbone's two
            maps gets the meaning of the coarser one by FPN's pyramid.
        channels: of that pyramid's maps; the paper's 256.
        anchor_sizes: side of each map's default boxes and of one map more, as fractions of the square;
            None takes those of SSD300 for VOC, or SSDLite's. They say how many maps there are, 2 to 6.
        label_smoothing: how soft the classes, background among them, are learned, see
            `losses.soft_targets`; 0 as in the paper.
        resize, max_detections, nms_iou: see `Detector`.
        candidates: pairs of box and class that are decoded.

    The published augmentation is `batches(..., augment=Augment.ssd())`, see `data.augment`; without it a set
    is augmented as for every other detector here.

    What scores less than .01 is not looked at, and suppression leaves 200 boxes at an overlap of .45:
    SSD300's limits (section 3.1), for SSDLite too, where torchvision has .001, 300 and .55.

    Differs from the paper: the `candidates` best pairs are of all classes together, where the published code
    has 400 of each class; a photo without objects teaches three negatives, where it teaches nothing there; an
    object that cropping cut the middle off is ignored, and no background.

    The raw outputs, for each of the N default boxes: class_logits (.., N, classes); background_logit
    (.., N, 1), which joins them in one softmax; boxes (.., N, 4), see `boxes.coders.encode`.
    """

    def __init__(
        self, classes, *, network="lite", backbone="mobilenet_v2", backbone_weights=None, freeze_bn=True,
        freeze_until=None, image_size=320, neck=None, channels=256, anchor_sizes=None, label_smoothing=0.0,
        resize="stretch", max_detections=200, nms_iou=0.45, candidates=400, name=None,
    ):
        check_smoothing(label_smoothing)
        if network not in NETWORKS:
            raise ValueError(f"network is {network!r}; give one of {', '.join(NETWORKS)}")
        if neck not in (None, "fpn"):
            raise ValueError(f"neck is {neck!r}; give None or 'fpn'")
        sizes = tuple(SIZES[network] if anchor_sizes is None else anchor_sizes)
        if not 3 <= len(sizes) <= 7 or list(sizes) != sorted(sizes):
            raise ValueError(
                f"anchor_sizes is {sizes}; give 3 to 7 rising fractions of the square, for 2 to 6 maps"
            )
        if backbone == "vgg16":
            if network != "paper":
                raise ValueError("backbone is 'vgg16' and network 'lite'; SSD on VGG16 is network='paper'")
            from kerasdet.backbones.vgg import vgg16

            body = vgg16(backbone_weights, image_size, freeze_until)
        else:
            body = backbones.resolve(
                backbone, weights=backbone_weights, image_size=image_size, freeze_bn=freeze_bn,
                freeze_until=freeze_until, output_stride=16 if network == "paper" else 32,
                levels=LEVELS[network],
            )
        # === Functional Model ===
        images = keras.Input((image_size, image_size, 3), name="images")
        features = body(images)
        if neck == "fpn":
            fine, coarse = (features[level].shape[1] for level in LEVELS[network][:2])
            if fine != 2 * coarse:
                raise ValueError(
                    f"image_size is {image_size} and neck 'fpn': maps of {fine} and {coarse} cells a side do "
                    "not halve; give a multiple of 16"
                )
            features = features | pyramid(features, channels, LEVELS[network])
        extras = EXTRAS[network][: len(sizes) - 3]
        maps = _paper_maps(features, extras) if network == "paper" else _lite_maps(features, extras)
        if network == "paper":
            for stride, found in zip(STEPS, maps[:2], strict=False):
                backbones.check_cells(body, found.shape[1], image_size, stride)
        ratios = RATIOS[network][: len(maps)]
        outputs = _heads(maps, ratios, len(classes), network)
        super().__init__(
            images, outputs, classes=classes, image_size=image_size, resize=resize,
            max_detections=max_detections, nms_iou=nms_iou, name=name,
        )
        # === Config ===
        cells = [each.shape[1] for each in maps]
        steps = [image_size / count for count in cells]
        if network == "paper":
            steps = [*STEPS[: len(cells)], *steps[len(STEPS) :]]
        self.anchors = default_boxes(cells, steps, [image_size * size for size in sizes], ratios)
        self.candidates = self.decoded(candidates, len(self.anchors) * len(classes))
        self.label_smoothing = label_smoothing
        self._config = {
            "classes": list(classes), "network": network, "backbone": backbone, "freeze_bn": freeze_bn,
            "freeze_until": freeze_until, "image_size": image_size, "neck": neck, "channels": channels,
            "anchor_sizes": list(sizes), "label_smoothing": label_smoothing, "resize": resize,
            "max_detections": max_detections, "nms_iou": nms_iou, "candidates": candidates,
        }
        self.track_losses("class_loss", "box_loss")

    def at_size(self, image_size: int) -> dict:
        """Default boxes of as many pixels as before."""
        sizes = self._config["anchor_sizes"]
        return {"anchor_sizes": [side * self.image_size / image_size for side in sizes]}

    # === Targets ===

    def targets(self, targets: dict) -> dict:
        """What every default box learns (section 2.2, "Matching strategy").

        Args:
            targets: boxes (batch, n, 4) float32 xyxy pixels, labels (batch, n) int32 with -1 in padding
                rows, weights (batch, n), ignore (batch, m, 4).

        Returns:
            positive (batch, N) bool, default boxes that learn an object; negative (batch, N) bool, those
            that may learn to be background: neither positive nor with their middle in an ignore region;
            label (batch, N) int32 and weight (batch, N) float32 of the object, 0 where there is none;
            deltas (batch, N, 4), see `boxes.coders.encode`, 0 where there is none.
        """
        anchors = ops.convert_to_tensor(self.anchors)
        owner = assign.match(targets["boxes"], targets["labels"], anchors, MATCH_IOU)
        goal = assign.taught(owner, targets, anchors)
        boxes = goal.pop("boxes")
        return goal | {"deltas": coders.encode(boxes, anchors)}

    # === Losses ===

    def loss_parts(self, targets: dict, raw: dict) -> dict:
        """Equation 1: cross-entropy and smooth-L1, both divided by the number of positives.

        Of the negatives those three times as many as the photo's positives count that are taken for
        objects most (section 2.2, "Hard negative mining"), and three of a photo without objects, which
        teaches nothing there.
        """
        goal = self.targets(targets)
        logits = self._logits(raw)
        hit = class_cross_entropy(goal["label"] + 1, logits, self.label_smoothing)
        miss = hard_background(logits, goal, NEGATIVES_PER_POSITIVE, self.label_smoothing)
        # Equation 2.
        error = ops.sum(smooth_l1(raw["boxes"] - goal["deltas"]), axis=-1)
        total = ops.maximum(batch_sum(goal["weight"]), 1.0)
        return {
            "class_loss": (ops.sum(goal["weight"] * hit) + miss) / total,
            "box_loss": ops.sum(goal["weight"] * error) / total,
        }

    def _logits(self, raw: dict):
        """(batch, N, 1 + classes): background first."""
        return ops.concatenate([raw["background_logit"], raw["class_logits"]], axis=-1)

    # === Decoding ===

    def heads(self, raw: dict) -> dict:
        """class (batch, N, classes), probabilities without background's; boxes (batch, N, 4) as in raw."""
        return {"class": ops.softmax(self._logits(raw), axis=-1)[..., 1:], "boxes": raw["boxes"]}

    def decode(self, heads: dict) -> dict:
        """The pairs of default box and class that score highest, moved to where they belong."""
        scores, rows, labels = top_pairs(heads["class"], self.candidates, MIN_SCORE)
        anchors = ops.take(ops.convert_to_tensor(self.anchors), rows, axis=0)
        boxes = coders.decode(at_rows(heads["boxes"], rows), anchors)
        return {"boxes": ops.clip(boxes, 0.0, self.image_size), "scores": scores, "labels": labels}


# === Network ===


def _paper_maps(features: dict, extras) -> list:
    """P3, L2-normalised to length 20, P5, and each extra map: 1x1, then 3x3 (figure 2).

    The 3x3 of the first two halves the map; that of the others is not padded, and so takes two cells of
    it. Where a map has become smaller than that, as it may on small squares, it stays as it is.
    """
    fine, coarse = (features[level] for level in LEVELS["paper"])
    maps = [L2Norm(20.0, name="norm")(fine), coarse]
    for k, channels in enumerate(extras, 2):
        x = layers.Conv2D(channels // 2, 1, activation="relu", name=f"extra{k}_1x1")(maps[-1])
        options = {"strides": 2 if k < 4 else 1, "padding": "same"}
        if k >= 4 and x.shape[1] >= 3:
            options["padding"] = "valid"
        maps.append(layers.Conv2D(channels, 3, activation="relu", name=f"extra{k}_3x3", **options)(x))
    return maps


def _lite_maps(features: dict, extras) -> list:
    """P4, P5, and each extra map: 1x1, depthwise 3x3 that halves, 1x1 (1801.04381, section 6.2)."""
    maps = [features[level] for level in LEVELS["lite"]]
    for k, channels in enumerate(extras, 2):
        x = _lite_conv(maps[-1], channels // 2, f"extra{k}_squeeze")
        x = _lite_depthwise(x, f"extra{k}_depthwise", strides=2)
        maps.append(_lite_conv(x, channels, f"extra{k}_expand"))
    return maps


def _lite_conv(x, channels, name):
    x = layers.Conv2D(channels, 1, use_bias=False, name=name, **LITE_INITIAL)(x)
    x = layers.BatchNormalization(name=f"{name}_bn", **LITE_NORM)(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _lite_depthwise(x, name, strides=1):
    x = layers.DepthwiseConv2D(
        3, strides=strides, padding="same", use_bias=False, name=name,
        depthwise_initializer=LITE_INITIAL["kernel_initializer"],
    )(x)
    x = layers.BatchNormalization(name=f"{name}_bn", **LITE_NORM)(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _heads(maps, ratios, classes: int, network: str) -> dict:
    """Convolutions on every map, their channels ordered box by box within a cell, as the anchors are."""
    found = {"class_logits": [], "background_logit": [], "boxes": []}
    for k, (x, ratio) in enumerate(zip(maps, ratios, strict=True)):
        for_class = for_box = x
        options = {"kernel_size": 3, "padding": "same"}
        if network == "lite":
            options = {"kernel_size": 1, **LITE_INITIAL}
            for_class = _lite_depthwise(x, f"head{k}_class_depthwise")
            for_box = _lite_depthwise(x, f"head{k}_box_depthwise")
        for key, name, features, values in (
            ("class_logits", "class", for_class, classes),
            ("background_logit", "background", for_class, 1),
            ("boxes", "box", for_box, 4),
        ):
            head = layers.Conv2D(boxes_per_cell(ratio) * values, name=f"head{k}_{name}", **options)(features)
            count = head.shape[1] * head.shape[2] * boxes_per_cell(ratio)
            found[key].append(layers.Reshape((count, values), name=f"head{k}_{name}_rows")(head))
    return {key: layers.Concatenate(axis=1, name=f"all_{key}")(parts) for key, parts in found.items()}
