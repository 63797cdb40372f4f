"""Views of a photo, and how an OverFeat's votes on them become one answer (sections 3.3 and 4.3).

A view is one pass of the network: over a crop of one window, or over the whole photo at some size. Each
gives the probabilities and boxes of its windows; `classify` counts the votes, `localise` merges the boxes of
the class that won.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from kerasdet import photo as photos_
from kerasdet.boxes.merging import MERGE_BELOW, greedy_merge
from kerasdet.detections import Detections

KINDS = ("single", "ten_crop", "dense")


@dataclasses.dataclass(frozen=True)
class View:
    """What the windows of one pass show.

    Attributes:
        scores: (windows, classes) float32, probabilities without background's.
        boxes: (windows, classes, 4) float32 xyxy as fractions of the photo.
        windows: (windows, 4) float32, the windows themselves, likewise.
    """

    scores: np.ndarray
    boxes: np.ndarray
    windows: np.ndarray


def classify(detector, photos, kind: str = "dense", **options):
    """Says what photos show, one probability a class.

    A view counts for each class as its best window does ("spatial maximum"), views by their mean.

    Args:
        detector: an `OverFeat`.
        photos: path, array (H, W, 3) uint8 RGB, or a list of either.
        kind: "single", the middle of the photo; "ten_crop", as AlexNet: middle, corners and their mirror
            images; "dense", every window of the photo at each of `sizes`.
        options: sizes, sides of the squares that "dense" looks at, None for the detector's own; offsets,
            False for windows of the first offset only; flip, True for the mirror images too.

    Returns:
        (classes,) float32 of a photo, (photos, classes) of a list. With background they sum to less than 1.

    Raises:
        ValueError: another kind, or a size on which there is no window.
    """
    todo, single = photos_.listed(photos)
    votes = np.stack([_vote(views) for _, views in _looks(detector, todo, kind, options)])
    return votes[0] if single else votes


def localise(detector, photos, kind: str = "dense", threshold: float = MERGE_BELOW, **options):
    """Says what photos show and where it is: one box a photo.

    Arguments as of `classify`, and of `greedy_merge`. The boxes of the class that won the vote, of all
    windows of all views, are merged; the one that gathers the highest score is it.

    Returns:
        `Detections` with one row, its score that of the vote; or a list of them.
    """
    todo, single = photos_.listed(photos)
    found = []
    for picture, views in _looks(detector, todo, kind, options):
        vote = _vote(views)
        label = int(np.argmax(vote))
        boxes = np.concatenate([view.boxes[:, label] for view in views])
        scores = np.maximum(np.concatenate([view.scores[:, label] for view in views]), 1e-6)
        merged, _, _ = greedy_merge(boxes, scores, np.zeros(len(scores), int), threshold)
        height, width = picture.shape[:2]
        box = np.clip(merged[:1], 0, 1) * np.array([width, height] * 2)
        found.append(Detections(box, vote[label : label + 1], [label], detector.classes, photo=picture))
    return found[0] if single else found


def dense_view(detector, photo, size: int, offsets: bool = True) -> View:
    """Every window of a photo at one size; arguments as of `classify`."""
    (view,) = _dense(detector, photos_.read(photo), "dense", (size,), offsets)
    return view


def _vote(views: list[View]) -> np.ndarray:
    return np.mean([view.scores.max(0) for view in views], 0)


def _looks(detector, todo, kind: str, options: dict) -> Iterator[tuple[np.ndarray, list[View]]]:
    """Each photo with its views."""
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; give one of {', '.join(KINDS)}")
    look = _dense if kind == "dense" else _crops
    for photo in todo:
        picture = photos_.read(photo)
        yield picture, look(detector, picture, kind, **options)


def _crops(detector, picture, kind: str) -> list[View]:
    """Windows cut out of the detector's square, each a view of its own."""
    side, size = detector.window, detector.image_size
    square, _ = photos_.to_square(picture, size, "stretch")
    far, middle = size - side, (size - side) // 2
    corners = [(middle, middle)]
    if kind == "ten_crop":
        corners += [(0, 0), (far, 0), (0, far), (far, far)]
    crops = [square[y : y + side, x : x + side] for x, y in corners]
    places = np.array([[x, y, x + side, y + side] for x, y in corners], np.float32) / size
    looks = list(zip(crops, places, [False] * len(crops), strict=True))
    if kind == "ten_crop":
        looks += [(crop[:, ::-1], place, True) for crop, place, _ in looks]
    every = _run(detector, detector.one_window(), np.stack([crop for crop, _, _ in looks]))
    return [_placed(view, *where) for view, (_, *where) in zip(every, looks, strict=True)]


def _dense(
    detector, picture, kind: str, sizes: Sequence[int] | None = None, offsets: bool = True, flip: bool = False
) -> list[View]:
    views = []
    whole = np.array([0, 0, 1, 1], np.float32)
    sizes = tuple(sizes or (detector.image_size,))
    smallest = detector.window + (detector.pool - 1) * detector.step * detector.offsets
    if min(sizes) < smallest:
        raise ValueError(f"sizes are {sizes}; a window and its offsets need {smallest} px")
    for size in sizes:
        square, _ = photos_.to_square(picture, size, "stretch")
        squares = np.stack([square, square[:, ::-1]] if flip else [square])
        every = _run(detector, detector, squares, offsets)
        views += [_placed(view, whole, bool(number)) for number, view in enumerate(every)]
    return views


def _run(detector, network, squares: np.ndarray, offsets: bool = True) -> list[View]:
    """The windows of some squares of one size, boxes as fractions of the square.

    `network` is the detector, or its `one_window`.
    """
    from keras import ops

    raw = network(squares, training=False)
    _, rows, columns, classes = raw["class_logits"].shape
    scores = ops.convert_to_numpy(detector.heads(raw)["class"])
    moved = ops.convert_to_numpy(detector.class_boxes(raw)).reshape(len(squares), rows, columns, -1, 4)
    windows = ops.convert_to_numpy(detector.windows(rows, columns))[None, :, :, None]
    boxes = (windows + detector.window * moved) / squares.shape[1]
    every = 1 if offsets or not detector.offsets else detector.pool
    boxes, scores, windows = (value[:, ::every, ::every] for value in (boxes, scores, windows[..., 0, :]))
    boxes, windows = np.broadcast_to(boxes, (*scores.shape, 4)), windows.reshape(-1, 4) / squares.shape[1]
    return [
        View(s.reshape(-1, classes), b.reshape(-1, classes, 4), windows)
        for s, b in zip(scores, boxes, strict=True)
    ]


def _placed(view: View, place: np.ndarray, mirrored: bool) -> View:
    """A view of a part of the photo, mirrored perhaps, with its boxes as fractions of the photo."""

    def moved(boxes):
        if mirrored:
            boxes = np.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], -1)
        return boxes * np.tile(place[2:] - place[:2], 2) + np.tile(place[:2], 2)

    return View(view.scores, moved(view.boxes), moved(view.windows))
