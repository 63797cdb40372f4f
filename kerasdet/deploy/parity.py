"""Does the exported file do what the detector does? The same photos through both."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from kerasdet import photo as photos_
from kerasdet.deploy.convert import given_proposals
from kerasdet.deploy.litert import iou_matrix, to_detections
from kerasdet.deploy.report import Parity

MATCH_IOU = 0.8
SURE = 0.3  # what scores this is compared at every precision
# What the other side scores lower than this has not found such a box: an app that shows what scores .3 would
# not know of it. Rounding hardly moves a score as far, but where the other one of two proposals is kept.
FOUND = 0.1
PART_IOU, PART_PIXELS, PARTS = 0.5, 1.0, 0.95  # what parts agree by, and which share of them has to
BEST = 5  # so many of each photo are compared in float32, whatever they score


@dataclasses.dataclass(frozen=True)
class Gate:
    """Limits a precision has to keep; see `Parity` for what they limit."""

    score: float
    mean_score: float
    box: float
    matched: float
    ap_loss: float
    raw: float


# float16 rounds weights to 11 bits: scores move in the third digit on the mean, single ones of a CenterNet by
# .08 and of a Faster R-CNN by .31, where the other one of two proposals is kept; boxes by a fraction of a
# pixel, but a peak may move to the next cell. In int8 single scores move further; their mean must not, and
# with weights alone in eight bits half as far.
GATES = {
    "float32": Gate(0.001, 0.001, 0.5, 0.99, 0.02, 0.001),
    "float16": Gate(0.35, 0.01, math.inf, 0.95, 0.02, 0.05),
    "int8": Gate(math.inf, 0.1, math.inf, 0.95, 0.02, 0.5),
    "int8_weights": Gate(math.inf, 0.05, math.inf, 0.95, 0.02, 0.2),
}


@dataclasses.dataclass
class CheckSet:
    """Photos to compare on, as the network sees them.

    Attributes:
        squares: list of (S, S, 3) uint8.
        matrices, sizes: of each photo, (2, 3) and (H, W).
        dataset: the labelled photos, row for row, or None.
        source: where they are from, see `Parity`.
        proposals: (n, 4) float32 xyxy pixels of the square, the same on every photo, for a detector that is
            given them.
    """

    squares: list[np.ndarray]
    matrices: list[np.ndarray]
    sizes: list[tuple[int, int]]
    dataset: object | None
    source: str
    proposals: np.ndarray | None = None


def load_squares(detector, photos, limit: int, source: str) -> CheckSet:
    """Reads up to `limit` photos, spread evenly over those given.

    Args:
        detector: has `image_size` and `resize`.
        photos: a `Dataset`, or a list of paths or arrays.
        limit: how many at most.
        source: see `Parity`.

    Returns:
        The photos; of labels those of classes that the detector has.

    Raises:
        ValueError: no photos, or one that is not readable.
    """
    if isinstance(photos, (str, bytes)) or not hasattr(photos, "__len__"):
        raise ValueError(f"{source} is {photos!r}; give a Dataset or a list of photos")
    if len(photos) == 0:
        raise ValueError(f"{source} is empty; give some photos of what the detector is to see")
    rows = np.unique(np.linspace(0, len(photos) - 1, min(limit, len(photos))).round().astype(int))
    chosen = [photos[int(row)] for row in rows]
    result = CheckSet([], [], [], _labelled(photos, rows, detector), source)
    if count := given_proposals(detector):
        corners = np.random.default_rng(0).uniform(0, detector.image_size, (count, 2, 2))
        result.proposals = np.sort(corners, axis=1).reshape(-1, 4).astype(np.float32)
    for item in chosen:
        picture = photos_.read(getattr(item, "path", item))
        square, matrix = photos_.to_square(picture, detector.image_size, detector.resize)
        result.squares.append(square)
        result.matrices.append(matrix)
        result.sizes.append(picture.shape[:2])
    return result


def _labelled(photos, rows, detector):
    """Those photos as a set to score on; None where nothing is labelled that the detector finds."""
    if not hasattr(photos, "subset"):
        return None
    known = photos.subset(map(int, rows)).known_to(detector)
    return known if known is not None and any(len(sample.boxes) for sample in known) else None


def synthetic_photos(count: int = 12, seed: int = 0) -> list[np.ndarray]:
    """Drawn scenes for a check without photos: smooth backgrounds, noise, upright figures.

    Returns:
        list of (240, 320, 3) uint8.
    """
    import cv2

    rng = np.random.default_rng(seed)
    scenes = []
    for _ in range(count):
        coarse = rng.integers(0, 256, (rng.integers(2, 9), rng.integers(2, 9), 3), np.uint8)
        scene = cv2.resize(coarse, (320, 240), interpolation=cv2.INTER_CUBIC)
        for _ in range(rng.integers(1, 6)):
            height = int(rng.integers(40, 200))
            x, y = int(rng.integers(0, 320)), int(rng.integers(0, 240))
            skin, coat = (tuple(int(v) for v in rng.integers(0, 256, 3)) for _ in range(2))
            cv2.ellipse(scene, (x, y), (height // 6, height // 3), 0, 0, 360, coat, -1)
            cv2.circle(scene, (x, y - height // 3 - height // 12), height // 10, skin, -1)
        noise = rng.normal(0, rng.uniform(0, 12), scene.shape)
        scenes.append(np.clip(scene + noise, 0, 255).astype(np.uint8))
    return scenes


def run_keras(detector, check: CheckSet, outputs: str, batch_size: int = 8) -> list[dict]:
    """`detector.forward` on every photo: a dict of arrays without batch axis for each."""
    found = []
    for start in range(0, len(check.squares), batch_size):
        images = np.stack(check.squares[start : start + batch_size])
        given = [] if check.proposals is None else [np.stack([check.proposals] * len(images))]
        result = detector.forward(images, outputs, *given)
        result = {name: np.asarray(value, np.float32) for name, value in result.items()}
        found += [{n: v[i] for n, v in result.items()} for i in range(len(images))]
    return found


def compare_raw(
    keras: list[dict], exported: list[dict], check: CheckSet, detector, precision: str
) -> Parity:
    """As `compare`, of raw heads: number by number, and by the boxes that the detector makes of them.

    Heads that are all a little too low are near in numbers, and nothing is found any more.
    """
    heads = compare(keras, exported, check, detector, precision)
    found = decoded(keras, detector), decoded(exported, detector)
    # Unsure ones may be as sure as each other: of those the numbers say enough.
    boxes = compare(*found, check, detector, precision, best=0)
    return dataclasses.replace(
        boxes, raw_error=heads.raw_error, matched=min(heads.matched, boxes.matched)
    )


def decoded(raw: list[dict], detector, batch_size: int = 8) -> list[dict]:
    """What the detector finds in its heads, photo by photo; see `Detector.from_heads`."""
    found = []
    for start in range(0, len(raw), batch_size):
        some = raw[start : start + batch_size]
        heads = {name: np.stack([one[name] for one in some]) for name in some[0]}
        answers = {n: np.asarray(v) for n, v in detector.from_heads(heads).items()}
        found += [{n: v[i] for n, v in answers.items()} for i in range(len(some))]
    return found


def compare(
    keras: list[dict], exported: list[dict], check: CheckSet, detector, precision: str,
    best: int | None = None,
) -> Parity:
    """Compares the outputs of both, photo by photo, and AP where the photos have labels.

    Args:
        keras, exported: one dict of outputs a photo, see `run_keras`.
        check: the photos.
        detector: has `image_size`, `classes`, `parts` and `nms_iou`.
        precision: one of `GATES`.
        best: so many of each photo are compared, whatever they score; None takes `BEST` in float32, else 0.
    """
    common = {"photos": len(keras), "source": check.source}
    if "scores" not in keras[0]:
        rows = {}
        if "proposals" in keras[0]:
            keras, exported, rows = _same_regions(keras, exported)
        errors = {
            name: _raw_error([k[name] for k in keras], [e[name] for e in exported], precision)
            for name in keras[0]
        }
        return Parity(**common, **rows, raw_error=errors)
    if best is None:
        best = BEST if precision == "float32" else 0
    counts, pairs = np.zeros(6, int), []
    for ours, theirs in zip(keras, exported, strict=True):
        found, of_photo = _match(ours, theirs, best, detector.image_size)
        counts, pairs = counts + found, pairs + of_photo
    ours, ours_matched, theirs, theirs_matched, parts, parts_alike = (int(n) for n in counts)
    # The file must find what Keras finds, and nothing else. A side of which no box counts misses none: one
    # box that scores .301 in Keras and .299 in the file is found by both.
    matched = min(hits / count if count else 1.0 for hits, count in (
        (ours_matched, ours), (theirs_matched, theirs),
    ))
    result = Parity(
        **common, boxes=ours, matched=matched, parts=parts_alike / parts if parts else 1.0
    )
    if pairs:
        score, box = np.transpose(pairs)
        result = dataclasses.replace(
            result,
            score_difference=float(score.max()),
            mean_score_difference=float(score.mean()),
            box_difference=float(box.max()),
        )
    if check.dataset is not None:
        ap = [_average_precision(found, check, detector) for found in (exported, keras)]
        if not any(map(math.isnan, ap)):
            result = dataclasses.replace(result, ap=ap[0], keras_ap=ap[1])
    return result


def _match(ours: dict, theirs: dict, best: int, size: int) -> tuple[list[int], list[tuple]]:
    """Matches the boxes of one photo, the best of `ours` first.

    Returns:
        How many of ours count, and of these have a match; the same for theirs; how many parts those of ours
        have, and how many of these are alike. And for each of ours that counts and has a match, the
        (score, box) difference.
    """
    a, b = _live(ours, size), _live(theirs, size)
    overlap = iou_matrix(a["boxes"], b["boxes"])
    overlap *= a["classes"][:, None] == b["classes"][None]
    match = np.full(len(a["boxes"]), -1)
    for row in np.argsort(-a["scores"], kind="stable"):
        column = int(np.argmax(overlap[row])) if overlap.size else -1
        if column >= 0 and overlap[row, column] >= MATCH_IOU:
            match[row] = column
            overlap[:, column] = 0
    counted = [_counted(side["scores"], best) for side in (a, b)]
    mine = np.flatnonzero(match >= 0)
    both = np.stack([a["scores"][mine], b["scores"][match[mine]]])
    lost = (both.max(0) >= SURE) & (both.min(0) < FOUND)
    mine = mine[~lost]
    rows = mine[counted[0][mine]]
    counts = [counted[0].sum(), len(rows), counted[1].sum(), counted[1][match[mine]].sum()]
    alike = np.zeros(0, bool)
    if "parts" in a and "parts" in b:
        alike = _alike(a["parts"][rows], b["parts"][match[rows]])
    counts += [alike.size, alike.sum()]
    pairs = []
    for row in rows:
        column = match[row]
        score = abs(float(a["scores"][row] - b["scores"][column]))
        box = float(np.abs(a["boxes"][row] - b["boxes"][column]).max())
        if "masks" in a and "masks" in b:
            score = max(score, float(np.abs(a["masks"][row] - b["masks"][column]).max()))
        if "parts" in a and "parts" in b:
            part = np.abs(a["parts"][row] - b["parts"][column]).max(initial=0.0)
            box = max(box, float(part))
        pairs.append((score, box))
    return counts, pairs


def _alike(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(n,) bool of (rows, parts, 4) pixels on both sides, part by part."""
    ours, theirs = ours.reshape(-1, 4), theirs.reshape(-1, 4)
    overlap = iou_matrix(ours, theirs).diagonal()
    return (overlap >= PART_IOU) | (np.abs(ours - theirs) <= PART_PIXELS).all(axis=-1)


