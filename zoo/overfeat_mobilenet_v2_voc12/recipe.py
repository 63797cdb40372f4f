"""Trains overfeat_mobilenet_v2_voc12: people and five animals by sliding windows, from CenterNet's backbone.

    python zoo/overfeat_mobilenet_v2_voc12/recipe.py --data DATA --out runs/overfeat_voc12

It starts from the backbone of centernet_mobilenet_v2_320_voc12, which was trained on the same photos. DATA
holds voc12/ (COCO json with train and val). A run that was killed goes on when the same command is given
again.

It has not been trained yet.
"""

import kerasdet
from kerasdet.models.overfeat import OverFeat
from kerasdet.training import Stage, recipe, voc12

STAGES = (Stage(320, 10, 16),)
# At the heads' rate the backbone would forget what it knows.
RATE, BACKBONE_RATE = 1e-3, 5e-5

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
        "Its backbone starts from a CenterNet of the same photos; the paper's network from random weights.",
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
