"""Necks: several stages of a backbone become one map, or a pyramid of maps, that the heads share."""

from __future__ import annotations

from collections.abc import Sequence

from keras import layers

from kerasdet.layers.l2_norm import L2Norm
from kerasdet.layers.upsample import BilinearUpsample, NearestUpsample


def needed_levels(neck: str, stride: int) -> tuple[str, ...]:
    """The levels that necks of one map look at: "deconv", "light" and "fpn" of CSP and CenterNet."""
    return ("P3", "P4", "P5") if neck == "deconv" or stride == 8 else ("P2", "P3", "P4", "P5")


def deconv_neck(features: dict, stride: int, channels: int):
    """CSP's neck: P3, P4, P5 to one stride by deconvolution, L2-normalised, joined, one 3x3.

    Args:
        features: P3 at stride 8, P4 and P5 (dilated) at stride 16, each (batch, h, w, c).
        stride: of the result, 4 or 8.
        channels: of each deconvolution and of the result; the paper's 256.

    Returns:
        (batch, S / stride, S / stride, channels).

    Source: CSP (Liu et al. 2019), section 3.2 and figure 2.
    """
    maps = []
    for level, level_stride in (("P3", 8), ("P4", 16), ("P5", 16)):
        factor = level_stride // stride
        if factor > 1:
            x = layers.Conv2DTranspose(
                channels, 4, strides=factor, padding="same", name=f"neck_{level}_deconv"
            )(features[level])
        else:
            x = layers.Conv2D(channels, 1, name=f"neck_{level}_lateral")(features[level])
        maps.append(L2Norm(10.0, name=f"neck_{level}_l2")(x))
    x = layers.Concatenate(name="neck_join")(maps)
    x = layers.Conv2D(channels, 3, padding="same", use_bias=False, name="neck_conv")(x)
    return layers.ReLU(name="neck_relu")(layers.BatchNormalization(name="neck_bn")(x))


def centernet_deconv_neck(features: dict, stride: int, channels: int):
    """CenterNet's neck on a ResNet: P5 to a finer stride by deconvolutions, one after the other.

    Args:
        features: P5 at stride 32, (batch, h, w, c); the other levels are not looked at.
        stride: of the result: 4 by three deconvolutions, the paper's, or 8 by two.
        channels: of each deconvolution and of the result; the paper's 256.

    Returns:
        (batch, S / stride, S / stride, channels).

    Source: CenterNet (Zhou et al. 2019), section 5 and figure 6b; its deformable convolutions before
    each deconvolution are left out, since phones have no such operator.
    """
    x = features["P5"]
    for number in range(1, {4: 3, 8: 2}[stride] + 1):
        x = layers.Conv2DTranspose(
            channels, 4, strides=2, padding="same", use_bias=False, name=f"neck_deconv{number}"
        )(x)
        x = layers.BatchNormalization(name=f"neck_deconv{number}_bn")(x)
        x = layers.ReLU(name=f"neck_deconv{number}_relu")(x)
    return x


def light_neck(features: dict, stride: int, channels: int, context: int = 0):
    """A neck for phones: thin laterals, bilinear upsampling and depthwise convolutions.

    P3, P4 and P5 meet at stride 8, where two 5x5 depthwise blocks look far around; at stride 4 the
    result is joined with P2 and smoothed once more. Batch norm does what L2 normalisation does in the
    paper's neck, to bring the stages to one scale: unlike it, it costs nothing once it is folded, and
    survives int8.

    Args:
        features: P2 at stride 4 to P5 at stride 32, each (batch, h, w, c).
        stride: of the result, 4 or 8.
        channels: of the result.
        context: residual 5x5 depthwise blocks on P5, where one looks 128 px further to each side; they begin
            as the identity.

    Returns:
        (batch, S / stride, S / stride, channels).
    """
    lateral = {
        level: _lateral(features[level], 64, f"neck_{level}") for level in ("P3", "P4", "P5")
    }
    for number in range(1, context + 1):
        lateral["P5"] = _look_around(lateral["P5"], f"neck_context{number}")
    p5 = BilinearUpsample(4, name="neck_P5_up")(lateral["P5"])
    p4 = BilinearUpsample(2, name="neck_P4_up")(lateral["P4"])
    x = layers.Concatenate(name="neck_join")([lateral["P3"], p4, p5])
    x = separable(x, channels, 5, "neck_block1")
    x = separable(x, channels, 5, "neck_block2")
    if stride == 8:
        return x
    x = BilinearUpsample(2, name="neck_up")(x)
    x = layers.Concatenate(name="neck_join2")([_lateral(features["P2"], 32, "neck_P2"), x])
    return separable(x, channels, 3, "neck_block3")


