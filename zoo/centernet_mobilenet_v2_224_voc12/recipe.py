"""Trains centernet_mobilenet_v2_224_voc12: people and five animals, from an ImageNet backbone.

    python zoo/centernet_mobilenet_v2_224_voc12/recipe.py --data DATA \
        --backbone mobilenet_v2_1.0.weights.h5 --out runs/centernet_224

DATA holds voc12/ (COCO json with train and val). A run that was killed goes on when the same command is
given again. It is trained as the first 42 epochs of centernet_mobilenet_v2_320_voc12, which goes on to 320 px
after 30 of them; this one stays at 224 px and, in use, takes .55 of the time.

It takes 2.6 h on AMD EPYC, 2 cores, and reaches AP50 0.638, AP 0.368 on the 400 photos of voc12 that it
is not trained on.
"""

from kerasdet import zoo
from kerasdet.training import Stage, recipe

LARGE = recipe.read(zoo.recipe("centernet_mobilenet_v2_320_voc12"))
STAGES = (Stage(224, 42, 16),)
# Suppressed as the large one is. On the 120 photos of pennfudan: AP50 of people .779, with 366 boxes from a
# score of .3 on; without suppression .772, with 377.
CARD = LARGE.CARD | {
    "aliases": ["centernet_224"],
    "summary": "Cats, cows, dogs, horses, sheep and people, fast, for phones: CenterNet on MobileNetV2.",
    "deviations": [said for said in LARGE.CARD["deviations"] if said not in (LARGE.CONTEXT, LARGE.AGAIN)],
}
sets = LARGE.sets


def build(size: int, weights: str | None):
    return LARGE.build(size, weights, name="centernet_mobilenet_v2_224_voc12", context=0)


if __name__ == "__main__":
    recipe.run(
        __doc__, sets, build, STAGES, rate=LARGE.RATE, backbone_rate=LARGE.BACKBONE_RATE, every=4,
        batches=LARGE.BATCHES,
    )