def _same_regions(keras: list[dict], exported: list[dict]) -> tuple[list[dict], list[dict], dict]:
    """The rows of both that speak of the same region.

    Regions are ordered by scores, which differ in the last digit: one row that changes places would be off
    by the whole photo. Two are the same if each is the one that the other overlaps most.

    Returns:
        both sides, all photos in one, row by row of the same region; how many `boxes` Keras has, and which
        share `matched`, see `Parity`.
    """
    pairs, counts = [], np.zeros(3, int)
    for a, b in zip(keras, exported, strict=True):
        live = [np.flatnonzero(side["proposals"].any(-1)) for side in (a, b)]
        overlap = iou_matrix(a["proposals"][live[0]], b["proposals"][live[1]])
        # Regions that are each other's best; the side of one photo may have none.
        first, second = (overlap.max(axis, keepdims=True, initial=0.0) for axis in (0, 1))
        mine, theirs = np.nonzero((overlap >= MATCH_IOU) & (overlap == first) & (overlap == second))
        mine, theirs = live[0][mine], live[1][theirs]
        counts += len(mine), len(live[0]), len(live[1])
        pairs.append([{n: v[rows] for n, v in side.items()} for side, rows in ((a, mine), (b, theirs))])
    ours, theirs = (
        [{name: np.concatenate([one[name] for one in side]) for name in side[0]}]
        for side in zip(*pairs, strict=True)
    )
    share = counts[0] / max(1, *counts[1:])
    return ours, theirs, {"boxes": int(counts[1]), "matched": float(share) if counts[1:].any() else 1.0}


