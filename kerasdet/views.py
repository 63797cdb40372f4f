"""Views of a photo, and how an OverFeat's votes on them become one answer (sections 3.3 and 4.3).

A view is one pass of the network: over a crop of one window, or over the whole photo at some size. Each
gives the probabilities and boxes of its windows; `classify` counts the votes, `localise` merges the boxes of
the class that won.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

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
        boxes: (windows, classes, 4) float32 xyxy as fractions of the square that the photo became.
        windows: (windows, 4) float32, the windows themselves, likewise.
    """

    scores: np.ndarray
    boxes: np.ndarray
    windows: np.ndarray


def look(
    detector, photo, kind: str = "dense", sizes: Sequence[int] | None = None, offsets: bool = True,
    flip: bool = False,
) -> list[View]:
    """The views of a photo.

    Args:
        detector: an `OverFeat`.
        photo: path, or array (H, W, 3) uint8 RGB.
        kind: "single", the middle of the photo; "ten_crop", as AlexNet: middle, corners and their mirror
            images; "dense", every window of the photo at each of `sizes`.
        sizes: sides of the squares that "dense" looks at, in pixels; None takes the detector's own.
        offsets: False leaves "dense" the windows of the first offset only.
        flip: "dense" looks at the mirror images too.

    Raises:
        ValueError: another kind, a size on which there is no window, or an option of "dense" for others.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; give one of {', '.join(KINDS)}")
    if kind != "dense":
        if sizes is not None or flip or not offsets:
            raise ValueError(f"sizes, offsets and flip are for kind='dense'; leave them out for {kind!r}")
        return _crops(detector, photos_.read(photo), kind == "ten_crop")
    sizes = (detector.image_size,) if sizes is None else tuple(np.atleast_1d(sizes).tolist())
    if not sizes or min(sizes) < detector.window_side:
        raise ValueError(f"sizes are {sizes}; give sides of {detector.window_side} px, a window's, or more")
    return _dense(detector, photos_.read(photo), sizes, offsets, flip)


def six_sizes(detector) -> tuple[int, ...]:
    """Sides of squares for `look`, from the detector's own on: as many as the paper's scales (table 5)."""
    return tuple(detector.image_size + 32 * step for step in range(6))


def classify(detector, photos, kind: str = "dense", **options):
    """Says what photos show, one probability a class.

    A view counts for each class as its best window does ("spatial maximum"), views by their mean.

    Args:
        detector, kind, options: see `look`.
        photos: path, array (H, W, 3) uint8 RGB, or a list of either.

    Returns:
        (classes,) float32 of a photo, (photos, classes) of a list. Each is at most 1; they need not sum to
        1, as different windows may show different things.
    """
    todo, single = photos_.listed(photos)
    votes = [_vote(look(detector, photo, kind, **options)) for photo in todo]
    return votes[0] if single else np.reshape(votes, (-1, len(detector.classes))).astype(np.float32)


def localise(
    detector, photos, kind: str = "dense", *, threshold: float = MERGE_BELOW, keep_photo: bool = True,
    **options,
):
    """Says what photos show and where it is: one box a photo.

    The boxes of the class that won the vote, of all windows of all views, are merged; the one that gathers
    the highest score is it.

    Args:
        detector, photos, kind, options: see `classify`.
        threshold: see `greedy_merge`.
        keep_photo: see `Detector.detect`.

    Returns:
        `Detections` with one row, its score that of the vote; or a list of them.
    """
    todo, single = photos_.listed(photos)
    found = []
    for photo in todo:
        picture = photos_.read(photo)
        views = look(detector, picture, kind, **options)
        vote = _vote(views)
        label = int(np.argmax(vote))
        boxes = np.concatenate([view.boxes[:, label] for view in views])
        scores = np.maximum(np.concatenate([view.scores[:, label] for view in views]), 1e-6)
        merged, _, _ = greedy_merge(boxes, scores, np.zeros(len(scores), int), threshold)
        size = detector.image_size
        matrix = photos_.square_matrix(*picture.shape[:2], size, detector.resize)
        found.append(
            Detections(
                boxes=photos_.boxes_to_photo(merged[:1] * size, matrix, picture.shape[:2]),
                scores=vote[label : label + 1], labels=[label], classes=detector.classes,
                photo=picture if keep_photo else None,
                path=photos_.path_of(photo),
            )
        )
    return found[0] if single else found


def _vote(views: list[View]) -> np.ndarray:
    return np.mean([view.scores.max(0) for view in views], 0, dtype=np.float32)


def _crops(detector, picture, ten: bool) -> list[View]:
    """Windows cut out of the detector's square, each a view of its own."""
    side, size = detector.window_side, detector.image_size
    square, _ = photos_.to_square(picture, size, detector.resize)
    far, middle = size - side, (size - side) // 2
    corners = [(middle, middle), (0, 0), (far, 0), (0, far), (far, far)][: 5 if ten else 1]
    looks = [
        (square[y : y + side, x : x + side], np.array([x, y, x + side, y + side], np.float32) / size, False)
        for x, y in corners
    ]
    if ten:
        looks += [(crop[:, ::-1], place, True) for crop, place, _ in looks]
    every = _run(detector, np.stack([crop for crop, _, _ in looks]), crops=True)
    return [_placed(view, *where) for view, (_, *where) in zip(every, looks, strict=True)]


def _dense(detector, picture, sizes, offsets: bool, flip: bool) -> list[View]:
    views = []
    whole = np.array([0, 0, 1, 1], np.float32)
    for size in sizes:
        square, _ = photos_.to_square(picture, size, detector.resize)
        squares = np.stack([square, square[:, ::-1]] if flip else [square])
        every = _run(detector, squares, offsets)
        views += [_placed(view, whole, bool(number)) for number, view in enumerate(every)]
    return views


def _run(detector, squares: np.ndarray, offsets: bool = True, crops: bool = False) -> list[View]:
    """The windows of some squares of one size, boxes as fractions of the square; see `OverFeat.looking`."""
    from keras import ops

    seen = detector.looking(squares.shape[1], crops).predict_on_batch(squares)
    scores = np.asarray(seen["class"])
    _, rows, columns, classes = scores.shape
    moved = np.asarray(seen["boxes"]).reshape(len(squares), rows, columns, -1, 4)
    windows = ops.convert_to_numpy(detector.windows(rows, columns))[None, :, :, None]
    edges = (windows + detector.window_side * moved) / squares.shape[1]
    boxes = np.sort(edges.reshape(*edges.shape[:-1], 2, 2), axis=-2).reshape(edges.shape)  # as `decode` does
    # As many pools lie at each offset, so every p-th window is one of the first.
    every = 1 if offsets or not detector.offsets else detector.pool
    boxes, scores, windows = (value[:, ::every, ::every] for value in (boxes, scores, windows[..., 0, :]))
    boxes, windows = np.broadcast_to(boxes, (*scores.shape, 4)), windows.reshape(-1, 4) / squares.shape[1]
    return [
        View(s.reshape(-1, classes), b.reshape(-1, classes, 4), windows)
        for s, b in zip(scores, boxes, strict=True)
    ]


def _placed(view: View, place: np.ndarray, mirrored: bool) -> View:
    """A view of a part of the square, mirrored perhaps, with its boxes as fractions of the square."""

    def moved(boxes):
        if mirrored:
            boxes = np.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], -1)
        return boxes * np.tile(place[2:] - place[:2], 2) + np.tile(place[:2], 2)

    return View(view.scores, moved(view.boxes), moved(view.windows))
