"""OverFeat: integrated recognition, localization and detection (Sermanet et al., ICLR 2014).

One network says what a window of the photo shows and where in it the object is; slid over the whole photo
as a convolution it shares nearly all work between neighbouring windows, and pooling at every offset
brings the windows closer together. From top to bottom: the paper's networks, the detector, targets, losses,
decoding, network. How the votes of many windows and scales become one answer is in `kerasdet.views`, how
boxes are merged in `kerasdet.boxes.merging`.
"""

from __future__ import annotations

import dataclasses

import keras
from keras import layers, ops

from kerasdet import backbones
from kerasdet.backbones.common import leaves, take_any_size
from kerasdet.boxes import assign
from kerasdet.boxes.iou import area, intersection
from kerasdet.boxes.rows import at_rows, top_pairs
from kerasdet.boxes.slots import winners
from kerasdet.detector import Detector, for_use
from kerasdet.distribution import batch_sum
from kerasdet.layers import Interleave, OffsetMaxPool
from kerasdet.losses import check_smoothing, class_cross_entropy, hard_background


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of the paper.

    Attributes:
        features: up to the map before the last pooling, (channels, side, stride, padding) of a
            convolution or the side of a pooling.
        pool: side p of the last pooling's pools, which can be laid at p * p offsets.
        window: side of what the classifier sees, in pooled cells.
        units: channels of the classifier's hidden layers.
        side: what the classifier sees in pixels of the photo; the paper's training photos.
        stride: pixels from one cell of the map before the last pooling to the next.
    """

    features: tuple
    pool: int
    window: int
    units: tuple[int, int]
    side: int
    stride: int


NETWORKS = {
    # Table 1: windows lie 32 px apart, with offsets 16.
    "fast": Network(
        ((96, 11, 4, "valid"), 2, (256, 5, 1, "valid"), 2, (512, 3, 1, "same"), (1024, 3, 1, "same"),
         (1024, 3, 1, "same")),
        pool=2, window=6, units=(3072, 4096), side=231, stride=16,
    ),
    # Table 3: 36 px apart, with offsets 12.
    "accurate": Network(
        ((96, 7, 2, "valid"), 3, (256, 7, 1, "valid"), 2, (512, 3, 1, "same"), (512, 3, 1, "same"),
         (1024, 3, 1, "same"), (1024, 3, 1, "same")),
        pool=3, window=5, units=(4096, 4096), side=221, stride=12,
    ),
}
# Section 4, "Generating predictions": the regressor's hidden layers.
REGRESSOR = (4096, 1024)
# Height and width at which the paper looks at a photo (table 5).
SCALES = ((245, 245), (281, 317), (317, 389), (389, 461), (425, 497), (461, 569))
# Mean and standard deviation of ImageNet's pixels, over all channels, as the published networks have it.
MEAN, DEVIATION = 118.380948, 61.896913
# The layers behind the last pooling that each raw output comes from.
_CLASSIFIER = ("classifier1", "classifier_dropout1", "classifier2", "classifier_dropout2")
_REGRESSOR = ("regressor1", "regressor2", "regressor3")
BRANCHES = {
    "class_logits": (*_CLASSIFIER, "classifier3"),
    "background_logit": (*_CLASSIFIER, "classifier_background"),
    "boxes": _REGRESSOR, "boxes_per_class": _REGRESSOR,
}
REGRESSIONS = ("per_class", "single")
PHASES = ("all", "classifier", "regressor")
# A window learns an object of which it shows so much, or which fills so much of it; what scores less than
# the other number is not looked at.
OVERLAP, MIN_SCORE = 0.5, 0.01
NEGATIVES_PER_POSITIVE, BOX_WEIGHT, DROPOUT = 3, 5.0, 0.5


@keras.saving.register_keras_serializable(package="kerasdet")
class OverFeat(Detector):
    """A classifier and a box regressor that slide over the photo.

    `OverFeat(classes, network="accurate", image_size=245)` is the paper's larger network with nine windows
    on the smallest of its scales.

    Args:
        classes: names of the classes, without background.
        network: "fast" or "accurate": layers, windows and pools (appendix, tables 1 and 3).
        backbone: what takes the place of the network's own features, up to the last pooling: a name for
            `backbones.build`, or a keras.Model with an output P4. A 1x1 convolution brings it to the
            1024 channels (times `width`) of the network's last features.
        backbone_weights: "imagenet", a file, a detector on the same backbone, or None (random).
        freeze_bn: a named backbone's batch norms keep their statistics.
        freeze_until: level up to which the backbone is not trained, such as "P2"; None trains all.
        width: factor of all channels but the backbone's.
        window: side of what the classifier sees in pooled cells; None takes the network's.
        image_size: side of the network's square in pixels.
        offsets: pool at every offset (section 3.3); False pools at the first one only.
        background: whether windows may show none of the classes, as detection needs it (section 5).
            Without it a window says which class it shows most of; only windows on objects teach (of one class
            alone nothing but boxes is learned).
        regression: a box for each class ("per_class"), or one for all ("single").
        label_smoothing: how soft the classes, with background among them, are learned, see
            `losses.soft_targets`; 0 as in the paper.
        resize, max_detections, nms_iou: see `Detector`.
        candidates: pairs of window and class that are decoded.

    The raw outputs, for each window, h down and w across: class_logits (.., h, w, classes);
    background_logit (.., h, w, 1), with background; boxes (.., h, w, 4), or boxes_per_class
    (.., h, w, 4 * classes), edges x1, y1, x2, y2 of the object, each as its way from the window's own edge
    in units of the window's side; of several classes x1 comes first for each.

    Differs from the paper: kernels start as by He et al. (2015), not by N(0, .01), at which narrow
    networks do not start to learn; classifier and regressor can be trained at once, and are trained on
    photos of one size; boxes count five times as much as classes; an object of which no window shows half
    is learned by its nearest one.
    """

    def __init__(
        self, classes, *, network="accurate", backbone=None, backbone_weights=None, freeze_bn=True,
        freeze_until=None, width=1.0, window=None, image_size=245, offsets=True, background=True,
        regression="per_class", label_smoothing=0.0, resize="stretch", max_detections=100, nms_iou=0.5,
        candidates=300, name=None,
    ):
        check_smoothing(label_smoothing)
        if network not in NETWORKS:
            raise ValueError(f"network is {network!r}; give one of {', '.join(NETWORKS)}")
        if regression not in REGRESSIONS:
            raise ValueError(f"regression is {regression!r}; give one of {', '.join(REGRESSIONS)}")
        if width <= 0 or (window is not None and window < 1):
            raise ValueError(f"width is {width}, window {window}; give a width above 0, and 1 cell or more")
        plan = NETWORKS[network]
        cells = plan.window if window is None else window
        if backbone is None:
            side = plan.side + (cells - plan.window) * plan.pool * plan.stride
            _check_size(image_size, side, 1)
            body = _features(plan, image_size, width)
        else:
            # P4, as detectors mean it; a model's own is looked at below.
            _check_size(image_size, cells * plan.pool * 16 if isinstance(backbone, str) else 1, 32)
            body, backbone = _backbone(
                backbone, width, weights=backbone_weights, image_size=image_size, freeze_bn=freeze_bn,
                freeze_until=freeze_until,
            )
        take_any_size(body)
        # === Functional Model ===
        images = keras.Input((image_size, image_size, 3), name="images")
        features = body(images)
        stride = plan.stride
        if backbone is not None:
            stride = -(-image_size // features.shape[1])
            side = cells * plan.pool * stride
            _check_size(image_size, side, stride)
        pool = (OffsetMaxPool if offsets else layers.MaxPooling2D)(plan.pool, name="pool")
        units = [max(1, round(count * width)) for count in plan.units]
        heads = _heads(
            pool(features), cells, units, [max(1, round(count * width)) for count in REGRESSOR],
            len(classes), background, regression,
        )
        if offsets:
            heads = {key: Interleave(plan.pool, name=f"all_{key}")(value) for key, value in heads.items()}
        super().__init__(
            images, heads, classes=classes, image_size=image_size, resize=resize,
            max_detections=max_detections, nms_iou=nms_iou, name=name,
        )
        take_any_size(self)
        # === Config ===
        self.pool, self.window_side = plan.pool, side
        self.step = stride if offsets else stride * plan.pool
        self.offsets, self.background, self.regression = offsets, background, regression
        self.label_smoothing = label_smoothing
        h, w = heads["class_logits"].shape[1:3]
        self.candidates = self.decoded(candidates, h * w * len(classes))
        self._config = {
            "classes": list(classes), "network": network, "backbone": backbone, "freeze_bn": freeze_bn,
            "freeze_until": freeze_until, "width": width, "window": window, "image_size": image_size,
            "offsets": offsets, "background": background, "regression": regression,
            "label_smoothing": label_smoothing, "resize": resize, "max_detections": max_detections,
            "nms_iou": nms_iou, "candidates": candidates,
        }
        self._phase = "all"
        self._learns = {id(layer): layer.trainable for layer in leaves(self)}
        self.track_losses("class_loss", "box_loss")

    # === Looking at photos ===

    def classify(self, photos, kind: str = "dense", **options):
        """What photos show, one probability a class; see `kerasdet.views.classify`."""
        from kerasdet import views

        return views.classify(self, photos, kind, **options)

    def localise(self, photos, kind: str = "dense", **options):
        """What photos show and where it is; see `kerasdet.views.localise`."""
        from kerasdet import views

        return views.localise(self, photos, kind, **options)

    def one_window(self) -> keras.Model:
        """The same layers for photos of one window: its raw outputs are (.., 1, 1, channels)."""
        if "window" not in self._inference:
            images = keras.Input((self.window_side, self.window_side, 3), name="images")
            pooled = layers.MaxPooling2D(self.pool)(self.get_layer("features")(images))
            outputs = _branches(pooled, self.output, self.get_layer)
            self._inference["window"] = keras.Model(images, outputs)
        return self._inference["window"]

    def looking(self, size: int, crops: bool = False) -> keras.Model:
        """What the windows of squares show, as one compiled network.

        Args:
            size: side of the squares in pixels.
            crops: they are of one window each, see `one_window`.

        Returns:
            (batch, size, size, 3) RGB 0..255 -> class (batch, h, w, classes), probabilities without
            background's; boxes (batch, h * w, classes, 4), or 1 in place of classes, as the raw outputs.
        """
        if (size, crops) not in self._inference:
            images = keras.Input((size, size, 3), name="images")
            if crops:
                raw = self.one_window()(images)
            else:
                # Not self: a model that holds its holder cannot be walked through.
                again = keras.Model(self.inputs[0], self.output)
                take_any_size(again)
                raw = again(images)
            seen = {"class": self.heads(raw)["class"], "boxes": self.class_boxes(raw)}
            self._inference[size, crops] = for_use(images, seen)
        return self._inference[size, crops]

    # === Training ===

    def train_only(self, phase: str):
        """Chooses what the next `compile` and `fit` train.

        The paper trains the classifier first and then the regressor on features that no longer change
        (section 4.2).

        Args:
            phase: "classifier", with the features; "regressor", with nothing else; or "all".
        """
        if phase not in PHASES:
            raise ValueError(f"phase is {phase!r}; give one of {', '.join(PHASES)}")
        if self._phase == "all":
            # What is frozen now stays so, also what was after this was built.
            self._learns = {id(layer): layer.trainable for layer in leaves(self)}
        self._phase = phase
        for layer in leaves(self):
            regresses = layer.name.startswith("regressor")
            wanted = phase == "all" or regresses == (phase == "regressor")
            layer.trainable = wanted and self._learns[id(layer)]

    def _is_learned(self, layer) -> bool:
        return layer.trainable if self._phase == "all" else self._learns[id(layer)]

    def get_compile_config(self):
        config = super().get_compile_config()
        return None if config is None else config | {"phase": self._phase}

    def compile_from_config(self, config):
        self.train_only(config["phase"])
        super().compile_from_config(config)

    # === Targets ===

    def windows(self, rows: int, columns: int):
        """The windows that the outputs speak of.

        Args:
            rows, columns: h and w of the outputs.

        Returns:
            (h, w, 4) float32 xyxy pixels of the square. The last ones of the later offsets may reach beyond
            it. What padded features see outside their window is not counted.
        """
        y, x = (ops.arange(count, dtype="float32") * self.step for count in (rows, columns))
        x, y = ops.meshgrid(x, y)
        return ops.stack([x, y, x + self.window_side, y + self.window_side], -1)

    def targets(self, targets: dict, rows: int, columns: int) -> dict:
        """What every window learns.

        Args:
            targets: boxes (batch, n, 4) float32 xyxy pixels, labels (batch, n) int32 with -1 in padding
                rows, weights (batch, n), ignore (batch, m, 4).
            rows, columns: h and w of the outputs.

        Returns:
            over the k = h * w windows: positive (batch, k) bool, those that learn an object: all that show
            half of it or more, or of which it fills half or more; and its nearest window, if there is none
            such. Of several objects a window learns the one whose middle is nearest to its own. negative
            (batch, k) bool, those that may learn to be background: neither positive nor with their middle
            in an ignore region; label (batch, k) int32 and weight (batch, k) float32 of the object, 0 where
            there is none; boxes (batch, k, 4), as the raw outputs have them, 0 where there is none.

        Source: section 4.2, which leaves out windows that show less than half of an object. The larger
        scales of a pyramid are for those that are small in their window.
        """
        windows = ops.reshape(self.windows(rows, columns), (-1, 4))
        owner = self._owners(targets["boxes"], targets["labels"] >= 0, windows)
        goal = assign.taught(owner, targets, windows)
        return goal | {"boxes": (goal["boxes"] - windows) / self.window_side}

    def _owners(self, boxes, real, windows):
        """(batch, k) int32: the row of the object that each window learns, or -1."""
        shown = intersection(boxes[:, :, None], windows)
        smaller = ops.minimum(area(boxes)[..., None], area(windows))
        overlap = shown / ops.maximum(smaller, 1e-6)
        apart = (boxes[:, :, None, :2] + boxes[:, :, None, 2:] - windows[:, :2] - windows[:, 2:]) / 2
        distance = ops.sum(ops.square(apart / self.window_side), axis=-1)
        enough = ops.logical_and(overlap >= OVERLAP, real[..., None])
        nearest = ops.cast(ops.argmin(ops.where(enough, distance, 1e6), axis=1), "int32")
        owner = ops.where(ops.any(enough, axis=1), nearest, -1)
        # An object that no window shows enough of takes its nearest one; of two such the smaller. It may be
        # the only one of another object, which is learned nowhere then.
        left = ops.logical_and(real, ops.logical_not(ops.any(enough, axis=-1)))
        choice = ops.cast(ops.argmin(distance, axis=-1), "int32")
        own = assign.claimed(choice, winners(choice, area(boxes), left), windows.shape[0])
        return ops.where(own >= 0, own, owner)

    # === Losses ===

    def loss_parts(self, targets: dict, raw: dict) -> dict:
        """Cross-entropy, and squared distance of boxes (section 4.2), each per object's window.

        Background is learned from those windows that are taken for objects most, three times as many as
        the photo has windows on objects, and three where it has none (section 5: "bootstrapping on the
        fly").
        """
        _, rows, columns, classes = raw["class_logits"].shape
        goal = self.targets(targets, rows, columns)
        weight, total = goal["weight"], ops.maximum(batch_sum(goal["weight"]), 1.0)
        answers = classes + int(self.background)
        logits = ops.reshape(self._logits(raw), (-1, rows * columns, answers))
        truth = goal["label"] + int(self.background)
        hit = class_cross_entropy(truth, logits, self.label_smoothing)
        class_loss = ops.sum(weight * hit) / total
        if self.background:
            class_loss += hard_background(logits, goal, NEGATIVES_PER_POSITIVE, self.label_smoothing) / total
        found = self.class_boxes(raw)
        if self._phase == "classifier":
            # A regressor that does not learn yet is no teacher of the features.
            found = ops.stop_gradient(found)
        error = found - goal["boxes"][..., None, :]
        if self.regression == "per_class":
            error *= ops.one_hot(goal["label"], classes, dtype="float32")[..., None]
        distance = ops.sum(ops.square(error), axis=(-2, -1))
        return {"class_loss": class_loss, "box_loss": BOX_WEIGHT * ops.sum(weight * distance) / total}

    def _logits(self, raw: dict):
        """(batch, h, w, classes), or with background 1 + classes, background first."""
        if not self.background:
            return raw["class_logits"]
        return ops.concatenate([raw["background_logit"], raw["class_logits"]], axis=-1)

    def class_boxes(self, heads: dict):
        """The boxes as the raw outputs have them, (batch, h * w, classes, 4), or 1 in place of classes."""
        if self.regression == "single":
            _, h, w, _ = heads["boxes"].shape
            return ops.reshape(heads["boxes"], (-1, h * w, 1, 4))
        _, h, w, channels = heads["boxes_per_class"].shape
        apart = ops.reshape(heads["boxes_per_class"], (-1, h * w, 4, channels // 4))
        return ops.transpose(apart, (0, 1, 3, 2))

    # === Decoding ===

    def heads(self, raw: dict) -> dict:
        """class (batch, h, w, classes), probabilities without background's; boxes as in raw."""
        boxes = {key: value for key, value in raw.items() if key.startswith("boxes")}
        return {"class": ops.softmax(self._logits(raw), axis=-1)[..., int(self.background) :], **boxes}

    def decode(self, heads: dict) -> dict:
        """The pairs of window and class that score highest, and their boxes."""
        _, h, w, classes = heads["class"].shape
        every = ops.reshape(heads["class"], (-1, h * w, classes))
        scores, row, labels = top_pairs(every, self.candidates, MIN_SCORE)
        boxes = self.class_boxes(heads)
        each = boxes.shape[2]
        moved = at_rows(
            ops.reshape(boxes, (-1, h * w * each, 4)), row * each + labels if each > 1 else row
        )
        windows = ops.take(ops.reshape(self.windows(h, w), (-1, 4)), row, axis=0)
        edges = windows + self.window_side * moved
        # Edges are found one by one; of a small object the right one may come out left of the left one.
        low, high = edges[..., :2], edges[..., 2:]
        boxes = ops.concatenate([ops.minimum(low, high), ops.maximum(low, high)], -1)
        boxes = ops.clip(boxes, 0.0, self.image_size)
        return {"boxes": boxes, "scores": scores, "labels": labels}


# === Network ===


def _check_size(image_size: int, side: int, multiple: int):
    if image_size < side:
        raise ValueError(
            f"image_size is {image_size}; a window is {side} px wide, give {-(-side // multiple) * multiple} "
            "or more"
        )


def feature_layers(plan: Network, width: float = 1.0) -> list[keras.layers.Layer]:
    """The layers up to the map before the last pooling, not yet built."""
    found = []
    for row in plan.features:
        number = len([layer for layer in found if isinstance(layer, layers.Conv2D)])
        if isinstance(row, int):
            found.append(layers.MaxPooling2D(row, name=f"pool{number}"))
            continue
        channels, side, stride, padding = row
        found.append(
            layers.Conv2D(
                max(1, round(channels * width)), side, strides=stride, padding=padding, activation="relu",
                kernel_initializer="he_normal", name=f"conv{number + 1}",
            )
        )
    return found


def map_sizes(network: str, height: int, width: int) -> dict[str, tuple[int, int]]:
    """Sizes of a network's maps on a photo of some size, as tables 3 and 5 have them; nothing is built.

    Args:
        network: "fast" or "accurate".
        height, width: of the photo in pixels.

    Returns:
        (h, w) of: features, before the last pooling; pooled, at each offset; classified, the classifier's
        at each offset; joined, those of all offsets.
    """
    plan = NETWORKS[network]
    shape = (None, height, width, 3)
    for layer in feature_layers(plan):
        shape = layer.compute_output_shape(shape)
    features = shape[1:3]
    pooled = OffsetMaxPool(plan.pool).compute_output_shape(shape)[1:3]
    classified = tuple(cells - plan.window + 1 for cells in pooled)
    joined = tuple(cells * plan.pool for cells in classified)
    return {"features": features, "pooled": pooled, "classified": classified, "joined": joined}


def parameters(network: str, classes: int) -> int:
    """How many numbers a network's features and classifier hold; nothing is built."""
    plan = NETWORKS[network]
    convolutions = [row for row in plan.features if not isinstance(row, int)]
    convolutions = [(channels, side) for channels, side, *_ in convolutions]
    convolutions += [(plan.units[0], plan.window), (plan.units[1], 1), (classes, 1)]
    total, below = 0, 3
    for channels, side in convolutions:
        total += (below * side**2 + 1) * channels
        below = channels
    return total


def _features(plan: Network, image_size: int, width: float) -> keras.Model:
    """The paper's features: RGB 0..255 to the map before the last pooling."""
    images = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / DEVIATION, offset=-MEAN / DEVIATION, name="normalise")(images)
    for layer in feature_layers(plan, width):
        x = layer(x)
    return keras.Model(images, x, name="features")


