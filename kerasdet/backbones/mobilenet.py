"""MobileNet v1, v2 and v3, any width.

Sources: Howard et al. 2017 (arXiv 1704.04861), Sandler et al. 2018 (1801.04381), Howard et al.
2019 (1905.02244). In v2 and v3 a level is the expanded, activated tensor that the next stride-2
depthwise convolution reads, as SSDLite takes it (1801.04381, section 6.2).
"""

import keras

from kerasdet.backbones.common import Plan, application


def mobilenet_v2(weights, alpha: float, dilate: bool, name: str) -> Plan:
    """P2-P4: `block_{3,6,13}_expand_relu`; P5: `out_relu`."""
    source = application(keras.applications.MobileNetV2, weights, name, alpha=alpha)
    edit = same_padding(source)
    if dilate:
        edit["block_13_depthwise"] = {"strides": 1, "padding": "same"}
        for block in (14, 15, 16):
            edit[f"block_{block}_depthwise"] = {"dilation_rate": 2}
    levels = {
        "P2": "block_3_expand_relu",
        "P3": "block_6_expand_relu",
        "P4": "block_13_expand_relu",
        "P5": "out_relu",
    }
    return Plan(source, levels, plus_minus_one, edit)


def plus_minus_one(image):
    """RGB in 0..255 to -1..1."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="normalise")(image)


def same_padding(source) -> dict:
    """Edits that fold explicit padding into the stride-2 convolution behind it.

    On even sizes `padding="same"` adds exactly the row below and the column on the right that
    Keras adds with a layer of its own; phones then run one operation less each.
    """
    edit = {}
    for layer in source.layers:
        if isinstance(layer, keras.layers.ZeroPadding2D):
            edit[layer.name] = None
        elif getattr(layer, "padding", None) == "valid" and max(layer.strides) == 2:
            edit[layer.name] = {"padding": "same"}
    return edit
