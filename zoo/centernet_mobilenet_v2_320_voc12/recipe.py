"""Trains centernet_mobilenet_v2_320_voc12: people and five animals, from an ImageNet backbone.

    python zoo/centernet_mobilenet_v2_320_voc12/recipe.py --data DATA \
        --backbone mobilenet_v2_1.0.weights.h5 --out runs/centernet

DATA holds voc12/ (COCO json with train and val). A run that was killed goes on when the same command is
given again. The first epochs run at 224 px, the others at 320 px: the network is convolutional, and small
photos train twice as fast. The last sixteen have a schedule of their own. The published weights had no blocks
on P5 (`context`) before these; by this command they have them from the start on.

It takes 4.4 h on AMD EPYC without eight-bit products, 2 cores, and reaches AP50 0.673, AP 0.391 on the
400 photos of voc12 that it is not trained on.
"""

from kerasdet.data.augment import Augment
from kerasdet.models.centernet import CenterNet
from kerasdet.training import Stage, recipe, voc12

# 2702 photos are few: until the last epochs every other picture is put together of four of them.
MOSAIC = Augment(mosaic=0.5)
BATCHES = {"augment": MOSAIC, "mix_until": 34}
# Twelve epochs at 320 px were too few to get used to it: large objects were found less well than at 224 px.
STAGES = (
    Stage(224, 30, 16), Stage(320, 12, 16),
    Stage(320, 16, 16, restart=True, batches={"augment": MOSAIC, "mix_until": 53}),
)
# Trained at the heads' rate, the backbone forgot ImageNet and learned these photos by heart; frozen, it found
# less. On photos set aside of the training ones, 8 epochs at 192 px: AP50 .534 at this rate, .501 frozen.
RATE, BACKBONE_RATE = 1e-3, 5e-5
# Large objects have two peaks at times. On the 120 photos of pennfudan, which are neither trained nor
# reported on: AP50 of people .783, with 390 boxes from a score of .3 on; without suppression .764, with 440.
NMS_IOU = 0.6

# What the preset of 224 px does not have.
CONTEXT = (
    "Two residual 5x5 depthwise blocks on P5, where one looks 128 px further each; they were added, as the "
    "identity, after 42 epochs."
)
MOSAICS = "Half of the pictures of the first 34 epochs are mosaics of four photos (YOLOv4)."
AGAIN = (
    "After 42 epochs 16 more at 320 px, under a cosine begun anew; half of the pictures of the first 11 of "
    "them are mosaics."
)
CARD = {
    "aliases": ["centernet"],
    "summary": "Cats, cows, dogs, horses, sheep and people, for phones: CenterNet on MobileNetV2.",
    "training": {
        "data": [voc12.CARD_DATA],
        "starting_weights": recipe.MOBILENET_V2,
    },
    "deviations": [
        "Dense targets (TTFNet): every cell near a middle learns the box by GIoU, and sizes are predicted "
        "by their logarithms; the paper has one positive cell an object and L1 losses of plain sizes.",
        "Heads at stride 8; the paper's stand at 4.",
        "Light neck (depthwise, bilinear) on P3, P4 and P5 in place of three deconvolutions of P5.",
        CONTEXT,
        "Two separable 5x5 convolutions before the heads, one pair for the heat-map and one for size and "
        "offset; the paper has a 3x3 convolution before each of the three.",
        "Of two boxes of a class that overlap by more than .6 the lower one is suppressed; the paper leaves "
        "both, since peaks are local maxima already.",
        "Photos are stretched to the square, as phones do; the paper keeps their aspect ratio.",
        MOSAICS,
        AGAIN,
        "AdamW with a cosine schedule and averaged weights; the paper has Adam with two drops.",
        "MobileNetV2 in place of ResNet, DLA or Hourglass, batch norm and layers up to stride 4 frozen.",
        "Photos are zoomed by .6 to 1.6, half of them about an object, and stretched by up to 1.25; "
        "brightness, contrast and saturation vary; the paper zooms by .6 to 1.4 about a middle drawn at "
        "random, and varies colours too.",
    ],
}
sets = voc12.sets


def build(
    size: int, weights: str | None, name: str = "centernet_mobilenet_v2_320_voc12", context: int = 2,
) -> CenterNet:
    return CenterNet(
        voc12.CLASSES, backbone="mobilenet_v2", backbone_weights=weights, freeze_until="P2",
        image_size=size, stride=8, neck="light", channels=128, context=context, target="dense", head_blocks=2,
        nms_iou=NMS_IOU, name=name,
    )


if __name__ == "__main__":
    recipe.run(__doc__, sets, build, STAGES, rate=RATE, backbone_rate=BACKBONE_RATE, every=4, batches=BATCHES)
