"""What accelerators take of a file: the rules, and the files that detectors are exported to."""

import json
from pathlib import Path

import numpy as np
import overfeats
import pytest
from harness import SHAPES, tiny_backbone
from needed import needed
from record_analyzer import described, kind

from kerasdet import zoo
from kerasdet.deploy import convert, delegates
from kerasdet.deploy.operations import Operation, Tensor, layer_of, read_operations
from kerasdet.models.centernet import CenterNet
from kerasdet.models.csp import CSP
from kerasdet.models.ssd import SSD
from kerasdet.models.yolo_v1 import YOLOv1
from kerasdet.models.yolo_v3 import YOLOv3

VERDICTS = json.loads((Path(__file__).parent / "analyzer_2_17.json").read_text())["operators"]


def small(detector, **options):
    stride = options.pop("output_stride", 32)
    return lambda: detector(SHAPES, backbone=tiny_backbone(output_stride=stride), image_size=64, **options)


ONE_STAGE = {
    "csp": small(CSP, stride=8, channels=16, parts=("head",)),
    "csp, as in the paper": small(CSP, output_stride=16, neck="deconv", channels=16),
    "csp with a pyramid": small(CSP, neck="fpn", channels=16),
    "centernet": small(CenterNet, stride=8, channels=16),
    "centernet with context": small(CenterNet, stride=8, channels=16, context=2),
    "centernet, as in the paper": small(CenterNet, neck="deconv", channels=16),
    "centernet with a pyramid": small(CenterNet, neck="fpn", channels=16),
    "ssd": small(SSD, output_stride=16, network="paper", anchor_sizes=(0.16, 0.24, 0.32, 0.4)),
    "ssdlite": small(SSD, anchor_sizes=(0.2, 0.4, 0.6, 0.8)),
    "ssdlite with a pyramid": small(SSD, neck="fpn", channels=16, anchor_sizes=(0.2, 0.4, 0.6, 0.8)),
    "yolo_v1": small(YOLOv1, output_stride=16, head="light", grid=4, channels=16),
    "yolo_v3": small(YOLOv3, channels=8),
    "yolo_v3, as in the paper": small(YOLOv3, neck="paper", channels=8),
    "yolo_v3 with a pyramid": small(YOLOv3, neck="fpn", channels=8),
    "overfeat": overfeats.small,
    "overfeat, one box for all classes": lambda: overfeats.small(regression="single", offsets=False),
}


@pytest.fixture(scope="module", params=ONE_STAGE)
def raw(request, tmp_path_factory):
    """The `.tflite` of an untrained detector, its raw heads."""
    needed("ai_edge_litert")
    path = tmp_path_factory.mktemp("raw") / f"small {request.param}.raw.float32.tflite"
    path.write_bytes(convert.convert(ONE_STAGE[request.param](), "raw", "float32")[0])
    return path


def operation(name, *inputs, output=("float32", (1, 4, 4, 8)), **options):
    """An operator as the rules see it; inputs as (dtype, shape) or (dtype, shape, constant)."""
    tensors = [Tensor(f"in{i}", *given, *(False,) * (3 - len(given))) for i, given in enumerate(inputs)]
    return Operation(0, name, tuple(tensors), (Tensor("out", *output, False),), options)


def judged(entry):
    """What our rules say of an operator that the analyzer was asked of; and whether that may differ.

    The analyzer overlooks that tensors have four dimensions at most on a GPU, and it refuses convolutions
    and dense layers whose weights are in float16, which the delegate reads; see `delegates`.
    """
    inputs, outputs = (
        tuple(Tensor("", dtype, tuple(shape), bool(constant)) for dtype, shape, constant in entry[side])
        for side in ("inputs", "outputs")
    )
    op = Operation(0, entry["name"], inputs, outputs, entry["options"])
    if entry["taken"]:
        may_differ = max(len(tensor.shape) for tensor in inputs + outputs) > 4
    else:
        convolves = entry["name"] in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
        may_differ = convolves and any(constant == "float16" for *_, constant in entry["inputs"])
    return delegates.gpu(op), may_differ


@pytest.mark.parametrize("entry", VERDICTS, ids=lambda entry: entry["name"])
def test_the_gpu_rules_agree_with_the_analyzer(entry):
    """Verdicts of TensorFlow 2.17's analyzer; `record_analyzer.py` says how they were recorded."""
    reason, may_differ = judged(entry)
    if not may_differ:
        assert (reason is None) == entry["taken"]
    elif entry["taken"]:
        assert reason == "takes 4 dimensions at most"
    else:
        assert reason is None


