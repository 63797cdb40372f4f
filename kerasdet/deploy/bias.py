"""Bias correction: what rounded weights add to the mean of a layer's output is taken off its bias.

Eight bits move each weight a little, and where inputs are positive, as behind a ReLU, these errors do not
average out: all outputs of a channel are off by the same amount, which the layers behind hand on. The bias
takes it up, at no cost in the file (Nagel et al., "Data-Free Quantization Through Weight Equalization and
Bias Correction", ICCV 2019, section 4.2; the means of inputs are measured, not derived from batch norms).
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np

from kerasdet.deploy import flatbuffer

# More photos move no mean by what is worth the time.
PHOTOS = 32


def correct(data: bytes, original: bytes, squares: Sequence[np.ndarray]) -> bytes:
    """Returns the int8 file with its biases corrected.

    Convolutions, depthwise ones and fully connected layers of eight bits are; transposed convolutions are
    left as they are. A bias that several layers share takes the mean of what they ask for.

    Args:
        data: bytes of a `.tflite` that ai-edge-quantizer made of `original`, with the tensors' names left.
        original: bytes of the file in float32.
        squares: photos as the network sees them, (S, S, 3) uint8 each; at most 32 of them are looked at.
    """
    from ai_edge_litert import schema_py_generated as schema

    model, reference = flatbuffer.read(data), flatbuffer.read(original)
    graph, float_graph = model.subgraphs[0], reference.subgraphs[0]
    partners = {float_graph.tensors[op.outputs[0]].name: op for op in float_graph.operators}
    pairs = []
    for op in graph.operators:
        if flatbuffer.op_name(model, op) not in _KINDS or len(op.inputs) < 3 or op.inputs[2] < 0:
            continue
        weights, bias = (graph.tensors[i] for i in op.inputs[1:3])
        partner = partners.get(graph.tensors[op.outputs[0]].name)
        in_eight_bits = weights.type == schema.TensorType.INT8 and bias.type == schema.TensorType.INT32
        if in_eight_bits and partner is not None:
            pairs.append((op, partner))
    means = _input_means(original, reference, [partner for _, partner in pairs], squares)
    shifts = collections.defaultdict(list)
    for (op, partner), mean in zip(pairs, means, strict=True):
        rounded = _values(model, graph.tensors[op.inputs[1]])
        error = rounded - _values(reference, float_graph.tensors[partner.inputs[1]])
        shift = _KINDS[flatbuffer.op_name(model, op)](error, mean)
        shifts[graph.tensors[op.inputs[2]].buffer].append((graph.tensors[op.inputs[2]], shift))
    for place, asked in shifts.items():
        bias, shift = asked[0][0], np.mean([shift for _, shift in asked], axis=0)
        stored = _stored(model, bias, np.int32)
        corrected = stored - np.rint(shift / np.asarray(bias.quantization.scale)).astype(np.int32)
        model.buffers[place].data = corrected.view(np.uint8)
    return flatbuffer.write(model)


def _input_means(data: bytes, model, operators: list, squares) -> list[np.ndarray]:
    """What each place of each operator's kernel sees on the mean over photos and positions, zeros of padding
    included: (height, width, channels) of convolutions, (channels,) of fully connected layers."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=data, num_threads=2, experimental_preserve_all_tensors=True,
        # XNNPACK would keep what is inside to itself.
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    images, tensors = interpreter.get_input_details()[0], model.subgraphs[0].tensors
    rows = np.unique(np.linspace(0, len(squares) - 1, min(PHOTOS, len(squares))).round().astype(int))
    sums = [np.float64(0)] * len(operators)
    for row in rows:
        interpreter.set_tensor(images["index"], squares[row][None].astype(images["dtype"]))
        interpreter.invoke()
        for i, op in enumerate(operators):
            values = interpreter.get_tensor(int(op.inputs[0]))
            if flatbuffer.op_name(model, op) == "FULLY_CONNECTED":
                seen = values.reshape(-1, tensors[op.inputs[1]].shape[1]).mean(0, dtype=np.float64)
            else:
                seen = _seen(values, op.builtinOptions, tensors[op.inputs[1]].shape[1:3])
            sums[i] = sums[i] + seen
    return [total / len(rows) for total in sums]


def _seen(values: np.ndarray, options, kernel) -> np.ndarray:
    """Mean of values (batch, H, W, channels) under each place of a kernel, (height, width, channels)."""
    from ai_edge_litert import schema_py_generated as schema

    same = options.padding == schema.Padding.SAME
    axes = (options.strideH, options.dilationHFactor), (options.strideW, options.dilationWFactor)
    total = values.sum(0, dtype=np.float64)
    # First rows, then columns: each is summed for every row, or column, of the kernel.
    for axis, ((stride, dilation), places) in enumerate(zip(axes, kernel, strict=True)):
        size = total.shape[axis]
        reach = (int(places) - 1) * dilation + 1
        count = -(-size // stride) if same else (size - reach) // stride + 1
        padding = max((count - 1) * stride + reach - size, 0) if same else 0
        sides = [(0, 0)] * 3
        sides[axis] = padding // 2, padding - padding // 2
        padded, taken = np.pad(total, sides), np.arange(count) * stride
        total = np.stack(
            [padded.take(taken + start, axis).mean(axis) for start in range(0, reach, dilation)], axis
        )
    return total / len(values)


def _values(model, tensor) -> np.ndarray:
    """A constant tensor's values in float, whatever it is stored as."""
    from ai_edge_litert import schema_py_generated as schema

    kind = np.int8 if tensor.type == schema.TensorType.INT8 else np.float32
    stored = _stored(model, tensor, kind).reshape(tensor.shape)
    if kind == np.float32:
        return stored.astype(np.float64)
    shape = np.ones(stored.ndim, int)
    shape[tensor.quantization.quantizedDimension] = -1
    return stored * np.reshape(np.asarray(tensor.quantization.scale, np.float64), shape)


def _stored(model, tensor, kind) -> np.ndarray:
    return np.frombuffer(np.asarray(model.buffers[tensor.buffer].data, np.uint8), kind)


# === What an error of the weights adds to the mean of a layer's output, (channels,) ===


def _convolution(error, mean):
    groups = mean.shape[2] // error.shape[3]
    error = error.reshape(groups, -1, *error.shape[1:])
    mean = mean.reshape(*mean.shape[:2], groups, -1)
    return np.einsum("gohwi,hwgi->go", error, mean).ravel()


def _depthwise(error, mean):
    return (error[0] * np.repeat(mean, error.shape[3] // mean.shape[2], axis=2)).sum((0, 1))


def _fully_connected(error, mean):
    return error @ mean


_KINDS = {
    "CONV_2D": _convolution, "DEPTHWISE_CONV_2D": _depthwise, "FULLY_CONNECTED": _fully_connected,
}
