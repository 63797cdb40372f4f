import json
import os
import re
import warnings

import numpy as np
import pytest
from discs import CLASSES, photos
from harness import SHAPES, tiny_backbone
from presets import tiny_csp

from kerasdet import deploy
from kerasdet.deploy import exporter, flatbuffer
from kerasdet.deploy.litert import Runner
from kerasdet.deploy.parity import CheckSet
from kerasdet.models.faster_rcnn import FasterRCNN

pytestmark = pytest.mark.filterwarnings("ignore:int8 is calibrated on")

DETECTIONS = ["boxes_rel_yxyx", "classes", "scores", "count"]
BOXES = ["boxes_rel_yxyx", "classes", "scores", "parts_rel_yxyx"]
RAW = ["center", "scale", "offset", "core_scale", "core_offset"]


def interpreter(path):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path))
    runner.allocate_tensors()
    return runner


def small_faster_rcnn():
    return FasterRCNN(
        SHAPES, backbone=tiny_backbone(), image_size=64, channels=8, head_units=16, before=(20, 20),
        proposals=(10, 10),
    )


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("outputs, names", [("detections", DETECTIONS), ("boxes", BOXES), ("raw", RAW)])
def test_outputs_stand_in_the_file_in_the_contracts_order(exported, precision, outputs, names):
    path, report = exported(precision, outputs)
    found = interpreter(path).get_output_details()
    assert [o["name"] for o in found] == names == list(report.output_shapes)
    assert [tuple(o["shape"]) for o in found] == list(report.output_shapes.values())
    assert all(o["dtype"] == np.float32 for o in found)


def test_the_input_is_one_uint8_photo_and_signatures_have_names(exported):
    runner = interpreter(exported()[0])
    (image,) = runner.get_input_details()
    assert (image["name"], image["dtype"]) == ("images", np.uint8)
    assert image["shape"].tolist() == [1, 96, 96, 3]
    signature = runner.get_signature_list()["serving_default"]
    assert signature["inputs"] == ["images"] and sorted(signature["outputs"]) == sorted(DETECTIONS)


def test_float32_input_leaves_no_cast(detector, tmp_path, exported):
    report = deploy.export(detector, tmp_path / "raw.tflite", outputs="raw", input_dtype="float32")
    assert "CAST" not in report.operators
    assert "CAST" in exported(outputs="raw")[1].operators
    assert interpreter(report.path).get_input_details()[0]["dtype"] == np.float32


def test_int8_takes_float32_input_too(detector, disc_set, tmp_path):
    """Calibration photos have to be of the dtype that the graph takes."""
    report = deploy.export(
        detector, tmp_path / "raw.tflite", precision="int8", outputs="raw", input_dtype="float32",
        calibration=disc_set,
    )
    assert interpreter(report.path).get_input_details()[0]["dtype"] == np.float32
    assert "CAST" not in report.operators and report.scales


def test_int8_quantises_the_body_and_leaves_decoding_in_float(exported):
    path, report = exported("int8")
    model = flatbuffer.read(path.read_bytes())
    graph = model.subgraphs[0]

    def types(op):
        return {graph.tensors[i].type for i in op.outputs}

    float32, int8 = 0, 9
    body = flatbuffer.body_operators(model)
    in_float = [flatbuffer.op_name(model, op) for op in body if types(op) == {float32}]
    in_float = [name for name in in_float if name != "DEQUANTIZE"]
    # the stem, upsampling, and the five heads' 1x1 outputs, of which the converter made three
    assert in_float == ["CONV_2D", "DEPTHWISE_CONV_2D", "RESIZE_BILINEAR"] + ["CONV_2D"] * 3
    in_int8 = [flatbuffer.op_name(model, op) for op in body if types(op) == {int8}]
    assert in_int8.count("DEPTHWISE_CONV_2D") == 1 and in_int8.count("CONV_2D") == 1
    for op in graph.operators:
        if flatbuffer.op_name(model, op) in ("LOGISTIC", "TOPK_V2", "EXP", "MAX_POOL_2D"):
            assert float32 in types(op)
    assert report.scales and all(0 < step < 1 for step in report.scales.values())


