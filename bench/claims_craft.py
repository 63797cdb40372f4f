"""Arms and tables of `claims.py craft`: the bag of freebies, and what CSP's targets and losses are worth."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
from arms import Arm, Run, rows
from common import table

WRONG = 0.1  # share of objects that are given another class
SCORE = 0.3  # from which a pasted object counts as found
DRAWS = 2000
EPOCHS = 8
# A CenterNet has no label to smooth: its centres are of one class each, and soft already.
TOGETHER = {"yolo_v3_all": "yolo_v3_step", "centernet_mixup": "centernet_step"}
# Squared errors against those that are linear far out: what they are worth early in training.
EARLY = "csp", "csp_l2"
BASELINES = {"centernet": "centernet", "yolo_v3": "yolo_v3", "wrong": "wrong_labels", "csp": "csp"}


def arms(backbone: str) -> dict[str, Arm]:
    center = functools.partial(_centernet, backbone=backbone)
    yolo = functools.partial(_yolo_v3, backbone=backbone)
    soft = {e: functools.partial(yolo, label_smoothing=e) for e in (0.1, 0.6)}
    step = {"schedule": "step"}
    found = {
        "centernet": Arm("CenterNet with a cosine, neither mixup nor smoothing", center),
        "centernet_step": Arm("as centernet, with two steps in place of the cosine", center, train=step),
        "centernet_mixup": Arm("cosine, and mixup by Beta(1.5, 1.5)", center, batches=mixup(1.5)),
        "centernet_half": Arm("as centernet, mixup of half and half", center, batches=mixup(math.inf)),
        "yolo_v3": Arm("YOLOv3 with a cosine, neither mixup nor smoothing", yolo),
        "yolo_v3_step": Arm("as yolo_v3, with two steps in place of the cosine", yolo, train=step),
        "yolo_v3_mixup": Arm("as yolo_v3, mixup by Beta(1.5, 1.5)", yolo, batches=mixup(1.5)),
        "yolo_v3_half": Arm("as yolo_v3, mixup of half and half", yolo, batches=mixup(math.inf)),
        "yolo_v3_smooth_0.1": Arm("as yolo_v3, labels smoothed by .1", soft[0.1]),
        "yolo_v3_smooth_0.6": Arm("as yolo_v3, labels smoothed by .6", soft[0.6]),
        "yolo_v3_all": Arm("cosine, mixup and smoothing by .1", soft[0.1], batches=mixup(1.5)),
        "wrong_labels": Arm("as yolo_v3, a tenth of the objects with a wrong class", yolo, labels=mislabel),
        "wrong_smooth_0.1": Arm("as wrong_labels, smoothed by .1", soft[0.1], labels=mislabel),
        "wrong_smooth_0.6": Arm("as wrong_labels, smoothed by .6", soft[0.6], labels=mislabel),
    }
    csp = functools.partial(_csp, backbone=backbone)
    people = {
        "csp": ("CSP as its paper has it, but with width and head", csp),
        "csp_one_cell": ("as csp, every cell but the centre's is background", _variant(csp, _one_cell)),
        "csp_cross_entropy": ("as csp, plain cross-entropy of centres", _variant(csp, _cross_entropy)),
        "csp_l2": ("as csp, squared errors of scale and offset", _variant(csp, _squared)),
        "csp_height": ("as csp, width is .41 of the height", functools.partial(csp, aspect_ratio=0.41)),
        "csp_no_head": ("as csp, without the head", functools.partial(csp, parts=())),
    }
    return found | {
        name: Arm(about, build, data="people", watched=name in EARLY)
        for name, (about, build) in people.items()
    }


def mixup(alpha: float):
    """Arguments of `Dataset.batches`: mixed until the last tenth of the epochs."""
    from kerasdet.data.augment import Augment

    def batches(epochs: int) -> dict:
        return {"augment": Augment(mixup=alpha), "mix_until": max(1, round(0.9 * epochs))}

    return batches


def mislabel(data):
    """Some objects with a class that is not theirs."""
    from kerasdet.data.dataset import Dataset

    rng = np.random.default_rng(0)
    samples = []
    for sample in data:
        wrong = rng.random(len(sample.labels)) < WRONG
        other = rng.integers(1, len(data.classes), len(sample.labels))
        labels = np.where(wrong, (sample.labels + other) % len(data.classes), sample.labels)
        samples.append(dataclasses.replace(sample, labels=labels.astype(np.int32)))
    return Dataset(samples, data.classes, data.parts, data.name, data.root)


# === Detectors ===


def _centernet(classes, size, weights, *, backbone):
    from kerasdet.models.centernet import CenterNet

    return CenterNet(
        classes, backbone=backbone, backbone_weights=weights, image_size=size, stride=8, neck="light",
        channels=96, target="dense", head_blocks=2,
    )


def _yolo_v3(classes, size, weights, *, backbone, label_smoothing=0.0):
    from kerasdet.models.yolo_v3 import YOLOv3

    return YOLOv3(
        classes, backbone=backbone, backbone_weights=weights, image_size=size, neck="light",
        label_smoothing=label_smoothing,
    )


def _csp(classes, size, weights, *, backbone, parts=("head",), cls=None, **options):
    from kerasdet.models.csp import CSP

    return (cls or CSP)(
        classes, backbone=backbone, backbone_weights=weights, image_size=size, stride=8, neck="light",
        channels=96, parts=parts, resize="letterbox", **options,  # a ratio of width and height is kept by it
    )


def _variant(build, make):
    """`build` of a kind of CSP that is only made when it is built: Keras takes long to import."""
    return lambda *given: build(*given, cls=make())


def _one_cell():
    from keras import ops

    from kerasdet.models.csp import CSP

    class OneCell(CSP):
        def paper_targets(self, targets, cells=None):
            goal = super().paper_targets(targets, cells)
            return goal | {"heat": ops.zeros_like(goal["heat"])}

    return OneCell


def _cross_entropy():
    from keras import ops

    from kerasdet.losses import penalty_reduced_focal
    from kerasdet.models.csp import CSP, PAPER_WEIGHTS

    class CrossEntropy(CSP):
        def loss_parts(self, targets, raw):
            goal = self.paper_targets(targets)
            loss = penalty_reduced_focal(
                raw["center_logits"], goal["heat"], goal["positive"], goal["valid"], alpha=0.0, beta=0.0
            )
            count = ops.maximum(ops.sum(goal["positive"]), 1.0)
            center = PAPER_WEIGHTS["center_loss"] * loss / count
            return super().loss_parts(targets, raw) | {"center_loss": center}

    return CrossEntropy


def _squared():
    from keras import ops

    from kerasdet.boxes import gaussians
    from kerasdet.models.csp import CSP, MIN_LOG_SIDE, PAPER_WEIGHTS

    class Squared(CSP):
        def loss_parts(self, targets, raw):
            goal = self.paper_targets(targets)
            log_side = gaussians.paint(goal["scale_owner"], ops.log(ops.maximum(goal["size"], 1e-3)))
            errors = {
                "scale": (raw["scale"] - log_side) / ops.maximum(log_side, MIN_LOG_SIDE),
                "offset": raw["offset"] - gaussians.paint(goal["centre_owner"], goal["offset"]),
            }
            owners = {"scale": goal["scale_owner"], "offset": goal["centre_owner"]}
            losses = super().loss_parts(targets, raw)
            for name, error in errors.items():
                weight = gaussians.paint(owners[name], targets["weights"][..., None])
                mean = ops.sum(weight * 0.5 * ops.square(error)) / ops.maximum(ops.sum(weight), 1.0)
                losses[f"{name}_loss"] = PAPER_WEIGHTS[f"{name}_loss"] * mean
            return losses

    return Squared


# === Objects in strange scenes ===


def keep(run: Run) -> None:
    """How many objects are found where they do not belong: the lecture's elephant in the room."""
    if run.arm.data == "voc12":
        run.keep("strange", lambda: _in_strange_scenes(run))


