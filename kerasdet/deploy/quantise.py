"""int8: eight-bit weights and activations in the convolutional body, float around it.

The body is what lies between convolutions (`flatbuffer.body_operators`). The photo's normalisation
before it stays in float: folding it into the input's scale was tried and saved no time. Decoding
behind it works on coordinates and indices, which eight bits cannot hold. Four kinds of operators of
the body stay in float too:
- a stem of a convolution and a depthwise one, as MobileNets have: most of the error came from it, and eight
  bits saved no time there;
- bilinear upsampling: releases of LiteRT's kernels round it differently, so that the same file found
  other boxes in MediaPipe than in LiteRT. It costs some 2 % of a file's time;
- the heads' last 1x1 convolutions and fully connected layers: one step of eight bits is some 1.5 % of a box's
  side, which is more than the two may differ by;
- what divides by a length (`L2Norm`): eight bits do not hold squares.
And those layers that the caller names, such as those that `noise.quantisation_noise` found to lose most.

Weights alone in eight bits (`quantise_weights`) make a file as small, without these exceptions and without
photos. LiteRT turns them into floats when it opens the file, so it is as fast as float32. Training with the
rounding in the loop (quantisation-aware) is not here: int8 after training costs presets less than .01 AP, as
the cards say, which leaves it little to win.

What rounded weights add on the mean goes into the biases, see `bias`: it halved the noise that the heads of
`centernet_352` get. Scaling channels alike before (cross-layer equalisation, by the same authors) took
another 6 % off and was left out; ranges of weights by OCTAV changed little, by least squares they doubled
what is left.

Ranges of activations are the least and greatest values over all calibration photos. A moving average,
the quantiser's own habit, cuts the rare high logits that objects are made of.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import warnings
from collections.abc import Iterable

import numpy as np

from kerasdet.deploy import bias, flatbuffer
from kerasdet.deploy.operations import layer_of

_MARK = b"kerasdet_int8_body/"


def quantise(data: bytes, squares: Iterable[np.ndarray], keep_float: str | None = None) -> bytes:
    """Returns the int8 version of a float32 file, without its metadata.

    Args:
        data: bytes of a `.tflite` in float32, its input called `images`, with a signature.
        squares: calibration photos as the network sees them, (S, S, 3) uint8 each.
        keep_float: a regular expression; layers in whose names it is found stay in float.

    Raises:
        ImportError: ai-edge-quantizer is missing.
        ValueError: keep_float is no regular expression, or names no layer of the body, or all of them.
    """
    from ai_edge_litert import schema_py_generated as schema

    quantiser, calibrator, qsv_utils = _import_quantiser()
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    is_uint8 = graph.tensors[graph.inputs[0]].type == schema.TensorType.UINT8
    dtype = np.uint8 if is_uint8 else np.float32
    squares = list(squares)
    samples = [{"images": square[None].astype(dtype)} for square in squares]
    names, marked = _mark(model, _in_eight_bits(model, keep_float))
    recipe = _recipe("static", activation_num_bits=8, weight_num_bits=8)
    with _quiet():
        calibration = calibrator.Calibrator(
            marked,
            num_threads=2,
            mode=calibrator.CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS,
            qsv_update_func=qsv_utils.min_max_update,
        )
        calibration.calibrate({"serving_default": samples}, recipe)
        work = quantiser.Quantizer(marked, recipe.get_quantization_recipe())
        result = work.quantize(calibration.get_model_qsvs(), enable_progress_report=False)
    return _unmark(bias.correct(bytes(result.quantized_model), marked, squares), names)


def quantise_weights(data: bytes) -> bytes:
    """Returns a float32 file with the body's weights in eight bits, a scale a channel, without metadata.

    Args:
        data: bytes of a `.tflite` in float32.

    Raises:
        ImportError: ai-edge-quantizer is missing.
    """
    quantiser, *_ = _import_quantiser()
    model = flatbuffer.read(data)
    names, marked = _mark(model, flatbuffer.body_operators(model))
    recipe = _recipe("weight_only", num_bits=8)
    with _quiet():
        work = quantiser.Quantizer(marked, recipe.get_quantization_recipe())
        result = work.quantize(enable_progress_report=False)
    return _unmark(bytes(result.quantized_model), names)


def _import_quantiser():
    try:
        from ai_edge_quantizer import calibrator, quantizer
        from ai_edge_quantizer.utils import qsv_utils
    except ImportError as error:
        raise ImportError(
            f"int8 needs ai-edge-quantizer ({error}); install or upgrade it: pip install -U ai-edge-quantizer"
        ) from error
    return quantizer, calibrator, qsv_utils


def _mark(model, operators: list) -> tuple[list[bytes], bytes]:
    """The outputs' names, and a file in which these operators' outputs have names with a mark."""
    graph = model.subgraphs[0]
    names = [graph.tensors[i].name for i in graph.outputs]
    # The quantiser picks operators by their outputs' names.
    for op in operators:
        for i in op.outputs:
            graph.tensors[i].name = _MARK + graph.tensors[i].name
    return names, flatbuffer.write(model)


def _recipe(kind: str, **bits):
    """The quantiser's recipe for the operators with a mark."""
    from ai_edge_quantizer import qtyping, recipe_manager

    recipe = recipe_manager.RecipeManager()
    getattr(recipe, f"add_{kind}_config")(
        regex=f"^{_MARK.decode()}", operation_name=qtyping.TFLOperationName.ALL_SUPPORTED, **bits
    )
    return recipe


