"""What a `.tflite` scores in MediaPipe Tasks beside LiteRT, and what MediaPipe's own suppression does to it.

    python bench/mediapipe_ap.py OURS.tflite ... --data DATA [--split val] [--classes cat,dog] [--enlarge 4]

Whatever a file has dropped already, MediaPipe may drop boxes that overlap a surer one. First a file that
gives the same pairs of boxes for every photo tells from which IoU on, within a class and between two, and
which pairs come as one detection with two categories. Then every file goes over the whole set: in LiteRT, in
LiteRT with boxes cut to whole pixels, which is what an app is given by MediaPipe, and in MediaPipe. What a
pixel costs hangs on the photos' size: --enlarge makes them as large as a phone's first.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from common import print_machine, table

# Of each pair of boxes in the file of pairs; the surer one scores .9, the other .8.
IOUS = np.arange(1, 101) / 100
SIDE = 64
WAYS = "LiteRT", "whole pixels", "MediaPipe"


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="OURS.tflite")
    parser.add_argument("--data", required=True, help="folder of photos with boxes, or annotation file")
    parser.add_argument("--split", help="which split; else 'val', 'test' or what there is")
    parser.add_argument("--classes", help="score these only, such as cat,dog")
    parser.add_argument("--as-one-class", help="take all boxes for one class, such as face")
    parser.add_argument("--enlarge", type=int, default=1, help="make photos so many times as wide and high")
    options = parser.parse_args(argv)
    if options.enlarge < 1:
        parser.error(f"--enlarge is {options.enlarge}; give 1 or more")
    from kerasdet import metrics
    from kerasdet.cli_data import held_back
    from kerasdet.deploy import LiteRTDetector
    from kerasdet.deploy.mediapipe import MediaPipeDetector
    from kerasdet.metrics.evaluation import detect_all

    data = held_back(options.data, options.split)
    if options.classes:
        data = data.select(*options.classes.split(","))
    if options.as_one_class:
        data = data.as_one_class(options.as_one_class)
    print_machine()
    for kind, pairs in suppression().items():
        said = (f"from an IoU of {min(ious):.2f} on {what}" if ious else f"none {what}"
                for what, ious in pairs.items())
        print(f"MediaPipe, pairs {kind}: {'; '.join(said)}")
    print()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if options.enlarge > 1:
            data = enlarged(data, options.enlarge, Path(folder))
        for file in options.files:
            ours = list(detect_all(LiteRTDetector(file), data))
            with MediaPipeDetector(file) as detector:
                theirs = list(detect_all(detector, data))
            ways = ours, map(whole_pixels, ours), theirs
            figures = [metrics.coco_metrics(data, found, per_class=False) for found in ways]
            rows.append(
                (Path(file).name, *(f"{each[key]:.4f}" for key in ("AP50", "AP") for each in figures))
            )
    times = f", {options.enlarge} times as wide and high" if options.enlarge > 1 else ""
    print(f"{data.name}, {len(data)} photos{times}, {', '.join(data.classes)}\n")
    table(("file", *(f"{key} {way}" for key in ("AP50", "AP") for way in WAYS)), rows)
    return 0


def enlarged(data, factor: int, folder: Path):
    """The set with each photo so many times as wide and high, written into a folder."""
    import cv2

    from kerasdet import photo
    from kerasdet.data import Dataset

    samples = []
    for number, sample in enumerate(data):
        picture = photo.read(sample.path).repeat(factor, axis=0).repeat(factor, axis=1)
        path = folder / f"{number}.jpg"
        cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        height, width = picture.shape[:2]
        boxes = {key: getattr(sample, key) * factor for key in ("boxes", "ignore", "parts")}
        samples.append(dataclasses.replace(sample, path=str(path), width=width, height=height, **boxes))
    return Dataset(samples, data.classes, data.parts, data.name, str(folder))


def whole_pixels(found):
    """Detections cut to whole pixels, as MediaPipe cuts corner, width and height."""
    from kerasdet.detections import Detections

    corner, sides = np.floor(found.boxes[:, :2]), np.floor(found.boxes[:, 2:] - found.boxes[:, :2])
    boxes = np.concatenate([corner, corner + sides], -1)
    return Detections(boxes, found.scores, found.labels, found.classes)


# === MediaPipe's suppression ===


def suppression() -> dict[str, dict[str, list[float]]]:
    """Kind of pair -> what MediaPipe does -> at which IoUs it does so."""
    from kerasdet.deploy.mediapipe import MediaPipeDetector

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.tflite"
        path.write_bytes(pairs_file())
        with MediaPipeDetector(path) as detector:
            (found,) = detector.detect([np.zeros((1000, 1000, 3), np.uint8)])
    # Each pair has a row of its own in the photo; its height tells which.
    pairs: dict[int, list] = {}
    for box in found.boxes.tolist():
        pairs.setdefault(round(box[1]), []).append(box)
    done = {}
    for kind, first in (("of one class", 0), ("of two classes", len(IOUS))):
        boxes = {float(iou): pairs.get(_top(first + row), []) for row, iou in enumerate(IOUS)}
        done[kind] = {
            "loses the less sure box": [iou for iou, pair in boxes.items() if len(pair) < 2],
            "comes as one detection with two categories": [
                iou for iou, pair in boxes.items() if len(pair) == 2 and pair[0] == pair[1]],
        }
    return done


def _top(row: int) -> int:
    return 5 * row


def pairs_file() -> bytes:
    """A `.tflite` that gives pairs of boxes side by side, of every IoU, of one class and of two."""
    import tensorflow as tf

    from kerasdet.deploy import metadata

    boxes, classes, scores = [], [], []
    for row, (iou, other) in enumerate((iou, other) for other in (0, 1) for iou in IOUS):
        # Boxes of width w, moved by s: (w - s) / (w + s) is their IoU.
        width = 0.4
        shift = width * (1 - iou) / (1 + iou)
        top = _top(row) / 1000
        for label, score, x in ((0, 0.9, 0.0), (other, 0.8, shift)):
            boxes.append((top, x, top + 0.004, x + width))
            classes.append(label)
            scores.append(score)

    @tf.function(input_signature=[tf.TensorSpec((1, SIDE, SIDE, 3), tf.uint8)])
    def detect(image):
        # Without any use of the photo the file would have no input.
        nothing = 0.0 * tf.reduce_mean(tf.cast(image, tf.float32))
        values = (boxes, classes, scores)
        outputs = [tf.constant([value], tf.float32) + nothing for value in values]
        return (*outputs, tf.constant([float(len(boxes))]) + nothing)

    data = tf.lite.TFLiteConverter.from_concrete_functions([detect.get_concrete_function()], detect).convert()
    about = {
        "name": "pairs", "image_size": SIDE, "outputs": "detections", "classes": ["one", "two"], "parts": [],
        "resize": "stretch", "output_names": ["boxes_rel_yxyx", "classes", "scores", "count"],
    }
    return metadata.append_files(metadata.attach(data, about), about)


if __name__ == "__main__":
    raise SystemExit(main())