def strange_scenes(run: Run) -> list[tuple]:
    """A photo for each validation photo with objects: its largest object, cut out with its box, on the next
    photo.

    Returns:
        list of (picture (H, W, 3) uint8, box (4,) xyxy pixels, label).
    """
    import cv2

    from kerasdet import photo

    rng = np.random.default_rng(0)
    samples = [sample for sample in run.val if len(sample.boxes)]
    scenes = []
    for sample, other in zip(samples, samples[1:] + samples[:1], strict=True):
        sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
        largest = int(np.argmax(sides.prod(axis=1)))
        x1, y1, x2, y2 = sample.boxes[largest].round().astype(int)
        piece, picture = photo.read(sample.path)[y1:y2, x1:x2], photo.read(other.path).copy()
        if not piece.size:
            continue
        scale = 0.4 * min(picture.shape[:2]) / max(piece.shape[:2])
        piece = cv2.resize(piece, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        height, width = piece.shape[:2]
        y, x = rng.integers(0, (picture.shape[0] - height, picture.shape[1] - width))
        picture[y : y + height, x : x + width] = piece
        box = np.array([x, y, x + width, y + height], np.float32)
        scenes.append((picture, box, int(sample.labels[largest])))
    return scenes


def _in_strange_scenes(run: Run) -> list:
    """Of each scene the detection that is the pasted object, where there is one."""
    from kerasdet.detections import Detections
    from kerasdet.metrics.matching import overlaps

    found = []
    for picture, box, label in strange_scenes(run):
        (one,) = run.detector.detect([picture], score=SCORE, keep_photo=False)
        overlap = overlaps(one.boxes, box[None], np.zeros(1, bool))[:, 0]
        hit = np.flatnonzero((overlap >= 0.5) & (one.labels == label))[:1]
        found.append(Detections(one.boxes[hit], one.scores[hit], one.labels[hit], one.classes))
    return found


# === Tables ===


def tables(runs: dict[str, Run]) -> None:
    drawn = {name: run.drawn() for name, run in runs.items()}
    for start, baseline in BASELINES.items():
        if some := {name: drawn[name] for name in drawn if name.startswith(start)}:
            print(f"{baseline} and its variants, photos: {runs[next(iter(some))].photos}")
            _print(some, baseline)
    for together, plain in TOGETHER.items():
        if together in drawn and plain in drawn:
            print(f"{runs[together].arm.about}: all together, against steps and nothing else")
            _print({name: drawn[name] for name in (plain, together)}, plain)
    early = {name: runs[name].by_epoch("AP50") for name in EARLY if name in runs and runs[name].trained}
    if early:
        print("AP50 after each epoch, by the averaged weights")
        lines = [(name, *(f"{value:.3f}" for value in values)) for name, values in early.items()]
        table(("arm", *map(str, range(1, len(lines[0])))), lines)
        print()
    strange = {name: run.drawn("strange", _recalled) for name, run in runs.items() if run.has("strange")}
    for start, baseline in BASELINES.items():
        if some := {name: strange[name] for name in strange if name.startswith(start)}:
            print(f"{baseline} and its variants: objects pasted into another photo, found from {SCORE} on")
            table(("arm", "recall", f"change from {baseline}"), rows(some, ("recall",), baseline))
            print()


def _print(drawn: dict, baseline: str) -> None:
    figures = "AP50", "AP"
    table(("arm", *figures, f"change in AP50 from {baseline}"), rows(drawn, figures, baseline))
    print()


def _recalled(photos, pasted) -> dict[str, np.ndarray]:
    hits = np.array([len(one) for one in pasted], float)
    draws = np.random.default_rng(0).integers(0, len(hits), (DRAWS, len(hits)))
    return {"recall": np.append(hits.mean(), hits[draws].mean(axis=1))}
