"""How every backbone is made: a `keras.applications` network, called again with small edits."""

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import keras

LEVELS = ("P2", "P3", "P4", "P5")


@dataclass
class Plan:
    """A family's description of one network; `assemble` turns it into a backbone.

    source: `keras.applications` network without its top, weights in place, that takes
        normalised images.
    levels: feature level -> name of the layer whose output it is.
    normalise: float32 RGB in 0..255 -> what `source` was trained on; built-in layers only.
    edit: layer name -> changes to that layer's config (strides, padding, dilation_rate), or
        None to take the layer out (its output is then its input).
    rename: layer name -> name in the backbone, for layers that Keras names by a global counter.
    """

    source: keras.Model
    levels: dict[str, str]
    normalise: Callable
    edit: dict[str, dict | None] = field(default_factory=dict)
    rename: dict[str, str] = field(default_factory=dict)


def assemble(plan: Plan, image_size: int | None, name: str) -> keras.Model:
    """Call the source's layers again on a new input, edited, with the same weights.

    Returns a flat functional model: input `(batch, image_size, image_size, 3)` float32 RGB in
    0..255, output a dict with the keys of `plan.levels`.
    """
    copies = []
    outputs = {}
    normalised = None
    image = keras.Input((image_size, image_size, 3), dtype="float32", name="image")

    def copy(layer):
        config = layer.get_config()
        config["name"] = plan.rename.get(layer.name, layer.name)
        changes = plan.edit.get(layer.name, {})
        if changes is None:
            return keras.layers.Identity(name=config["name"])
        new = type(layer).from_config({**config, **changes})
        copies.append((layer, new))
        return new

    def call(layer, *args, **kwargs):
        nonlocal normalised
        if args[0] is image:
            normalised = plan.normalise(image) if normalised is None else normalised
            args = (normalised, *args[1:])
        output = layer(*args, **kwargs)
        outputs[layer.name] = output
        return output

    keras.models.clone_model(
        plan.source, input_tensors=image, clone_function=copy, call_function=call
    )
    for old, new in copies:
        if isinstance(old, keras.layers.Layer) and old.weights:
            new.set_weights(old.get_weights())
    levels = {
        level: outputs[plan.rename.get(layer, layer)] for level, layer in plan.levels.items()
    }
    return keras.Model(image, levels, name=name)


def load_weights(source: keras.Model, weights: str | os.PathLike, name: str) -> None:
    """Fill `source` from a `.weights.h5` file (float16 or float32 on disk).

    Raises FileNotFoundError if there is no such file, ValueError if it holds another network.
    """
    path = os.fspath(weights)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"weights={path!r}: no such file; give the path of a .weights.h5 file of {name}, "
            '"imagenet" to download them, or None for random weights'
        )
    if not path.endswith(".weights.h5"):
        raise ValueError(f"weights={path!r}: expected a Keras file that ends in .weights.h5")
    try:
        source.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path}: these are not the weights of {name} as keras.applications builds it with "
            f"include_top=False ({reason}); give the file of the same network and width"
        ) from error


def application(builder: Callable, weights, name: str, **options) -> keras.Model:
    """Build a `keras.applications` network without its top and fill in `weights`.

    weights: None (random), "imagenet" (Keras downloads them once) or a `.weights.h5` path.
    """
    options = {"include_top": False, "input_shape": (224, 224, 3), **options}
    if weights != "imagenet":
        source = builder(weights=None, **options)
        if weights is not None:
            load_weights(source, weights, name)
        return source
    try:
        return builder(weights="imagenet", **options)
    except ValueError:  # a width without published weights: Keras lists those that have them
        raise
    except Exception as error:  # keras.utils.get_file raises a bare Exception
        raise OSError(
            f'weights="imagenet": the ImageNet weights of {name} could not be downloaded '
            f"({error}); without a network pass the path of a .weights.h5 file instead"
        ) from error


def freeze_batch_norm(model: keras.Model) -> None:
    """Let every batch normalisation use and keep the statistics it has."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def freeze_up_to(model: keras.Model, where: str) -> None:
    """Freeze every layer that the output of `where` (a level or a layer name) depends on."""
    if where in model.output:
        tensor = model.output[where]
    else:
        names = [layer.name for layer in model.layers]
        if where not in names:
            raise ValueError(
                f"freeze_until={where!r}: {model.name} has no such level or layer"
                f"{did_you_mean(where, [*LEVELS, *names])}; levels are {', '.join(LEVELS)}"
            )
        tensor = model.get_layer(where).output
    for layer in keras.Model(model.input, tensor).layers:
        layer.trainable = False


def did_you_mean(word: str, known) -> str:
    """`"; did you mean 'x'?"` for the closest of `known`, or an empty text."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def drop_counters(source: keras.Model) -> dict[str, str]:
    """Names for the layers that Keras numbers with a counter that runs on from model to model.

    `conv2d_97`, the fourth of its kind in this network, becomes `conv2d_3`.
    """
    seen: dict[str, int] = {}
    rename = {}
    for layer in source.operations:
        kind = _snake(type(layer).__name__)
        if re.fullmatch(rf"{kind}(_\d+)?", layer.name):
            number = seen.get(kind, 0)
            seen[kind] = number + 1
            rename[layer.name] = f"{kind}_{number}" if number else kind
    return rename


def _snake(word: str) -> str:
    word = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", word))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", word).lower()