def _live(found: dict, size: int) -> dict:
    rows = found["scores"] > 0
    if "count" in found:
        # Whoever runs the file looks at no others.
        rows &= np.arange(len(rows)) < found["count"].item()
    live = {
        "boxes": found["boxes_rel_yxyx"][rows] * size,
        "scores": found["scores"][rows],
        "classes": np.round(found["classes"][rows]),
    }
    if "parts_rel_yxyx" in found:
        live["parts"] = found["parts_rel_yxyx"][rows] * size
    if "masks" in found:
        live["masks"] = found["masks"][rows]
    return live


def _counted(scores: np.ndarray, best: int) -> np.ndarray:
    counted = scores >= SURE
    counted[np.argsort(-scores, kind="stable")[:best]] = True
    return counted


def _raw_error(ours: list, theirs: list, precision: str) -> float:
    a, b = np.stack(ours), np.stack(theirs)
    if a.shape != b.shape:
        return math.inf
    if not a.size:
        return 0.0
    if precision.startswith("int8"):
        return float(np.sqrt(np.mean((a - b) ** 2)) / max(float(a.std()), 1e-3))
    return float(np.abs(a - b).max() / max(1.0, float(np.abs(a).max())))


def _average_precision(found: list[dict], check: CheckSet, detector) -> float:
    from kerasdet import metrics

    detections = [
        to_detections(outputs, detector, matrix, size, 0.0, detector.nms_iou)
        for outputs, matrix, size in zip(found, check.matrices, check.sizes, strict=True)
    ]
    return float(metrics.coco_metrics(check.dataset, detections, per_class=False)["AP"])


