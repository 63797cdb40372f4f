"""Trains faster_rcnn_resnet50v2_c4_voc12: people and five animals, from an ImageNet backbone.

    python zoo/faster_rcnn_resnet50v2_c4_voc12/recipe.py --data DATA --backbone resnet50v2.weights.h5 \
        --out runs/faster_rcnn_c4

DATA holds voc12/ (COCO json with train and val). A run that was killed goes on when the same command is
given again. The backbone's file may end at conv4_block6_out.

It takes 1.4 h on AMD EPYC without eight-bit products, 2 cores, and reaches AP50 0.607, AP 0.329 on the
400 photos of voc12 that it is not trained on.
"""

from kerasdet.models.faster_rcnn import FasterRCNN
from kerasdet.training import Stage, recipe, voc12

STAGES = Stage(224, 8, 16), Stage(320, 3, 16)
# At the heads' rate the backbone would forget what it knows.
RATE, BACKBONE_RATE = 1e-3, 5e-5
# On 80 photos of the training set, the int8 file and Keras agree on 93 % of the boxes by an IoU of .8, and
# AP is .431 and .436. All in eight bits it is 87 %; with the whole backbone in float 98 %, in twice the size.
ON_PARITY = "warn"

CARD = {
    "aliases": ["faster_rcnn_c4"],
    "summary": "Cats, cows, dogs, horses, sheep and people: Faster R-CNN on one map of ResNet50V2.",
    "training": {
        "data": [voc12.CARD_DATA],
        "starting_weights": recipe.RESNET50V2,
    },
    "deviations": [
        "Regions are looked at on a thin P4 (128 channels) by two fully connected layers of 256 units, like "
        "the paper's on VGG16; conv5, which the ResNet paper runs on every region, is not there.",
        "P4 is what conv4's last block reads, behind its batch norm: Keras' ResNet v2 has the stride in the "
        "last block. Batch norm and layers up to P3 are frozen.",
        "The 500 best anchors, of which suppression leaves 200 in training and 100 afterwards; the paper "
        "takes 6000 and keeps 2000 and 300.",
        "Anchors of 13 to 205 px at 320 px, as FPN's 32 to 512 for a short side of 800; the paper's are 128 "
        "to 512 for 600.",
        "Regions by RoI align, a logistic loss of one logit for objects, and both networks trained at once, "
        "as in detectron2.",
        "Photos are stretched to the square, as phones do; the paper keeps their aspect ratio.",
        "AdamW with a cosine schedule and averaged weights; the paper has SGD with a drop.",
        "Its int8 file leaves the backbone up to conv3 in float.",
        "Photos are zoomed by .6 to 1.6, half of them about an object, and stretched by up to 1.25; "
        "brightness, contrast and saturation vary; the paper flips alone.",
    ],
}
sets = voc12.sets


def build(size: int, weights: str | None) -> FasterRCNN:
    detector = FasterRCNN(
        voc12.CLASSES, backbone="resnet50v2", backbone_weights=weights, freeze_until="P3", image_size=size,
        neck="c4_light", channels=128, head_units=256, before=(500, 500), proposals=(200, 100), regions=64,
        name="faster_rcnn_resnet50v2_c4_voc12",
    )
    detector.keep_float = "resnet50v2/(conv1|conv2_|conv3_)"
    return detector


if __name__ == "__main__":
    recipe.run(__doc__, sets, build, STAGES, rate=RATE, backbone_rate=BACKBONE_RATE, every=4)
