"""The `.tflite` flatbuffer as a tree of Python objects: what the export reads and changes in it."""

from __future__ import annotations

import collections
import functools
import struct
from pathlib import Path

import numpy as np

_START = b"TFL3"
# What reading raises where an offset leads astray.
DAMAGE = (struct.error, IndexError, TypeError, AttributeError, OverflowError, UnicodeDecodeError)


def file_bytes(path: Path) -> bytes:
    """Returns what is in a `.tflite` file.

    Raises:
        FileNotFoundError, ValueError: no such file; one that does not start as a `.tflite`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    data = path.read_bytes()
    if data[4:8] != _START:
        raise ValueError(f"{path}: not a .tflite file (it does not start as one)")
    return data


def read(data: bytes):
    """Returns the model tree (`ModelT` of the LiteRT schema) of a `.tflite` file's bytes."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    for buffer in model.buffers:
        # The quantiser puts weights behind the flatbuffer and leaves (offset, size).
        if buffer.offset > 1:
            content = data[buffer.offset : buffer.offset + buffer.size]
            buffer.data, buffer.offset, buffer.size = np.frombuffer(content, np.uint8), 0, 0
    return model


def write(model) -> bytes:
    """Returns the `.tflite` bytes of a model tree; anything appended to the old file is gone."""
    import flatbuffers

    for buffer in model.buffers:
        buffer.Pack = functools.partial(_pack_aligned, buffer)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), _START)
    return bytes(builder.Output())


def _pack_aligned(buffer, builder) -> int:
    """Packs a buffer at a multiple of 16 bytes, as the schema asks for.

    The generated classes leave that out; LiteRT then copies the weights at loading instead of mapping
    them from the file.
    """
    from ai_edge_litert import schema_py_generated as schema

    data = None
    if buffer.data is not None and len(buffer.data):
        content = np.asarray(buffer.data, np.uint8).tobytes()
        builder.StartVector(1, len(content), 16)
        builder.head -= len(content)
        builder.Bytes[builder.head : builder.head + len(content)] = content
        data = builder.EndVector()
    schema.BufferStart(builder)
    if data is not None:
        schema.BufferAddData(builder, data)
    return schema.BufferEnd(builder)


def op_name(model, op) -> str:
    """Returns the name of an operator, such as 'CONV_2D', or a custom operator's own name."""
    code = model.operatorCodes[op.opcodeIndex]
    return _named(code.builtinCode, code.deprecatedBuiltinCode, code.customCode)


def code_name(code) -> str:
    """The same of an operator's code as it stands in the file, an `OperatorCode`."""
    return _named(code.BuiltinCode(), code.DeprecatedBuiltinCode(), code.CustomCode())


def _named(builtin: int, deprecated: int, custom: bytes | None) -> str:
    # Files from before schema 3a hold the code in the older, one-byte field.
    name = names_of("BuiltinOperator")[max(builtin, deprecated)]
    return (custom or b"CUSTOM").decode() if name == "CUSTOM" else name


@functools.cache
def names_of(kind: str) -> dict[int, str]:
    """Number -> name of one of the schema's enumerations, such as "TensorType"."""
    from ai_edge_litert import schema_py_generated as schema

    return {value: name for name, value in vars(getattr(schema, kind)).items() if isinstance(value, int)}


def stored_bytes(buffer) -> int:
    """How many bytes of values a `Buffer` of a file has, in itself or behind the flatbuffer."""
    return buffer.DataLength() if buffer.Offset() <= 1 else buffer.Size()


def op_histogram(data: bytes) -> dict[str, int]:
    """Counts the operators of a file by name, most frequent first."""
    model = read(data)
    counts = collections.Counter(op_name(model, op) for g in model.subgraphs for op in g.operators)
    return dict(counts.most_common())


