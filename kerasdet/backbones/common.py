"""How every backbone is made: a `keras.applications` network, called again with small edits."""

import difflib
import os
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import keras
from keras import layers

from kerasdet.untrusted import check_hdf5


@dataclass
class Plan:
    """A family's description of one network; `assemble` turns it into a backbone.

    source: `keras.applications` network without its top, weights in place, that takes
        normalised images.
    levels: feature level -> name, in the backbone, of the layer whose output it is.
    normalise: float32 RGB in 0..255 -> what `source` was trained on; built-in layers only.
    edits: source layer name -> changes to that layer's config (strides, padding,
        dilation_rate), or None to take the layer out (its output is then its input).
    """

    source: keras.Model
    levels: dict[str, str]
    normalise: Callable
    edits: dict[str, dict | None] = field(default_factory=dict)


def assemble(plan: Plan, image_size: int | None, name: str) -> keras.Model:
    """Call the source's layers again on a new input, edited, with the same weights.

    Returns a flat functional model: input `(batch, image_size, image_size, 3)` float32 RGB in
    0..255, output a dict with the keys of `plan.levels`.
    """
    image = keras.Input((image_size, image_size, 3), dtype="float32", name="image")
    normalised = plan.normalise(image)
    names = stable_names(plan.source)
    copies = []
    outputs = {}

    def copy(layer):
        config = {**layer.get_config(), "name": names[layer.name]}
        changes = plan.edits.get(layer.name, {})
        if changes is None:
            return layers.Identity()
        new = type(layer).from_config({**config, **changes})
        copies.append((layer, new))
        return new

    def call(layer, tensor, *args, **kwargs):
        tensor = normalised if tensor is image else tensor
        if isinstance(layer, layers.Identity):
            return tensor
        outputs[layer.name] = layer(tensor, *args, **kwargs)
        return outputs[layer.name]

    keras.models.clone_model(
        plan.source, input_tensors=image, clone_function=copy, call_function=call
    )
    for old, new in copies:
        if getattr(old, "weights", None):  # additions and products are operations, not layers
            new.set_weights(old.get_weights())
    levels = {level: outputs[layer] for level, layer in plan.levels.items()}
    return keras.Model(image, levels, name=name)


def application(builder: Callable, weights, name: str, prefix: str | None = None, **options):
    """Build a `keras.applications` network without its top and fill in `weights`.

    weights: None (random), "imagenet" (Keras downloads them once) or a `.weights.h5` path.
    prefix: name of a layer; a file that holds only the network up to it is taken too.
    """
    # Even at every stride, so that Keras pads as it does for all sizes `build` admits.
    options = {"include_top": False, "input_shape": (224, 224, 3), **options}
    if weights != "imagenet":
        source = builder(weights=None, **options)
        if weights is not None:
            load_weights(source, weights, name, prefix)
        return source
    try:
        return builder(weights="imagenet", **options)
    except ValueError:  # a width without published weights; Keras lists those that have them
        raise
    except Exception as error:  # keras.utils.get_file raises a bare Exception
        raise OSError(
            f'weights="imagenet": the ImageNet weights of {name} could not be downloaded '
            f"({error}); without a network pass the path of a .weights.h5 file instead"
        ) from error


def load_weights(source: keras.Model, weights, name: str, prefix: str | None = None) -> None:
    """Fill `source`, or its part up to the layer `prefix`, from a `.weights.h5` file, or from an `.h5` as
    keras.applications downloads them.

    float16 files are cast to the network's float32. Raises FileNotFoundError if there is no
    such file, ValueError if it is no weights file or holds another network.
    """
    path = os.fspath(weights)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"weights={path!r}: no such file; give the path of a .weights.h5 or .h5 file of {name}, "
            '"imagenet" to download them, a detector on that network, or None for random weights'
        )
    if not path.endswith(".h5"):
        raise ValueError(f"weights={path!r}: give a Keras file, its name ends in .weights.h5 or .h5")
    try:
        check_hdf5(path)
        count = _count_arrays(path)
        target = source
        if prefix is not None:
            part = keras.Model(source.input, source.get_layer(prefix).output)
            target = part if count == len(part.weights) else source
        if count != len(target.weights):
            raise ValueError(f"it holds {count} arrays, the network has {len(target.weights)}")
        with warnings.catch_warnings():
            # Before Keras raises for a wrong file it warns once for each of its layers.
            warnings.filterwarnings("ignore", message="Skipping nested container")
            target.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise ValueError(
            f"{path}: not the weights of {name} as keras.applications builds it with "
            f"include_top=False ({reason}); give the file of the same network and width"
        ) from error


