"""A detector of coloured discs with its weights set by hand, and photos of such discs.

It stands in for a trained detector: it finds red and blue discs of 28 px (at 96 px input) with one
clear peak each, so that boxes, int8 and AP can be tested without training. Everything that
`kerasdet.deploy` needs of a detector is here, and no more.
"""

import keras
import numpy as np
from keras import ops

from kerasdet import photo as photos_
from kerasdet.data.dataset import Dataset
from kerasdet.data.sample import Sample
from kerasdet.deploy.litert import to_detections

SIZE, STRIDE, DIAMETER, TOP = 96, 8, 28, 8
CLASSES = ("red", "blue")


class DiscDetector:
    classes, parts = CLASSES, ("core",)
    image_size, resize, nms_iou = SIZE, "stretch", 0.5
    keep_float = None

    def __init__(self):
        conv = keras.layers.Conv2D
        inputs = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.Rescaling(1 / 127.5, -1.0)(inputs)
        x = conv(2, 5, strides=4, padding="same", activation="relu", name="colour")(x)
        blur = {"padding": "same", "use_bias": False}
        x = keras.layers.DepthwiseConv2D(5, strides=2, name="blur", **blur)(x)
        x = keras.layers.DepthwiseConv2D(5, name="smooth", **blur)(x)
        x = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)  # as necks do
        x = conv(2, 2, strides=2, name="mean")(x)
        heads = {"center": 2, "scale": 2, "offset": 2, "core_scale": 2, "core_offset": 2}
        self.model = keras.Model(inputs, {k: conv(n, 1, name=k)(x) for k, n in heads.items()})
        kernel = np.zeros((5, 5, 3, 2), "float32")
        kernel[..., 0], kernel[..., 1] = (0.5, -0.25, -0.25), (-0.25, -0.25, 0.5)
        self._set("colour", kernel / 25, np.full(2, -0.1))
        line = np.exp(-(np.arange(-2, 3) ** 2) / 3.0)
        bell = np.outer(line, line) / line.sum() ** 2
        for name in ("blur", "smooth"):
            self._set(name, np.repeat(bell[:, :, None, None], 2, 2))
        self._set("mean", np.tile(np.eye(2) / 4, (2, 2, 1, 1)), np.zeros(2))
        spread = np.array([[1.0, -1.0], [1.0, -1.0]], "float32")[None, None]
        self._set("center", 30 * np.eye(2)[None, None], np.full(2, -5.0))
        self._set("scale", 0.1 * spread, np.full(2, np.log(DIAMETER / STRIDE)))
        self._set("offset", 0.05 * spread, np.zeros(2))
        self._set("core_scale", 0.08 * spread, np.full(2, np.log(DIAMETER / STRIDE / 2)))
        self._set("core_offset", 0.03 * spread, np.zeros(2))

    def _set(self, layer, *weights):
        self.model.get_layer(layer).set_weights(weights)

    def forward(self, images, outputs="detections"):
        raw = self.model(ops.cast(images, "float32"), training=False)
        raw["center"] = ops.sigmoid(raw["center"])
        if outputs == "raw":
            return {k: raw[k] for k in ("center", "scale", "offset", "core_scale", "core_offset")}
        return self.from_heads(raw, outputs)

    def from_heads(self, raw, outputs="detections"):
        side = SIZE // STRIDE
        peaks = ops.max_pool(raw["center"], 3, 1, "same")
        heat = ops.where(ops.equal(peaks, raw["center"]), raw["center"], 0.0)
        scores, index = ops.top_k(ops.reshape(heat, (-1, side * side * 2)), TOP)
        cell, classes = index // 2, ops.cast(index % 2, "float32")
        boxes = self._boxes(raw, "", cell, side)
        if outputs == "boxes":
            parts = ops.expand_dims(self._boxes(raw, "core_", cell, side), 2)
            named = {"boxes_rel_yxyx": boxes, "classes": classes, "scores": scores}
            return named | {"parts_rel_yxyx": parts}
        live = ops.cast(scores >= 0.1, "float32")
        return {
            "boxes_rel_yxyx": boxes * live[..., None],
            "classes": classes * live,
            "scores": scores * live,
            "count": ops.sum(live, 1),
        }

    def _boxes(self, raw, prefix, cell, side):
        def at(name):
            flat = ops.reshape(raw[prefix + name], (-1, side * side, 2))
            return ops.take_along_axis(flat, cell[..., None], 1)

        place = ops.stack([ops.cast(cell // side, "float32"), ops.cast(cell % side, "float32")], -1)
        centre, half = place + 0.5 + at("offset"), ops.exp(at("scale")) / 2
        return ops.clip(ops.concatenate([centre - half, centre + half], -1) / side, 0.0, 1.0)

    def detect(self, photos, score=0.3):
        found = []
        for photo in photos:
            square, matrix = photos_.to_square(photo, SIZE, self.resize)
            outputs = {k: np.asarray(v)[0] for k, v in self.forward(square[None]).items()}
            found.append(to_detections(outputs, self, matrix, photo.shape[:2], score, None))
        return found


def photo(seed, scale=1):
    """(96 * scale, 96 * scale, 3) uint8 with one to four discs, and their boxes and labels."""
    rng = np.random.default_rng(seed)
    image = rng.integers(90, 150, (12, 12, 3)).astype(np.uint8)
    image = image.repeat(8 * scale, 0).repeat(8 * scale, 1)
    y, x = (np.mgrid[: SIZE * scale, : SIZE * scale] + 0.5) / scale
    boxes, labels = [], []
    for slot in rng.permutation(4)[: rng.integers(1, 5)]:
        # Centres at the middle of a cell, one in each quarter of the photo.
        cy, cx = 24 + 48 * (slot // 2) - 4, 24 + 48 * (slot % 2) - 4
        label = int(rng.integers(2))
        disc = (y - cy) ** 2 + (x - cx) ** 2 < (DIAMETER / 2) ** 2
        image[disc] = rng.integers(0, 60, 3)
        image[disc, (0, 2)[label]] = rng.integers(180, 256)
        half = DIAMETER / 2
        boxes.append(np.array([cx - half, cy - half, cx + half, cy + half]) * scale)
        labels.append(label)
    return image, np.array(boxes, "float32"), np.array(labels, "int32")


def photos(count):
    return [photo(seed)[0] for seed in range(count)]


def dataset(folder, count):
    """A labelled set of disc photos written into `folder`."""
    from PIL import Image

    samples = []
    for seed in range(count):
        image, boxes, labels = photo(seed)
        path = folder / f"{seed}.png"
        Image.fromarray(image).save(path)
        samples.append(Sample(str(path), boxes, labels, width=SIZE, height=SIZE, image_id=seed))
    return Dataset(samples, CLASSES, name="discs")
