"""Trains centernet_tiny_224_voc12: centernet_tiny_256_voc12 at 224 px, for two fifths less time a photo.

    python zoo/centernet_tiny_224_voc12/recipe.py --data DATA --out runs/centernet_tiny_224

It goes on from that preset's weights. DATA holds voc12/ (COCO json with train and val). A run that was killed
goes on when the same command is given again.

It takes 0.3 h on AMD EPYC, 2 cores, and reaches AP50 0.533, AP 0.285 on the 400 photos of voc12 that it
is not trained on.
"""

import kerasdet
from kerasdet.training import Stage, recipe

LARGER = recipe.read(kerasdet.zoo.recipe("centernet_tiny_256_voc12"))
STAGES = (Stage(224, 10, 16),)
# What is learned has only to fit another size.
RATE, BACKBONE_RATE = 4e-4, 5e-5

CARD = LARGER.CARD | {
    "aliases": ["centernet_tiny_224"],
    "summary": "Cats, cows, dogs, horses, sheep and people, as fast as can be: the tiny CenterNet at 224 px.",
    "training": {
        "data": LARGER.CARD["training"]["data"],
        "starting_weights": {
            "name": "centernet_tiny_256_voc12",
            "source": "this shelf; MobileNetV2 0.35 of keras.applications, ImageNet, then voc12",
            "licence": "Apache-2.0",
        },
    },
    "deviations": [*LARGER.CARD["deviations"], "It starts from a CenterNet of the same photos."],
}
sets = LARGER.sets


def build(size: int, weights: None):
    detector = LARGER.build(size, weights, name="centernet_tiny_224_voc12")
    kerasdet.training.start_from(detector, kerasdet.zoo.load("centernet_tiny_256_voc12"))
    return detector


if __name__ == "__main__":
    recipe.run(
        __doc__, sets, build, STAGES, rate=RATE, backbone_rate=BACKBONE_RATE, every=5, own_start=True,
    )
