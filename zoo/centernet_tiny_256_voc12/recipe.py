"""Trains centernet_tiny_256_voc12: people and five animals at 256 px, on a third of MobileNetV2's width.

    python zoo/centernet_tiny_256_voc12/recipe.py --data DATA \
        --backbone mobilenet_v2_0.35.weights.h5 --out runs/centernet_tiny

DATA holds voc12/ (COCO json with train and val). A run that was killed goes on when the same command is
given again. The first epochs run at 192 px, the others at 256 px: small photos train faster.

It takes 1.4 h on AMD EPYC, 2 cores, and reaches AP50 0.558, AP 0.284 on the 400 photos of voc12 that it
is not trained on.
"""

from kerasdet.models.centernet import CenterNet
from kerasdet.training import Stage, recipe, voc12

STAGES = Stage(192, 20, 16), Stage(256, 16, 16)
# At the heads' rate the backbone would forget what it knows of a million photos.
RATE, BACKBONE_RATE = 1e-3, 5e-5

CARD = {
    "aliases": ["centernet_tiny"],
    "summary": "Cats, cows, dogs, horses, sheep and people for the smallest devices: a tiny CenterNet.",
    "training": {
        "data": [voc12.CARD_DATA],
        "starting_weights": recipe.MOBILENET_V2_035,
    },
    "deviations": [
        "Dense targets (TTFNet): every cell near a middle learns the box by GIoU, and sizes are predicted "
        "by their logarithms; the paper has one positive cell an object and L1 losses of plain sizes.",
        "Heads at stride 8; the paper's stand at 4.",
        "Light neck (depthwise, bilinear) on P3, P4 and P5 in place of three deconvolutions of P5.",
        "Two separable 5x5 convolutions before the heads, one pair for the heat-map and one for size and "
        "offset; the paper has a 3x3 convolution before each of the three.",
        "Photos are stretched to the square, as phones do; the paper keeps their aspect ratio.",
        "AdamW with a cosine schedule and averaged weights; the paper has Adam with two drops.",
        "MobileNetV2 0.35 in place of ResNet, DLA or Hourglass, batch norm frozen.",
        "Its int8 file leaves the backbone's blocks 1 to 5 in float (`keep_float='block_[1-5]_'`), as "
        "otherwise about 5 % of the boxes move.",
        "Photos are zoomed by .6 to 1.6, half of them about an object, and stretched by up to 1.25; "
        "brightness, contrast and saturation vary; the paper zooms by .6 to 1.4 about a middle drawn at "
        "random, and varies colours too.",
    ],
}
sets = voc12.sets


def build(size: int, weights: str | None, name: str = "centernet_tiny_256_voc12") -> CenterNet:
    detector = CenterNet(
        voc12.CLASSES, backbone="mobilenet_v2_0.35", backbone_weights=weights, image_size=size, stride=8,
        neck="light", channels=96, target="dense", head_blocks=2, name=name,
    )
    # On 300 photos of the training set 95 % of the boxes agree with Keras by an IoU of .8 when these few
    # narrow layers are in eight bits too, and 97 % so; it takes no longer.
    detector.keep_float = "block_[1-5]_"
    return detector


if __name__ == "__main__":
    recipe.run(__doc__, sets, build, STAGES, rate=RATE, backbone_rate=BACKBONE_RATE, every=5)