PYRAMIDS = ("fpn", "bottom_up", "no_lateral", "finest")


def pyramid(
    features: dict, channels: int = 256, levels: Sequence[str] = ("P2", "P3", "P4", "P5"), kind: str = "fpn",
) -> dict:
    """FPN's pyramid: every level with the resolution of its own and the meaning of the deepest one.

    Args:
        features: maps (batch, h, w, c), each level with half the cells a side of the one before.
        channels: of every map of the pyramid; the paper's 256.
        levels: keys of `features`, from fine to coarse.
        kind: "fpn"; or what the paper compares with it: "bottom_up", without the way from top to bottom
            (table 1d), as SSD has it; "no_lateral", without the connections from the backbone to the finer
            maps (1e); "finest", the finest map of the pyramid alone (1f).

    Returns:
        the maps (batch, h, w, channels) by level; under "finest", one.

    Raises:
        ValueError: another kind.

    Source: FPN (Lin et al., CVPR 2017), section 3 and figure 3.
    """
    if kind not in PYRAMIDS:
        raise ValueError(f"kind is {kind!r}; give one of {', '.join(PYRAMIDS)}")

    def lateral(level):
        return layers.Conv2D(channels, 1, name=f"fpn_{level}_lateral")(features[level])

    merged, above = {}, None
    for level in reversed(levels):
        if above is None or kind == "bottom_up":
            merged[level] = lateral(level)
        else:
            up = NearestUpsample(name=f"fpn_{level}_up")(above)
            merged[level] = (
                up if kind == "no_lateral" else layers.Add(name=f"fpn_{level}_sum")([up, lateral(level)])
            )
        above = merged[level]
    kept = levels[:1] if kind == "finest" else levels
    # The 3x3 convolutions take off what upsampling by repetition leaves.
    return {
        level: layers.Conv2D(channels, 3, padding="same", name=f"fpn_{level}_smooth")(merged[level])
        for level in kept
    }


def fpn_neck(features: dict, stride: int, channels: int):
    """The finest map of FPN's pyramid, for detectors that look at one.

    Args:
        features: P2 at stride 4 to P5 at stride 32, each (batch, h, w, c).
        stride: of the result: 4, from P2 on, or 8, from P3 on.
        channels: of the pyramid and of the result; the paper's 256.

    Returns:
        (batch, S / stride, S / stride, channels).

    Source: FPN (Lin et al. 2017), table 1f.
    """
    levels = ("P2", "P3", "P4", "P5") if stride == 4 else ("P3", "P4", "P5")
    return pyramid(features, channels, levels, "finest")[levels[0]]


def _lateral(x, channels, name):
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_lateral")(x)
    x = layers.BatchNormalization(name=f"{name}_lateral_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_lateral_relu")(x)


def _look_around(x, name):
    around = layers.DepthwiseConv2D(5, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    around = layers.BatchNormalization(name=f"{name}_depthwise_bn")(around)
    around = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(around)
    around = layers.Conv2D(x.shape[-1], 1, use_bias=False, name=f"{name}_pointwise")(around)
    # A gain of zero makes the block the identity at first: a trained neck can take it up.
    around = layers.BatchNormalization(gamma_initializer="zeros", name=f"{name}_pointwise_bn")(around)
    return layers.Add(name=f"{name}_sum")([x, around])


def separable(x, channels, kernel, name):
    """A depthwise convolution and a 1x1 one, each with batch norm and ReLU6 (MobileNet's block).

    Args:
        x: (batch, h, w, c).
        channels: of the result.
        kernel: side of the depthwise convolution in cells.
        name: prefix of the layers' names.

    Returns:
        (batch, h, w, channels).
    """
    x = layers.DepthwiseConv2D(kernel, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    x = layers.BatchNormalization(name=f"{name}_depthwise_bn")(x)
    x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_pointwise")(x)
    x = layers.BatchNormalization(name=f"{name}_pointwise_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_pointwise_relu")(x)
