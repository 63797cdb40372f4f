"""What a detector does wrong: every false alarm and every missed object, by kind, and what each kind costs.

Source: TIDE (Bolya et al., ECCV 2020), section 2.2 for the kinds, section 2.3 for what mending one gives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from kerasdet.metrics.coco import annotations, score_annotations, summary
from kerasdet.metrics.matching import match, overlaps, pair

# An object is found at this overlap, and a box that has less than the second is at none.
FOUND, NEAR = 0.5, 0.1
# Of a class and photo, as many boxes count.
MOST = 100

KINDS = {
    "classification": "on an object, which is of another class",
    "localisation": "the right class, but too far off its object",
    "both": "too far off an object, which is of another class",
    "duplicate": "on an object that a surer box has found",
    "background": "where no object is",
    "missed": "an object that no box is at",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Mistake:
    """One false alarm, or one object that was missed.

    Attributes:
        kind: a key of `KINDS`.
        photo: index into the set.
        box: (4,) float64, xyxy pixels of the photo: the false alarm's, or the missed object's.
        label: index into the set's classes: what the false alarm says, or what was missed.
        score: of the false alarm; nan of a missed object.
        object: (4,) float64, box of the object that a false alarm is at; None of the kinds background and
            missed.
        object_label: the class of that object; None where there is none.
    """

    kind: str
    photo: int
    box: np.ndarray
    label: int
    score: float = float("nan")
    object: np.ndarray | None = None
    object_label: int | None = None


def find_mistakes(dataset, detections, score: float = 0.0) -> list[Mistake]:
    """Every false alarm and missed object of a set, photo by photo, the surest first, missed ones last.

    A box finds the object of its class that it overlaps by an IoU of .5, as `coco_metrics` matches them. One
    that finds none is a mistake of the first kind that fits: "localisation" (.1 to .5 with an object of its
    class), "classification" (.5 with one of another), "duplicate" (.5 with one of its class, which is taken),
    "background" (under .1 with all), or "both". An object is missed where no box finds it and no mistake of
    localisation or classification is at it. What lies in ignore regions is no mistake.

    Args:
        dataset: sequence of `Sample` with `.classes`.
        detections: iterable of `Detections`, one a photo, in the set's order.
        score: boxes below it do not count: what a user of this threshold would see.

    Raises:
        ValueError: as in `coco_metrics`.
    """
    return _Mistakes(dataset, pair(dataset, detections), score).list


def mistakes_cost(dataset, detections) -> dict[str, float]:
    """AP50, and what it would gain if all mistakes of one kind were mended, the others left.

    To mend is to say the right class, or to move the box onto its object, unless another box has found that
    one (then the box goes); to leave out a box of the kinds "both", "duplicate" and "background"; to take a
    missed object out of what has to be found.

    Args:
        dataset, detections: as of `find_mistakes`; boxes of all scores.

    Returns:
        "AP50", and a gain for each of `KINDS`. The gains do not add up to 1 - AP50: mistakes hide each other.

    Raises:
        ValueError: as in `coco_metrics`.
    """
    found = _Mistakes(dataset, pair(dataset, detections), 0.0)
    whole = found.AP50()
    return {"AP50": whole} | {kind: found.AP50(mended=kind) - whole for kind in KINDS}


class _Mistakes:
    """A set's objects and boxes as COCO's annotations, and what is wrong, as rows of them."""

    def __init__(self, dataset, found, score):
        self.photos, self.classes = len(dataset), len(dataset.classes)
        self.objects, results = annotations(dataset, found)
        self.results = [row for row in results if row["score"] >= score]
        self.list: list[Mistake] = []
        # Kind -> pairs of a row of `results` (None: missed) and one of `objects` (None: at no object).
        self.rows: dict[str, list] = {kind: [] for kind in KINDS}
        self.matched: set[int] = set()
        objects, boxes = (_by_photo(rows, self.photos) for rows in (self.objects, self.results))
        for photo in range(self.photos):
            self._look_at(photo, objects[photo], boxes[photo])

    def _look_at(self, photo: int, objects: list[int], boxes: list[int]):
        """Adds one photo's mistakes; `objects` and `boxes` are its rows, and boxes are sorted here."""
        boxes = sorted(boxes, key=lambda row: -self.results[row]["score"])
        said = np.array([self.results[row]["category_id"] for row in boxes], np.int64)
        known = np.array([self.objects[row]["category_id"] for row in objects], np.int64)
        crowd = np.array([self.objects[row]["iscrowd"] for row in objects], bool)
        boxes_at = [_corners(self.results[row]) for row in boxes]
        overlap = overlaps(boxes_at, [_corners(self.objects[row]) for row in objects], crowd)
        taken = np.full(len(boxes), -1)
        for label in np.unique(said):
            own, mine = np.flatnonzero(said == label)[:MOST], np.flatnonzero(known == label)
            place = match(overlap[np.ix_(own, mine)], crowd[mine], crowd[mine], [FOUND])[0]
            taken[own] = np.append(mine, -1)[place]
            taken[np.flatnonzero(said == label)[MOST:]] = len(objects)  # these do not count
        self.matched |= {objects[i] for i in taken if 0 <= i < len(objects)}
        overlap[:, crowd] = -1
        at = set()
        for i in np.flatnonzero(taken < 0):
            kind, j = _kind(overlap[i], known == said[i])
            if kind in ("localisation", "classification"):
                at.add(j)
            self._add(kind, photo, boxes[i], None if j is None else objects[j])
        for j, row in enumerate(objects):
            if not crowd[j] and row not in self.matched and j not in at:
                self._add("missed", photo, None, row)

    def _add(self, kind, photo, result, row):
        self.rows[kind].append((result, row))
        told = self.objects[row] if result is None else self.results[result]
        at = None if result is None or row is None else self.objects[row]
        self.list.append(
            Mistake(
                kind, photo, _corners(told), told["category_id"] - 1, told.get("score", float("nan")),
                None if at is None else _corners(at), None if at is None else at["category_id"] - 1,
            )
        )

    def AP50(self, mended: str | None = None) -> float:  # noqa: N802 (the metric's name)
        rows = self.rows.get(mended, [])
        objects, results = list(self.objects), [dict(row) for row in self.results]
        gone = set()
        if mended == "missed":
            missed = {row for _, row in rows}
            objects = [row for i, row in enumerate(objects) if i not in missed]
        elif mended in ("classification", "localisation"):
            free = {row for _, row in rows} - self.matched
            for result, row in sorted(rows, key=lambda each: -self.results[each[0]]["score"]):
                if row not in free:
                    gone.add(result)
                    continue
                free.remove(row)
                keys = ("category_id",) if mended == "classification" else ("bbox", "area")
                results[result] |= {key: objects[row][key] for key in keys}
        else:
            gone = {result for result, _ in rows}
        results = [row for i, row in enumerate(results) if i not in gone]
        numbered = ([row | {"id": i} for i, row in enumerate(each, 1)] for each in (objects, results))
        return summary(*score_annotations(self.photos, self.classes, *numbered))["AP50"]


