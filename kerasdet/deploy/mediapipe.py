"""A `.tflite` in MediaPipe Tasks, with what the library's metrics ask of a detector."""

from __future__ import annotations

import ctypes
import os
import sys

import numpy as np

from kerasdet.detections import Detections

# What MediaPipe links against on Linux -> the package of Debian and Ubuntu that has it.
LIBRARIES = {"libGLESv2.so.2": "libgles2", "libEGL.so.1": "libegl1"}


def missing_packages() -> list[str]:
    """The packages that MediaPipe lacks on this Linux; elsewhere it brings all that it needs."""
    if sys.platform != "linux":
        return []
    missing = []
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(package)
    return missing


class MediaPipeDetector:
    """MediaPipe's ObjectDetector on a file with metadata and labels. It is closed at the end of a `with`.

    Args:
        path: of the file.
        score: boxes below it are left out.

    Raises:
        ImportError: MediaPipe is not installed.
        OSError: a library of the system that it needs is not.
    """

    def __init__(self, path: str | os.PathLike, score: float = 0.0):
        from mediapipe.tasks.python import BaseOptions, vision

        from kerasdet.deploy.metadata import read_metadata

        self.classes = tuple(read_metadata(path)["classes"])
        options = vision.ObjectDetectorOptions(
            base_options=BaseOptions(model_asset_path=str(path)), score_threshold=score, max_results=-1
        )
        try:
            self._detector = vision.ObjectDetector.create_from_options(options)
        except OSError as error:
            raise OSError(
                f"MediaPipe cannot be loaded ({error}); on Debian and Ubuntu: apt-get install "
                + " ".join(LIBRARIES.values())
            ) from error

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._detector.close()

    def detect(
        self, photos, score: float = 0.0, batch_size: int = 1, keep_photo: bool = False
    ) -> list[Detections]:
        """What it finds on each of some photos, files or (H, W, 3) uint8 RGB arrays, looked at one by one;
        they are not kept."""
        return [self._look_at(photo, score) for photo in photos]

    def _look_at(self, photo, score: float) -> Detections:
        import mediapipe

        from kerasdet import photo as photo_

        picture = np.ascontiguousarray(photo_.read(photo))
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)
        boxes, scores, labels = [], [], []
        for found in self._detector.detect(image).detections:
            box = found.bounding_box
            x, y = box.origin_x, box.origin_y
            # Boxes that are the same to the pixel come as one, with a category for each of them.
            for category in found.categories:
                if category.score >= score:
                    boxes.append([x, y, x + box.width, y + box.height])
                    scores.append(category.score)
                    labels.append(self.classes.index(category.category_name))
        return Detections(np.array(boxes, np.float32).reshape(-1, 4), scores, labels, self.classes)