def copy_weights(detector: keras.Model, backbone: keras.Model) -> None:
    """Fill a backbone from a detector that was built on the same one.

    Raises ValueError if it lacks a layer.
    """
    theirs = {layer.name: layer for layer in detector._flatten_layers()}
    for layer in backbone.layers:
        if not layer.weights:
            continue
        giver = theirs.get(layer.name)
        if giver is None or [w.shape for w in giver.weights] != [w.shape for w in layer.weights]:
            raise ValueError(
                f"weights is the detector {detector.name!r}, which has no layer {layer.name!r} as "
                f"{backbone.name} has it; give one on the same network, up to the same level, or a file"
            )
        layer.set_weights(giver.get_weights())


def _count_arrays(path: str) -> int:
    import h5py

    arrays = []
    with h5py.File(path) as file:
        file.visititems(
            lambda key, item: arrays.append(key) if isinstance(item, h5py.Dataset) else None
        )
    return len(arrays)


def edits(source: keras.Model, dilate: bool) -> dict[str, dict | None]:
    """Edits that fold explicit padding and, with `dilate`, keep stride 16 in the last stage.

    A `ZeroPadding2D` that adds just what `padding="same"` adds on even sizes goes into the
    convolution behind it: phones then run one operation less. With `dilate`, layers that step
    from stride 16 to 32 no longer do, and kernels behind them are dilated by 2 so that they
    see what they saw (DeepLab, arXiv 1606.00915, section 3.1); weights stay as they are.
    """
    result: dict[str, dict | None] = {}
    size = source.output.shape[1]
    pads = {
        id(layer.output): layer
        for layer in source.layers
        if isinstance(layer, layers.ZeroPadding2D)
    }
    for layer in source.layers:
        kernel = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
        if kernel is None:
            continue
        stride = max(layer.strides)
        changes = {}
        if dilate and layer.output.shape[1] == size:
            if stride == 2:
                stride = changes["strides"] = 1
            elif max(kernel) > 1 and hasattr(layer, "dilation_rate"):
                changes["dilation_rate"] = 2
        pad = pads.get(id(layer.input))
        if pad is not None and (changes or pad.padding == _same(kernel, stride)):
            result[pad.name] = None
            changes["padding"] = "same"
        if changes:
            result[layer.name] = changes
    return result


