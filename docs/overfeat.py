"""Draws OverFeat's ideas on a photo: windows with and without offsets, boxes before and after merging.

    python docs/overfeat.py MODEL PHOTO [--class NAME] [--size 320] --out docs/overfeat

MODEL is a preset or a .keras file of an OverFeat. PHOTO is a file, or the name of a picture of scikit-image,
such as astronaut. The pictures: `coarse.png` and `fine.png`, how sure each window is of the class, drawn
where its middle is; `windows.png`, the box of every window that is sure of it; `merged.png`, those boxes
merged greedily; `suppressed.png`, what non-maximum suppression leaves of them.
"""

from __future__ import annotations

import argparse
import pathlib

import numpy as np
from PIL import Image, ImageDraw

import kerasdet
from kerasdet import photo as photos
from kerasdet.boxes.merging import greedy_merge
from kerasdet.views import View, look

SIDE = 480  # of the pictures, pixels
COLD, WARM = np.array([20, 30, 90.0]), np.array([255, 210, 60.0])


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a preset or a .keras file")
    parser.add_argument("photo", help="a file, or a picture of scikit-image by name")
    parser.add_argument("--class", dest="name", help="whose windows are drawn; the likeliest if not given")
    parser.add_argument("--size", type=int, help="side of the square, pixels; the model's if not given")
    parser.add_argument("--score", type=float, default=0.5, help="windows surer than this have boxes drawn")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("overfeat"))
    args = parser.parse_args(argv)
    path = pathlib.Path(args.model)
    model = kerasdet.load(path) if path.suffix == ".keras" else kerasdet.zoo.load(args.model)
    picture = read(args.photo)
    size = args.size or model.image_size
    fine, coarse = (look(model, picture, sizes=[size], offsets=offsets)[0] for offsets in (True, False))
    if args.name is not None and args.name not in model.classes:
        parser.error(f"--class is {args.name!r}; the model knows {', '.join(model.classes)}")
    label = model.classes.index(args.name) if args.name else int(fine.scores.max(0).argmax())

    args.out.mkdir(parents=True, exist_ok=True)
    sure = fine.scores[:, label] >= args.score
    boxes, scores = fine.boxes[sure, label], fine.scores[sure, label]
    picture, _ = photos.to_square(picture, SIDE, model.resize)
    for name, view in (("fine", fine), ("coarse", coarse)):
        heat_map(picture, view, label).save(args.out / f"{name}.png")
    merged, sums, _ = greedy_merge(boxes, scores, np.zeros(len(scores), int))
    kept = suppressed(boxes, scores)
    for name, some, values in (
        ("windows", boxes, scores), ("merged", merged, sums / max(1e-6, sums.max(initial=0))),
        ("suppressed", boxes[kept], scores[kept]),
    ):
        outlines(picture, some, values).save(args.out / f"{name}.png")
    print(
        f"{model.classes[label]}: {len(fine.scores)} windows, {sure.sum()} of them sure, "
        f"{len(merged)} boxes merged, {len(kept)} left by suppression; pictures are in {args.out}"
    )
    return 0


def read(name: str) -> np.ndarray:
    if pathlib.Path(name).suffix:
        return photos.read(name)
    from skimage import data

    return getattr(data, name)()


def heat_map(picture: np.ndarray, view: View, label: int) -> Image.Image:
    """The photo's square, with a square where each window's middle is: as bright as the window is sure."""
    grey = np.asarray(Image.fromarray(picture).convert("L").resize((SIDE, SIDE)), float)[..., None]
    canvas = Image.fromarray(np.uint8(grey.repeat(3, -1) * 0.6))
    draw = ImageDraw.Draw(canvas, "RGBA")
    middles = (view.windows[:, :2] + view.windows[:, 2:]) / 2
    columns = np.unique(middles[:, 0])
    half = SIDE * (columns[1] - columns[0] if len(columns) > 1 else 0.5) / 2
    for (x, y), score in zip(middles * SIDE, view.scores[:, label], strict=True):
        colour = COLD + (WARM - COLD) * score
        draw.rectangle(
            [x - half, y - half, x + half, y + half], fill=(*colour.astype(int).tolist(), 170)
        )
    return canvas


def outlines(picture: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Image.Image:
    """The photo's square with boxes, fractions of it; the surer, the brighter."""
    canvas = Image.fromarray(picture).convert("RGB").resize((SIDE, SIDE))
    draw = ImageDraw.Draw(canvas, "RGBA")
    for box, score in sorted(zip(boxes, scores, strict=True), key=lambda pair: pair[1]):
        colour = (*WARM.astype(int).tolist(), int(60 + 195 * score))
        draw.rectangle((np.clip(box, 0, 1) * SIDE).tolist(), outline=colour, width=3)
    return canvas


def suppressed(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Rows that non-maximum suppression keeps."""
    from keras import ops

    from kerasdet.boxes.suppression import greedy_keep

    order = np.argsort(-scores, kind="stable")
    if not len(order):
        return order
    kept = greedy_keep(
        boxes[order][None].astype("float32"), scores[order][None], np.zeros((1, len(order)), "int32"), 0.5
    )
    return order[ops.convert_to_numpy(kept)[0] > 0]


if __name__ == "__main__":
    raise SystemExit(main())
