"""Backbones of keras-cv and KerasHub, as backbones of ours. Neither library is imported here."""

from __future__ import annotations

import importlib

import keras

LEVELS = ("P2", "P3", "P4", "P5")
# Libraries whose layers a saved backbone may hold -> the extra that installs them.
LIBRARIES = {"keras_cv": "keras-cv", "keras_hub": "keras-hub"}


def adapt(backbone: keras.Model, scale=None, offset=0.0) -> keras.Model:
    """A backbone of keras-cv 0.9 or KerasHub with the levels that detectors read.

    A detector hands its backbone RGB values 0..255. keras-cv's networks scale them inside when they are
    made with `include_rescaling=True`, as their presets are. KerasHub leaves that to the preset's
    `keras_hub.layers.ImageConverter`; its `scale` and `offset` are what to give here:

        converter = keras_hub.layers.ImageConverter.from_preset(preset)
        backbone = kerasdet.backbones.adapt(
            keras_hub.models.Backbone.from_preset(preset), converter.scale, converter.offset or 0.0
        )

    Args:
        backbone: a keras-cv model with `pyramid_level_inputs` or a KerasHub one with `pyramid_outputs`,
            P2 to P5 among them. Its layers are shared with what is returned, not copied; what was
            frozen stays frozen.
        scale, offset: the network wants `scale * image + offset`; numbers, or one a channel. None for a
            network that scales inside.

    Returns:
        A functional `keras.Model` from (batch, H, W, 3) float32 RGB 0..255 to {"P2", "P3", "P4", "P5"}.
        A detector's saved file loads without the library, unless a layer is the library's own.

    Raises:
        ValueError: no such levels, or images that would be scaled twice or not at all.
    """
    inside = _scales_inside(backbone)
    if inside and scale is not None:
        raise ValueError(f"backbone {backbone.name!r} scales its input itself; leave scale out")
    if not inside and scale is None:
        raise ValueError(
            f"backbone {backbone.name!r} does not scale its input, and a detector gives it RGB values "
            "0..255: make a keras-cv one with include_rescaling=True, or pass "
            "kerasdet.backbones.adapt(backbone, scale, offset) with the scale and offset of the preset's "
            "keras_hub.layers.ImageConverter (1 / 255 where there is none)"
        )
    found = _levels(backbone)
    check_levels(backbone.name, found, LEVELS)
    levels = {level: found[level] for level in LEVELS}
    if scale is None:
        return keras.Model(backbone.input, levels, name=backbone.name)
    image = keras.Input(backbone.input.shape[1:], dtype="float32", name="image")
    normalised = keras.layers.Rescaling(scale, offset, name="normalise")(image)
    body = keras.Model(backbone.input, levels, name=f"{backbone.name}_levels")
    return keras.Model(image, body(normalised), name=backbone.name)


def check_levels(name: str, found, needed) -> None:
    """Raises ValueError where a backbone lacks a level that a detector needs."""
    if missing := [level for level in needed if level not in found]:
        raise ValueError(
            f"backbone {name!r} has the levels {', '.join(found) or 'none'}, and this detector needs "
            f"{', '.join(missing)} as well; take another network"
        )


def is_foreign(backbone: keras.Model) -> bool:
    """Whether `adapt` has to make it one of ours."""
    return hasattr(backbone, "pyramid_level_inputs") or hasattr(backbone, "pyramid_outputs")


def _levels(backbone) -> dict:
    """Level -> tensor; keras-cv names layers, KerasHub has the tensors."""
    if hasattr(backbone, "pyramid_outputs"):
        return dict(backbone.pyramid_outputs)
    return {level: backbone.get_layer(name).output for level, name in backbone.pyramid_level_inputs.items()}


def _scales_inside(backbone) -> bool:
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    return any(isinstance(layer, kinds) for layer in backbone.layers)


def serialize(backbone: keras.Model) -> dict:
    """A backbone, as `resolve` takes it, for a detector's configuration.

    As a plain graph where all its layers are Keras' own. Otherwise as its library's class: keras-cv has
    layers that can be saved, but not loaded, outside of their network.
    """
    if not is_foreign(backbone):
        return keras.saving.serialize_keras_object(backbone)
    config = keras.saving.serialize_keras_object(adapt(backbone))
    return keras.saving.serialize_keras_object(backbone) if _libraries(config) else config


def deserialize(config: dict, custom_objects=None) -> keras.Model:
    """A backbone from what `serialize` made of it.

    Raises:
        ImportError: it has layers of a library that is not installed.
    """
    for library in sorted(_libraries(config)):
        try:
            importlib.import_module(library)
        except ImportError as error:
            extra = LIBRARIES[library]
            raise ImportError(
                f"the backbone {config.get('config', {}).get('name')!r} has layers of {extra}, which "
                f"cannot be imported ({error}); install it: pip install 'kerasdet[{extra}]'"
            ) from error
    return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)


def _libraries(config) -> set[str]:
    """The libraries whose classes a config names."""
    if isinstance(config, (list, tuple)):
        return set().union(*map(_libraries, config))
    if not isinstance(config, dict):
        return set()
    names = (config.get(key) or "" for key in ("module", "registered_name"))
    own = {str(name).replace(">", ".").split(".")[0] for name in names} & set(LIBRARIES)
    return own.union(*map(_libraries, config.values()))
