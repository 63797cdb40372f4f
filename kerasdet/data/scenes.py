"""Drawn sets with exact boxes, for demonstrations and tests that work anywhere, offline.

`write_scenes` draws people with their heads (one class, ODGT), `write_shapes` circles, squares and
triangles (three classes, COCO json). Both write a folder as a user's own would look and load it.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np

from kerasdet.data.dataset import Dataset
from kerasdet.data.readers import load

SHAPES = ("circle", "square", "triangle")


def write_scenes(
    folder: str | os.PathLike,
    n: int,
    size: tuple[int, int] = (320, 240),
    seed: int = 0,
    split: str = "train",
) -> Dataset:
    """Draws `n` scenes with up to six people into `folder/images/` and labels them in ODGT.

    Every seventh scene or so is empty of people. A box is the full body, also where someone
    stands in front of it or the picture ends; who is hidden by more than 70 % is an ignore
    region, and a head that is hidden so much is not labelled.

    Args:
        folder: made where it is not there; holds `images/` and `annotation_<split>.odgt` after.
        n: number of scenes, 1 or more.
        size: width and height of the pictures in pixels, 32 or more.
        seed: the same seed and split draw the same scenes; different splits differ.
        split: "train", "val" or "test"; one folder can take several.

    Returns:
        The scenes as `load` reads them, with the class "person" and the part "head".

    Raises:
        ValueError: `n` or `size` too small.
    """
    folder = _prepare(folder, n, size)
    with (folder / f"annotation_{split}.odgt").open("w", encoding="utf-8") as lines:
        for index in range(n):
            picture, people = _scene(_generator(seed, split, index), size)
            name = f"{split}_{index:05d}"
            picture.save(folder / "images" / f"{name}.jpg", quality=90)
            lines.write(json.dumps({"ID": name, "gtboxes": people}) + "\n")
    return load(folder, split=split)


def write_shapes(
    folder: str | os.PathLike,
    n: int,
    size: tuple[int, int] = (128, 128),
    seed: int = 0,
    split: str = "train",
) -> Dataset:
    """Draws `n` pictures of up to four circles, squares and triangles, labelled with outlines in COCO json.

    Shapes do not overlap; about every eighth picture has none. Arguments and errors are those of
    `write_scenes`; the annotations are `folder/instances_<split>.json`.

    Returns:
        The pictures as `load` reads them, with the classes of `SHAPES`.
    """
    folder = _prepare(folder, n, size)
    images, annotations = [], []
    for index in range(n):
        picture, shapes = _shapes(_generator(seed, split, index), size)
        name = f"{split}_{index:05d}.jpg"
        picture.save(folder / "images" / name, quality=90)
        images.append({"id": index + 1, "file_name": name, "width": size[0], "height": size[1]})
        for label, (x1, y1, x2, y2) in shapes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": label + 1,
                    "bbox": [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                    "area": round((x2 - x1) * (y2 - y1), 2),
                    "iscrowd": 0,
                    "segmentation": [_outline(SHAPES[label], x1, y1, x2, y2)],
                }
            )
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(SHAPES)],
    }
    (folder / f"instances_{split}.json").write_text(json.dumps(document), encoding="utf-8")
    return load(folder, split=split)


def _outline(shape: str, x1: float, y1: float, x2: float, y2: float) -> list[float]:
    """The polygon of a shape as COCO has it: x, y, x, y .."""
    if shape == "circle":
        turn = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        corners = np.stack([np.cos(turn), np.sin(turn)], -1) / 2 + 0.5
    elif shape == "square":
        corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    else:
        corners = np.array([(0.5, 0), (1, 1), (0, 1)])
    return np.round((x1, y1) + corners * (x2 - x1, y2 - y1), 2).ravel().tolist()


def _prepare(folder: str | os.PathLike, n: int, size: tuple[int, int]) -> Path:
    if n < 1:
        raise ValueError(f"n={n}: draw 1 picture or more")
    if len(size) != 2 or min(size) < 32:
        raise ValueError(f"size={size}: give (width, height) of 32 pixels or more")
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    return folder


def _generator(seed: int, split: str, index: int) -> np.random.Generator:
    # The split is part of the seed: train and val must not be the same scenes by accident.
    return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


def _scene(rng: np.random.Generator, size: tuple[int, int]):
    """One picture and the ODGT entries of the people in it."""
    from PIL import Image, ImageDraw

    from kerasdet.data import figures

    width, height = (side * figures.SUPERSAMPLING for side in size)
    canvas, horizon = figures.draw_place(rng, width, height)
    people = 0 if rng.random() < 0.14 else int(rng.integers(1, 7))
    is_person = rng.permutation([True] * people + [False] * int(rng.integers(0, 4)))
    # Far things are smaller and are drawn first; who is near stands low in the picture.
    nearness = np.sort(rng.beta(1.3, 1.8, len(is_person)))
    meeting_point = rng.uniform(0.2, 0.8) * width
    # Which figure each pixel shows, 0 for none: what is drawn later hides what was there.
    shown = np.zeros((height, width), np.uint8)
    people_drawn = []
    for near, person in zip(nearness, is_person, strict=True):
        tall = height * (0.22 + 0.6 * near) * rng.uniform(0.9, 1.1)
        y = horizon + (height * 1.03 - horizon) * (0.15 + 0.85 * near)
        x = rng.uniform(0.04, 0.96) * width
        if person and rng.random() < 0.5:
            x = float(np.clip(rng.normal(meeting_point, 0.12 * width), 0.04 * width, 0.96 * width))
        if person:
            _draw_shadow(canvas, x, y, tall)
            figure = figures.draw_person(rng, tall, (x, y))
            people_drawn.append(figure)
            layer, corner, number = figure.image, figure.corner, len(people_drawn)
        else:
            layer, corner, number = Image.new("RGBA", (width, height), (0, 0, 0, 0)), (0, 0), 0
            figures.draw_thing(rng, ImageDraw.Draw(layer), tall, (x, y))
        canvas.paste(layer, corner, layer)
        view, mask = _overlap(shown, layer.getchannel("A"), corner)
        view[mask] = number
    entries = [_entry(figure, shown, number) for number, figure in enumerate(people_drawn, 1)]
    return figures.finish(rng, canvas, size), entries


def _draw_shadow(canvas, x: float, y: float, tall: float) -> None:
    from PIL import ImageDraw

    from kerasdet.data.figures import shade

    ground = canvas.getpixel((int(x), min(int(y), canvas.height - 1)))
    box = (x - 0.2 * tall, y - 0.04 * tall, x + 0.2 * tall, y + 0.015 * tall)
    ImageDraw.Draw(canvas).ellipse(box, fill=shade(ground, 0.6))


def _overlap(shown: np.ndarray, mask, corner: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The part of `shown` under a mask image that lies at `corner`, and that part of the mask."""
    height, width = shown.shape
    x, y = corner
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + mask.width, width), min(y + mask.height, height)
    pixels = np.asarray(mask)[top - y : bottom - y, left - x : right - x] > 0
    return shown[top:bottom, left:right], pixels