def test_where_the_gpu_rules_differ_from_the_analyzer():
    names = {True: set(), False: set()}
    for entry in VERDICTS:
        reason, _ = judged(entry)
        if (reason is None) != entry["taken"]:
            names[entry["taken"]].add(entry["name"])
    assert {"RESHAPE", "TILE", "TRANSPOSE"} <= names[True]  # more than four dimensions
    assert names[False] == {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}  # weights in float16


def test_there_are_verdicts_of_both_kinds():
    refused = {entry["name"] for entry in VERDICTS if not entry["taken"]}
    assert {"CAST", "TOPK_V2", "GATHER", "STRIDED_SLICE", "L2_NORMALIZATION", "SELECT_V2"} <= refused
    assert len({entry["name"] for entry in VERDICTS if entry["taken"]}) >= 30


def test_every_operator_of_raw_heads_has_a_verdict(raw):
    known = {kind(entry) for entry in VERDICTS}
    lacking = {op.name for op in read_operations(raw) if kind(described(op)) not in known}
    assert not lacking, f"ask the analyzer of {raw}, as record_analyzer.py says"


def test_raw_heads_are_all_for_the_gpu(raw):
    found = delegates.delegate_report(raw)
    assert found.refused["GPU"] == [] and found.share("GPU") == 1
    assert len(found.operations) >= 10
    assert max(len(tensor.shape) for op in found.operations for tensor in op.inputs + op.outputs) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset",
    [card.name for card in zoo.cards() if card.detector not in ("FasterRCNN", "TridentNet")],
)
def test_raw_heads_of_presets_are_all_for_the_gpu(preset, tmp_path):
    path = tmp_path / f"{preset}.raw.float32.tflite"
    path.write_bytes(convert.convert(zoo.load(preset), "raw", "float32")[0])
    test_every_operator_of_raw_heads_has_a_verdict(path)
    test_raw_heads_are_all_for_the_gpu(path)


def test_raw_heads_run_in_a_compiled_model_as_in_the_interpreter(raw):
    compiled_model = pytest.importorskip("ai_edge_litert.compiled_model", reason="an older ai-edge-litert")
    from kerasdet.deploy.litert import Runner

    image = np.random.default_rng(0).uniform(0, 255, (64, 64, 3)).astype(np.float32)
    runner = Runner(raw.read_bytes())
    model = compiled_model.CompiledModel.from_file(str(raw))
    inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
    inputs[0].write(image[None])
    model.run_by_index(0, inputs, outputs)
    assert len(outputs) == len(runner.output_shapes)
    for buffer, expected in zip(outputs, runner(image), strict=True):
        found = buffer.read(expected.size, np.float32).reshape(expected.shape)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_the_report_names_operator_reason_and_layer(exported):
    found = delegates.delegate_report(exported()[0])
    # The photo's CAST from uint8, which no GPU delegate takes.
    assert found.refused["GPU"][0].operation.index == 0
    first, *rest = found.causes("GPU")
    assert first[:2] == ("from uint8 to float32", {"CAST": 1})
    assert any("TOPK_V2" in operators for _, operators, _ in rest)
    counts = [sum(operators.values()) for _, operators, _ in found.causes("GPU")]
    assert sum(counts) == len(found.refused["GPU"])
    layers = {op.layer for op in found.operations}
    assert {"colour", "blur", "center", "scale"} <= {layer.split("/")[-1] for layer in layers}


def test_the_edge_tpu_stops_at_the_first_that_it_refuses(exported):
    found = delegates.delegate_report(exported("int8", "raw")[0])
    assert len(found.refused["Edge TPU"]) == len(found.operations)  # it starts with floats
    body = [op for op in found.operations if op.name == "DEPTHWISE_CONV_2D" and op.outputs[0].dtype == "int8"]
    assert body and all(delegates.edge_tpu(op) is None for op in body)


def test_float16_weights_count_as_constants(exported):
    found = read_operations(exported("float16")[0])
    convolutions = [op for op in found if op.name == "CONV_2D"]
    assert any(op.name == "DEQUANTIZE" for op in found)
    assert convolutions and all(len(op.computed) == 1 for op in convolutions)


