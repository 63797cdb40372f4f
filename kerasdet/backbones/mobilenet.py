"""MobileNet v1, v2 and v3, at any width (published ImageNet weights exist for some only).

Sources: Howard et al. 2017 (arXiv 1704.04861), Sandler et al. 2018 (1801.04381), Howard et al.
2019 (1905.02244). In v2 and v3 a level is the expanded, activated tensor that the next stride-2
depthwise convolution reads, as SSDLite takes it (1801.04381, section 6.2).
"""

from keras import applications

from kerasdet.backbones.common import Plan, application, edits, plus_minus_one


def mobilenet_v1(weights, dilate: bool, name: str, width: float) -> Plan:
    """P2-P5: the pointwise outputs before each stride-2 step and at the end."""
    source = application(applications.MobileNet, weights, name, alpha=width)
    levels = _levels("conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu")
    return Plan(source, levels, plus_minus_one, edits(source, dilate))


def mobilenet_v2(weights, dilate: bool, name: str, width: float) -> Plan:
    """P2-P4: expanded tensors of blocks 3, 6 and 13; P5: the last 1x1 convolution's."""
    source = application(applications.MobileNetV2, weights, name, alpha=width)
    levels = _levels(
        "block_3_expand_relu", "block_6_expand_relu", "block_13_expand_relu", "out_relu"
    )
    return Plan(source, levels, plus_minus_one, edits(source, dilate))


def mobilenet_v3_small(weights, dilate: bool, name: str, width: float) -> Plan:
    """P2-P4: expanded tensors of blocks 1, 3 and 8; P5: the last 1x1 convolution's."""
    return _mobilenet_v3(applications.MobileNetV3Small, (1, 3, 8), weights, dilate, name, width)


def mobilenet_v3_large(weights, dilate: bool, name: str, width: float) -> Plan:
    """P2-P4: expanded tensors of blocks 3, 6 and 12; P5: the last 1x1 convolution's."""
    return _mobilenet_v3(applications.MobileNetV3Large, (3, 6, 12), weights, dilate, name, width)


def _mobilenet_v3(builder, blocks, weights, dilate, name, width) -> Plan:
    # Keras would normalise inside; ours does so once for all families.
    source = application(builder, weights, name, alpha=width, include_preprocessing=False)
    levels = _levels(*(f"expanded_conv_{block}_expand_act" for block in blocks), "conv_1_act")
    return Plan(source, levels, plus_minus_one, edits(source, dilate))


def _levels(*layers: str) -> dict[str, str]:
    return dict(zip(("P2", "P3", "P4", "P5"), layers, strict=True))
