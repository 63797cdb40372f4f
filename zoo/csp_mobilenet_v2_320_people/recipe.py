"""Trains csp_mobilenet_v2_320_people: full bodies and heads of people, from a CenterNet of the shelf.

    python zoo/csp_mobilenet_v2_320_people/recipe.py --data DATA --out runs/people

It starts from centernet_mobilenet_v2_320_voc12, which has the same branches, the same neck but for its blocks
on P5, and has learned where animals and people end, on more photos than there are of people alone. DATA holds
people/ (CrowdHuman ODGT with fbox and hbox), pennfudan/ and voc12/ (COCO json). A run that was killed goes on
when the same command is given again. The first epochs run at 224 px, the others at 320 px: the network is
convolutional, and small photos train twice as fast. With --ablation it trains two short runs instead, with
and without the head part, and writes their scores to OUT/ablation.json.

It takes 1.4 h on AMD EPYC, 2 cores, and reaches AP50 0.682, AP 0.353 on the 181 photos of people that it
is not trained on.
"""

import dataclasses
import functools
import pathlib

import numpy as np

import kerasdet
from kerasdet.models.csp import CSP
from kerasdet.training import Stage, recipe, start_from

ABLATION = (Stage(160, 6, 16),)
STAGES = Stage(224, 10, 16), Stage(320, 12, 16)
# At the heads' rate the deepest stage of the backbone saturates: its features are lost, and what stands in
# their place does not bear eight bits.
RATE, BACKBONE_RATE = 4e-4, 1e-4
# Penn-Fudan photos that are not trained on: the ends of both of its places, Fudan and Penn.
HELD_OUT = range(0, 8), range(112, 120)

CARD = {
    "aliases": ["csp"],
    "summary": "People, full body and head, for phones: CSP on MobileNetV2 with a light neck.",
    "training": {
        "data": [
            {
                "name": "people", "photos": 675,
                "source": "TUD and INRIA street scenes, boxes in CrowdHuman's format",
                "terms": "research use",
            },
            {
                "name": "pennfudan", "photos": 104, "source": "Penn-Fudan pedestrians",
                "terms": "research use",
            },
            {
                "name": "voc12", "photos": 804,
                "source": "PASCAL VOC 2012, its photos of animals: 564 with people, 240 without",
                "terms": "flickr photos, research use",
            },
        ],
        "starting_weights": recipe.CENTERNET,
    },
    "deviations": [
        "Peaks by 3x3 max-pooling before suppression; the paper thresholds every cell.",
        "Dense targets (TTFNet): every cell near a centre learns the box by GIoU; the paper has one "
        "positive cell an object and a relative smooth-L1 loss.",
        "Heads at stride 8; the paper's stand at 4.",
        "Light neck (depthwise, bilinear, batch norm) in place of deconvolutions and L2 norm.",
        "Height and width are predicted, since phones stretch photos to a square; the paper predicts "
        "the height and takes 0.41 of it for the width.",
        "A head box beside the full body; the paper has none.",
        "Two separable 5x5 convolutions before the heads of the centre, the box and the head; the paper's "
        "heads are 1x1 on one map.",
        "MobileNetV2 in place of ResNet-50, batch norm frozen, layers up to stride 4 frozen.",
        "It starts from a CenterNet of voc12's six classes; the paper from an ImageNet backbone.",
        "AdamW with warm-up and a cosine schedule; the paper has Adam at one rate.",
        "Photos are zoomed by .6 to 1.6, half of them about an object, and stretched by up to 1.25; "
        "brightness, contrast and saturation vary; the paper zooms by .4 to 1.5, cuts out a part about an "
        "object and varies brightness.",
    ],
}


def bodies_unknown(street):
    """`people` without what would teach that a person is background.

    Its unpaired heads come without the body's box. A photo with nothing but such heads is left out; on
    the others the head's ignore region is widened to where the body must be: three heads wide and eight
    high.
    """
    samples = []
    for sample in street:
        if not len(sample.boxes) and len(sample.ignore):
            continue
        x1, y1, x2, y2 = sample.ignore.T
        middle, width, height = (x1 + x2) / 2, x2 - x1, y2 - y1
        body = np.stack([middle - 1.5 * width, y1, middle + 1.5 * width, y1 + 8 * height], -1)
        samples.append(dataclasses.replace(sample, ignore=body.astype(np.float32)))
    return kerasdet.data.Dataset(samples, street.classes, street.parts, street.name, street.root)


def sets(folder: pathlib.Path):
    """The training set, and the sets that are reported: name -> Dataset."""
    street = kerasdet.data.load(folder / "people", split="train")
    street_val = kerasdet.data.load(folder / "people", split="val")
    fudan = kerasdet.data.load(folder / "pennfudan")
    held = sorted(i for block in HELD_OUT for i in block)
    fudan_train = fudan.subset([i for i in range(len(fudan)) if i not in held])
    voc = kerasdet.data.load(folder / "voc12", split="train").select("person")
    voc_val = kerasdet.data.load(folder / "voc12", split="val").select("person")

    def some_empty(data, count):
        """Photos with objects, and `count` of those without, evenly spaced."""
        full = [i for i, sample in enumerate(data) if len(sample.boxes)]
        empty = [i for i, sample in enumerate(data) if not len(sample.boxes)]
        return data.subset(full + empty[:: max(1, len(empty) // count)][:count])

    train = bodies_unknown(street) + fudan_train.repeat(5) + some_empty(voc, 240)
    held_back = {"people": street_val, "pennfudan": fudan.subset(held), "voc12": voc_val}
    return train, held_back


def build(size: int, weights: None, parts=("head",)) -> CSP:
    model = CSP(
        ("person",), backbone="mobilenet_v2", freeze_until="P2", image_size=size, stride=8, neck="light",
        channels=128, target="dense", parts=parts, head_blocks=2, name="csp_mobilenet_v2_320_people",
    )
    start_from(model, kerasdet.zoo.load(recipe.CENTERNET["name"], classes=("person",)))
    return model


# What the head costs or gives the body.
ARMS = {"with head": build, "without head": functools.partial(build, parts=())}

if __name__ == "__main__":
    recipe.run(
        __doc__, sets, build, STAGES, rate=RATE, backbone_rate=BACKBONE_RATE, every=2,
        ablation=(ABLATION, ARMS), own_start=True,
    )
