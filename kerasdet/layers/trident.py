"""Trident blocks: the same layers several times over, each time with another dilation."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import layers, ops

from kerasdet.backbones.common import freeze_batch_norm, outputs_in


class Dilated(layers.Layer):
    """A convolution of stride 1 once more, with its own weights and another dilation.

    Args:
        convolution: a Conv2D or DepthwiseConv2D, "same"-padded, that has been built.
        dilation: cells from one tap of the kernel to the next.

    Call: (batch, h, w, c) to what the convolution gives, of the same size.

    It has no configuration of its own: detectors build their branches anew from theirs.

    Source: TridentNet (Li et al., ICCV 2019), section 4.1 and figure 3.
    """

    def __init__(self, convolution, dilation: int, **kwargs):
        super().__init__(**kwargs)
        self.convolution, self.dilation = convolution, dilation

    def call(self, x):
        own = self.convolution
        run = ops.depthwise_conv if isinstance(own, layers.DepthwiseConv2D) else ops.conv
        x = run(x, own.kernel, strides=1, padding="same", dilation_rate=self.dilation)
        if own.use_bias:
            x = x + own.bias
        return own.activation(x)

    def compute_output_shape(self, input_shape):
        return self.convolution.compute_output_shape(input_shape)


def trident(body: keras.Model, end, dilations: Sequence[int], blocks: int | None, share: bool = True):
    """Splits a backbone into a stem and branches that look at areas of several sizes.

    Args:
        body: a backbone, see `backbones.build`.
        end: the backbone's map that the branches end in, such as its P4.
        dilations: of each branch.
        blocks: how many 3x3 convolutions before that map are dilated; None takes all of stride 1 that work
            at its resolution: in a ResNet's stage those of every unit but the strided one.
        share: the branches have the same weights; otherwise all but the first a copy to begin with.

    Returns:
        the stem, photos to the map that branches begin with; the branches, that map to maps as `end`, whose
        batch norms keep their statistics; and how many convolutions each dilates.

    Raises:
        ValueError: there are fewer convolutions.

    Source: TridentNet (Li et al. 2019), section 4.1.
    """
    trunk = keras.Model(body.input, end)
    outputs = outputs_in(trunk)
    able = [layer for layer in trunk.layers if _can_dilate(layer, outputs[layer.name].shape[1], end.shape[1])]
    count = len(able) if blocks is None else blocks
    if not 1 <= count <= len(able):
        raise ValueError(
            f"blocks is {blocks}; of the {len(able)} convolutions of stride 1 that {body.name} has at that "
            "map's resolution, 1 or more are dilated"
        )
    start = _start_of(trunk, outputs, able[-count:])
    segment = keras.Model(start, end)
    branches = []
    for number, dilation in enumerate(dilations, 1):
        name = f"{body.name}_branch{number}"
        own = share or number == 1
        copy = _copier(able[-count:], dilation, own, name)
        branch = keras.models.clone_model(segment, clone_function=copy)
        if not own:
            branch.set_weights(segment.get_weights())
        branch.name = name
        # Each branch's statistics differ, and one batch norm would keep the mean of them.
        freeze_batch_norm(branch)
        branches.append(branch)
    return keras.Model(body.input, start, name=body.name), branches, count


def _can_dilate(layer, own: int, cells: int) -> bool:
    return (
        isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)) and max(layer.kernel_size) > 1
        and max(layer.strides) == 1 and max(layer.dilation_rate) == 1 and own == cells
        and layer.padding == "same"
    )


def _start_of(trunk: keras.Model, outputs: dict, convolutions: Sequence) -> object:
    """The last tensor that everything from the first of these convolutions on hangs on, and on it alone."""
    names = [layer.name for layer in trunk.layers]
    for layer in reversed(trunk.layers[: names.index(convolutions[0].name)]):
        try:
            keras.Model(outputs[layer.name], trunk.output)
        except ValueError:
            continue  # a shortcut leads past it
        return outputs[layer.name]
    raise AssertionError("the input itself is such a tensor")


def _copier(convolutions: Sequence, dilation: int, own: bool, branch: str):
    """What `clone_model` makes of each layer: the body's `own` one again, or a copy."""
    dilated = {layer.name for layer in convolutions}

    def copy(layer):
        if own:
            wanted = layer.name in dilated and dilation > 1
            return Dilated(layer, dilation, name=f"{branch}_{layer.name}") if wanted else layer
        config = layer.get_config() | {"name": f"{branch}_{layer.name}"}
        if layer.name in dilated:
            config["dilation_rate"] = dilation
        new = type(layer).from_config(config)
        new.trainable, new.of_backbone = layer.trainable, True
        return new

    return copy
