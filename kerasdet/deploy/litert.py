"""LiteRTDetector: runs a `.tflite` on photos. Needs neither Keras nor TensorFlow."""

from __future__ import annotations

import os
import threading

import numpy as np

from kerasdet import photo as photos_
from kerasdet.deploy import metadata, verify
from kerasdet.detections import Detections

CONTRACT = ("boxes_rel_yxyx", "classes", "scores", "count")
# Names for the classes of a file without labels: their numbers.
_UNNAMED = tuple(str(i) for i in range(1000))


class LiteRTDetector:
    """A detector in a `.tflite` file: ours, or another's with the four outputs MediaPipe asks for.

    Args:
        path: the file.
        threads: CPU threads an inference uses.
        classes: names for the classes; None takes the file's labels, or numbers where it has none.

    Attributes:
        classes, parts, image_size, resize: as of a `Detector`; parts is empty unless the file holds
            them.
        dtype: of the images that the file takes, "uint8" or "float32"; `detect` takes uint8 all the same.
        outputs: the depth at which the file ends, "boxes" or "detections" ("raw" cannot be run).
        about: what the file says of itself, see `read_metadata`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a `.tflite`, one that ends in raw heads, other outputs than four, or other images
            and numbers than it can be sure of.
        ImportError: ai-edge-litert is missing.
    """

    def __init__(self, path, threads: int = 2, classes=None):
        self.path = os.fspath(path)
        self.about = metadata.read_metadata(path)
        self.outputs = self.about.get("outputs", "detections")
        if self.outputs == "raw":
            raise ValueError(
                f"{self.path}: ends in raw heads, which only the detector's own code decodes; "
                "export it with outputs='boxes' or 'detections' to run it here"
            )
        with open(path, "rb") as file:
            data = file.read()
        try:
            verify.check(data)
        except ValueError as error:
            raise ValueError(
                f"{self.path}: cannot be run, {error}; make or fetch the file again"
            ) from error
        try:
            self._runner = Runner(data, threads)
        except (ValueError, RuntimeError, MemoryError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{self.path}: LiteRT cannot run it ({reason}); is it complete?") from error
        self.resize = self.about.get("resize", "stretch")
        self.parts = self.about.get("parts", ()) if self.outputs == "boxes" else ()
        self._names = CONTRACT
        if self.outputs == "boxes":
            self._names = (*CONTRACT[:3], "parts_rel_yxyx") if self.parts else CONTRACT[:3]
        self.image_size = self._check_shapes()
        self.classes = tuple(classes or self.about["classes"] or _UNNAMED)
        self.unnamed = self.classes == _UNNAMED
        self._normalise = None
        self.dtype = np.dtype(self._runner.dtype).name
        if self.dtype == "float32" and "outputs" not in self.about:
            self._normalise = self._foreign_normalization()

    def _check_shapes(self) -> int:
        shape = self._runner.input_shape
        if len(shape) != 4 or shape[0] != 1 or shape[1] != shape[2] or shape[1] < 1 or shape[3] != 3:
            raise ValueError(
                f"{self.path}: takes images of {'x'.join(map(str, shape[1:]))}; only square RGB works"
            )
        kinds = {np.dtype(kind) for kind in self._runner.output_dtypes}
        if self._runner.dtype not in (np.uint8, np.float32) or kinds != {np.dtype(np.float32)}:
            # What another's eight bits stand for, pixels or boxes, nothing says for sure.
            raise ValueError(
                f"{self.path}: takes {np.dtype(self._runner.dtype)} and gives "
                f"{', '.join(sorted(map(str, kinds)))}; only images of uint8 or float32 and outputs of "
                "float32 work, convert it so (inference_input_type, inference_output_type of the converter)"
            )
        shapes = self._runner.output_shapes
        rows = shapes[0][1] if len(shapes[0]) == 3 else 0
        wanted = [(1, rows, 4), (1, rows), (1, rows)]
        if self.outputs == "detections":
            wanted.append((1,))
        elif self.parts:
            wanted.append((1, rows, len(self.parts), 4))
        if shapes != wanted:
            last = {"count": "(1,)", "parts_rel_yxyx": f"(1, n, {len(self.parts)}, 4)"}
            sides = ["(1, n, 4)", "(1, n)", "(1, n)", last.get(self._names[-1])]
            needed = ", ".join(f"{name} {side}" for name, side in zip(self._names, sides, strict=False))
            number = "four" if len(wanted) == 4 else "three"
            raise ValueError(
                f"{self.path}: outputs have the shapes {shapes}; {number} are needed, in this order: {needed}"
            )
        return shape[1]

    def _foreign_normalization(self):
        found = self.about["normalization"]
        if found is None:
            raise ValueError(
                f"{self.path}: takes float images but does not say how they are normalised; "
                "use a file with TFLite metadata or with uint8 input"
            )
        mean, std = (np.asarray(values, np.float32) for values in found)
        right = all(values.shape in ((1,), (3,)) and np.isfinite(values).all() for values in (mean, std))
        if not right or not (std > 0).all():
            raise ValueError(
                f"{self.path}: says that images are normalised by {mean.tolist()} and {std.tolist()}; mean "
                "and standard deviation are one number each or three, the latter above 0"
            )
        return lambda image: (image - mean) / std

    def run(self, square: np.ndarray) -> dict[str, np.ndarray]:
        """The file's outputs by name, without the batch axis, for (S, S, 3) uint8 RGB."""
        if self._normalise is not None:
            square = self._normalise(square.astype(np.float32))
        try:
            found = self._runner(square)
        except RuntimeError as error:
            raise ValueError(f"{self.path}: LiteRT cannot run it ({' '.join(str(error).split())})") from error
        shapes = [(1, *array.shape) for array in found]
        if shapes != self._runner.output_shapes:
            raise ValueError(f"{self.path}: gave outputs of {shapes}, not {self._runner.output_shapes}")
        return dict(zip(self._names, found, strict=True))

    def detect(self, photos, score: float = 0.3, batch_size: int = 1, keep_photo: bool = True):
        """Finds objects on photos, as `Detector.detect` does.

        Args:
            photos: path, array (H, W, 3) uint8 RGB, or a list of either.
            score: what scores lower is left out.
            batch_size: taken so that calls need not differ; the file runs one photo at a time.
            keep_photo: False lets go of the pixels, so that a long list stays small.

        Returns:
            `Detections` of the photo, or a list of them for a list.
        """
        todo, single = photos_.listed(photos)
        found = [self._detect(photo, score, keep_photo) for photo in todo]
        return found[0] if single else found

    def _detect(self, photo, score, keep_photo) -> Detections:
        picture = photos_.read(photo)
        square, matrix = photos_.to_square(picture, self.image_size, self.resize)
        raw, nms_iou = self.run(square), self.about.get("nms_iou")
        try:
            found = to_detections(raw, self, matrix, picture.shape[:2], score, nms_iou)
        except ValueError as error:  # a label without a name
            raise ValueError(f"{self.path}: {error}") from error
        found.photo = picture if keep_photo else None
        found.path = photos_.path_of(photo)
        return found

    def evaluate_detections(self, dataset, batch_size: int = 16) -> dict[str, float]:
        """COCO's average precisions on a labelled set, as `Detector.evaluate_detections` gives."""
        from kerasdet import metrics

        return metrics.evaluate(self, dataset, batch_size=batch_size)


class Runner:
    """A LiteRT interpreter for a model in memory: (S, S, 3) in, list of arrays out.

    Threads may share one; they take turns, since the interpreter has one place for what goes in and out.
    """

    def __init__(self, data: bytes, threads: int = 2):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ImportError(
                "running a .tflite needs ai-edge-litert; install it: pip install ai-edge-litert"
            ) from error
        self._interpreter = Interpreter(model_content=data, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._turn = threading.Lock()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()
        self.dtype = self._input["dtype"]
        self.input_shape = tuple(int(n) for n in self._input["shape"])
        self.output_shapes = [tuple(int(n) for n in o["shape"]) for o in self._outputs]
        self.output_dtypes = [o["dtype"] for o in self._outputs]

    def __call__(self, square: np.ndarray) -> list[np.ndarray]:
        with self._turn:
            self._interpreter.set_tensor(self._input["index"], square[None].astype(self.dtype))
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(o["index"])[0] for o in self._outputs]


def to_detections(found: dict, detector, matrix, photo_size, score, nms_iou) -> Detections:
    """Makes `Detections` of one photo's outputs at the depth "detections" or "boxes".

    Args:
        found: the outputs by name, without batch axis; boxes that are only decoded (no `count`) go
            through non-maximum suppression here.
        detector: has `classes`, `parts` and `image_size`.
        matrix: (2, 3), from photo to square.
        photo_size: (H, W).
        score: what scores lower is left out.
        nms_iou: overlap above which the lower of two boxes of a class is dropped; None keeps all.
    """
    scores = np.asarray(found["scores"])
    boxes = np.asarray(found["boxes_rel_yxyx"])
    # Another's file may say anything: what is no number, or ends before it begins, is no box.
    sound = np.isfinite(boxes).all(-1) & np.isfinite(scores) & (boxes[:, :2] <= boxes[:, 2:]).all(-1)
    labels = np.rint(np.nan_to_num(found["classes"], nan=-1)).clip(-1, 1e9).astype(np.int32)
    rows = np.flatnonzero(sound & (scores > 0) & (scores >= score))
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    if "count" in found:
        rows = rows[rows < np.nan_to_num(found["count"])]
    elif nms_iou is not None:
        rows = rows[suppress(boxes[rows], labels[rows], nms_iou)]

    def to_photo(relative):
        pixels = np.reshape(relative, (-1, 4))[:, [1, 0, 3, 2]] * detector.image_size
        return photos_.boxes_to_photo(pixels, matrix, photo_size)

    parts = {}
    if "parts_rel_yxyx" in found:
        of_rows = np.asarray(found["parts_rel_yxyx"])[rows]
        parts = {name: to_photo(of_rows[:, i]) for i, name in enumerate(detector.parts)}
    return Detections(
        boxes=to_photo(boxes[rows]),
        scores=scores[rows],
        labels=labels[rows],
        classes=detector.classes,
        parts=parts,
    )


def suppress(boxes: np.ndarray, labels: np.ndarray, iou: float) -> list[int]:
    """Rows that greedy non-maximum suppression keeps, class by class.

    Args:
        boxes: (n, 4) corners, by falling score.
        labels: (n,).
        iou: overlap above which a row falls to a kept one before it.
    """
    overlap = iou_matrix(boxes, boxes) > iou
    clash = overlap & (labels[:, None] == labels[None])
    kept = []
    for row in range(len(boxes)):
        if not clash[row, kept].any():
            kept.append(row)
    return kept


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Overlap of every box of `a` (n, 4) with every box of `b` (m, 4): (n, m)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), -1)
    areas = [np.prod(np.clip(x[:, 2:] - x[:, :2], 0, None), -1) for x in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)