@pytest.mark.parametrize("rule, op, reason", [
    (delegates.gpu, operation("NON_MAX_SUPPRESSION_V5"), "no such operator"),
    (delegates.gpu, operation("SOFTMAX", ("float32", (1, 4)), beta=2.0), "beta"),
    (delegates.gpu, operation("PAD", ("float32", (1, 4)), ("int32", (2, 2), True)), "3 or 4 dimensions"),
    (delegates.gpu, operation("MUL", ("float32", (1, 4, 1)), ("float32", (1, 1, 4))), "the larger in every"),
    (delegates.gpu, operation("MUL", ("float32", (1, 4, 4)), ("float32", (1, 1, 4))), None),
    # As TensorFlow 2.17's analyzer says of ADD and MUL alike.
    (delegates.gpu, operation("ADD", ("float32", (2, 4, 5, 8)), ("float32", (4, 5, 8))), "does not join"),
    (delegates.gpu, operation("ADD", ("float32", (1, 4, 5, 8)), ("float32", (5, 8))), "does not join"),
    (delegates.gpu, operation("MUL", ("float32", (1, 5, 8)), ("float32", (1, 8))), "does not join"),
    (delegates.gpu, operation("MUL", ("float32", (2, 4, 2, 8)), ("float32", (2, 8))), None),
    (delegates.gpu, operation("ADD", ("float32", (1, 4, 5, 8)), ("float32", (1, 1))), None),
    (delegates.gpu, operation("ADD", ("float32", (1, 4, 4, 8)), ("float32", (4, 1, 8))), None),
    (delegates.gpu, operation("MEAN", ("float32", (1, 4)), ("int64", (1,), True)), "axes of int32"),
    (delegates.gpu, operation("RESHAPE", ("float32", (1, 2, 2, 2, 2))), "4 dimensions at most"),
    (delegates.gpu, operation("TILE", ("float32", (4, 4)), output=("float32", (1,) * 5)), "4 dimensions at"),
    (delegates.gpu, operation("RESHAPE", ("float32", (1, 4, 2, 2)), ("int32", (4,), True)), None),
    (delegates.nnapi, operation("ADD", ("int64", (1, 4)), ("int64", (1, 4))), "of int64"),
    (delegates.nnapi, operation("CAST", ("float32", (4,)), output=("int64", (4,))), "to int64"),
    (delegates.nnapi, operation("EXP", ("int8", (1, 4))), "of int8"),
    (delegates.nnapi, operation("CONV_2D", ("int8", (1, 4, 4, 8)), output=("int8", (1, 4, 4, 8))), None),
    (delegates.nnapi, operation("SPLIT", ("int32", (), True), ("float32", (1, 4))), None),
    (delegates.nnapi, operation("RESHAPE", ("float32", (1, 2, 2, 2, 2))), "4 dimensions at most"),
    (delegates.edge_tpu, operation("CONV_2D", ("int8", (1, 4, 4, 8))), "eight bits only, not float32"),
    (delegates.edge_tpu, operation("EXP", ("int8", (1, 4)), output=("int8", (1, 4))), "no such operator"),
    (
        delegates.edge_tpu,
        operation(
            "DEPTHWISE_CONV_2D", ("int8", (1, 4, 4, 8)), output=("int8", (1, 4, 4, 8)), dilationHFactor=2
        ),
        "no dilation",
    ),
])
def test_rules(rule, op, reason):
    found = rule(op)
    assert found is None if reason is None else reason in found


def test_layers_are_read_from_the_names_of_tensors():
    assert layer_of("csp_1/mobilenet_v2_1/relu_1/Relu6;csp_1/bn_1/batchnorm/add") == "mobilenet_v2/relu"
    assert layer_of("csp_1/conv2d_1_1/BiasAdd") == "conv2d_1"
    assert layer_of("TopKV2") == "TopKV2"


def test_what_is_no_tflite_is_named(tmp_path, exported):
    with pytest.raises(FileNotFoundError, match="none.tflite: no such file"):
        read_operations(tmp_path / "none.tflite")
    (tmp_path / "text.tflite").write_text("not a model")
    with pytest.raises(ValueError, match="text.tflite: not a .tflite file"):
        read_operations(tmp_path / "text.tflite")
    (tmp_path / "half.tflite").write_bytes(exported()[0].read_bytes()[:3000])
    with pytest.raises(ValueError, match="half.tflite: .*damaged or cut off"):
        read_operations(tmp_path / "half.tflite")