def _entry(figure, shown: np.ndarray, number: int) -> dict:
    """ODGT's words for one figure, given which figure every pixel of the picture shows."""

    def visible(mask) -> float:
        view, pixels = _overlap(shown, mask, figure.corner)
        return np.count_nonzero(view[pixels] == number) / np.count_nonzero(np.asarray(mask))

    return {
        "tag": "person",
        "fbox": _xywh(figure.box(figure.body)),
        "hbox": _xywh(figure.box(figure.head)),
        "head_attr": {"ignore": int(visible(figure.head) < 0.3)},
        "extra": {"ignore": int(visible(figure.body) < 0.3)},
    }


def _xywh(box) -> list[float]:
    x1, y1, x2, y2 = box
    return [round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)]


def _shapes(rng: np.random.Generator, size: tuple[int, int]):
    """One picture and the (label, xyxy box) of each shape in it."""
    from PIL import ImageDraw

    from kerasdet.data import figures

    scale = figures.SUPERSAMPLING
    width, height = (side * scale for side in size)
    canvas, _ = figures.draw_place(rng, width, height)
    draw = ImageDraw.Draw(canvas)
    count = 0 if rng.random() < 0.12 else int(rng.integers(1, 5))
    found: list[tuple[int, tuple[float, ...]]] = []
    for _ in range(count):
        side = int(rng.uniform(0.15, 0.4) * min(width, height))
        x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
        taken = [box for _, box in found]
        if any(x < b[2] and b[0] < x + side and y < b[3] and b[1] < y + side for b in taken):
            continue
        label, fill = int(rng.integers(len(SHAPES))), figures.colour(rng, (0.5, 1), (0.4, 1))
        # Pillow fills up to and with the last pixel.
        corners = (x, y, x + side - 1, y + side - 1)
        if SHAPES[label] == "circle":
            draw.ellipse(corners, fill=fill)
        elif SHAPES[label] == "square":
            draw.rectangle(corners, fill=fill)
        else:
            bottom = y + side - 1
            draw.polygon([(x + side / 2, y), (x + side - 1, bottom), (x, bottom)], fill=fill)
        found.append((label, (x, y, x + side, y + side)))
    shapes = [(label, tuple(value / scale for value in box)) for label, box in found]
    return figures.finish(rng, canvas, size), shapes