def test_weights_alone_in_eight_bits_need_no_photos_and_compute_in_float(exported):
    path, report = exported("int8_weights")
    model = flatbuffer.read(path.read_bytes())
    graph = model.subgraphs[0]
    int8, written = 9, [op for op in graph.operators if flatbuffer.op_name(model, op) != "DEQUANTIZE"]
    assert not any(graph.tensors[i].type == int8 for op in written for i in op.outputs)
    assert report.parity.source == "synthetic" and report.parity.matched >= 0.95
    # Nearer to Keras than eight bits in all of the body, and not as near as float32.
    photos = [np.random.default_rng(seed).integers(0, 256, (96, 96, 3), np.uint8) for seed in range(4)]
    maps = {
        precision: [Runner(exported(precision, "raw")[0].read_bytes(), 2)(photo)[0] for photo in photos]
        for precision in ("float32", "int8", "int8_weights")
    }
    error = {
        precision: np.abs(np.subtract(found, maps["float32"])).mean() for precision, found in maps.items()
    }
    assert 0 < error["int8_weights"] < error["int8"]


def test_int8_leaves_what_is_between_two_stages_in_float(shapes, tmp_path):
    """Coordinates and indices of proposals too: eight bits hold neither."""
    path = tmp_path / "int8.tflite"
    small_faster_rcnn().export(path, precision="int8", calibration=shapes, on_parity="warn")
    model = flatbuffer.read(path.read_bytes())
    graph = model.subgraphs[0]
    int8, kinds = 9, {}
    for op in graph.operators:
        kinds.setdefault(flatbuffer.op_name(model, op), []).append(graph.tensors[op.outputs[0]].type == int8)
    for name in ("TOPK_V2", "BATCH_MATMUL", "CEIL", "LOGISTIC", "MINIMUM", "SUB"):
        assert name in kinds and not any(kinds[name]), name
    # The stem's layer, three more of the backbone, four laterals; smoothing and the proposal network's 3x3.
    assert sum(kinds["CONV_2D"]) >= 12
    # Two layers on every region; what they end in stays in float.
    assert sorted(kinds["FULLY_CONNECTED"]) == [False, False, False, True, True]


@pytest.mark.parametrize(
    "precision, size", [("float32", 4), ("float16", 2), ("int8", 1), ("int8_weights", 1)]
)
def test_weights_take_the_bytes_of_their_precision(exported, precision, size):
    model = flatbuffer.read(exported(precision, "raw")[0].read_bytes())
    graph = model.subgraphs[0]
    last = [op for op in graph.operators if flatbuffer.op_name(model, op) == "DEPTHWISE_CONV_2D"][-1]
    makers = {int(i): op for op in graph.operators for i in op.outputs}
    kernel = int(last.inputs[1])
    if kernel in makers:  # weights are widened when the model is loaded, where the computing is in float32
        assert flatbuffer.op_name(model, makers[kernel]) == "DEQUANTIZE"
        kernel = int(makers[kernel].inputs[0])
    # 5x5 weights for each of 2 channels.
    assert len(model.buffers[graph.tensors[kernel].buffer].data) == 50 * size


def test_the_report_says_what_was_made_and_the_file_keeps_it(exported, detector, disc_set):
    path, report = exported("int8")
    assert report.size == os.path.getsize(path) and report.latency_ms > 0
    assert report.parity.source == "calibration" and report.parity.photos == 24
    assert re.search(r"calibrated on +24 photos with objects of 2 of 2 classes\n", str(report))
    some = CheckSet([None] * 2, [], [], disc_set.select(CLASSES[0]), "calibration")
    missing = f"2 photos with objects of 1 of 2 classes; none of {CLASSES[1]}"
    assert exporter._coverage(some, detector) == missing
    assert report.parity.boxes > 30 and report.parity.matched >= 0.95
    assert report.parity.keras_ap > 0.7
    assert report.parity.keras_ap - report.parity.ap <= 0.02
    text = str(report)
    for part in ("int8", "MB", "ms, 2 CPU threads", "scores (1, 8)", "AP", "CONV_2D", "int8 step"):
        assert part in text
    kept = deploy.read_metadata(path)["report"]
    assert kept["parity"]["matched"] == report.parity.matched
    assert json.dumps(kept)


