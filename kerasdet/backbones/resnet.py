"""ResNet 50 and 101, v1 and v2.

Sources: He et al. 2015 (arXiv 1512.03385) and 2016 (1603.05027).
"""

from keras import applications, layers

from kerasdet.backbones.common import Plan, application, edits, plus_minus_one

_BLOCKS_IN_CONV4 = {"resnet50": 6, "resnet101": 23, "resnet50v2": 6, "resnet101v2": 23}
_BGR_MEAN = (103.939, 116.779, 123.68)  # of ImageNet, what Keras' ResNet v1 was trained with


def resnet50(weights, dilate: bool, name: str) -> Plan:
    """P2-P5: the outputs of the stages conv2 to conv5."""
    return _v1(applications.ResNet50, weights, dilate, name)


def resnet101(weights, dilate: bool, name: str) -> Plan:
    """P2-P5: the outputs of the stages conv2 to conv5."""
    return _v1(applications.ResNet101, weights, dilate, name)


def resnet50v2(weights, dilate: bool, name: str) -> Plan:
    """P2-P5 as in `_v2`; also takes a file that ends at `conv4_block6_out` (P5 then random)."""
    return _v2(applications.ResNet50V2, weights, dilate, name)


def resnet101v2(weights, dilate: bool, name: str) -> Plan:
    """P2-P5 as in `_v2`."""
    return _v2(applications.ResNet101V2, weights, dilate, name)


def _v1(builder, weights, dilate, name) -> Plan:
    source = application(builder, weights, name)
    # The weights want BGR. Turning the first kernel round instead of the image costs nothing on
    # a phone, and it is the one place where a file's array and the backbone's differ.
    first = source.get_layer("conv1_conv")
    kernel, bias = first.get_weights()
    first.set_weights([kernel[:, :, ::-1], bias])
    levels = {
        "P2": "conv2_block3_out",
        "P3": "conv3_block4_out",
        "P4": f"conv4_block{_BLOCKS_IN_CONV4[name]}_out",
        "P5": "conv5_block3_out",
    }
    return Plan(source, levels, _minus_mean, edits(source, dilate))


def _v2(builder, weights, dilate, name) -> Plan:
    """Keras puts a stage's stride into its *last* block, so a level is what that block reads:
    the sum that enters it, through its first batch normalisation and ReLU (the bare sums have
    means and spreads of several units, which a fresh 1x1 convolution learns badly from).

    With a dilated last stage the last block of conv4 keeps stride 16 and P4 is that stage's
    whole output, the bare sum: the normalisation behind it belongs to conv5, which a file may
    lack.
    """
    last = f"conv4_block{_BLOCKS_IN_CONV4[name]}"
    source = application(builder, weights, name, prefix=f"{last}_out")
    levels = {
        "P2": "conv2_block3_preact_relu",
        "P3": "conv3_block4_preact_relu",
        "P4": f"{last}_out" if dilate else f"{last}_preact_relu",
        "P5": "post_relu",
    }
    return Plan(source, levels, plus_minus_one, edits(source, dilate))


def _minus_mean(image):
    mean = [-value for value in reversed(_BGR_MEAN)]
    return layers.Rescaling(1.0, offset=mean, name="normalise")(image)
