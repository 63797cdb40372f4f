"""Which operators of a `.tflite` a phone's accelerators take, and which layers fall back to the CPU.

The rules are those that each accelerator's software states, cut down to what detectors are made of; an
operator that no rule names is refused.

- GPU: the check of TensorFlow Lite's GPU delegate, as TensorFlow 2.17's model analyzer runs it
  (`tf.lite.experimental.Analyzer.analyze(..., gpu_compatibility=True)`). Analyzers from 2.18 on come without
  that check, and call every file compatible. In one thing the delegate does better than the analyzer says: it
  reads float16 weights as they are. In another it does worse: tensors have four dimensions there at most
  (IsAllAllowedTensors and ExtractTensorShape, in model_builder.cc and model_builder_helper.cc of TensorFlow's
  lite/delegates/gpu/common), at which the analyzer does not look.
- NNAPI: what TensorFlow Lite's NNAPI delegate hands on from Android 11 on (NNAPI 1.3). A chip's driver may
  take less, and NPUs mostly compute with eight bits only.
- Edge TPU: the operators that Coral's compiler maps. It wants eight bits throughout, and maps what comes
  before the first operator that it refuses; from there on, everything runs on the CPU.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable

from kerasdet.deploy.operations import Operation, read_operations

_FLOATS = {"float16", "float32"}
_EIGHT_BITS = {"int8", "uint8"}

# === GPU ===

_GPU_ALWAYS = {
    "ADD_N", "CONCATENATION", "CONV_2D", "LEAKY_RELU", "PACK", "PRELU", "RELU", "RELU6", "RELU_N1_TO_1",
    "SPLIT", "SPLIT_V", "TRANSPOSE_CONV",
}
# One tensor that is computed in; constants, such as a shape, beside.
_GPU_ONE_COMPUTED = {
    "AVERAGE_POOL_2D", "DEPTH_TO_SPACE", "HARD_SWISH", "MAX_POOL_2D", "QUANTIZE", "RESHAPE",
    "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SPACE_TO_DEPTH", "TILE", "TRANSPOSE",
}
_GPU_ONE_TENSOR = {
    "ABS", "COS", "ELU", "EXP", "FLOOR", "GELU", "LOG", "LOGISTIC", "NEG", "RSQRT", "SIGN", "SIN",
    "SQRT", "SQUARE", "TANH",
}
_GPU_TWO_TENSORS = {
    "DIV", "EQUAL", "FLOOR_DIV", "FLOOR_MOD", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_AND",
    "MAXIMUM", "MINIMUM", "NOT_EQUAL", "POW", "SQUARED_DIFFERENCE", "SUB",
}
_GPU_OVER_AXES = {"MEAN", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM"}
_GPU_CASTS = {
    *((source, "bool") for source in _FLOATS), *(("bool", target) for target in _FLOATS),
    *((source, target) for source in ("float32", "int32") for target in ("float32", "int32")),
}


def gpu(op: Operation) -> str | None:
    """Why the GPU delegate refuses an operator, or None if it takes it."""
    reason = _gpu_analyzer(op)
    if reason is None and any(len(tensor.shape) > 4 for tensor in (*op.inputs, *op.outputs)):
        return "takes 4 dimensions at most"
    return reason


def _gpu_analyzer(op):
    if op.name in _GPU_ALWAYS:
        return None
    special = {
        "ADD": _gpu_add, "MUL": _gpu_multiply, "BATCH_MATMUL": _gpu_matmul, "CAST": _gpu_cast,
        "DEPTHWISE_CONV_2D": _gpu_depthwise, "DEQUANTIZE": _gpu_dequantize, "FULLY_CONNECTED": _gpu_dense,
        "GATHER": _gpu_gather, "PAD": _gpu_pad, "PADV2": _gpu_pad,
        "SELECT": _gpu_select, "SELECT_V2": _gpu_select, "SLICE": _gpu_slice, "SOFTMAX": _gpu_softmax,
        "STRIDED_SLICE": _gpu_strided_slice,
    }
    if op.name in special:
        return special[op.name](op)
    computed = len(op.computed)
    if op.name in _GPU_ONE_COMPUTED or op.name in _GPU_OVER_AXES:
        if computed != 1:
            return f"takes one computed tensor, not {computed}"
        if op.name in _GPU_OVER_AXES and op.inputs[1].dtype != "int32":
            return f"takes axes of int32, not {op.inputs[1].dtype}"
        return None
    if op.name in _GPU_ONE_TENSOR:
        return None if computed == len(op.inputs) == 1 else "takes one computed tensor"
    if op.name in _GPU_TWO_TENSORS:
        return None if computed in (1, 2) and len(op.inputs) == 2 else "takes a computed and another tensor"
    return "no such operator there"


def _gpu_add(op):
    one, other = (tuple(tensor.shape) for tensor in op.inputs)
    longer, shorter = sorted((one, other), key=len, reverse=True)
    if len(longer) == len(shorter) or len(shorter) <= 1:
        return None
    # A photo and a map of it, or a number, or one for each channel.
    if len(longer) == 4 and longer[0] == 1 and (len(shorter) == 3 or shorter == (1, 1)):
        return None
    if len(longer) == 4 and shorter == (longer[0], longer[3]):
        return None
    return f"does not join the shapes {one} and {other}"


def _gpu_multiply(op):
    one, other = (tensor.shape for tensor in op.inputs)
    if len(one) != len(other):
        return _gpu_add(op)
    pairs = list(zip(one, other, strict=True))
    if any(a < b for a, b in pairs) and any(a > b for a, b in pairs):
        return f"takes {one} and {other} only if one is the larger in every dimension"
    return None


def _gpu_matmul(op):
    return None if len(op.inputs) == 2 else "takes two tensors"


def _gpu_cast(op):
    kinds = op.inputs[0].dtype, op.outputs[0].dtype
    return None if kinds in _GPU_CASTS else "from {} to {}".format(*kinds)


def _gpu_depthwise(op):
    several = op.options.get("depthMultiplier", 1) != 1 and op.inputs[0].shape[-1] != 1
    return "takes several filters a channel of one channel only" if several else None


def _gpu_dense(op):
    kept = op.options.get("keepNumDims") and len(op.inputs[0].shape) != len(op.outputs[0].shape)
    return "keeps dimensions only where there are as many" if kept else None


def _gpu_dequantize(op):
    return "from int16" if op.inputs[0].dtype == "int16" else None


def _gpu_gather(op):
    values, indices = op.inputs
    if values.constant:
        return "from a constant tensor"
    if values.dtype == "int32":
        return "of int32"
    if len(indices.shape) != 1:
        return f"takes indices of one dimension, not {len(indices.shape)}"
    return None if indices.dtype == "int32" else f"takes indices of int32, not {indices.dtype}"


def _gpu_pad(op):
    if len(op.computed) != 1:
        return f"takes one computed tensor, not {len(op.computed)}"
    rows = op.inputs[1].shape
    return None if rows in ((3, 2), (4, 2)) else "pads tensors of 3 or 4 dimensions only"


def _gpu_select(op):
    which, *values = op.inputs
    if which.dtype not in {"bool", *_FLOATS} or any(value.dtype not in _FLOATS for value in values):
        return f"selects floats only, not {values[0].dtype}"
    for value in values:
        if value.shape not in ((), op.outputs[0].shape) and (len(value.shape) > 1 or value.shape[0] > 1):
            return f"does not spread {value.shape} to {op.outputs[0].shape}"
        if value.constant and len(value.shape) == 2:
            return "takes no constant of two dimensions"
    return None


def _gpu_slice(op):
    sides = len(op.inputs[0].shape)
    return None if sides in (3, 4) else f"takes 3 or 4 dimensions, not {sides}"


def _gpu_softmax(op):
    return None if op.options.get("beta", 1) == 1 else "takes no beta but 1"


def _gpu_strided_slice(op):
    for mask in ("ellipsisMask", "newAxisMask", "shrinkAxisMask"):
        if op.options.get(mask):
            return "drops or adds a dimension (an index in place of a range)"
    return _gpu_slice(op)


# === NNAPI ===

_NN_FLOAT = {"float32"}
_NN_EITHER = {"float32", *_EIGHT_BITS}
_NN_NUMBER = {*_NN_EITHER, "int32"}
_NNAPI = {
    **dict.fromkeys(("ABS", "DIV", "ELU", "EXP", "LOG", "POW", "RSQRT", "SIN", "SQRT", "SUM"), _NN_FLOAT),
    **dict.fromkeys(
        (
            "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "DEPTH_TO_SPACE", "FULLY_CONNECTED",
            "HARD_SWISH", "L2_NORMALIZATION", "LEAKY_RELU", "LOGISTIC", "MAX_POOL_2D", "MEAN", "PAD", "PADV2",
            "PRELU", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RELU_N1_TO_1", "RESHAPE",
            "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SOFTMAX", "SPACE_TO_DEPTH", "TANH",
            "TRANSPOSE_CONV",
        ),
        _NN_EITHER,
    ),
    **dict.fromkeys(
        (
            "ADD", "CAST", "EXPAND_DIMS", "GATHER", "MAXIMUM", "MINIMUM", "MUL", "SLICE", "SPLIT", "SQUEEZE",
            "STRIDED_SLICE", "SUB", "TILE", "TOPK_V2", "TRANSPOSE",
        ),
        _NN_NUMBER,
    ),
    **dict.fromkeys(
        ("EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "NOT_EQUAL"), {*_NN_NUMBER, "bool"}
    ),
    **dict.fromkeys(("LOGICAL_AND", "LOGICAL_NOT", "LOGICAL_OR"), {"bool"}),
    "BATCH_MATMUL": {"float32", "int8"},
    "CONCATENATION": {*_NN_EITHER, "float16"},
    "DEQUANTIZE": {*_EIGHT_BITS, "float16"},
    "FLOOR": _NN_FLOAT,
    "NEG": {"float32", "int32"},
    "PACK": _NN_EITHER,
    "SELECT": _NN_NUMBER,
}


def nnapi(op: Operation) -> str | None:
    """Why the NNAPI delegate refuses an operator, or None if it hands it on."""
    if op.name not in _NNAPI:
        return "no such operator there"
    # The values: a SELECT begins with what is selected, a SPLIT with the axis.
    values = op.inputs[1] if op.name in ("SELECT", "SPLIT") else op.inputs[0]
    if values.dtype not in _NNAPI[op.name]:
        return f"of {values.dtype}"
    if op.name == "CAST" and op.outputs[0].dtype not in _NN_NUMBER:
        return f"to {op.outputs[0].dtype}"
    if op.name == "GATHER" and op.inputs[1].dtype != "int32":
        return f"takes indices of int32, not {op.inputs[1].dtype}"
    if op.name == "SELECT" and op.inputs[0].shape != op.inputs[1].shape:
        return "selects by a condition of the same shape only"
    if any(len(tensor.shape) > 4 for tensor in op.inputs):
        return "takes 4 dimensions at most"
    return None


# === Edge TPU ===

_EDGE_TPU = {
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXPAND_DIMS",
    "FULLY_CONNECTED", "L2_NORMALIZATION", "LOGISTIC", "MAXIMUM", "MAX_POOL_2D", "MEAN", "MINIMUM", "MUL",
    "PACK", "PAD", "PRELU", "QUANTIZE", "REDUCE_MAX", "REDUCE_MIN", "RELU", "RELU6", "RELU_N1_TO_1",
    "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "RSQRT", "SLICE", "SOFTMAX", "SPACE_TO_DEPTH",
    "SPLIT", "SQUARED_DIFFERENCE", "SQUEEZE", "STRIDED_SLICE", "SUB", "SUM", "TANH", "TRANSPOSE",
    "TRANSPOSE_CONV",
}


def edge_tpu(op: Operation) -> str | None:
    """Why Coral's compiler leaves an operator to the CPU, or None if it maps it."""
    if op.name not in _EDGE_TPU:
        return "no such operator there"
    for tensor in (*op.computed, *op.outputs):
        if tensor.dtype not in _EIGHT_BITS:
            return f"takes eight bits only, not {tensor.dtype}"
    if op.name == "DEPTHWISE_CONV_2D" and {op.options.get("dilationHFactor", 1), 1} != {1}:
        return "takes no dilation"
    if any(len(tensor.shape) > 3 and max(tensor.shape[:-3]) > 1 for tensor in op.outputs):
        return "takes one photo at a time"
    return None


