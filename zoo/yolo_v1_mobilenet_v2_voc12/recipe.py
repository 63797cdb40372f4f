"""Trains yolo_v1_mobilenet_v2_voc12: people and five animals, from CenterNet's backbone.

    python zoo/yolo_v1_mobilenet_v2_voc12/recipe.py --data DATA --out runs/yolo_v1

It starts from the backbone of centernet_mobilenet_v2_320_voc12, which was trained on the same photos. DATA
holds voc12/ (COCO json with train and val). A run that was killed goes on when the same command is given
again.

It takes 1.0 h on AMD EPYC, 2 cores, and reaches AP50 0.518, AP 0.235 on the 400 photos of voc12 that it
is not trained on.
"""

import kerasdet
from kerasdet.models.yolo_v1 import YOLOv1
from kerasdet.training import Stage, recipe, voc12

# A cell has 32 px, the backbone's own stride: 224 px are the paper's 7 x 7 cells and 98 boxes.
STAGES = (Stage(224, 30, 16),)
GRID = 7
# At the heads' rate the backbone would forget what it knows.
RATE, BACKBONE_RATE = 1e-3, 5e-5

CARD = {
    "aliases": ["yolo_v1"],
    "summary": "Cats, cows, dogs, horses, sheep and people in 98 boxes: YOLOv1 on MobileNetV2.",
    "training": {
        "data": [voc12.CARD_DATA],
        "starting_weights": recipe.CENTERNET,
    },
    "deviations": [
        "MobileNetV2 at 224 px in place of the paper's 20 convolutions at 448 px, batch norm and layers up "
        "to stride 4 frozen; the grid has the paper's 7 x 7 cells.",
        "Three separable 5x5 convolutions of 256 channels and 1x1 outputs in place of four convolutions "
        "and two fully connected layers.",
        "Losses are divided by the number of objects.",
        "Of two objects in a cell the smaller one is learned.",
        "AdamW with a cosine schedule and averaged weights; the paper has SGD with two drops.",
        "Its backbone starts from a CenterNet of the same photos; the paper's from ImageNet alone.",
        "Photos are zoomed by .6 to 1.6, half of them about an object, and stretched by up to 1.25; "
        "brightness, contrast and saturation vary; the paper moves and scales by up to a fifth, and varies "
        "exposure and saturation by up to 1.5.",
    ],
}
sets = voc12.sets


def build(size: int, weights: None) -> YOLOv1:
    return YOLOv1(
        voc12.CLASSES, backbone="mobilenet_v2", backbone_weights=kerasdet.zoo.load(recipe.CENTERNET["name"]),
        freeze_until="P2", image_size=size, grid=GRID, head="light", channels=256,
        name="yolo_v1_mobilenet_v2_voc12",
    )


if __name__ == "__main__":
    recipe.run(__doc__, sets, build, STAGES, rate=RATE, backbone_rate=BACKBONE_RATE, every=4, own_start=True)