def failures(parity: Parity, precision: str) -> list[str]:
    """What of a comparison is beyond its precision's limits, in words; empty if nothing is."""
    gate, wrong = GATES[precision], []

    def demand(value, limit, text):
        if not value <= limit:
            wrong.append(text.format(value, limit))

    for name, error in parity.raw_error.items():
        demand(error, gate.raw, f"{name} is off by {{:.3g}} (limit {{:g}})")
    if parity.matched < gate.matched:
        wrong.append(
            f"only {parity.matched:.1%} of the boxes ({parity.boxes} of Keras) are found by both at "
            f"IoU {MATCH_IOU} (limit {gate.matched:.0%})"
        )
    demand(parity.score_difference, gate.score, "a score differs by {:.3g} (limit {:g})")
    demand(
        parity.mean_score_difference, gate.mean_score, "scores differ by {:.3g} on average "
        "(limit {:g})",
    )
    if not parity.parts >= PARTS:
        wrong.append(
            f"only {parity.parts:.1%} of the parts are where Keras has them, by IoU {PART_IOU} (limit "
            f"{PARTS:.0%})"
        )
    demand(parity.box_difference, gate.box, "a box differs by {:.3g} px (limit {:g})")
    if parity.ap is not None:
        demand(parity.keras_ap - parity.ap, gate.ap_loss, "AP falls by {:.3f} (limit {:g})")
    return wrong
