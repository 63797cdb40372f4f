"""The operators of a `.tflite`, one by one: what goes in and out, and which layer each comes from."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from kerasdet.deploy import flatbuffer, verify


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What stands between operators.

    Attributes:
        name: in the file.
        dtype: "float32", "int8", ..., as NumPy has them ("bool" too).
        shape: without it a scalar.
        constant: whether its values are in the file, be it as float16 that a DEQUANTIZE widens: runtimes and
            delegates do that once, at loading.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    constant: bool


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operator of a file.

    Attributes:
        index: its place in the order of execution.
        name: such as "CONV_2D"; of a custom operator, its own.
        inputs, outputs: inputs that are left out are left out here too.
        options: the schema's table of settings as a dict, such as {"strideW": 2}.
    """

    index: int
    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: dict

    @property
    def layer(self) -> str:
        """The Keras layer that the operator comes from, or the tensor's name where it comes from none."""
        return layer_of(self.outputs[0].name) if self.outputs else self.name

    @property
    def computed(self) -> tuple[Tensor, ...]:
        """The inputs that are not constant."""
        return tuple(tensor for tensor in self.inputs if not tensor.constant)


def layer_of(name: str) -> str:
    """The Keras layer in a tensor's name.

    The converter joins the names of what it fused by ";", and TensorFlow counts scopes up:

    >>> layer_of("csp_1/mobilenet_v2_1/Conv1_relu_1/Relu6;csp_1/mobilenet_v2_1/bn_Conv1_1/batchnorm/add")
    'mobilenet_v2/Conv1_relu'
    >>> layer_of("head_center_1/BiasAdd")  # what belongs to no layer, such as decoding, keeps its name
    'head_center_1/BiasAdd'
    """
    first = name.split(";")[0]
    # "batchnorm" is a scope within Keras' BatchNormalization.
    scopes = [scope for scope in first.split("/")[1:-1] if scope != "batchnorm"]
    return "/".join(re.sub(r"_1$", "", scope) for scope in scopes) or first


def read_operations(path: str | os.PathLike) -> list[Operation]:
    """The operators of a file, in the order of execution.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a `.tflite`, or a damaged one.
    """
    path = Path(path)
    data = flatbuffer.file_bytes(path)
    try:
        verify.check_sizes(data)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read, {error}; make or fetch the file again") from error
    try:
        return operations(data)
    except (*flatbuffer.DAMAGE, KeyError) as error:
        raise ValueError(f"{path}: damaged or cut off; make or fetch the file again") from error


def operations(data: bytes) -> list[Operation]:
    """The operators in a `.tflite` file's bytes; of several graphs, the first."""
    from ai_edge_litert import schema_py_generated as schema

    # Table by table, not as one tree: in a stranger's file a table may be named from everywhere.
    model = schema.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    types = flatbuffer.names_of("TensorType")
    found = [graph.Tensors(index) for index in range(graph.TensorsLength())]
    operators = [schema.OperatorT.InitFromObj(graph.Operators(i)) for i in range(graph.OperatorsLength())]
    kinds = [flatbuffer.code_name(model.OperatorCodes(i)) for i in range(model.OperatorCodesLength())]
    stored = [flatbuffer.stored_bytes(model.Buffers(tensor.Buffer())) for tensor in found]
    constants = {i for i, count in enumerate(stored) if count}
    for op in operators:
        if kinds[op.opcodeIndex] == "DEQUANTIZE" and op.inputs[0] in constants:
            constants.update(map(int, op.outputs))
    tensors = [
        Tensor(
            (tensor.Name() or f"tensor {i}".encode()).decode(), types[tensor.Type()].lower(),
            tuple(tensor.Shape(side) for side in range(tensor.ShapeLength())), i in constants,
        )
        for i, tensor in enumerate(found)
    ]

    def named(indices):
        return tuple(tensors[i] for i in indices if i >= 0) if indices is not None else ()

    return [
        Operation(
            index, kinds[op.opcodeIndex], named(op.inputs), named(op.outputs),
            dict(vars(op.builtinOptions)) if op.builtinOptions is not None else {},
        )
        for index, op in enumerate(operators)
    ]