def int8_steps(data: bytes) -> dict[str, float]:
    """Quantisation steps of the tensors in which eight bits end: name -> step in float units."""
    from ai_edge_litert import schema_py_generated as schema

    model = read(data)
    graph, steps = model.subgraphs[0], {}
    for op in graph.operators:
        tensor = graph.tensors[op.inputs[0]]
        if op_name(model, op) == "DEQUANTIZE" and tensor.type == schema.TensorType.INT8:
            scale, stored = tensor.quantization.scale, model.buffers[tensor.buffer].data
            # Weights, which are stored, have a step for each channel; what comes out of the body has one.
            if scale is not None and len(scale) == 1 and not (stored is not None and len(stored)):
                steps[tensor.name.decode().removesuffix("_int8").split(";")[0]] = float(scale[0])
    return steps


def order_and_name_outputs(model, produced: list[str], names: list[str]) -> None:
    """Puts the outputs in the contract's order and names them.

    Args:
        model: model tree, changed in place.
        produced: the output tensors' names in the file now, in the contract's order.
        names: what they are to be called; also the keys of the signature that is written.

    Raises:
        ValueError: an output of `produced` is not among the file's outputs.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    index = {graph.tensors[i].name.decode(): int(i) for i in graph.outputs}
    missing = [p for p in produced if p not in index]
    if missing:
        raise ValueError(
            f"the converter merged or dropped the outputs {missing} (it left {sorted(index)}); "
            "two outputs may be one and the same tensor, give them different values"
        )
    graph.outputs = np.array([index[p] for p in produced], np.int32)
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [_entry(schema, "images", graph.inputs[0])]
    graph.tensors[graph.inputs[0]].name = b"images"
    signature.outputs = []
    for name, tensor in zip(names, graph.outputs, strict=True):
        graph.tensors[tensor].name = name.encode()
        signature.outputs.append(_entry(schema, name, tensor))
    model.signatureDefs = [signature]


def _entry(schema, name, tensor):
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), int(tensor)
    return entry


def body_operators(model) -> list:
    """Returns the operators of the convolutional body, in order.

    These are the convolutions and whatever stands between two of them. What comes before the first
    is the photo's normalisation, what comes behind the last is decoding. A detector of two stages decodes
    in between as well: from where the best boxes are picked to the next convolution, nothing is body.
    """
    graph = model.subgraphs[0]
    convolutions = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"}
    names = [op_name(model, op) for op in graph.operators]
    is_convolution = [name in convolutions for name in names]
    picked = set()  # tensors that hang on which boxes were picked, but for those behind a convolution
    decodes = []
    for op, name, hit in zip(graph.operators, names, is_convolution, strict=True):
        of_picked = not hit and (name == "TOPK_V2" or any(int(i) in picked for i in op.inputs))
        decodes.append(of_picked)
        if of_picked:
            picked.update(int(i) for i in op.outputs)
    feeds, stems = set(), set()  # tensors that lead to a convolution; that come from one
    before, after = [], []
    # Operators are stored in execution order.
    for op, hit, of_picked in zip(*map(reversed, (graph.operators, is_convolution, decodes)), strict=True):
        hit = hit or not of_picked and any(int(i) in feeds for i in op.outputs)
        before.append(hit)
        if hit:
            feeds.update(int(i) for i in op.inputs)
    for op, hit in zip(graph.operators, is_convolution, strict=True):
        hit = hit or any(int(i) in stems for i in op.inputs)
        after.append(hit)
        if hit:
            stems.update(int(i) for i in op.outputs)
    return [
        op for op, b, a in zip(graph.operators, reversed(before), after, strict=True) if b and a
    ]


def set_metadata(model, name: str, data: bytes) -> None:
    """Puts `data` into the file under `name`, in place of what was there under that name."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    entry = schema.MetadataT()
    entry.name, entry.buffer = name.encode(), len(model.buffers) - 1
    model.metadata = [m for m in model.metadata or [] if m.name != entry.name] + [entry]


def get_metadata(data: bytes, name: str) -> bytes | None:
    """Returns what a file holds under `name`, or None."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(data, 0)
    for i in range(model.MetadataLength()):
        if model.Metadata(i).Name() == name.encode():
            return model.Buffers(model.Metadata(i).Buffer()).DataAsNumpy().tobytes()
    return None