def test_a_float32_file_agrees_with_keras_within_its_limits(exported):
    parity = exported()[1].parity
    assert parity.source == "synthetic" and parity.boxes > 0
    assert parity.score_difference <= 0.001 and parity.box_difference <= 0.5


def test_saved_model_folders_hold_the_same_three_depths(detector, tmp_path):
    import tensorflow as tf

    images = np.stack(photos(3))
    for outputs, names in (("detections", DETECTIONS), ("boxes", BOXES), ("raw", RAW)):
        folder = tmp_path / outputs
        report = deploy.export(detector, folder, outputs=outputs, check_photos=photos(4))
        assert list(report.output_shapes) == names and report.latency_ms > 0
        serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
        found = serve(images=tf.constant(images))  # any batch size
        for name, wanted in detector.forward(images, outputs).items():
            np.testing.assert_allclose(found[name], wanted, atol=1e-4)
        assert (folder / "labels.txt").read_text() == "red\nblue\n"
        assert json.loads((folder / "kerasdet.json").read_text())["outputs"] == outputs


# Activations of an untrained network vanish, and eight bits cannot hold its biases beside them.
@pytest.mark.filterwarnings("ignore:.*int8 file and Keras disagree")
def test_csp_goes_through_every_depth(tmp_path):
    from kerasdet.models.csp import CSP

    model = CSP(
        image_size=64, backbone="mobilenet_v2_0.35", channels=16, stride=8, candidates=20, parts=("head",),
    )
    for outputs in ("detections", "boxes"):
        report = model.export(tmp_path / f"{outputs}.tflite", outputs=outputs)
        assert report.output_shapes["scores"] == (1, 20)
        assert report.parity.boxes >= 60 and report.parity.matched == 1.0
    calibration = [np.full((64, 64, 3), v, np.uint8) for v in (0, 90, 255)]
    report = model.export(
        tmp_path / "int8.tflite", outputs="raw", precision="int8", calibration=calibration,
        on_parity="warn",
    )
    assert report.calibrated == "3 photos without labels"
    # Eight bits end before each of the two upsamplings and before the heads' 1x1 outputs.
    assert report.operators["DEQUANTIZE"] == len(report.scales) == 3


def test_mediapipe_stretches_photos_and_a_letterbox_says_so(detector, tmp_path, monkeypatch):
    monkeypatch.setattr(type(detector), "resize", "letterbox")
    with pytest.warns(UserWarning, match="MediaPipe Tasks stretch them"):
        deploy.export(detector, tmp_path / "a.tflite", check_photos=photos(2))


def test_raw_files_of_two_stages_are_said_to_be_not_all_for_gpus(tmp_path):
    def said(detector, name, outputs):
        """What is warned of before it turns out that there are no photos: nothing is converted."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            with pytest.raises(ValueError, match="check_photos is empty"):
                detector.export(tmp_path / name, outputs=outputs, check_photos=[])
        told = [warning for warning in told if "second stage" in str(warning.message)]
        assert all(warning.filename == __file__ for warning in told)  # it is of the line that exports
        return [str(warning.message) for warning in told]

    two_stages = small_faster_rcnn()
    (text,) = said(two_stages, "a.tflite", "raw")
    assert text.startswith(f"{tmp_path / 'a.tflite'}: the second stage of FasterRCNN looks at regions")
    # Decoding is the CPU's anyhow, and a SavedModel is for no phone.
    assert said(two_stages, "a.tflite", "detections") == said(two_stages, "folder", "raw") == []
    assert said(tiny_csp(), "a.tflite", "raw") == []
