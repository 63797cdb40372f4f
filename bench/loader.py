"""How fast the loader is, against a bare Grain + OpenCV loop and as a share of training.

    python bench/loader.py DATA [--size 320]
"""

from __future__ import annotations

import argparse
import dataclasses
import types

import numpy as np
from common import print_machine, table

from kerasdet.deploy.timing import interleave, spread


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a labelled set, as kerasdet.data.load takes it")
    parser.add_argument("--size", type=int, default=320, help="side of the network's square")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2, help="of either loader")
    parser.add_argument("--photos", type=int, default=640, help="in one pass")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backbone", default="mobilenet_v2", help="of the csp that is trained")
    parser.add_argument("--steps", type=int, default=4, help="training steps a turn, 0 for none")
    args = parser.parse_args(argv)

    from kerasdet import data

    dataset = data.load(args.data)
    rows = loader_rows(dataset, args)
    if args.steps:
        rows += training_rows(dataset, args)
    print_machine(args.threads)
    print(f"{dataset.name or args.data}, {args.size} px, batches of {args.batch}")
    table(("what", "median (quartiles)"), rows)
    return 0


def loader_rows(dataset, args) -> list[tuple[str, str]]:
    """Photos a second of both loaders, and their ratio."""
    from kerasdet.data.augment import Augment

    photos = _first(dataset, args.photos // args.batch * args.batch or args.batch)
    like = types.SimpleNamespace(
        image_size=args.size, resize="stretch", classes=photos.classes, parts=photos.parts,
        given_proposals=0, mask_size=0,
    )
    ours = photos.batches(args.batch, like, training=True, threads=args.threads)
    bare = bare_batches([sample.path for sample in photos], args)
    mixed = photos.batches(
        args.batch, like, training=True, threads=args.threads,
        augment=dataclasses.replace(Augment(), mixup=1.5),
    )
    times = interleave(
        {"ours": lambda: _drain(ours), "mixed": lambda: _drain(mixed), "bare": lambda: _drain(bare)},
        args.rounds,
    )
    count = len(photos)
    return [
        ("kerasdet loader, training=True, photos/s", spread(count / times["ours"], ".0f")),
        ("kerasdet loader with mixup, two photos each, pictures/s", spread(count / times["mixed"], ".0f")),
        ("bare Grain + OpenCV loop, photos/s", spread(count / times["bare"], ".0f")),
        ("kerasdet / bare, speed", spread(times["bare"] / times["ours"], ".2f")),
    ]


def bare_batches(paths: list[str], args):
    """Decode and resize, and nothing else: what Grain and OpenCV can do at best."""
    import cv2
    import grain

    def decode(path: str) -> np.ndarray:
        return cv2.resize(cv2.imread(path), (args.size, args.size))

    options = grain.ReadOptions(num_threads=args.threads, prefetch_buffer_size=4 * args.batch)
    return grain.MapDataset.source(paths).map(decode).to_iter_dataset(options).batch(args.batch)


def training_rows(dataset, args) -> list[tuple[str, str]]:
    """The loader's share of a step of csp, alone and while it runs beside the training."""
    from kerasdet.models.csp import CSP

    photos = _first(dataset, args.steps * args.batch)
    model = CSP(
        photos.classes, backbone=args.backbone, image_size=args.size, parts=photos.parts
    )
    model.compile()
    batches = photos.batches(args.batch, model, training=True, threads=args.threads)
    held = list(batches)

    def train(source):
        for images, targets in source:
            model.train_on_batch(images, targets)

    tasks = {
        "load": lambda: _drain(batches),
        "train": lambda: train(held),
        # A new pass each turn: nothing can have been read ahead while the others had theirs.
        "both": lambda: train(batches),
    }
    times = interleave(tasks, args.rounds)
    each = {name: 1000 * seconds / len(held) for name, seconds in times.items()}
    return [
        ("loading alone, ms a batch", spread(each["load"], ".1f")),
        ("training step on a batch at hand, ms", spread(each["train"], ".0f")),
        ("training step fed by the loader, ms", spread(each["both"], ".0f")),
        ("loading / training step", spread(times["load"] / times["train"], ".1%")),
        ("slower by, if fed by the loader", spread(times["both"] / times["train"] - 1, ".1%")),
    ]


def _first(dataset, count: int):
    """The first `count` photos, over and over if the set has fewer."""
    return dataset.repeat(-(-count // len(dataset)))[:count]


def _drain(batches) -> None:
    for _ in batches:
        pass


if __name__ == "__main__":
    raise SystemExit(main())
