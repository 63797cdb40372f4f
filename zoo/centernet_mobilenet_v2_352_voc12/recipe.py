"""Trains centernet_mobilenet_v2_352_voc12: people and five animals, on from the CenterNet of 320 px.

    python zoo/centernet_mobilenet_v2_352_voc12/recipe.py --data DATA --out runs/centernet_352

It starts from centernet_mobilenet_v2_320_voc12, which was trained on the same photos. DATA holds voc12/ (COCO
json with train and val). A run that was killed goes on when the same command is given again.

It takes 1.1 h on AMD EPYC, 2 cores, and reaches AP50 0.698, AP 0.394 on the 400 photos of voc12 that it
is not trained on.
"""

from kerasdet import zoo
from kerasdet.data.augment import Augment
from kerasdet.training import Stage, recipe, start_from

START = "centernet_mobilenet_v2_320_voc12"
SMALLER = recipe.read(zoo.recipe(START))
# The photos' own size, and what SSD-MobileNetV1's time has room for where a processor multiplies vectors of
# eight-bit numbers. Half the rates, as faster_rcnn had them when it went on.
STAGES = (Stage(352, 16, 16, peak=0.5, batches={"augment": Augment(mosaic=0.5), "mix_until": 11}),)

CARD = SMALLER.CARD | {
    "aliases": ["centernet_352"],
    "summary": "Cats, cows, dogs, horses, sheep and people, more of them: CenterNet on MobileNetV2.",
    "training": SMALLER.CARD["training"] | {
        "starting_weights": {
            "name": START,
            "source": "this shelf (weights of sha256 c9490e01b7ba); MobileNetV2 1.0 of TF-slim, ImageNet, "
            "then voc12",
            "licence": "Apache-2.0",
        },
    },
    "deviations": [
        said for said in SMALLER.CARD["deviations"] if said not in (SMALLER.MOSAICS, SMALLER.AGAIN)
    ] + [
        "It goes on from a CenterNet of the same photos, of 58 epochs, under a cosine from half the rates; "
        "half of the pictures of the first 11 of its own 16 epochs are mosaics of four photos (YOLOv4).",
    ],
}
sets = SMALLER.sets


def build(size: int, weights: None):
    detector = SMALLER.build(size, weights, name="centernet_mobilenet_v2_352_voc12")
    start_from(detector, zoo.load(START))
    return detector


if __name__ == "__main__":
    recipe.run(
        __doc__, sets, build, STAGES, rate=SMALLER.RATE, backbone_rate=SMALLER.BACKBONE_RATE, every=4,
        own_start=True,
    )
