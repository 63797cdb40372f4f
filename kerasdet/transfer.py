"""A detector's weights in another one like it: with other classes, of another size.

Nothing heavy is imported before it is needed, as in `zoo`.
"""

from __future__ import annotations

from kerasdet.names import check_names


def adapt(
    detector, classes=None, image_size: int | None = None, label_smoothing=None, parts=None, anchors=None,
):
    """A detector like `detector` with other classes, another size, softer labels or other anchors, and its
    weights.

    Args:
        detector: a `kerasdet.Detector`; it is not changed, and returned itself if nothing differs.
        classes, image_size, parts: as of `load`; None takes the detector's, but for the parts of objects
            where it keeps no class.
        label_smoothing: see `kerasdet.losses.soft_targets`; None takes the detector's.
        anchors: of YOLOv3, see there: as many as it has; None takes the detector's.

    Returns:
        A `kerasdet.Detector`, not compiled unless it is `detector` itself.

    Raises:
        ValueError: a layer's weights fit neither as a whole nor class by class; a part that the detector does
            not know; label smoothing of a detector that does not say one class among several; or anchors of
            one that has none, or not as many.
    """
    for kind, names in (("classes", classes), ("parts", parts)):
        check_names(kind, () if names is None else names)
    own = {
        "classes": list(detector.classes), "image_size": detector.image_size,
        "label_smoothing": getattr(detector, "label_smoothing", None), "parts": list(detector.parts),
        "anchors": None if anchors is None else detector.get_config().get("anchors"),
    }
    if anchors is not None:
        anchors = _checked_anchors(anchors, own["anchors"], type(detector).__name__)
    if label_smoothing is not None and own["label_smoothing"] is None:
        raise ValueError(
            f"label_smoothing is {label_smoothing!r}, and {type(detector).__name__} does not say one class "
            "among several; leave it out, or take YOLOv1, YOLOv3, SSD, OverFeat, FasterRCNN or TridentNet"
        )
    if classes is not None and parts is None and not set(classes) & set(detector.classes):
        parts = ()  # a cat has no head that a detector of people could know
    if unknown := [part for part in parts or () if part not in detector.parts]:
        raise ValueError(
            f"parts has {unknown[0]!r}, and the detector's parts are {list(detector.parts)}; give some of "
            "these, or none: ()"
        )
    given = {
        "classes": None if classes is None else list(classes), "image_size": image_size,
        "label_smoothing": label_smoothing, "parts": None if parts is None else list(parts),
        "anchors": anchors,
    }
    changes = {key: value for key, value in given.items() if value not in (None, own[key])}
    if not changes:
        return detector
    if "image_size" in changes:
        changes |= detector.at_size(image_size)
    config = detector.get_config() | changes
    frozen = config.pop("frozen", None)  # by the layers' places, of which there may be fewer
    fresh = type(detector).from_config(config)
    _transfer(detector, fresh, frozen is not None)
    return fresh


def _checked_anchors(anchors, own, kind: str) -> list[list[float]]:
    if own is None:
        raise ValueError(f"anchors are of YOLOv3, and this is a {kind}; leave them out")
    pairs = [[float(width), float(height)] for width, height in anchors]
    if len(pairs) != len(own):
        raise ValueError(f"there are {len(pairs)} anchors, and the weights are of {len(own)}; give as many")
    return pairs


def _transfer(source, target, frozen: bool):
    """Copies weights layer by layer, the layers that tell classes apart, class by class; and, where some were
    frozen by hand, which are trained."""
    import numpy as np

    from kerasdet.backbones.common import leaves

    of_classes = class_layers(target)
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

    for layer, giving in _pairs(leaves(target), leaves(source)):
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
        if frozen:
            layer.trainable = giving.trainable


def _pairs(targets: list, sources: list) -> list[tuple]:
    """Each layer that is given weights, and the one that gives them."""
    # Without weights are a pool before a head, say, that another size has no need of.
    targets, sources = ([layer for layer in layers if layer.weights] for layers in (targets, sources))
    if len(targets) < len(sources):  # parts are left out: of these networks every layer has its name
        named = {layer.name: layer for layer in sources}
        sources = [named[layer.name] for layer in targets]
    # Otherwise both are built from one configuration, so layers stand in one order; names that Keras
    # counts up ("conv2d_7") differ.
    return list(zip(targets, sources, strict=True))


def class_layers(detector) -> set[str]:
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
