"""Trains overfeat_mobilenet_v2_voc12: people and five animals by sliding windows, from CenterNet's backbone.

    python zoo/overfeat_mobilenet_v2_voc12/recipe.py --data DATA --out runs/overfeat_voc12

It starts from the backbone of centernet_mobilenet_v2_320_voc12, which was trained on the same photos. DATA
holds voc12/ (COCO json with train and val). A run that was killed goes on when the same command is given
again.

It takes 0.8 h on AMD EPYC, 2 cores, and reaches AP50 0.455, AP 0.209 on the 400 photos of voc12 that it
is not trained on.
"""

import kerasdet
from kerasdet.models.overfeat import OverFeat
from kerasdet.training import Stage, recipe, voc12

STAGES = (Stage(320, 10, 16),)
# At the heads' rate the backbone would forget what it knows.
RATE, BACKBONE_RATE = 1e-3, 5e-5
# Of the many windows on an object the surest is kept, and those beside it are nearly as sure: the least noise
# makes another win. On 150 photos of the training set, 58 % of the boxes scored .3 and more are the same in
# eight bits by an IoU of .8; 62 % with all but the first blocks of the backbone in float. AP .281 for .277.
ON_PARITY = "warn"

CARD = {
    "aliases": ["overfeat_voc12"],
    "summary": "Cats, cows, dogs, horses, sheep and people, found by OverFeat's sliding windows.",
    "training": {
        "data": [voc12.CARD_DATA],
        "starting_weights": recipe.CENTERNET,
    },
    "deviations": [
        "MobileNetV2 up to stride 16, batch norm frozen, layers up to stride 4 frozen, in place of the "
        "paper's own features; classifier and regressor an eighth as wide.",
        "Windows of 160 px, 32 px apart, with offsets 16; the accurate network's are 221 px, 36 px apart, "
        "with offsets 12.",
        "Classifier and regressor are trained at once, and with the features; the paper trains one after the "
        "other.",
        "Trained on photos of one size; the paper's regressor on several.",
        "Photos are stretched to the square, as phones do; the paper keeps their aspect ratio.",
        "AdamW with a cosine schedule and averaged weights; the paper has SGD with drops.",
        "The card's scores are of one scale with non-maximum suppression; the paper merges greedily.",
        "Its int8 file scores as the float one does, but finds other boxes: of many windows on an object "
        "another one wins. The export says so, and writes the file if told `on_parity='warn'`.",
        "Its backbone starts from a CenterNet of the same photos; the paper's network from random weights.",
        "Photos are zoomed by .6 to 1.6, half of them about an object, and stretched by up to 1.25; "
        "brightness, contrast and saturation vary; the paper cuts out 221 px at random and flips.",
    ],
}
sets = voc12.sets


def build(size: int, weights: None) -> OverFeat:
    return OverFeat(
        voc12.CLASSES, network="fast", backbone="mobilenet_v2",
        backbone_weights=kerasdet.zoo.load(recipe.CENTERNET["name"]), freeze_until="P2",
        width=1 / 8, window=5, image_size=size, name="overfeat_mobilenet_v2_voc12",
    )


if __name__ == "__main__":
    recipe.run(__doc__, sets, build, STAGES, rate=RATE, backbone_rate=BACKBONE_RATE, every=4, own_start=True)
