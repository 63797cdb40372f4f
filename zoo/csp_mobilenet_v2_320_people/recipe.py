"""Trains csp_mobilenet_v2_320_people: full bodies and heads of people, from an ImageNet backbone.

    python zoo/csp_mobilenet_v2_320_people/recipe.py --data DATA --backbone mobilenet_v2_1.0.weights.h5 \
        --out runs/people

DATA holds people/ (CrowdHuman ODGT with fbox and hbox), pennfudan/ and voc12/ (COCO json). A run that
was killed goes on when the same command is given again. Most epochs run at 224 px, the last at 320 px:
the network is convolutional, and small photos train twice as fast.
"""

import argparse
import dataclasses
import pathlib

import keras
import numpy as np

import kerasdet
from kerasdet.models.csp import CSP
from kerasdet.training import EMA, Checkpoint

# (side of the square, epochs, photos a batch)
STAGES = ((224, 22, 16), (320, 16, 16))
PEAK_RATE = 1e-3
# Penn-Fudan photos that are not trained on: the ends of both of its places, Fudan and Penn.
HELD_OUT = range(0, 8), range(112, 120)


def bodies_unknown(street):
    """`people` without what would teach that a person is background.

    Its unpaired heads come without the body's box. A photo with nothing but such heads is left out; on
    the others the head's ignore region is widened to where the body must be: three heads wide and eight
    high.
    """
    samples = []
    for sample in street:
        if not len(sample.boxes) and len(sample.ignore):
            continue
        x1, y1, x2, y2 = sample.ignore.T
        middle, width, height = (x1 + x2) / 2, x2 - x1, y2 - y1
        body = np.stack([middle - 1.5 * width, y1, middle + 1.5 * width, y1 + 8 * height], -1)
        samples.append(dataclasses.replace(sample, ignore=body.astype(np.float32)))
    return kerasdet.data.Dataset(samples, street.classes, street.parts, street.name, street.root)


def people_of(folder: pathlib.Path):
    """The training set, and the sets that are reported: name -> Dataset."""
    street = kerasdet.data.load(folder / "people", split="train")
    street_val = kerasdet.data.load(folder / "people", split="val")
    fudan = kerasdet.data.load(folder / "pennfudan")
    held = sorted(i for block in HELD_OUT for i in block)
    fudan_train = fudan.subset([i for i in range(len(fudan)) if i not in held])
    voc = kerasdet.data.load(folder / "voc12", split="train").select("person")
    voc_val = kerasdet.data.load(folder / "voc12", split="val").select("person")

    def some_empty(data, count):
        """Photos with objects, and `count` of those without, evenly spaced."""
        full = [i for i, sample in enumerate(data) if len(sample.boxes)]
        empty = [i for i, sample in enumerate(data) if not len(sample.boxes)]
        return data.subset(full + empty[:: max(1, len(empty) // count)][:count])

    train = bodies_unknown(street) + fudan_train.repeat(5) + some_empty(voc, 240)
    report = {"people": street_val, "pennfudan": fudan.subset(held), "voc12": voc_val}
    return train, report


def build(size: int, backbone: str | None):
    return CSP(
        ("person",), backbone="mobilenet_v2", backbone_weights=backbone, freeze_until="P2",
        image_size=size, stride=4, neck="light", target="dense", parts=("head",),
        name="csp_mobilenet_v2_320_people",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--backbone", required=True, help="ImageNet weights of MobileNetV2")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, help="stop every epoch after so many steps (to try it out)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    train, report = people_of(options.data)
    print(train, {name: str(data) for name, data in report.items()}, flush=True)

    steps = [len(train) // batch for _, _, batch in STAGES]
    total = sum(n * epochs for n, (_, epochs, _) in zip(steps, STAGES, strict=True))
    rate = keras.optimizers.schedules.CosineDecay(
        1e-5, total - 300, alpha=0.01, warmup_target=PEAK_RATE, warmup_steps=300
    )
    done, previous = 0, None
    for size, epochs, batch in STAGES:
        model = build(size, options.backbone if previous is None else None)
        model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-3, clipnorm=10.0))
        ema = EMA(0.999)
        checkpoint = Checkpoint(options.out / f"checkpoint_{size}.npz", ema)
        start = checkpoint.restore(model)
        if start == 0 and previous is not None:
            # The stage before, with its own weights, optimizer and averages: as if it had gone on.
            Checkpoint(options.out / f"checkpoint_{previous}.npz", ema).restore(model)
            start = done
        batches = train.batches(batch, model, training=True, epoch=start)
        log = keras.callbacks.CSVLogger(options.out / "log.csv", append=True)
        if start < done + epochs:
            model.fit(
                batches, epochs=done + epochs, initial_epoch=start, verbose=2,
                steps_per_epoch=options.steps,
                callbacks=[
                    ema, checkpoint,
                    kerasdet.metrics.CocoMetrics(report["people"], every=2), log,
                ],
            )
        done, previous = done + epochs, size
    model.save(options.out / "model.keras")
    for name, data in report.items():
        print(name, model.evaluate_detections(data), flush=True)


if __name__ == "__main__":
    main()
