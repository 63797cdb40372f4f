"""Trains yolo_v3_mobilenet_v2_320_voc12: people and five animals, from CenterNet's backbone.

    python zoo/yolo_v3_mobilenet_v2_320_voc12/recipe.py --data DATA --out runs/yolo_v3

It starts from the backbone of centernet_mobilenet_v2_320_voc12, which was trained on the same photos. DATA
holds voc12/ (COCO json with train and val). A run that was killed goes on when the same command is given
again. The size of the square changes every ten batches, as in the paper.

It takes 1.8 h on AMD EPYC, 2 cores, and reaches AP50 0.641, AP 0.344 on the 400 photos of voc12 that it
is not trained on.
"""

import kerasdet
from kerasdet.models.yolo_v3 import YOLOv3
from kerasdet.training import Stage, recipe, voc12

STAGES = (Stage(320, 24, 16),)
SIZES = (224, 256, 288, 320, 352)
# At the heads' rate the backbone would forget what it knows.
RATE, BACKBONE_RATE = 1e-3, 5e-5
# `kerasdet data anchors DATA/voc12 --size 320`, of all twenty classes' boxes.
ANCHORS = (
    (20, 27), (43, 61), (54, 141), (100, 88), (99, 211), (152, 148), (172, 265), (245, 193), (282, 294),
)

CARD = {
    "aliases": ["yolo_v3"],
    "summary": "Cats, cows, dogs, horses, sheep and people: YOLOv3 on MobileNetV2 with a light neck.",
    "training": {
        "data": [voc12.CARD_DATA],
        "starting_weights": recipe.CENTERNET,
    },
    "deviations": [
        "MobileNetV2 in place of Darknet-53, batch norm and layers up to stride 4 frozen.",
        "Light neck: 1x1 laterals and separable 5x5 convolutions of 128 channels in place of six "
        "convolutions a level.",
        "Boxes are learned by 1 - GIoU, which counts 2.5 times; the paper has squared errors.",
        "Losses are divided by the number of objects, and objectness begins at 1 %.",
        "Of two objects with the same cell and anchor the smaller one is learned.",
        "Anchors of this set's boxes of all twenty classes, at 320 px.",
        "Random sizes from 224 to 352 px; the paper's go from 320 to 608.",
        "Photos are stretched to the square, as phones do; the paper keeps their aspect ratio.",
        "AdamW with a cosine schedule and averaged weights; the paper has SGD with two drops.",
        "Its backbone starts from a CenterNet of the same photos; the paper's from ImageNet alone.",
        "Photos are zoomed by .6 to 1.6, half of them about an object, and stretched by up to 1.25; "
        "brightness, contrast and saturation vary; darknet moves sides by up to .3, and varies saturation "
        "and exposure by up to 1.5 and hue by .1.",
    ],
}
sets = voc12.sets


def build(size: int, weights: None) -> YOLOv3:
    return YOLOv3(
        voc12.CLASSES, backbone="mobilenet_v2", backbone_weights=kerasdet.zoo.load(recipe.CENTERNET["name"]),
        freeze_until="P2", image_size=size, anchors=ANCHORS, neck="light", channels=128, box_loss="giou",
        name="yolo_v3_mobilenet_v2_320_voc12",
    )


if __name__ == "__main__":
    recipe.run(
        __doc__, sets, build, STAGES, rate=RATE, backbone_rate=BACKBONE_RATE, every=4,
        own_start=True, batches={"sizes": SIZES},
    )
