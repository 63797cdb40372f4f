"""Whether the graph in a `.tflite` holds together, looked at before LiteRT gets it.

LiteRT checks the flatbuffer itself, every offset of it, and what each operator asks of its shapes. It
trusts how the operators hang together: one that reads a tensor which nothing has written takes the whole
process down. So that is looked at here, and what would never end or fill the memory.
"""

from __future__ import annotations

import math

import numpy as np

from kerasdet.deploy import flatbuffer

# Tables of a model that a detector may have; a large one has some 2,000.
MAX_TABLES = 100_000
# Of one tensor, and of all that are no weights, in bytes. LiteRT lets most of them share their memory.
MAX_TENSOR, MAX_TENSORS = 2**30, 2**32
MAX_RANK = 8
# What operators read and write, and the names in a file: one table may be named from everywhere in it.
MAX_OPERANDS, MAX_NAMES = 1_000_000, 2**26
# Bytes of an element where it is not whole, or has no fixed size.
_ITEMS = {"INT4": 0.5, "UINT4": 0.5, "INT2": 0.25, "STRING": 0, "RESOURCE": 0, "VARIANT": 0}
# Inputs that an operator may go without, written as -1: the bias.
_OPTIONAL = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3, "CONV_3D": 2}
# They run other graphs of the file, over and over perhaps, or keep something from call to call.
_CONTROL = ("IF", "WHILE", "CALL", "CALL_ONCE", "STABLEHLO_WHILE", "STABLEHLO_CASE", "STABLEHLO_COMPOSITE")


def check(data: bytes) -> None:
    """Looks at the graph of a `.tflite`.

    Args:
        data: the file's bytes.

    Raises:
        ValueError: says what is wrong with it. A graph that passes runs from its first operator to its last,
            each on tensors that are there.
    """
    from ai_edge_litert import schema_py_generated as schema

    check_sizes(data)
    try:
        model = schema.Model.GetRootAsModel(data, 0)
        graph = model.Subgraphs(0)
        constant = _check_tensors(model, graph, len(data))
        _check_operators(model, graph, constant)
    except flatbuffer.DAMAGE as error:
        raise ValueError(f"it is damaged or cut off ({error})") from error


def check_sizes(data: bytes) -> None:
    """Looks at how much there is to read in the first graph of a `.tflite`, whatever it does.

    Args:
        data: the file's bytes.

    Raises:
        ValueError: it has no graph, or more in it than a detector can have; tensors, buffers or kinds of
            operators are named that are not there; it is damaged.
    """
    from ai_edge_litert import schema_py_generated as schema

    try:
        model = schema.Model.GetRootAsModel(data, 0)
        if model.SubgraphsLength() < 1:
            raise ValueError("it holds no graph")
        graph = model.Subgraphs(0)
        tables = (
            model.SubgraphsLength(), model.BuffersLength(), model.OperatorCodesLength(),
            graph.TensorsLength(), graph.OperatorsLength(), graph.InputsLength(), graph.OutputsLength(),
        )
        if max(tables) > MAX_TABLES:
            raise ValueError(f"it has {max(tables)} tables of a kind, more than {MAX_TABLES}")
        _check_names_and_shapes(model, graph)
        _check_operands(model, graph)
    except flatbuffer.DAMAGE as error:
        raise ValueError(f"it is damaged or cut off ({error})") from error


def _check_names_and_shapes(model, graph) -> None:
    names = 0
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        if tensor.ShapeLength() > MAX_RANK:
            raise ValueError(f"tensor {index} has a shape of {tensor.ShapeLength()} dimensions")
        if not 0 <= tensor.Buffer() < model.BuffersLength():
            raise ValueError(
                f"tensor {index} has its values in buffer {tensor.Buffer()}, which does not exist"
            )
        names += len(tensor.Name() or b"")
        if names > MAX_NAMES:
            raise ValueError(f"the names of its tensors are longer than {MAX_NAMES} bytes")


def _check_operands(model, graph) -> None:
    operands = 0
    for place in range(graph.OperatorsLength()):
        operator = graph.Operators(place)
        if not 0 <= operator.OpcodeIndex() < model.OperatorCodesLength():
            raise ValueError(f"operator {place} is of kind {operator.OpcodeIndex()}, which does not exist")
        operands += operator.InputsLength() + operator.OutputsLength()
        if operands > MAX_OPERANDS:
            raise ValueError(f"its operators read and write more than {MAX_OPERANDS} tensors")