def _unmark(data: bytes, names: list[bytes]) -> bytes:
    model = flatbuffer.read(data)
    return flatbuffer.write(_restore_names(model, names))


def _restore_names(model, outputs: list[bytes]):
    """Takes the marks out of tensors' names and gives the outputs their own again."""
    graph = model.subgraphs[0]
    for tensor in graph.tensors:
        tensor.name = tensor.name.replace(_MARK, b"")
        if tensor.name in outputs:  # the int8 tensor took the name of the output made from it
            tensor.name += b"_int8"
    for i, name in zip(graph.outputs, outputs, strict=True):
        graph.tensors[i].name = name
    return model


def _in_eight_bits(model, keep_float: str | None = None) -> list:
    """The body's operators that are quantised; the module's docstring says why the others are not."""
    tensors = model.subgraphs[0].tensors
    body = flatbuffer.body_operators(model)
    names = [flatbuffer.op_name(model, op) for op in body]
    layers = [layer_of(tensors[op.outputs[0]].name.decode()) for op in body]
    kept = {layer for layer, name in zip(layers, names, strict=True) if name == "RSQRT"}
    kept |= _named(layers, keep_float)
    stem = 2 if names[:2] == ["CONV_2D", "DEPTHWISE_CONV_2D"] else 0
    read = {int(i) for op in body for i in op.inputs}

    def is_float(op, name: str) -> bool:
        if not any(int(i) in read for i in op.outputs):
            whole = name == "CONV_2D" and tuple(tensors[op.inputs[1]].shape[1:3]) == (1, 1)
            return whole or name == "FULLY_CONNECTED"
        return name == "RESIZE_BILINEAR"

    chosen = [
        op
        for op, name, layer in zip(body[stem:], names[stem:], layers[stem:], strict=True)
        if layer not in kept and not is_float(op, name)
    ]
    if not chosen and keep_float is not None:
        raise ValueError(f"keep_float is {keep_float!r}, which leaves nothing in eight bits; export float32")
    return chosen


def _named(layers: list[str], keep_float: str | None) -> set[str]:
    """The layers that a regular expression names; says if it names none."""
    if keep_float is None:
        return set()
    try:
        found = {layer for layer in layers if re.search(keep_float, layer)}
    except re.error as error:
        raise ValueError(f"keep_float is {keep_float!r}, no regular expression: {error}") from error
    if not found:
        near = difflib.get_close_matches(keep_float, layers, n=3, cutoff=0)
        raise ValueError(
            f"keep_float is {keep_float!r}, which no layer is called; there are {', '.join(near)}, ..."
        )
    return found


@contextlib.contextmanager
def _quiet():
    """Keeps the quantiser's progress bars and debugging hints off the user's screen."""
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
