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

STAGES = Stage(224, 10, 16), Stage(320, 20, 16)
# At 1e-3, Keras' own, the deepest stage of the backbone saturates and its features are lost.
RATE = 5e-4


CARD = {
    "aliases": ["csp_faces"],
    "summary": "Faces, with or without a mask, as one class: a small CSP for phones.",
    "training": {
        "data": [
            {
                "name": "faces", "photos": 1300, "source": "web photos of faces, half of them masked",
                "terms": "rights unclear; used to train, shown nowhere",
            },
        ],
        "starting_weights": {
            "name": "MobileNetV2 0.35, ImageNet", "source": "keras.applications",
            "licence": "Apache-2.0",
        },
    },
    "deviations": [
        "Peaks by 3x3 max-pooling before suppression; the paper thresholds every cell.",
        "Dense targets (TTFNet) in place of one positive cell an object.",
        "Light neck (depthwise, bilinear, batch norm) in place of deconvolutions and L2 norm.",
        "MobileNetV2 0.35 in place of ResNet-50, batch norm frozen.",
        "A separable 5x5 convolution before the heads of the centre and the box.",
    ],
}


def sets(folder: pathlib.Path):
    """The training set, and the sets that are reported: name -> Dataset."""
    train, val = (
        kerasdet.data.load(folder / "faces", split=split).as_one_class("face")
        for split in ("train", "val")
    )
    return train, {"faces": val}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--backbone", required=True, help="ImageNet weights of MobileNetV2 0.35")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, help="stop every epoch after so many steps (to try it out)")
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    train, held_back = sets(options.data)

    def build(size: int, fresh: bool):
        return CSP(
            ("face",), backbone="mobilenet_v2_0.35",
            backbone_weights=options.backbone if fresh else None, image_size=size, target="dense",
            neck="light", channels=64, head_blocks=1, name="csp_mobilenet_v2_faces",
        )

    model = train_in_stages(
        build, STAGES, train, options.out, rate=RATE, steps_per_epoch=options.steps,
        callbacks=[kerasdet.metrics.CocoMetrics(held_back["faces"], every=2)],
    )
    model.save(options.out / "model.keras")
    print(model.evaluate_detections(held_back["faces"]))


if __name__ == "__main__":
    main()
