"""Trains csp_mobilenet_v2_faces: faces, masked or not, as one class, at 320 px.

    python zoo/csp_mobilenet_v2_faces/recipe.py --data DATA --backbone mobilenet_v2_0.35.weights.h5 \
        --out runs/faces

DATA holds faces/ (COCO json with train and val). A run that was killed goes on when the same command is
given again.

It takes 0.6 h on AMD EPYC, 2 cores, and reaches AP50 0.755, AP 0.264 on the 200 photos of faces that it
is not trained on.
"""

import pathlib

import kerasdet
from kerasdet.models.csp import CSP
from kerasdet.training import Stage, recipe

STAGES = Stage(224, 10, 16), Stage(320, 20, 16)
# At 1e-3, Keras' own, the deepest stage of the backbone saturates and its features are lost.
RATE = 5e-4

CARD = {
    "aliases": ["csp_faces"],
    "summary": "Faces, with or without a mask, as one class: a small CSP for phones.",
    "training": {
        "data": [
            {
                "name": "faces", "photos": 1300,
                "source": "web photos of faces, half of them masked; 11 of them repeat 4 of the 200 held "
                "back (kerasdet data doctor)",
                "terms": "rights unclear; used to train, shown nowhere",
            },
        ],
        "starting_weights": recipe.MOBILENET_V2_035,
    },
    "deviations": [
        "Peaks by 3x3 max-pooling before suppression; the paper thresholds every cell.",
        "Dense targets (TTFNet) in place of one positive cell an object.",
        "Light neck (depthwise, bilinear, batch norm) in place of deconvolutions and L2 norm.",
        "MobileNetV2 0.35 in place of ResNet-50, batch norm frozen.",
        "A separable 5x5 convolution before the heads of the centre and the box.",
        "Photos are stretched to the square, as phones do; the paper keeps their aspect ratio.",
        "AdamW with warm-up and a cosine schedule; the paper has Adam at one rate.",
        "Photos are zoomed by .6 to 1.6, half of them about an object, and stretched by up to 1.25; "
        "brightness, contrast and saturation vary; the paper zooms by .4 to 1.5, cuts out a part about an "
        "object and varies brightness.",
    ],
}


def sets(folder: pathlib.Path):
    """The training set, and the sets that are reported: name -> Dataset."""
    train, val = (
        kerasdet.data.load(folder / "faces", split=split).as_one_class("face")
        for split in ("train", "val")
    )
    return train, {"faces": val}


def build(size: int, weights: str | None) -> CSP:
    return CSP(
        ("face",), backbone="mobilenet_v2_0.35", backbone_weights=weights, image_size=size,
        target="dense", neck="light", channels=64, head_blocks=1, name="csp_mobilenet_v2_faces",
    )


if __name__ == "__main__":
    recipe.run(__doc__, sets, build, STAGES, rate=RATE, every=2)
