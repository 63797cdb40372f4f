"""Trains csp_mobilenet_v2_faces: faces, masked or not, as one class, at 320 px.

    python zoo/csp_mobilenet_v2_faces/recipe.py --data DATA --backbone mobilenet_v2_0.35.weights.h5 \
        --out runs/faces

DATA holds faces/ (COCO json with train and val). A run that was killed goes on when the same command is
given again.
"""

import argparse
import pathlib

import keras

import kerasdet
from kerasdet.models.csp import CSP
from kerasdet.training import Stage, train_in_stages

STAGES = Stage(224, 14, 16), Stage(320, 8, 16)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--backbone", required=True, help="ImageNet weights of MobileNetV2 0.35")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, help="stop every epoch after so many steps (to try it out)")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    train = kerasdet.data.load(options.data / "faces", split="train").as_one_class("face")
    val = kerasdet.data.load(options.data / "faces", split="val").as_one_class("face")

    def build(size: int, fresh: bool):
        return CSP(
            ("face",), backbone="mobilenet_v2_0.35",
            backbone_weights=options.backbone if fresh else None, image_size=size, target="dense",
            neck="light", channels=64, name="csp_mobilenet_v2_faces",
        )

    model = train_in_stages(
        build, STAGES, train, options.out, rate=1e-3, steps_per_epoch=options.steps,
        callbacks=[kerasdet.metrics.CocoMetrics(val, every=2)],
    )
    model.save(options.out / "model.keras")
    print(model.evaluate_detections(val))


if __name__ == "__main__":
    main()