def _same(kernel, stride: int) -> tuple[tuple[int, int], ...]:
    """What `padding="same"` adds to an even side: rows above and below, columns beside."""
    total = [side - stride for side in kernel]
    return tuple((each // 2, each - each // 2) for each in total)


def stable_names(source: keras.Model) -> dict[str, str]:
    """Names that do not depend on what was built before, for every layer and operation.

    Keras numbers unnamed layers with a counter that runs on from model to model. An activation
    behind the batch normalisation `x_bn` becomes `x_act`; others are numbered from 0 in the
    order in which they were made (so `conv2d_97` may become `conv2d_3`).
    """
    names = {layer.name: layer.name for layer in source.operations}
    unnamed: dict[str, list[tuple[int, str]]] = {}
    before = ""
    for layer in source.operations:
        kind = _snake(type(layer).__name__)
        match = re.fullmatch(rf"{kind}(?:_(\d+))?", layer.name)
        if match and before.endswith("_bn") and kind in ("activation", "re_lu"):
            names[layer.name] = before.removesuffix("_bn") + "_act"
        elif match:
            unnamed.setdefault(kind, []).append((int(match[1] or 0), layer.name))
        before = layer.name
    for kind, numbered in unnamed.items():
        for index, (_, name) in enumerate(sorted(numbered)):
            names[name] = f"{kind}_{index}" if index else kind
    return names


def _snake(word: str) -> str:
    word = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", word)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", word).lower()


def leaves(model: keras.Model) -> list[layers.Layer]:
    """All layers of a model and of the models within it, those that are its attributes included; not these
    models themselves, which would change all of theirs alike."""
    return [layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]


def freeze_batch_norm(model: keras.Model) -> None:
    """Let every batch normalisation keep and use the statistics it has."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False


def freeze_up_to(model: keras.Model, where: str) -> None:
    """Freeze every layer that the output of `where` (a level or a layer name) depends on."""
    if (inner := _whole(model)) is not None:
        return freeze_up_to(inner, where)
    if where in model.output:
        tensor = model.output[where]
    else:
        names = [layer.name for layer in model.layers]
        if where not in names:
            raise ValueError(
                f"freeze_until={where!r}: {model.name} has no such level or layer"
                f"{did_you_mean(where, [*model.output, *names])}; "
                f"levels are {', '.join(model.output)}"
            )
        tensor = model.get_layer(where).output
    for layer in keras.Model(model.input, tensor).layers:
        layer.trainable = False


def _whole(model: keras.Model) -> keras.Model | None:
    """The network within one that only scales its input, see `adapters.adapt`; None of others."""
    inner = [layer for layer in model.layers if isinstance(layer, keras.Model)]
    return inner[0] if len(inner) == 1 and isinstance(inner[0].output, dict) else None


def at_size(model: keras.Model, image_size: int) -> keras.Model:
    """The same layers once more, on a square of that many pixels a side; all weights are shared."""
    shape, dtype = (image_size, image_size, model.input.shape[-1]), model.input.dtype
    image = keras.Input(shape, dtype=dtype, name="image")
    drawn = keras.models.clone_model(model, input_tensors=image, clone_function=lambda layer: layer)
    drawn.name = model.name
    return drawn


def inputs_of(tensor) -> list:
    """The tensors of which a graph's tensor is made; of a layer in several graphs, those of this one."""
    operation, node, _ = tensor._keras_history
    return list(operation._inbound_nodes[node].input_tensors)


def outputs_in(model: keras.Model) -> dict:
    """Name of a layer -> its output in a model's graph; `layer.output` is of the first that it is in."""
    found, seen, todo = {}, set(), [*model.outputs]
    while todo:
        tensor = todo.pop()
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[tensor._keras_history.operation.name] = tensor
            todo += inputs_of(tensor)
    return found


def settle(model: keras.Model, freeze_until: str | None) -> keras.Model:
    """A backbone as a detector takes it: frozen up to a level, if that is asked for, and with a note on its
    layers that they are a backbone's, for whoever trains them at another rate."""
    if freeze_until is not None:
        freeze_up_to(model, freeze_until)
    for layer in leaves(model):
        layer.of_backbone = True
    return model


def weights_of_backbone(detector: keras.Model) -> list:
    """The weights of a detector that are its backbone's, wherever it has them."""
    return [
        weight for layer in leaves(detector) if getattr(layer, "of_backbone", False)
        for weight in layer.weights
    ]


def take_any_size(model: keras.Model) -> None:
    """Lets a convolutional model be called with other sizes than it was drawn with."""
    model.input_spec = [layers.InputSpec(ndim=4, axes={-1: model.input.shape[-1]})]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the closest of `known`, or an empty text."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def plus_minus_one(image):
    """RGB in 0..255 to -1..1."""
    return layers.Rescaling(1 / 127.5, offset=-1.0, name="normalise")(image)
