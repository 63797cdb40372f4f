"""Inception v3 (Szegedy et al. 2015, arXiv 1512.00567)."""

from keras import applications

from kerasdet.backbones.common import Plan, application, edits, plus_minus_one


def inception_v3(weights, dilate: bool, name: str) -> Plan:
    """P2: the stem's last convolution; P3-P5: `mixed2`, `mixed7`, `mixed10`.

    The original pads `valid`, so its maps are not image_size / stride; here every layer pads
    `same`, with the same weights: away from the border the features are the original's up to a
    shift. With a dilated last stage the average pools in it stay 3x3 (a pool cannot be dilated),
    so that stage only approximates the original.
    """
    source = application(applications.InceptionV3, weights, name)
    changes = edits(source, dilate)
    for layer in source.layers:
        if getattr(layer, "padding", None) == "valid":
            changes[layer.name] = {**(changes.get(layer.name) or {}), "padding": "same"}
    levels = {"P2": "activation_4", "P3": "mixed2", "P4": "mixed7", "P5": "mixed10"}
    return Plan(source, levels, plus_minus_one, changes)
