"""A detector's weights in another one like it: with other classes, of another size.

Nothing heavy is imported before it is needed, as in `zoo`.
"""

from __future__ import annotations


def adapt(detector, classes=None, image_size: int | None = None, label_smoothing=None):
    """A detector like `detector` with other classes, another size or softer labels, and its weights.

    Args:
        detector: a `kerasdet.Detector`; it is not changed, and returned itself if nothing differs.
        classes, image_size: as of `load`; None takes the detector's.
        label_smoothing: see `kerasdet.losses.soft_targets`; None takes the detector's.

    Returns:
        A `kerasdet.Detector`, not compiled unless it is `detector` itself.

    Raises:
        ValueError: a layer's weights fit neither as a whole nor class by class; or label smoothing of a
            detector that does not say one class among several.
    """
    own = {
        "classes": list(detector.classes), "image_size": detector.image_size,
        "label_smoothing": getattr(detector, "label_smoothing", None),
    }
    if label_smoothing is not None and own["label_smoothing"] is None:
        raise ValueError(
            f"label_smoothing is {label_smoothing!r}, and {type(detector).__name__} does not say one class "
            "among several; leave it out, or take YOLOv1, YOLOv3, SSD, OverFeat, FasterRCNN or TridentNet"
        )
    given = {
        "classes": None if classes is None else list(classes), "image_size": image_size,
        "label_smoothing": label_smoothing,
    }
    changes = {key: value for key, value in given.items() if value not in (None, own[key])}
    if not changes:
        return detector
    if "image_size" in changes:
        changes |= detector.at_size(image_size)
    fresh = type(detector).from_config(detector.get_config() | changes)
    _transfer(detector, fresh)
    return fresh


def _transfer(source, target):
    """Copies weights layer by layer; the layers that tell classes apart, class by class."""
    import numpy as np

    from kerasdet.backbones.common import leaves

    of_classes = _class_layers(target)
    kept = [
        (source.classes.index(name), i)
        for i, name in enumerate(target.classes)
        if name in source.classes
    ]

    def by_class(value, detector):
        """(.., channels) as (.., anchors, classes): a cell's anchors each have a channel a class."""
        return value.reshape(*value.shape[:-1], -1, len(detector.classes))

    def misfit(layer, value, giver):
        return ValueError(f"layer {layer.name!r}: weights of shape {giver.shape} do not fit {value.shape}")

    # Both are built from one configuration, so layers stand in one order; names that Keras counts
    # up ("conv2d_7") differ.
    for layer, giving in zip(leaves(target), leaves(source), strict=True):
        values = [np.array(value) for value in layer.get_weights()]
        for i, (value, giver) in enumerate(zip(values, giving.get_weights(), strict=True)):
            if layer.name in of_classes:
                to, of = by_class(value, target), by_class(giver, source)
                if to.shape[:-1] != of.shape[:-1]:
                    raise misfit(layer, value, giver)
                for old, new in kept:
                    to[..., new] = of[..., old]
                values[i] = to.reshape(value.shape)
            elif value.shape == giver.shape:
                values[i] = giver
            else:
                raise misfit(layer, value, giver)
        layer.set_weights(values)


def _class_layers(detector) -> set[str]:
    """Names of the layers that make the outputs of classes, see `Detector.named_outputs`.

    Layers without weights in between, which bring several anchors and maps into rows, are passed by.
    """
    import keras

    found = set()
    outputs = detector.named_outputs
    todo = [tensor for key, tensor in outputs.items() if key.endswith(("_logits", "_per_class"))]
    while todo:
        layer = todo.pop()._keras_history.operation
        if getattr(layer, "weights", None):
            found.add(layer.name)
        else:
            todo += keras.tree.flatten(layer.input)
    return found
