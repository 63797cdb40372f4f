"""What a claim of the papers is worth on photos at hand: arms that differ in one thing, trained and compared.

    python bench/claims.py two-stage --data DATA --backbone mobilenet_v2_0.35.weights.h5 --out runs/claims
    python bench/claims.py craft --data DATA --backbone mobilenet_v2_0.35.weights.h5 --out runs/claims

`--backbone resnet50v2.weights.h5 --name resnet50v2 --size 320` trains the same arms on a ResNet50V2, the
papers' own kind; that wants a GPU.

DATA holds voc12/ and people/. Every arm is trained from the same backbone, with the same seed, photos and
number of epochs; `--arms` names some of them, `--list` prints all with what they are for. A run that was
killed goes on when the same command is given again, and what is trained is not trained again. Without --data
the tables are printed of the arms that are there, for which `*.figures.npz` of an arm's folder is enough: so
arms that were trained on several machines can be set beside each other. Intervals are of 95 %, by bootstrap
over all validation photos; a "change" is that to the arm named, on the same draws of photos.
"""

from __future__ import annotations

import argparse
import pathlib

from arms import BACKBONE_RATE, BATCH, RATE, Run
from common import print_machine


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("claims", choices=("two-stage", "craft"))
    parser.add_argument("--data", type=pathlib.Path, help="folder of the data sets")
    parser.add_argument("--backbone", help="file of the backbone's ImageNet weights")
    parser.add_argument("--name", default="mobilenet_v2_0.35", help="name of that backbone")
    parser.add_argument("--out", type=pathlib.Path, help="folder of the runs")
    parser.add_argument("--arms", nargs="+", help="only these")
    parser.add_argument("--list", action="store_true", help="print the arms")
    parser.add_argument("--size", type=int, default=192, help="side of the network's square, pixels")
    parser.add_argument("--epochs", type=int, help="8 of craft, 6 of two-stage")
    parser.add_argument("--steps", type=int, help="stop every epoch after so many steps (to try it out)")
    parser.add_argument("--photos", type=int, help="only so many validation photos (to try it out)")
    options = parser.parse_args(argv)
    if options.claims == "two-stage":
        import claims_two_stage as claims
    else:
        import claims_craft as claims
    if options.epochs is None:
        options.epochs = claims.EPOCHS
    arms = claims.arms(options.name)
    chosen = options.arms or list(arms)
    if unknown := sorted(set(chosen) - set(arms)):
        parser.error(f"no arm {', '.join(unknown)}; there are {', '.join(arms)}")
    if options.list:
        for name in chosen:
            print(f"{name:24} {arms[name].about}")
        print(
            "\nEach is for a CPU, with mobilenet_v2_0.35 at 192 px; a GPU trains all of them with --name "
            "resnet50v2 and its weights as --backbone"
        )
        return 0
    if options.out is None:
        parser.error("--out is missing")
    runs = {name: Run(name, arms[name], options) for name in chosen}
    if options.data is None:
        lacking = [name for name, run in runs.items() if not run.has("detections")]
        if options.arms and lacking:
            parser.error(f"nothing is kept of {', '.join(lacking)} in {options.out}; train with --data")
        runs = {name: run for name, run in runs.items() if name not in lacking}
        if not runs:
            parser.error(f"--data is missing, and no arm is kept in {options.out}")
    elif options.backbone is None:
        parser.error("--backbone is missing")
    else:
        for run in runs.values():
            run.settle()
            claims.keep(run)
        print_machine()
    print(
        f"{options.name}, {options.size} px, {options.epochs} epochs of batches of {BATCH}; where an arm "
        f"says nothing else AdamW {RATE:g}, {BACKBONE_RATE:g} for the backbone, cosine; averaged weights\n"
    )
    claims.tables(runs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
