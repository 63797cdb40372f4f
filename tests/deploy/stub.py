"""A small duck-typed detector for the export tests: centre heads on MobileNetV2, nothing trained.

Its centre head is calibrated so that a handful of cells pass .3 on any photo; weights are drawn
from a fixed seed, so every run exports the same network.
"""

import keras
import numpy as np
from keras import ops


class StubDetector:
    """What `kerasdet.deploy.export` needs of a detector and no more.

    Peaks by 3x3 max-pool, top-k, then suppression unrolled over the k sorted boxes.
    """

    def __init__(self, image_size=96, alpha=0.35, classes=("person",), parts=("head",), top=20):
        self.image_size, self.classes, self.parts = image_size, tuple(classes), tuple(parts)
        self.resize, self.top = "stretch", top
        keras.utils.set_random_seed(3)
        base = keras.applications.MobileNetV2(
            (image_size, image_size, 3), alpha=alpha, include_top=False, weights=None
        )
        inputs = keras.Input((image_size, image_size, 3))
        body = keras.Model(base.input, base.get_layer("block_6_expand_relu").output, name="body")
        x = body(keras.layers.Rescaling(1 / 127.5, -1.0)(inputs))
        x = keras.layers.Conv2D(24, 3, padding="same", activation="relu", name="neck")(x)
        heads = {"center": len(self.classes), "scale": 2, "offset": 2}
        if self.parts:
            heads |= {"head_scale": 2, "head_offset": 2}
        self.stride = 8
        self.model = keras.Model(
            inputs, {k: keras.layers.Conv2D(n, 1, name=k)(x) for k, n in heads.items()}
        )
        self._settle()

    def _settle(self):
        """Scales every head on one noise photo, so that logits and sizes have a natural spread."""
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (4, 12, 12, 3)).astype("float32")
        photos = ops.image.resize(coarse, (self.image_size, self.image_size))
        for _ in range(30):  # batch statistics of the untrained body
            self.model(photos, training=True)
        out = self.model(photos)
        wanted = {"center": (-3.0, 1.5), "scale": (1.3, 0.2), "offset": (0.0, 0.2)}
        for name, value in out.items():
            mean, std = wanted.get(name, (0.3, 0.1) if "scale" in name else (0.0, 0.3))
            value = ops.convert_to_numpy(value)
            layer = self.model.get_layer(name)
            kernel, _ = layer.get_weights()
            ratio = std / value.std((0, 1, 2))
            layer.set_weights([kernel * ratio, mean - value.mean((0, 1, 2)) * ratio])

    def forward(self, images, outputs="detections"):
        raw = self.model(ops.cast(images, "float32"), training=False)
        raw["center"] = ops.sigmoid(raw["center"])
        if outputs == "raw":
            return raw
        size, k = self.image_size // self.stride, self.top
        peaks = ops.max_pool(raw["center"], 3, 1, "same")
        heat = ops.where(ops.equal(peaks, raw["center"]), raw["center"], 0.0)
        scores, index = ops.top_k(ops.reshape(heat, (-1, size * size * len(self.classes))), k)
        cell = index // len(self.classes)
        classes = ops.cast(index % len(self.classes), "float32")
        column, row = ops.cast(cell % size, "float32"), ops.cast(cell // size, "float32")

        def boxes_of(prefix=""):
            scale = self._take(raw[prefix + "scale"], cell)
            offset = self._take(raw[prefix + "offset"], cell)
            y = (row + 0.5 + offset[..., 0]) / size
            x = (column + 0.5 + offset[..., 1]) / size
            h, w = ops.exp(scale[..., 0]) / size, ops.exp(scale[..., 1]) / size
            boxes = ops.stack([y - h / 2, x - w / 2, y + h / 2, x + w / 2], -1)
            return ops.clip(boxes, 0.0, 1.0)

        boxes = boxes_of()
        if outputs == "boxes":
            result = {"boxes_rel_yxyx": boxes, "classes": classes, "scores": scores}
            if self.parts:
                result["parts_rel_yxyx"] = ops.expand_dims(boxes_of("head_"), 2)
            return result
        keep = self._suppress(boxes)
        scores, order = ops.top_k(scores * keep, k)
        live = ops.cast(scores > 0.01, "float32")
        return {
            "boxes_rel_yxyx": ops.take_along_axis(boxes, order[..., None], 1) * live[..., None],
            "classes": ops.take_along_axis(classes, order, 1) * live,
            "scores": scores * live,
            "count": ops.sum(live, 1),
        }

    def _take(self, values, cell):
        flat = ops.reshape(values, (-1, values.shape[1] * values.shape[2], values.shape[3]))
        return ops.take_along_axis(flat, cell[..., None], 1)

    def _suppress(self, boxes, iou=0.5):
        top = ops.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
        end = ops.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
        side = ops.maximum(end - top, 0.0)
        inter = side[..., 0] * side[..., 1]
        area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        overlap = inter / (area[:, :, None] + area[:, None] - inter + 1e-9)
        hits = ops.cast(overlap > iou, "float32")
        keep = ops.ones_like(area)
        for i in range(boxes.shape[1] - 1):
            later = np.float32(np.arange(boxes.shape[1]) > i)
            keep = keep * (1.0 - hits[:, i] * later * keep[:, i : i + 1])
        return keep

    def detect(self, photos, score=0.3, batch_size=1, keep_photo=False):
        from kerasdet import photo as photo_lib
        from kerasdet.detections import Detections

        found = []
        for item in photos:
            image = photo_lib.read(item)
            square, matrix = photo_lib.to_square(image, self.image_size, self.resize)
            out = {k: np.array(v)[0] for k, v in self.forward(square[None], "detections").items()}
            keep = out["scores"] >= score
            boxes = out["boxes_rel_yxyx"][keep][:, [1, 0, 3, 2]] * self.image_size
            found.append(
                Detections(
                    boxes=photo_lib.boxes_to_photo(boxes, matrix, image.shape[:2]),
                    scores=out["scores"][keep],
                    labels=out["classes"][keep].astype(np.int32),
                    classes=self.classes,
                    parts={},
                    photo=image if keep_photo else None,
                    path=None,
                )
            )
        return found
