"""How far a figure hangs on the photos that it was measured on, by drawing them again and again."""

from __future__ import annotations

import dataclasses

import numpy as np

from kerasdet.metrics.coco import annotations, matched
from kerasdet.metrics.matching import pair

SIZES = "all", "small", "medium", "large"  # pycocotools' order
DRAWS = 1000
_AT_ONCE = 50  # draws; more would take more memory, not less time


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure and the range that 95 % of the draws fall in."""

    value: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


def interval(values) -> Interval:
    """Of a figure's draws.

    Args:
        values: (1 + draws,) as `bootstrap` gives them, or the difference of two such arrays of one set and
            seed, which are drawn photo for photo alike.
    """
    drawn = values[1:][~np.isnan(values[1:])]
    low, high = np.quantile(drawn, (0.025, 0.975)) if len(drawn) else (np.nan, np.nan)
    return Interval(float(values[0]), float(low), float(high))


def bootstrap(dataset, detections, draws: int = DRAWS, seed: int = 0) -> dict[str, np.ndarray]:
    """COCO's average precision, on the set and on sets drawn from it, photo by photo, with replacement.

    Two detectors are compared by the difference of their arrays: it varies less than each of them, since both
    are measured on the same draws.

    Args:
        dataset: sequence of `Sample` with `.classes`.
        detections: iterable of `Detections`, one a photo, in the set's order.
        draws: how many sets are drawn.
        seed: of the draws.

    Returns:
        dict of (1 + draws,) float64, the figure on the set itself first: "AP", "AP50", "AP_small",
        "AP_medium", "AP_large". nan where a draw has no such object.

    Raises:
        ValueError: as `coco_metrics`.
    """
    found = pair(dataset, detections)
    objects, results = annotations(dataset, found)
    sides = _matches(len(dataset), len(dataset.classes), objects, results)
    weights = _weights(len(dataset), draws, seed)
    curves = {}
    for size in SIZES:
        by_class = [
            [_average_precision(matches, weights, threshold) for threshold in range(10)]
            for matches in sides[size]
        ]
        curves[size] = np.array(by_class)  # (classes, thresholds, 1 + draws)
    figures = {"AP": curves["all"].mean(1), "AP50": curves["all"][:, 0]}
    figures |= {f"AP_{size}": curves[size].mean(1) for size in SIZES[1:]}
    return {name: _mean(by_class) for name, by_class in figures.items()}


def bootstrap_recall(
    dataset, proposals, at=(100, 1000), draws: int = DRAWS, seed: int = 0
) -> dict[str, np.ndarray]:
    """Average recall of proposals, whatever the objects' classes.

    Args:
        dataset: sequence of `Sample`.
        proposals: iterable of (n, 4) float32 xyxy pixels of the photo, the best first, one array a photo.
        at: numbers of proposals that are looked at, rising.
        draws, seed: see `bootstrap`.

    Returns:
        dict of (1 + draws,) float64, the figure on the set itself first: "AR@100", "AR@100_small" and so
        on: the mean over IoU .50 to .95 of the share of objects that a proposal overlaps by that.
    """
    from kerasdet.data.dataset import Dataset
    from kerasdet.detections import Detections

    objects = [
        dataclasses.replace(sample, labels=np.zeros(len(sample.labels), np.int32)) for sample in dataset
    ]
    things = Dataset(objects, ("object",))
    found = [
        Detections(boxes, -np.arange(len(boxes), dtype=np.float32), [0] * len(boxes), things.classes)
        for boxes in proposals
    ]
    rows = annotations(things, pair(things, found))
    sides = _matches(len(things), 1, *rows, most=at)
    weights = _weights(len(things), draws, seed)
    figures = {}
    for count in at:
        for size in SIZES:
            (matches,) = sides[size]
            name = f"AR@{count}" if size == "all" else f"AR@{count}_{size}"
            figures[name] = _recall(matches, weights, count)
    return figures


@dataclasses.dataclass
class _Matches:
    """What was found of one class and range of sizes, by falling score.

    photo, rank: (n,) int, the rank among those of its photo; hit, counted: (thresholds, n) bool; objects:
    (photos,) how many each has.
    """

    photo: np.ndarray
    rank: np.ndarray
    hit: np.ndarray
    counted: np.ndarray
    objects: np.ndarray


def _matches(photos: int, classes: int, objects, results, most=None) -> dict[str, list[_Matches]]:
    more = {} if most is None else {"most": most}
    evaluation = matched(photos, classes, objects, results, **more)
    per_photo = iter(evaluation.evalImgs)  # by class, then by range of sizes, then by photo
    sides = {size: [] for size in SIZES}
    for _ in range(classes):
        for size in SIZES:
            sides[size].append(_joined([next(per_photo) for _ in range(photos)]))
    return sides


def _joined(per_photo: list[dict | None]) -> _Matches:
    there = [(photo, one) for photo, one in enumerate(per_photo) if one is not None]
    objects = np.zeros(len(per_photo))
    for photo, one in there:
        objects[photo] = np.count_nonzero(~np.asarray(one["gtIgnore"], bool))
    counts = [len(one["dtScores"]) for _, one in there]
    scores = np.array([score for _, one in there for score in one["dtScores"]], np.float64)
    order = np.argsort(-scores, kind="stable")

    def together(key):
        columns = [np.asarray(one[key], bool).reshape(10, -1) for _, one in there]
        return np.concatenate([np.zeros((10, 0), bool), *columns], axis=1)[:, order]

    photo = np.repeat([photo for photo, _ in there], counts).astype(int)[order]
    rank = np.concatenate([np.arange(0), *map(np.arange, counts)]).astype(int)[order]
    return _Matches(photo, rank, together("dtMatches"), ~together("dtIgnore"), objects)


def _weights(photos: int, draws: int, seed: int) -> np.ndarray:
    """(1 + draws, photos): how often each photo comes; once in the set itself."""
    chosen = np.random.default_rng(seed).integers(0, photos, (draws, photos))
    drawn = np.stack([np.bincount(row, minlength=photos) for row in chosen]) if draws else chosen
    return np.concatenate([np.ones((1, photos)), drawn])


def _average_precision(matches: _Matches, weights, threshold: int) -> np.ndarray:
    """(draws,): pycocotools' mean of the highest precision at or after 101 recalls."""
    counted = matches.counted[threshold]
    photo, hit = matches.photo[counted], matches.hit[threshold][counted]
    values = []
    for start in range(0, len(weights), _AT_ONCE):
        some = weights[start : start + _AT_ONCE]
        objects = some @ matches.objects
        each = some[:, photo]
        right, all_ = np.cumsum(each * hit, axis=1), np.cumsum(each, axis=1)
        precision = right / np.maximum(all_, 1)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for row, total in enumerate(objects):
            values.append(_interpolated(right[row] / total, best[row]) if total else np.nan)
    return np.array(values)


def _interpolated(recall, precision) -> float:
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.append(precision, 0.0)[np.minimum(places, len(precision))].mean())


def _recall(matches: _Matches, weights, count: int) -> np.ndarray:
    found = np.zeros(weights.shape[1])
    looked_at = matches.rank < count
    for hit, counted in zip(matches.hit, matches.counted, strict=True):
        found += np.bincount(
            matches.photo[looked_at & hit & counted], minlength=weights.shape[1]
        )
    objects = weights @ matches.objects
    with np.errstate(invalid="ignore"):
        return weights @ (found / 10) / objects


def _mean(by_class: np.ndarray) -> np.ndarray:
    """(draws,): over classes that a draw has."""
    there = ~np.isnan(by_class)
    with np.errstate(invalid="ignore"):
        return np.where(there, by_class, 0).sum(0) / there.sum(0)
