"""What share of a training step the targets and losses of a one-stage detector take.

    python bench/targets.py [csp centernet ssdlite yolo_v1 yolo_v3] [--size 320] [--batch 16]

Timing a step with and without its losses would drown the difference in the network's own noise. So
the losses are timed on a network that costs next to nothing, with heads of the same shapes, less
the same network's step with a trivial loss. The step is then the real network's with a trivial
loss, plus them. Gradients are included.
"""

from __future__ import annotations

import argparse
import importlib

import numpy as np
from common import print_machine, table

from kerasdet.deploy.timing import interleave, spread

# Name -> class, its options, those of the network that costs next to nothing, and the losses to time.
TARGETS = {"paper": {"target": "paper"}, "dense": {"target": "dense"}}
DETECTORS = {
    "csp": ("csp.CSP", {"parts": ("head",)}, {"channels": 8}, TARGETS),
    "centernet": ("centernet.CenterNet", {}, {"channels": 8}, TARGETS),
    "ssdlite": ("ssd.SSD", {}, {}, {"": {}}),
    "yolo_v1": ("yolo_v1.YOLOv1", {"head": "light"}, {"channels": 8}, {"": {}}),
    "yolo_v3": (
        "yolo_v3.YOLOv3", {}, {"channels": 8}, {"yolo": {"box_loss": "yolo"}, "giou": {"box_loss": "giou"}}
    ),
}


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("detectors", nargs="*", metavar="DETECTOR", help=", ".join(DETECTORS))
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=320, help="side of the network's square")
    parser.add_argument("--stride", type=int, default=4, help="of csp and centernet")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--boxes", type=int, default=24, help="rows the photos are padded to")
    parser.add_argument("--classes", type=int, default=6, help="how many; COCO has 80")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args(argv)
    unknown = set(args.detectors) - set(DETECTORS)
    if unknown:
        parser.error(f"no detector {', '.join(sorted(unknown))}; there is {', '.join(DETECTORS)}")

    rows = []
    for name in args.detectors or DETECTORS:
        rows += measure(name, args)
    print_machine()
    print(
        f"{args.backbone}, {args.size} px, batches of {args.batch}, {args.boxes} boxes of {args.classes} "
        "classes; median (quartiles)"
    )
    table(("detector", "step, ms", "targets + losses, ms", "share"), rows)
    return 0


def measure(name: str, args) -> list[tuple[str, ...]]:
    """Rows of the table: one for each way that a detector has to be taught."""
    ways = DETECTORS[name][-1]
    batch = draw_batch(args)
    tasks = {
        "network": step(network(args, name, trivial=True, backbone=args.backbone), batch),
        "trivial": step(network(args, name, trivial=True), batch),
    }
    tasks |= {f"way {way}": step(network(args, name, **options), batch) for way, options in ways.items()}
    times = interleave(tasks, args.rounds)
    rows = []
    for way in ways:
        losses = times[f"way {way}"] - times["trivial"]
        whole = times["network"] + losses
        rows.append(
            (
                f"{name} {way}".strip(),
                spread(whole * 1000, ".0f"),
                spread(losses * 1000, ".1f"),
                spread(losses / whole, ".1%"),
            )
        )
    return rows


def network(args, name: str, trivial: bool = False, backbone: str | None = None, **options):
    """A compiled detector.

    Args:
        name: of `DETECTORS`.
        trivial: a loss that costs nothing in place of its own.
        backbone: its name; None pools the photo and convolves as good as nothing.
        options: of its constructor.
    """
    import keras
    from keras import ops

    place, usual, cheap, _ = DETECTORS[name]
    module, class_name = place.split(".")
    detector = getattr(importlib.import_module(f"kerasdet.models.{module}"), class_name)

    class TrivialLoss(detector):
        def loss_parts(self, targets, raw):
            # Every head has its gradient, or the optimiser would have less to do.
            return {"trivial_loss": sum(ops.mean(ops.square(head)) for head in raw.values())}

    options = usual | options | {"image_size": args.size}
    if name in ("csp", "centernet"):
        options["stride"] = args.stride
    if name == "yolo_v1":
        options["grid"] = args.size // 32
    if backbone is None:
        images = keras.Input((args.size, args.size, 3))
        levels = {
            f"P{n}": keras.layers.AveragePooling2D(2**n, name=f"P{n}")(images) for n in range(2, 6)
        }
        backbone = keras.Model(images, levels)
        options |= cheap
    classes = [f"class {number}" for number in range(args.classes)]
    model = (TrivialLoss if trivial else detector)(classes, backbone=backbone, **options)
    if trivial:
        model.track_losses("trivial_loss")
    model.compile()
    return model


def step(model, batch):
    """A task: one training step."""
    return lambda: model.train_on_batch(*batch)


def draw_batch(args):
    """Noise with a quarter of the rows objects and the rest padding, as the loader gives them."""
    rng = np.random.default_rng(0)
    rows = (args.batch, args.boxes)
    images = rng.integers(0, 256, (args.batch, args.size, args.size, 3), np.uint8)
    centre = rng.uniform(0.3, 0.7, (*rows, 2)) * args.size
    half = rng.uniform(0.05, 0.25, (*rows, 2)) * args.size
    boxes = np.concatenate([centre - half, centre + half], -1).astype(np.float32)
    heads = np.concatenate([centre - half, centre - half / 2], -1).astype(np.float32)
    real = np.arange(args.boxes) < max(1, args.boxes // 4)
    labels = np.where(real, rng.integers(0, args.classes, rows), -1).astype(np.int32)
    weights = (labels >= 0).astype(np.float32)
    return images, {
        "boxes": boxes * weights[..., None], "labels": labels, "weights": weights,
        "ignore": np.zeros((args.batch, 8, 4), np.float32),
        "parts": (heads * weights[..., None])[:, :, None], "part_weights": weights[..., None],
    }


if __name__ == "__main__":
    raise SystemExit(main())