def _check_tensors(model, graph, size: int) -> list[bool]:
    """Which tensors have their values in the file."""
    types = flatbuffer.names_of("TensorType")
    whole = {"FLOAT32": 4, "FLOAT16": 2, "BFLOAT16": 2, "INT32": 4, "UINT32": 4, "INT64": 8, "UINT64": 8,
             "FLOAT64": 8, "INT16": 2, "UINT16": 2, "COMPLEX64": 8, "COMPLEX128": 16}
    constant, total = [], 0.0
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        where = f"tensor {index}"
        shape = _integers(tensor.ShapeAsNumpy())
        if min(shape, default=0) < 0:
            raise ValueError(f"{where} has the shape {shape}")
        if tensor.Type() not in types:
            raise ValueError(f"{where} is of an unknown type, {tensor.Type()}")
        kind = types[tensor.Type()]
        needed = math.ceil(math.prod(shape) * _ITEMS.get(kind, whole.get(kind, 1)))
        if needed > MAX_TENSOR:
            raise ValueError(f"{where} has the shape {shape}, more than {MAX_TENSOR} bytes")
        stored = _stored(model.Buffers(tensor.Buffer()), size, where)
        if stored and _ITEMS.get(kind, 1) and tensor.Sparsity() is None and stored != needed:
            raise ValueError(f"{where} has the shape {shape}, {needed} bytes, and {stored} are in the file")
        constant.append(stored > 0)
        total += 0 if stored else needed
    if total > MAX_TENSORS:
        raise ValueError(f"its tensors take {total / 1e9:.1f} GB, more than {MAX_TENSORS / 1e9:.1f}")
    return constant


def _stored(buffer, size: int, where: str) -> int:
    """How many bytes of values a buffer holds; they have to be in the file."""
    if buffer.Offset() > 1 and buffer.Offset() + buffer.Size() > size:
        raise ValueError(f"{where} has its values beyond the end of the file; it is cut off")
    return flatbuffer.stored_bytes(buffer)


def _check_operators(model, graph, constant: list[bool]) -> None:
    names = flatbuffer.names_of("BuiltinOperator")
    count = len(constant)
    inputs = _integers(graph.InputsAsNumpy())
    outputs = _integers(graph.OutputsAsNumpy())
    if len(inputs) != 1 or not outputs:
        raise ValueError(f"it has {len(inputs)} inputs and {len(outputs)} outputs; a detector has one input")
    for index in (*inputs, *outputs):
        if not 0 <= index < count:
            raise ValueError(f"its inputs and outputs name tensor {index} of {count}")
    if constant[inputs[0]]:
        raise ValueError("its input is a constant")
    ready = np.array(constant)
    ready[inputs] = True
    for place in range(graph.OperatorsLength()):
        operator = graph.Operators(place)
        code = model.OperatorCodes(operator.OpcodeIndex())
        # Files from before schema 3a hold the code in the older, one-byte field.
        name = names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "unknown")
        where = f"operator {place}, {name},"
        if name in _CONTROL:
            raise ValueError(f"{where} runs other graphs; a detector is one graph, without loops")
        for position, index in enumerate(_integers(operator.InputsAsNumpy())):
            if index == -1 and position == _OPTIONAL.get(name):
                continue
            if not 0 <= index < count:
                raise ValueError(f"{where} reads tensor {index} of {count}")
            if not ready[index] and not graph.Tensors(index).IsVariable():
                raise ValueError(f"{where} reads tensor {index}, which nothing has written before")
        for index in _integers(operator.OutputsAsNumpy()):
            if not 0 <= index < count:
                raise ValueError(f"{where} writes tensor {index} of {count}")
            if ready[index]:
                raise ValueError(f"{where} writes tensor {index}, which has its values already")
            ready[index] = True
    missing = [index for index in outputs if not ready[index]]
    if missing:
        raise ValueError(f"its output, tensor {missing[0]}, is written by no operator")


def _integers(array) -> list[int]:
    """A vector of the flatbuffer, which is 0 where it is left out."""
    return [] if isinstance(array, int) else array.tolist()
