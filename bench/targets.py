"""What share of a training step the targets and losses of CSP take, "paper" and "dense".

    python bench/targets.py [--size 320] [--batch 16]

Timing a step with and without its losses would drown the difference in the network's own noise. So
the losses are timed on a network that costs next to nothing, with heads of the same shapes, less
the same network's step with a trivial loss. The step is then the real network's with a trivial
loss, plus them. Gradients are included.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import interleave, print_machine, spread, table

TARGETS = ("paper", "dense")
PARTS = ("head",)


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=320, help="side of the network's square")
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--boxes", type=int, default=24, help="rows the photos are padded to")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args(argv)

    batch = draw_batch(args)
    tasks = {
        "network": step(network(args, "trivial", args.backbone), batch),
        "trivial": step(network(args, "trivial"), batch),
    }
    tasks |= {target: step(network(args, target), batch) for target in TARGETS}
    times = interleave(tasks, args.rounds)
    rows = []
    for target in TARGETS:
        losses = times[target] - times["trivial"]
        whole = times["network"] + losses
        rows.append(
            (
                target,
                spread(whole * 1000, ".0f"),
                spread(losses * 1000, ".1f"),
                spread(losses / whole, ".1%"),
            )
        )
    print_machine()
    print(
        f"csp, {args.backbone}, {args.size} px, stride {args.stride}, batches of {args.batch}, "
        f"{args.boxes} boxes with a head; median (quartiles)"
    )
    table(("targets", "step, ms", "targets + losses, ms", "share"), rows)
    return 0


def network(args, target: str, backbone: str | None = None):
    """A compiled CSP.

    Args:
        target: "paper", "dense", or "trivial" for a loss that costs nothing.
        backbone: its name; None pools the photo and convolves as good as nothing.
    """
    import keras
    from keras import ops

    from kerasdet.models.csp import CSP

    class TrivialLoss(CSP):
        def loss_parts(self, targets, raw):
            # Every head has its gradient, or the optimiser would have less to do.
            return {"center_loss": sum(ops.mean(ops.square(head)) for head in raw.values())}

    options = {"image_size": args.size, "stride": args.stride, "parts": PARTS}
    if backbone is None:
        images = keras.Input((args.size, args.size, 3))
        levels = {
            f"P{n}": keras.layers.AveragePooling2D(2**n, name=f"P{n}")(images) for n in range(2, 6)
        }
        backbone = keras.Model(images, levels)
        options["channels"] = 8
    if target == "trivial":
        model = TrivialLoss(backbone=backbone, **options)
    else:
        model = CSP(backbone=backbone, target=target, **options)
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
    labels = np.where(np.arange(args.boxes) < max(1, args.boxes // 4), 0, -1)
    labels = np.broadcast_to(labels, rows).astype(np.int32)
    weights = (labels >= 0).astype(np.float32)
    return images, {
        "boxes": boxes * weights[..., None], "labels": labels, "weights": weights,
        "ignore": np.zeros((args.batch, 8, 4), np.float32),
        "parts": (heads * weights[..., None])[:, :, None], "part_weights": weights[..., None],
    }


if __name__ == "__main__":
    raise SystemExit(main())
