"""Detectors of others in a `.tflite`, for the benchmark: COCO's names, and NanoDet-Plus' outputs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kerasdet import photo as photos_
from kerasdet.deploy import verify
from kerasdet.deploy.litert import LiteRTDetector, Runner, to_detections
from kerasdet.deploy.metadata import read_metadata
from kerasdet.deploy.trial import run_once

# COCO numbers its classes from 1 to 90 and leaves ten of these out. Detectors with 90 outputs number them
# from 0; those with 80 close the gaps. Under PASCAL VOC's names, where it has them.
_GAPS = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82}
_NAMED = {
    0: "person", 1: "bicycle", 2: "car", 3: "motorbike", 4: "aeroplane", 5: "bus", 6: "train", 8: "boat",
    15: "bird", 16: "cat", 17: "dog", 18: "horse", 19: "sheep", 20: "cow", 43: "bottle", 61: "chair",
    62: "sofa", 63: "pottedplant", 66: "diningtable", 71: "tvmonitor",
}
COCO_90 = tuple(_NAMED.get(label, f"coco {label + 1}") for label in range(90))
COCO_80 = tuple(name for label, name in enumerate(COCO_90) if label not in _GAPS)


def open_detector(path: str | os.PathLike, threads: int = 2):
    """A `.tflite` of ours or another's as something that detects; one without labels gets COCO's.

    Args:
        path: a file with the four outputs of MediaPipe's contract, one of ours that ends in boxes, or
            NanoDet-Plus with its one output (1, cells, 80 + 4 * 8).
        threads: CPU threads.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a `.tflite`, one with other outputs, or one that takes LiteRT's process down.
    """
    run_once(path)
    about = read_metadata(path)
    if about.get("outputs") is None and NanoDetPlus.fits(path):
        return NanoDetPlus(path, threads)
    return LiteRTDetector(path, threads, classes=about["classes"] or COCO_90)


class NanoDetPlus:
    """NanoDet-Plus, as its authors' exports end: scores of classes and distances to a box's four sides.

    A distance is the expectation of eight bins, times the stride; cells' centres are their upper left
    corners. It takes BGR in float, normalised by ImageNet's means.

    Args:
        path: the file.
        threads: CPU threads.

    Attributes:
        classes, parts, image_size: as of a `LiteRTDetector`.

    Source: Li et al. 2020, Generalized Focal Loss, equation 6, for the bins.
    """

    parts = ()
    _STRIDES, _BINS = (8, 16, 32, 64), 8
    _MEAN, _STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
    _NMS_IOU, _CANDIDATES = 0.6, 100

    def __init__(self, path: str | os.PathLike, threads: int = 2):
        self._runner = Runner(Path(path).read_bytes(), threads)
        self.classes = COCO_80
        self.image_size = self._runner.input_shape[1]
        self._cells = np.concatenate([_grid(self.image_size, stride) for stride in self._STRIDES])

    @classmethod
    def fits(cls, path: str | os.PathLike) -> bool:
        """Whether a file's one output is of NanoDet-Plus' shape."""
        from ai_edge_litert import schema_py_generated as schema

        data = Path(path).read_bytes()
        try:
            verify.check(data)
        except ValueError:  # said by who opens it then
            return False
        graph = schema.Model.GetRootAsModel(data, 0).Subgraphs(0)
        image, output = graph.Tensors(graph.Inputs(0)), graph.Tensors(graph.Outputs(0))
        if graph.OutputsLength() != 1 or image.ShapeLength() != 4 or output.ShapeLength() != 3:
            return False
        # Counted, not laid out: the file may promise any size.
        size = image.Shape(1)
        cells = sum((-(-size // stride)) ** 2 for stride in cls._STRIDES)
        square = [image.Shape(axis) for axis in range(4)] == [1, size, size, 3] and size <= photos_.MAX_SQUARE
        return square and list(output.ShapeAsNumpy()) == [1, cells, len(COCO_80) + 4 * cls._BINS]

    def detect(self, photos, score: float = 0.3, batch_size: int = 1, keep_photo: bool = True):
        """Finds objects on photos, as `LiteRTDetector.detect` does."""
        todo, single = photos_.listed(photos)
        found = [self._detect(photo, score, keep_photo) for photo in todo]
        return found[0] if single else found

    def _detect(self, photo, score, keep_photo):
        picture = photos_.read(photo)
        square, matrix = photos_.to_square(picture, self.image_size, "stretch")
        (output,) = self._runner((square[..., ::-1].astype(np.float32) - self._MEAN) / self._STD)
        found = to_detections(self.decode(output), self, matrix, picture.shape[:2], score, self._NMS_IOU)
        found.photo = picture if keep_photo else None
        found.path = photos_.path_of(photo)
        return found

    def decode(self, output: np.ndarray) -> dict[str, np.ndarray]:
        """The best candidates of an output (cells, 80 + 4 * 8), as a file that ends in boxes gives them."""
        scores, bins = output[:, : len(COCO_80)], output[:, len(COCO_80) :].reshape(-1, 4, self._BINS)
        best = np.argsort(-scores, axis=None, kind="stable")[: self._CANDIDATES * 10]
        rows, classes = np.unravel_index(best, scores.shape)
        shares = np.exp(bins - bins.max(-1, keepdims=True))
        sides = (shares / shares.sum(-1, keepdims=True)) @ np.arange(self._BINS)
        x, y, stride = self._cells.T
        left, top, right, bottom = sides.T * stride
        boxes = np.stack([y - top, x - left, y + bottom, x + right], -1) / self.image_size
        return {
            "boxes_rel_yxyx": np.clip(boxes[rows], 0, 1).astype(np.float32),
            "classes": classes.astype(np.float32), "scores": scores[rows, classes],
        }


def _grid(size: int, stride: int) -> np.ndarray:
    """(cells, 3): x, y and stride of each cell, row by row."""
    y, x = np.mgrid[: -(-size // stride), : -(-size // stride)] * stride
    return np.stack([x.ravel(), y.ravel(), np.full(x.size, stride)], -1)
