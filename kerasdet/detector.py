"""Detector: the one base class. A functional keras.Model that knows photos, boxes and classes."""

from __future__ import annotations

import collections
import copy
import re
import sys
import warnings

import keras
import numpy as np
from keras import ops

from kerasdet import backbones
from kerasdet import photo as photos_
from kerasdet.backbones.common import leaves
from kerasdet.boxes.rows import at_rows
from kerasdet.boxes.suppression import greedy_keep
from kerasdet.detections import Detections
from kerasdet.learner import Learner, in_full, jit_compiled
from kerasdet.names import check_names

BACKENDS = "tensorflow", "jax"

if keras.backend.backend() not in BACKENDS:
    raise ImportError(
        f"Keras runs on {keras.backend.backend()}, and kerasdet's detectors on {' or '.join(BACKENDS)}: "
        "start Python with KERAS_BACKEND=tensorflow"
    )
DEPTHS = ("raw", "boxes", "detections")


class Detector(Learner):
    """A detector: photo in, boxes out; trained with `fit`, written to devices with `export`.

    A subclass builds a functional graph from uint8 or float RGB values 0..255 (batch, S, S, 3) to a
    dict of raw heads and says what to do with them:

    - `heads(raw)`: the dict of head tensors as they are exported (probabilities, not logits);
    - `decode(heads)`: candidates, a dict of `boxes` (batch, K, 4) xyxy pixels of the square, `scores`
      (batch, K) falling, `labels` (batch, K) int32 and, with parts, `parts` (batch, K, P, 4);
    - `loss_parts(targets, raw)`: dict of named float32 scalars, whose sum is the loss: each a sum over the
      batch, divided by `distribution.batch_sum` of what is counted, so that replicas' losses add up;
    - `merge_flipped(heads, mirrored)`, if it can be tested with flipping: the heads of a photo and of
      its mirror image as one;
    - `given_proposals`, if photos have to come with boxes to look at: how many; they are raw["proposals"]
      (batch, n, 4) xyxy pixels of the square, rows of zeros where there are fewer;
    - `look_again(found, raw)`, if it says more of the boxes that are left after suppression;
    - `mask_size`, if it learns outlines: cells along each side of the grid that training gives them in;
    - `_config`: its constructor's arguments, of values that json can hold, and a backbone.

    Args:
        inputs, outputs: of the functional graph.
        classes: names of the classes.
        image_size: side S of the network's square in pixels.
        parts: names of further boxes an object has.
        resize: how a photo becomes the square, "stretch" or "letterbox".
        max_detections: rows of the `detections` output.
        nms_iou: overlap above which the lower of two boxes of a class is dropped; None keeps all.
    """

    # Any multiple is a side of squares that it can be trained on as well; None: only its own size is.
    size_multiple: int | None = None

    def __init__(
        self, inputs, outputs, *, classes, image_size, parts=(), resize="stretch", max_detections=100,
        nms_iou=0.5, name=None,
    ):
        super().__init__(inputs, outputs, name=name)
        check_names("classes", classes)
        check_names("parts", parts)
        if resize not in photos_.RESIZES:
            raise ValueError(f"resize is {resize!r}; give one of {', '.join(photos_.RESIZES)}")
        if nms_iou is not None and not 0 < nms_iou <= 1:
            raise ValueError(f"nms_iou is {nms_iou}; give an overlap, above 0 and up to 1, or None")
        self._settings = {
            "classes": tuple(classes), "image_size": int(image_size), "parts": tuple(parts),
            "resize": resize, "max_detections": int(max_detections), "keep_float": None,
            "nms_iou": None if nms_iou is None else float(nms_iou),
        }
        # The arguments of a subclass's constructor, which the subclass puts here.
        self._config: dict = {}
        self._loss_means: dict[str, keras.metrics.Mean] = {}
        # What a configuration says of frozen layers is what differs from how the detector was built.
        self._frozen_first: list[int] | None = None
        self._ema = None
        # Whether the loss that is being computed is learned from, or only looked at.
        self._learning = True
        self._inference = _Networks()

    classes = property(lambda self: self._settings["classes"], doc="Names of the classes.")
    parts = property(lambda self: self._settings["parts"], doc="Names of the parts of an object.")
    image_size = property(lambda self: self._settings["image_size"], doc="Side of the square, pixels.")
    resize = property(lambda self: self._settings["resize"], doc="How a photo becomes the square.")
    max_detections = property(lambda self: self._settings["max_detections"])
    nms_iou = property(lambda self: self._settings["nms_iou"])

    @property
    def keep_float(self) -> str | None:
        """Layers that int8 files of it leave in float, see `export`; may be set, and is saved with it."""
        return self._settings["keep_float"]

    @keep_float.setter
    def keep_float(self, pattern: str | None):
        if pattern is not None:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise ValueError(f"keep_float is {pattern!r}, no regular expression: {error}") from error
        self._settings["keep_float"] = pattern

    given_proposals = 0
    # Photos that go through the network together, whatever `batch_size` says: more would fill the memory.
    most_at_once = sys.maxsize
    mask_size = 0

    @property
    def named_outputs(self) -> dict:
        """Symbolic outputs of all its networks by name; those of classes are called .._logits, with a channel
        a class, or .._per_class, with several."""
        return dict(self.output)

    # === What a subclass says ===

    def heads(self, raw: dict) -> dict:
        raise NotImplementedError

    def decode(self, heads: dict) -> dict:
        raise NotImplementedError

    def loss_parts(self, targets: dict, raw: dict) -> dict:
        raise NotImplementedError

    def look_again(self, found: dict, raw: dict) -> dict:
        return {}

    def merge_flipped(self, heads: dict, mirrored: dict) -> dict:
        raise ValueError(f"{type(self).__name__} cannot be tested with flipping; leave flip=True out")

    def at_size(self, image_size: int) -> dict:
        """What else changes in the configuration for another image size: its weights have learned sides in
        pixels, so what is given as fractions of the square does."""
        return {}

    # === What a subclass calls ===

    def decoded(self, candidates: int, most: int) -> int:
        """How many candidates a subclass decodes, of as many as there can be; warns of fewer than
        `max_detections`."""
        if candidates < self.max_detections:
            warnings.warn(
                f"max_detections is {self.max_detections}, and only the {candidates} best candidates are "
                f"looked at; to find more, give candidates={self.max_detections}",
                stacklevel=3,
            )
        return min(candidates, most)

    def track_losses(self, *names: str):
        """Makes the running means of the named loss parts; a subclass calls it once it is built."""
        # Keras finds metrics in attributes, shows them and resets them.
        self._loss_means = {name: keras.metrics.Mean(name=name) for name in names}
        self._frozen_first = self._frozen()

    # === Files ===

    def get_config(self):
        config = _plain(dict(self._config, name=self.name))
        if isinstance(config.get("backbone"), keras.Model):
            config["backbone"] = backbones.serialize(config["backbone"])
        if self.keep_float:
            config["keep_float"] = self.keep_float
        if (frozen := self._frozen()) != self._frozen_first:
            config["frozen"] = frozen
        return config

    def _frozen(self) -> list[int]:
        """Which of the layers with weights are not trained: places, since Keras counts some names up."""
        return [place for place, layer in enumerate(self._learning_layers()) if not self._is_learned(layer)]

    def _is_learned(self, layer) -> bool:
        """Whether a layer is trained, apart from what a phase of training leaves out."""
        return layer.trainable

    def _learning_layers(self) -> list:
        return [layer for layer in leaves(self) if layer.weights]

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = copy.deepcopy(config)  # Keras empties what it deserialises
        if isinstance(config.get("backbone"), dict):
            config["backbone"] = backbones.deserialize(config["backbone"], custom_objects)
        keep_float, frozen = config.pop("keep_float", None), config.pop("frozen", None)
        detector = cls(**config)
        detector.keep_float = keep_float
        if frozen is not None:
            for place, layer in enumerate(detector._learning_layers()):
                layer.trainable = place not in frozen
        return detector

    # === Inference ===

    def forward(self, images, outputs="detections", proposals=None) -> dict:
        """The whole graph up to one of three depths, in `keras.ops`.

        Args:
            images: (batch, S, S, 3) uint8 or float, RGB values 0..255.
            outputs: "raw" (the heads), "boxes" (decoded candidates) or "detections" (suppressed).
            proposals: (batch, n, 4) float32 xyxy pixels of the square, for a detector that is given them.

        Returns:
            dict of tensors, in this order:
            raw: the detector's heads;
            boxes: boxes_rel_yxyx (batch, K, 4) in [0, 1], classes (batch, K) float32, scores
            (batch, K) and, with parts, parts_rel_yxyx (batch, K, P, 4);
            detections: boxes_rel_yxyx (batch, N, 4), classes (batch, N) float32, scores (batch, N),
            count (batch,) float32, and what `look_again` adds; rows past count are zeros.
        """
        if outputs not in DEPTHS:
            raise ValueError(f"outputs is {outputs!r}; give one of {', '.join(DEPTHS)}")
        self._check_given(proposals)
        if tuple(images.shape[1:3]) != (self.image_size, self.image_size):
            raise ValueError(
                f"images are {tuple(images.shape)}, and the detector's square has {self.image_size} px a "
                "side; resize them, or make a detector of their size: zoo.adapt(detector, image_size=...)"
            )
        raw = _with_proposals(in_full(self(images, training=False)), proposals)
        heads = self.heads(raw)
        return heads if outputs == "raw" else self.from_heads(heads, outputs, raw)

    def from_heads(self, heads: dict, outputs="detections", raw=None) -> dict:
        """What `forward` gives at the depth "boxes" or "detections", from what it gives at "raw".

        Args:
            heads: see `heads`.
            outputs: "boxes" or "detections".
            raw: the raw outputs, for `look_again`; without them it adds nothing.
        """
        found = self.decode(heads)
        if outputs == "detections":
            found = self._suppress(found)
        result = {
            "boxes_rel_yxyx": self._relative(found["boxes"]),
            "classes": ops.cast(found["labels"], "float32"),
            "scores": found["scores"],
        }
        if outputs == "detections":
            result["count"] = ops.sum(ops.cast(found["scores"] > 0, "float32"), axis=-1)
            if raw is not None:
                result |= self.look_again(found, raw)
        elif self.parts:
            result["parts_rel_yxyx"] = self._relative(found["parts"])
        return result

    def _check_given(self, proposals):
        if bool(self.given_proposals) != (proposals is not None):
            raise ValueError(
                f"{type(self).__name__} needs proposals: boxes to look at on each photo" if proposals is None
                else f"{type(self).__name__} finds its own boxes; leave proposals out"
            )

    def _relative(self, boxes):
        x1, y1, x2, y2 = (boxes[..., i] for i in range(4))
        return ops.clip(ops.stack([y1, x1, y2, x2], -1) / self.image_size, 0.0, 1.0)

    def _suppress(self, found: dict) -> dict:
        """Drops what non-maximum suppression drops; the kept rows come first, zeros fill the rest."""
        scores = found["scores"]
        if self.nms_iou is not None:
            scores = scores * greedy_keep(found["boxes"], scores, found["labels"], self.nms_iou)
        scores, rows = ops.top_k(scores, min(self.max_detections, scores.shape[1]))
        alive = ops.cast(scores > 0, "float32")
        kept = {"scores": scores}
        kept["boxes"] = at_rows(found["boxes"], rows) * alive[..., None]
        labels = at_rows(found["labels"], rows)
        kept["labels"] = labels * ops.cast(alive, labels.dtype)
        if "parts" in found:
            flat = ops.reshape(found["parts"], (-1, found["parts"].shape[1], len(self.parts) * 4))
            taken = ops.reshape(at_rows(flat, rows), (-1, rows.shape[1], len(self.parts), 4))
            kept["parts"] = taken * alive[..., None, None]
        return kept

    def squares(self, pictures: list[np.ndarray], batch_size: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Photos as the network sees them.

        Args:
            pictures: (H, W, 3) uint8 each, `batch_size` of them or fewer.
            batch_size: number of squares to fill up to, unless there is one photo only.

        Returns:
            images (batch, S, S, 3) uint8, and each photo's matrix (2, 3) from photo to square.
        """
        squares, matrices = zip(
            *(photos_.to_square(p, self.image_size, self.resize) for p in pictures), strict=True
        )
        # One shape for one photo and one for batches: each new shape would be traced anew.
        padding = 0 if len(squares) == 1 else batch_size - len(squares)
        return np.pad(np.stack(squares), ((0, padding), (0, 0), (0, 0), (0, 0))), list(matrices)

    def infer(
        self, images: np.ndarray, flip: bool = False, suppress: bool = True, proposals=None
    ) -> dict[str, np.ndarray]:
        """What is found on squares, as arrays.

        Args:
            images: (batch, S, S, 3) uint8 or float32, RGB values 0..255.
            flip: decode the mean of the photos' and their mirror images' heads.
            suppress: leave out what non-maximum suppression drops.
            proposals: (batch, n, 4) float32 xyxy pixels of the square, for a detector that is given them.

        Returns:
            boxes (batch, n, 4) xyxy pixels of the square, scores (batch, n), 0 in rows that hold nothing,
            labels (batch, n) and, with parts, parts (batch, n, P, 4); if suppressed, what `look_again` adds.
        """
        self._check_given(proposals)
        key = (flip, suppress)
        if key not in self._inference:
            inputs, given = [self.inputs[0]], None
            if proposals is not None:
                given = keras.Input((self.given_proposals, 4), name="proposals")
                inputs.append(given)
            raw = _with_proposals(in_full(self.output), given)
            heads = self.heads(raw)
            if flip:
                again = keras.Model(inputs, heads)
                heads = self.merge_flipped(heads, again(ops.flip(self.inputs[0], axis=2)))
            found = self.decode(heads)
            if suppress:
                found = self._suppress(found)
                found |= self.look_again(found, raw)
            self._inference[key] = for_use(inputs, found)
        given = images if proposals is None else [images, proposals]
        found = self._inference[key].predict_on_batch(given)
        return {name: np.asarray(value) for name, value in found.items()}

    def detect(
        self, photos, score: float = 0.3, batch_size: int = 16, keep_photo: bool = True, flip: bool = False,
        proposals=None,
    ):
        """Finds objects on photos.

        Args:
            photos: path, array (H, W, 3) uint8 RGB, or a list of either.
            score: what scores lower is left out.
            batch_size: photos that go through the network together.
            keep_photo: False lets go of the pixels, so that a long list stays small; what was found
                can then be drawn only if the photo came as a path.
            flip: look at each photo's mirror image too and decode the mean of both: a little better,
                twice the time. For CenterNet.
            proposals: for a detector that is given them (`FastRCNN`), boxes (n, 4) xyxy in the photo's
                pixels, the best first; a list of them for a list of photos. None finds them by
                `data.selective_search`.

        Returns:
            `Detections` of the photo, or a list of them for a list.

        Raises:
            FileNotFoundError, ValueError: a photo cannot be read (see `kerasdet.photo.read`).
            ValueError: flip, of a detector that has no means of two; proposals that are not one array a
                photo, or are given to a detector that finds its own.
        """
        todo, single = photos_.listed(photos)
        if proposals is not None:
            proposals = [proposals] if single else list(proposals)
            if len(proposals) != len(todo):
                raise ValueError(f"proposals are {len(proposals)} arrays for {len(todo)} photos")
        found = []
        batch_size = min(batch_size, self.most_at_once)
        for start in range(0, len(todo), batch_size):
            some = slice(start, start + batch_size)
            boxes = proposals and proposals[some]
            found += self._detect_batch(todo[some], boxes, score, batch_size, keep_photo, flip)
        return found[0] if single else found

    def _detect_batch(self, todo, proposals, score, batch_size, keep_photo, flip) -> list[Detections]:
        pictures = [photos_.read(photo) for photo in todo]
        images, matrices = self.squares(pictures, batch_size)
        if self.given_proposals:
            proposals = self._squared_proposals(pictures, matrices, proposals, len(images))
        result = self.infer(images, flip, proposals=proposals)
        return [
            self._detections(i, result, photo, picture, matrix, score, keep_photo)
            for i, (photo, picture, matrix) in enumerate(zip(todo, pictures, matrices, strict=True))
        ]

    def _squared_proposals(self, pictures, matrices, proposals, count: int) -> np.ndarray:
        """Proposals (count, n, 4) as the network sees them; rows of zeros fill up."""
        from kerasdet.data import selective_search

        if proposals is None:
            proposals = [selective_search(picture, self.given_proposals) for picture in pictures]
        rows = np.zeros((count, self.given_proposals, 4), np.float32)
        for row, boxes, matrix in zip(rows, proposals, matrices, strict=False):
            moved = photos_.transform_boxes(np.asarray(boxes, np.float32).reshape(-1, 4), matrix)
            moved = np.clip(moved, 0, self.image_size)[: len(row)]
            row[: len(moved)] = moved
        return rows

    def _detections(self, i, result, photo, picture, matrix, score, keep_photo) -> Detections:
        scores = result["scores"][i]
        keep = (scores > 0) & (scores >= score)
        size = picture.shape[:2]
        parts = {
            name: photos_.boxes_to_photo(result["parts"][i][keep][:, column], matrix, size)
            for column, name in enumerate(self.parts)
        }
        return Detections(
            boxes=photos_.boxes_to_photo(result["boxes"][i][keep], matrix, size),
            scores=scores[keep], labels=result["labels"][i][keep].astype(np.int32),
            classes=self.classes, parts=parts, photo=picture if keep_photo else None,
            path=photos_.path_of(photo),
        )

    def evaluate_detections(
        self, dataset, batch_size: int = 16, flip: bool = False, voc: bool = False
    ) -> dict[str, float]:
        """COCO's average precisions (and MR^-2 where there are people) on a labelled set.

        See `kerasdet.metrics.evaluate` for the keys and voc, `detect` for flip.
        """
        from kerasdet import metrics

        return metrics.evaluate(self, dataset, batch_size=batch_size, voc=voc, flip=flip)

    def export(self, path, **options):
        """Writes the detector for a device: `.tflite`, or a SavedModel folder. See `deploy.export`."""
        from kerasdet import deploy

        return deploy.export(self, path, **options)


class _Networks(collections.UserDict):
    """Networks that were made of a detector's layers, by what they give.

    No dict: Keras looks into those for layers, and would take what these networks bring, such as their
    inputs, for the detector's own.
    """


def _with_proposals(raw, proposals):
    """The raw outputs, and what the photos came with."""
    raw = dict(raw) if isinstance(raw, dict) else raw
    return raw if proposals is None else raw | {"proposals": ops.cast(proposals, "float32")}


def _plain(value):
    """Lists and dicts as Python's own: Keras' wrap the model's, and copying one copies the model."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def for_use(inputs, outputs) -> keras.Model:
    """A network for `predict_on_batch`, compiled as detectors are."""
    network = keras.Model(inputs, outputs)
    network.compile(jit_compile=jit_compiled())
    return network


