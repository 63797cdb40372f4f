"""Trains ssdlite_mobilenet_v2_320_voc12: people and five animals, from CenterNet's backbone.

    python zoo/ssdlite_mobilenet_v2_320_voc12/recipe.py --data DATA --out runs/ssdlite

It starts from the backbone of centernet_mobilenet_v2_320_voc12, which was trained on the same photos. DATA
holds voc12/ (COCO json with train and val). A run that was killed goes on when the same command is given
again.

It takes 1.4 h on AMD EPYC, 2 cores, and reaches AP50 0.648, AP 0.335 on the 400 photos of voc12 that it
is not trained on.
"""

import dataclasses

import kerasdet
from kerasdet.data.augment import Augment
from kerasdet.models.ssd import SSD
from kerasdet.training import Stage, recipe, voc12

STAGES = Stage(224, 14, 16), Stage(320, 10, 16)
# At the heads' rate the backbone would forget what it knows.
RATE, BACKBONE_RATE = 1e-3, 5e-5
# The finest map has cells of 16 px: on a canvas of four times the photo's sides most objects were lost.
AUGMENT = dataclasses.replace(Augment.ssd(), expand=2.0)
# Every object of the training set overlaps a default box by .644 on average, and 88 % of them one by .5;
# with SSDLite's own sizes, .2 to .95, it is .637 and 84 %.
ANCHOR_SIZES = 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0

CARD = {
    "aliases": ["ssdlite", "ssd"],
    "summary": "Cats, cows, dogs, horses, sheep and people: SSDLite for phones.",
    "training": {
        "data": [voc12.CARD_DATA],
        "starting_weights": recipe.CENTERNET,
    },
    "deviations": [
        "Default boxes of .15 to .9 of the square, for small objects; SSDLite's are .2 to .95.",
        "200 pairs of box and class are suppressed to 100; SSD takes 400 and keeps 200.",
        "Scores from .01 on and suppression from an overlap of .45 on, as SSD has them; SSDLite's are .001 "
        "and .55.",
        "Photos are expanded twice at most; SSD expands them up to four times.",
        "Crops have .3 to 1 of a photo's sides; SSD's have .1 to 1.",
        "Batch norm of the backbone frozen, its layers up to stride 4 too.",
        "AdamW, a cosine schedule and averaged weights in place of SGD in steps.",
        "The published weights were trained when photos without objects taught nothing, as in SSD; three "
        "negatives of each are learned by now.",
        "Its backbone starts from a CenterNet of the same photos; the paper's from ImageNet alone.",
        "Objects whose middle is cut off are ignored; SSD has them as background.",
    ],
}

sets = voc12.sets


def build(size: int, weights: None):
    return SSD(
        voc12.CLASSES, backbone="mobilenet_v2", backbone_weights=kerasdet.zoo.load(recipe.CENTERNET["name"]),
        freeze_until="P2", image_size=size, anchor_sizes=ANCHOR_SIZES, candidates=200, max_detections=100,
        name="ssdlite_mobilenet_v2_320_voc12",
    )


if __name__ == "__main__":
    recipe.run(
        __doc__, sets, build, STAGES, rate=RATE, backbone_rate=BACKBONE_RATE, every=4,
        own_start=True, batches={"augment": AUGMENT},
    )