def _kind(overlap: np.ndarray, same: np.ndarray) -> tuple[str, int | None]:
    """The kind of a box that found nothing, by its overlap with the photo's objects, and the object it is at.

    >>> _kind(np.array([0.3, 0.7]), np.array([True, False]))
    ('localisation', 0)
    >>> _kind(np.array([0.05, 0.7]), np.array([True, False]))
    ('classification', 1)
    """
    own, other = (np.where(chosen, overlap, -1.0) for chosen in (same, ~same))
    best_own, best_other = (float(each.max(initial=-1.0)) for each in (own, other))
    if NEAR <= best_own < FOUND:
        return "localisation", int(own.argmax())
    if best_other >= FOUND:
        return "classification", int(other.argmax())
    if best_own >= FOUND:
        return "duplicate", int(own.argmax())
    if best_other >= NEAR:
        return "both", int(other.argmax())
    return "background", None


def _by_photo(rows: Sequence[dict], photos: int) -> list[list[int]]:
    found = [[] for _ in range(photos)]
    for i, row in enumerate(rows):
        found[row["image_id"] - 1].append(i)
    return found


def _corners(row: dict) -> np.ndarray:
    x, y, width, height = row["bbox"]
    return np.array([x, y, x + width, y + height])


# === Picture ===


def worst_photos(mistakes: Sequence[Mistake], count: int) -> list[int]:
    """Indices of the photos with most wrong: a missed object counts one, a false alarm its score."""
    cost = {}
    for mistake in mistakes:
        weight = 1.0 if mistake.kind == "missed" else mistake.score
        cost[mistake.photo] = cost.get(mistake.photo, 0.0) + weight
    return sorted(cost, key=lambda photo: (-cost[photo], photo))[:count]


def draw_mistakes(dataset, mistakes: Sequence[Mistake], count: int = 12):
    """Draws the photos with most wrong on them, a page of them.

    Each mistake is framed in the colour of its kind and says what it is; a thin frame is the object it is at.

    Args:
        dataset: the set that they are of.
        mistakes: of `find_mistakes`.
        count: of photos.

    Returns:
        PIL.Image, RGB.

    Raises:
        ValueError: there are no mistakes to draw.
    """
    from kerasdet.data.page import draw_notes_page

    if not mistakes:
        raise ValueError("there are no mistakes to draw; count boxes of lower scores too")
    kinds = list(KINDS)
    chosen = {photo: [] for photo in worst_photos(mistakes, count)}
    for mistake in mistakes:
        if mistake.photo in chosen:
            note = (mistake.box, _text(mistake, dataset.classes), kinds.index(mistake.kind), mistake.object)
            chosen[mistake.photo].append(note)
    return draw_notes_page([(dataset[photo].path, notes) for photo, notes in chosen.items()])


def _text(mistake: Mistake, classes) -> str:
    name = classes[mistake.label]
    if mistake.kind == "missed":
        return f"missed {name}"
    if mistake.object_label is not None and mistake.object_label != mistake.label:
        name = f"{name}, is {classes[mistake.object_label]}"
    return f"{mistake.kind}: {name} {mistake.score:.2f}"