# === The report ===

ACCELERATORS: dict[str, Callable[[Operation], str | None]] = {
    "GPU": gpu, "NNAPI": nnapi, "Edge TPU": edge_tpu,
}


@dataclasses.dataclass(frozen=True)
class Refusal:
    """An operator that falls back to the CPU: where it stands, and why."""

    operation: Operation
    reason: str


@dataclasses.dataclass(frozen=True)
class DelegateReport:
    """What accelerators take of a file.

    Attributes:
        path: the file.
        operations: all of its operators.
        refused: accelerator ("GPU", "NNAPI", "Edge TPU") -> the operators that it leaves to the CPU.
    """

    path: str
    operations: list[Operation]
    refused: dict[str, list[Refusal]]

    def share(self, accelerator: str) -> float:
        """How much an accelerator takes, as a share of the operators, 0 to 1."""
        return 1 - len(self.refused[accelerator]) / max(1, len(self.operations))

    def causes(self, accelerator: str) -> list[tuple[str, dict[str, int], list[str]]]:
        """Why an accelerator refuses what: a row a reason, with its operators counted, and their layers."""
        rows: dict[str, tuple[collections.Counter, list[str]]] = {}
        for refusal in self.refused[accelerator]:
            operators, layers = rows.setdefault(refusal.reason, (collections.Counter(), []))
            operators[refusal.operation.name] += 1
            if refusal.operation.layer not in layers:
                layers.append(refusal.operation.layer)
        return [(reason, dict(operators), layers) for reason, (operators, layers) in rows.items()]


def delegate_report(path: str | os.PathLike) -> DelegateReport:
    """Holds every operator of a `.tflite` against what the GPU delegate, NNAPI and the Edge TPU take.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a `.tflite`, or a damaged one.
    """
    found = read_operations(path)
    try:
        refused = {
            name: [Refusal(op, reason) for op in found if (reason := rule(op)) is not None]
            for name, rule in ACCELERATORS.items()
        }
    except (ValueError, IndexError, TypeError) as error:  # a GATHER of one tensor, say
        raise ValueError(
            f"{path}: an operator has other inputs than its kind has ({error}); make or fetch the file again"
        ) from error
    if first := refused["Edge TPU"][:1]:
        behind = found[first[0].operation.index + 1 :]
        refused["Edge TPU"] = first + [Refusal(op, "stands behind one that is refused") for op in behind]
    return DelegateReport(os.fspath(path), found, refused)
