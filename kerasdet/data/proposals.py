"""Proposals: boxes of a photo that may hold an object, found without learning."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kerasdet import photo as photo_
from kerasdet.data.sample import Sample

MODES = ("fast", "quality")
# R-CNN (Girshick et al. 2014) searches photos of this width in pixels.
WIDTH = 500


def selective_search(photo, count: int = 2000, mode: str = "fast") -> np.ndarray:
    """Boxes of regions that stand out by colour and texture: small ones, and what they grow together to.

    Args:
        photo: path, or array (H, W, 3) uint8 RGB. It is searched at a width of 500 px.
        count: boxes at most.
        mode: "fast" or "quality", which finds more and takes several times as long.

    Returns:
        (n, 4) float32 xyxy in the photo's pixels. Regions that grew together late tend to come first, but
        OpenCV mixes chance into the order, which no seed fixes: keep what was found, as
        `Dataset.with_proposals` does.

    Raises:
        ImportError: OpenCV comes without its extra modules.
        ValueError: another mode.

    Source: Selective Search for Object Recognition (Uijlings et al., IJCV 2013), as OpenCV has it.
    """
    import cv2

    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}; give one of {', '.join(MODES)}")
    if not hasattr(cv2, "ximgproc"):
        raise ImportError(
            "selective search is one of OpenCV's extra modules, which this OpenCV lacks; "
            "pip install 'kerasdet[selective-search]'"
        )
    picture = photo_.read(photo)
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (WIDTH, max(1, round(height * WIDTH / width))))
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    (search.switchToSelectiveSearchFast if mode == "fast" else search.switchToSelectiveSearchQuality)()
    corners = search.process()[:count].astype(np.float32)
    boxes = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], -1)
    scale = np.array([width, height], np.float32) / np.array(small.shape[1::-1], np.float32)
    return boxes * np.tile(scale, 2)


def searched(dataset, folder: str | os.PathLike) -> Iterator[tuple[Sample, Path]]:
    """Every sample and the file of its proposals, with a progress bar where some are yet to be found."""
    from rich.progress import track

    # Photos' paths are absolute, however the set's folder was given.
    root = Path(os.path.abspath(dataset.root)) if dataset.root else None
    pairs, photo_of = [], {}
    for sample in dataset:
        path = Path(os.path.abspath(sample.path))
        inside = root is not None and root in path.parents
        name = path.relative_to(root) if inside else Path(path.name)
        file = Path(folder) / f"{name}.npy"
        if photo_of.setdefault(file, path) != path:
            raise ValueError(
                f"{file} would hold the proposals of two photos, {photo_of[file]} and {path}; give the sets "
                "that they are from a folder each, and join them afterwards"
            )
        pairs.append((sample, file))
    yield from track(pairs, "Searching", disable=all(path.exists() for _, path in pairs))


def of_photo(sample: Sample, path: Path, count: int, mode: str) -> np.ndarray:
    """The proposals (n, 4) that a file holds; where there is no file, they are found and written."""
    if not path.exists():
        boxes = selective_search(sample.path, count, mode)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A search that is killed leaves no half file.
        part = path.with_suffix(".part.npy")
        np.save(part, boxes)
        part.replace(path)
    try:
        # Not read before it is known how large it is.
        boxes = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: holds no array ({error}); take it away, and it is made anew") from error
    numbers = boxes.dtype.kind in "fiu"
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not numbers or not np.isfinite(boxes).all():
        raise ValueError(f"{path}: holds an array of shape {boxes.shape}; proposals are finite boxes (n, 4)")
    return np.array(boxes[:count], np.float32)