def _backbone(backbone, width: float, **options):
    """A backbone up to P4 with a 1x1 convolution on it, and what a configuration calls the backbone."""
    body = backbones.resolve(backbone, levels=("P4",), **options)
    # P5 is left out, and with it every layer that only leads there.
    body = keras.Model(body.input, {"P4": body.output["P4"]}, name=body.name)
    squeeze = layers.Conv2D(
        max(1, round(1024 * width)), 1, activation="relu", kernel_initializer="he_normal", name="squeeze"
    )
    features = keras.Model(body.input, squeeze(body.output["P4"]), name="features")
    return features, backbone if isinstance(backbone, str) else body


def _heads(pooled, window: int, units, regressor, classes: int, background: bool, regression: str) -> dict:
    """Fully connected layers as convolutions: the first sees a window, the others are 1x1 (section 3.5)."""

    def dense(count, side, name):
        return layers.Conv2D(count, side, activation="relu", kernel_initializer="he_normal", name=name)

    def output(count, name):
        start = keras.initializers.RandomNormal(stddev=0.01)
        return layers.Conv2D(count, 1, kernel_initializer=start, name=name)

    made = [
        dense(units[0], window, "classifier1"), layers.Dropout(DROPOUT, name="classifier_dropout1"),
        dense(units[1], 1, "classifier2"), layers.Dropout(DROPOUT, name="classifier_dropout2"),
        output(classes, "classifier3"),
        dense(regressor[0], window, "regressor1"), dense(regressor[1], 1, "regressor2"),
        output(4 if regression == "single" else 4 * classes, "regressor3"),
    ]
    if background:
        made.append(output(1, "classifier_background"))
    keys = ["class_logits", *["background_logit"] * background]
    keys.append("boxes" if regression == "single" else "boxes_per_class")
    return _branches(pooled, keys, {layer.name: layer for layer in made}.get)


def _branches(pooled, keys, layer_of) -> dict:
    """The raw outputs by their names; branches that begin alike share what their layers give."""
    results = {(): pooled}
    for key in keys:
        path = BRANCHES[key]
        for end in range(1, len(path) + 1):
            if path[:end] not in results:
                results[path[:end]] = layer_of(path[end - 1])(results[path[: end - 1]])
    return {key: results[BRANCHES[key]] for key in keys}
