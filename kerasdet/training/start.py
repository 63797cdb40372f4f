"""Where a detector starts: with what another one has learned."""

from __future__ import annotations


def start_from(model, source) -> list[str]:
    """Gives a detector the weights of another one, layer by layer, where names and shapes agree.

    A detector of more photos than there are for the task at hand knows more than its backbone: CenterNet
    and CSP have the same branches and, but for blocks on P5, neck, whatever their classes. Where these are
    others, or in another order, what tells classes apart is not taken over; `zoo.adapt` does so by name.

    Args:
        model: the `Detector` that is given weights.
        source: the one that has learned.

    Returns:
        Names of the layers that keep their own weights.

    Raises:
        ValueError: no layer agrees.
    """
    from kerasdet.backbones.common import leaves
    from kerasdet.transfer import class_layers

    # As many others would fit as well, and a dog have a cat's weights.
    classes = [getattr(detector, "classes", ()) for detector in (model, source)]
    others = class_layers(model) if all(classes) and classes[0] != classes[1] else set()
    known = {layer.name: layer.get_weights() for layer in leaves(source)}
    own, given = [layer for layer in leaves(model) if layer.weights], set()
    for layer in own:
        values = [] if layer.name in others else known.get(layer.name, [])
        if [value.shape for value in values] == [tuple(weight.shape) for weight in layer.weights]:
            layer.set_weights(values)
            given |= {id(weight) for weight in layer.weights}
    if not given:
        raise ValueError(
            f"no layer of {source.name} has the name and shape of one of {model.name}; start from a detector "
            "on the same backbone, and with the same neck"
        )
    # A layer may hold another one, such as a trident block's dilated convolution, and no weights of its own.
    return [layer.name for layer in own if any(id(weight) not in given for weight in layer.weights)]
