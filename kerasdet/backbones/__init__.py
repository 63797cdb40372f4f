"""Backbones: ImageNet networks as `keras.Model`s with the feature levels P2 to P5."""

import difflib
import re

from kerasdet import photo

_FAMILIES = {  # name -> (module, takes a width)
    "mobilenet_v1": ("mobilenet", True),
    "mobilenet_v2": ("mobilenet", True),
    "mobilenet_v3_small": ("mobilenet", True),
    "mobilenet_v3_large": ("mobilenet", True),
    "resnet50": ("resnet", False),
    "resnet101": ("resnet", False),
    "resnet50v2": ("resnet", False),
    "resnet101v2": ("resnet", False),
    "inception_v3": ("inception", False),
    "darknet53": ("darknet", False),
}


def names() -> list[str]:
    """Names that `build` takes; a MobileNet's may carry a width: `mobilenet_v2_0.35`."""
    return list(_FAMILIES)


def build(
    name: str,
    weights=None,
    image_size: int | None = None,
    freeze_bn: bool = True,
    output_stride: int = 32,
    freeze_until: str | None = None,
):
    """Build a backbone.

    name: one of `names()`, for MobileNets with an optional width: `mobilenet_v2_0.35`.
    weights: None (random), "imagenet" (Keras downloads them) or the path of a `.weights.h5`
        file of the `keras.applications` network with `include_top=False`, in float32 or
        float16; or a detector that is built on the same network, such as a preset, whose backbone has
        seen photos with boxes. For `resnet50v2` and `resnet101v2` the file may end with the stage conv4: then
        P5, and nothing else, comes from random weights.
    image_size: side of the square input in pixels, a multiple of 32; None leaves it open.
    freeze_bn: batch normalisation keeps its statistics, scale and offset in training.
    output_stride: 32, or 16 for a last stage that keeps its resolution: its stride is taken out
        and the kernels behind it are dilated by 2, with the same weights.
    freeze_until: "P2".."P5" or a layer name: it and everything that feeds it is not trained.

    Returns a flat functional `keras.Model` of built-in layers, fully convolutional: input
    `(batch, image_size, image_size, 3)` float32 RGB in 0..255 (normalised inside), output
    {"P2", "P3", "P4", "P5"} at image_size / 4, 8, 16 and 32 (or 16).

    Raises ValueError for an unknown name, size, stride or layer and for weights of another
    network, FileNotFoundError for a missing file, OSError when the download fails.
    """
    builder, options = _find(name)
    if image_size is not None and (image_size < 32 or image_size % 32):
        raise ValueError(
            f"image_size={image_size}: give a multiple of 32 (so that every level is exactly "
            "image_size / stride), or None"
        )
    if output_stride not in (16, 32):
        raise ValueError(f"output_stride={output_stride}: give 32, or 16 for a dilated last stage")

    from kerasdet.backbones import common

    donor = weights if hasattr(weights, "layers") else None
    plan = builder(
        weights=None if donor is not None else weights, dilate=output_stride == 16, name=name, **options
    )
    model = common.assemble(plan, image_size, name)
    if donor is not None:
        common.copy_weights(donor, model)
    if freeze_bn:
        common.freeze_batch_norm(model)
    return common.settle(model, freeze_until)


def resolve(backbone, weights=None, levels=(), **options):
    """The backbone that a detector is given: a name is built, a model is taken as it is.

    backbone: a name for `build`, a backbone of `keras_cv.models` or `keras_hub.models` that scales its
        input (`adapt` makes one of those that do not), or a `keras.Model` whose outputs are {"P2",
        "P3", "P4", "P5"}.
    weights, options: of `build`. A model has its weights, and batch norms that are as they are; it has to
        have the output_stride.
    levels: those that a model has to have.

    Returns a `keras.Model` as `build` does; of a model its own layers, drawn for the image size: what is
    frozen or learned by one detector is so in whatever else has them.

    Raises ValueError for what cannot be a backbone, and for a model whose last stage should be dilated,
    that lacks a level or is given other weights.
    """
    size = options.get("image_size")
    if size is not None and size > photo.MAX_SQUARE:
        raise ValueError(f"image_size is {size}; give {photo.MAX_SQUARE} at most")
    if isinstance(backbone, str):
        return build(backbone, weights=weights, **options)
    from kerasdet.backbones import adapters, common

    if adapters.is_foreign(backbone):
        backbone = adapters.adapt(backbone)
    elif not isinstance(getattr(backbone, "output", None), dict):
        raise ValueError(
            f"backbone is {backbone!r}; give a name ({', '.join(_FAMILIES)}), a backbone of keras-cv or "
            "KerasHub, or a keras.Model whose outputs are a dict of P2, P3, P4 and P5"
        )
    if weights is not None:
        raise ValueError(
            f"backbone_weights is {weights!r}, and backbone is a model, which has weights of its own; load "
            "them into it, and leave backbone_weights out"
        )
    adapters.check_levels(backbone.name, backbone.output, levels)
    if options.get("output_stride") == 16 and "P5" in backbone.output:
        _check_dilated(backbone, options["image_size"])
    if size is not None and backbone.input.shape[1:3] != (size, size):
        backbone = common.at_size(backbone, size)
    return common.settle(backbone, options.get("freeze_until"))


def check_cells(backbone, found: int, image_size: int, stride: int) -> None:
    """Raises ValueError where the maps that a detector makes of a backbone's are not as fine as it takes them
    to be: every box would be learned and found at a wrong place."""
    wanted = -(-image_size // stride)
    if found != wanted:
        raise ValueError(
            f"with the backbone {backbone.name} the maps have {found} cells a side at {image_size} px, where "
            f"stride {stride} means {wanted}; give one whose P2 to P5 have the strides 4 to 32"
        )


def _check_dilated(model, image_size: int):
    # One that is drawn for a size of its own takes others too.
    side, cells = model.input.shape[1], model.output["P5"].shape[1]
    if cells is None:
        side = image_size
        cells = model.compute_output_shape((None, side, side, 3))["P5"][1]
    if cells != side // 16:
        raise ValueError(
            f"P5 of {model.name} has {cells} cells a side; this detector needs a backbone whose last stage "
            f"is dilated, at stride 16: {side // 16} cells"
        )


def __getattr__(name: str):
    if name in ("adapt", "serialize", "deserialize"):  # they import Keras; names() must not
        from kerasdet.backbones import adapters

        return getattr(adapters, name)
    raise AttributeError(f"module 'kerasdet.backbones' has no attribute {name!r}")


def _find(name: str):
    """The function that plans `name` and its options; a width is the name's numeric suffix."""
    match = re.fullmatch(r"(?P<family>.+?)(?:_(?P<width>\d*\.?\d+))?", name)
    family, width = match.groups() if match else (name, None)
    if family not in _FAMILIES:
        close = difflib.get_close_matches(family, _FAMILIES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"backbone {name!r} is unknown; {hint}names are {', '.join(_FAMILIES)}")
    module, takes_width = _FAMILIES[family]
    if width is not None and not takes_width:
        raise ValueError(f"backbone {name!r}: {family} has one width only; use {family!r}")
    if width is not None and not 0 < float(width) <= 4:
        raise ValueError(f"backbone {name!r}: the width {width} is not above 0 and at most 4")

    from importlib import import_module  # the families import Keras; names() must not

    builder = getattr(import_module(f"kerasdet.backbones.{module}"), family)
    return builder, {"width": float(width or 1)} if takes_width else {}
