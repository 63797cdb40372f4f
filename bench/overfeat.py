"""OverFeat's claims: what windows, scales and merging are worth, and what sliding as a convolution saves.

    python bench/overfeat.py MODEL DATA [--split val] [--sizes 192 224 256 288 320 352]
    python bench/overfeat.py sliding

MODEL is a preset or a .keras file. One without background is scored by the photos' classes and boxes (top-1
error; localisation error: the class is wrong or the box overlaps by less than half), one with background by
AP50. Intervals are of 95 %, by bootstrap over the photos; "change" is that to the row above, on the same
photos.
"""

from __future__ import annotations

import argparse
import pathlib

import numpy as np
from common import print_machine, table

from kerasdet.deploy.timing import interleave, spread
from kerasdet.metrics import interval
from kerasdet.views import six_sizes

BOOTSTRAPS = 2000


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a preset, a .keras file, or the word sliding")
    parser.add_argument("data", nargs="?", help="a labelled set, as kerasdet.data.load takes it")
    parser.add_argument("--split", default="val")
    parser.add_argument("--sizes", type=int, nargs="+", help="sides of the squares of the pyramid, pixels")
    parser.add_argument("--photos", type=int, help="only the first so many")
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args(argv)
    if args.model == "sliding":
        return sliding(args.rounds)
    if args.data is None:
        parser.error("DATA is missing: a labelled set")

    import kerasdet

    path = pathlib.Path(args.model)
    model = kerasdet.load(path) if path.suffix == ".keras" else kerasdet.zoo.load(args.model)
    data = kerasdet.data.load(args.data, split=args.split).select(*model.classes)
    data = data.subset(range(min(len(data), args.photos or len(data))))
    sizes = tuple(args.sizes or six_sizes(model))
    if min(sizes) < model.window_side:
        parser.error(f"--sizes are {sizes}; a window is {model.window_side} px, give that or more")
    print_machine()
    print(f"{args.model}, {len(data)} photos of {data.name}, sizes {sizes}")
    (detection if model.background else recognition)(model, data, sizes)
    return 0


# === Classification and localisation ===


def recognition(model, data, sizes) -> None:
    ways = {
        "single crop": ("single", {}),
        "ten crops": ("ten_crop", {}),
        "dense, one scale, no offsets": ("dense", {"offsets": False}),
        "dense, one scale, offsets": ("dense", {}),
        f"dense, {len(sizes)} scales, offsets": ("dense", {"sizes": sizes}),
        f"dense, {len(sizes)} scales, offsets, flips": ("dense", {"sizes": sizes, "flip": True}),
    }
    rows, before_class, before_box = [], None, None
    for name, (kind, options) in ways.items():
        wrong_class, wrong_box = [], []
        for sample in data:
            if not len(sample.boxes):
                continue
            found = model.localise(sample.path, kind, **options)
            same = found.labels[0] == sample.labels[0]
            wrong_class.append(not same)
            wrong_box.append(not same or overlap(found.boxes[0], sample.boxes[0]) < 0.5)
        class_cells, before_class = cells(wrong_class, before_class), wrong_class
        box_cells, before_box = cells(wrong_box, before_box), wrong_box
        rows.append((name, *class_cells, *box_cells))
    table(("windows", "top-1 error", "change", "localisation error", "change"), rows)


def overlap(box, other) -> float:
    shared = np.prod(np.maximum(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0))
    return float(shared / (np.prod(box[2:] - box[:2]) + np.prod(other[2:] - other[:2]) - shared))


def cells(wrong, before) -> tuple[str, str]:
    """A share of photos with its interval, and how it differs from another on the same photos."""
    change = "" if before is None else f"{interval(means(wrong) - means(before)):+.2%}"
    return f"{interval(means(wrong)):.2%}", change


def means(wrong) -> np.ndarray:
    """Of all photos, and of photos drawn from them."""
    values = np.asarray(wrong, float)
    draws = np.random.default_rng(0).integers(0, len(values), (BOOTSTRAPS, len(values)))
    return np.append(values.mean(), values[draws].mean(1))


# === Detection ===


def detection(model, data, sizes) -> None:
    import kerasdet
    from kerasdet.metrics import bootstrap

    rows, before = [], None
    for scales in ((model.image_size,), sizes):
        for merge in ("nms", "greedy"):
            pyramid = kerasdet.image_pyramid(model, scales, merge)
            found = pyramid.detect([sample.path for sample in data], score=0.0, keep_photo=False)
            drawn = bootstrap(data, found)["AP50"]
            change = "" if before is None else f"{interval(drawn - before):+.3f}"
            name = "one scale" if len(scales) == 1 else f"{len(scales)} scales"
            rows.append((f"{name}, {merge}", f"{interval(drawn):.3f}", change))
            before = drawn
    table(("windows", "AP50", "change"), rows)


# === Sliding as a convolution ===


def sliding(rounds: int) -> int:
    """Figure 5: a network for 14 x 14 px on 16 x 16 px, in one pass and as four windows."""
    import keras
    from keras import layers

    images = keras.Input((None, None, 3))
    x = layers.Conv2D(16, 5, activation="relu")(images)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(64, 5, activation="relu")(x)
    x = layers.Conv2D(64, 1, activation="relu")(x)
    network = keras.Model(images, layers.Conv2D(4, 1)(x))
    network.compile(jit_compile=False)
    large = np.random.default_rng(0).uniform(0, 1, (1, 16, 16, 3)).astype("float32")
    windows = [large[:, y : y + 14, x : x + 14] for y in (0, 2) for x in (0, 2)]
    times = interleave(
        {"one pass": lambda: network.predict_on_batch(large),
         "four windows": lambda: [network.predict_on_batch(window) for window in windows]},
        rounds, settle=3,
    )
    whole = network.predict_on_batch(large)[0].reshape(4, -1)
    apart = np.concatenate([network.predict_on_batch(window)[0, 0] for window in windows])
    print_machine()
    differ = np.abs(whole - apart).max()
    print(f"2 x 2 outputs of one pass and of four windows differ by at most {differ:.1e}")
    one, four = multiplications(16), 4 * multiplications(14)
    rows = [
        ("one pass on 16 x 16", f"{one:,}", "1.00", "1.00"),
        ("four windows of 14 x 14", f"{four:,}", f"{four / one:.2f}",
         spread(times["four windows"] / times["one pass"], ".2f")),
    ]
    table(("what", "multiplications", "ratio", "time, ratio (quartiles)"), rows)
    return 0


def multiplications(side: int) -> int:
    """Of figure 5's network on a square photo."""
    first = side - 4
    last = first // 2 - 4
    return first**2 * 16 * 3 * 25 + last**2 * (64 * 16 * 25 + 64 * 64 + 4 * 64)


if __name__ == "__main__":
    raise SystemExit(main())
