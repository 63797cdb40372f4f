"""Where int8 loses accuracy, and layers that stay in float."""

import numpy as np
import pytest
from discs import photos

from kerasdet import deploy
from kerasdet.deploy.litert import Runner
from kerasdet.deploy.noise import LayerNoise, _noise, noise_without, quantisation_noise
from kerasdet.deploy.operations import read_operations

pytestmark = pytest.mark.filterwarnings("ignore:int8 is calibrated")


@pytest.fixture(scope="module")
def pair(exported):
    """The float and the int8 file of one detector, their raw heads."""
    return exported("float32", "raw")[0], exported("int8", "raw")[0]


def test_noise_is_the_squared_difference_over_the_square():
    # By hand: (0 + 1 + 4 + 0) / 4 over (1 + 4 + 9 + 16) / 4.
    assert _noise([1, 3, 5, 4], [1, 2, 3, 4]) == pytest.approx(5 / 30)
    row = LayerNoise("neck", "CONV_2D", 0.01, 0.004)
    assert row.decibels == pytest.approx(20) and row.added == pytest.approx(0.006)


def test_every_layer_of_eight_bits_is_measured_and_the_worst_stands_first(pair):
    rows = quantisation_noise(*pair, photos(3))
    # The stem, the upsampling and the heads are in float.
    assert {row.layer: row.operator for row in rows} == {"smooth": "DEPTHWISE_CONV_2D", "mean": "CONV_2D"}
    assert [row.added for row in rows] == sorted((row.added for row in rows), reverse=True)
    assert all(0 < row.noise < 0.1 for row in rows)
    # What comes in at the first layer goes through the upsampling into the second.
    assert {row.layer for row in rows if row.last} == {"mean"}
    before = {row.layer: row.before for row in rows}
    assert before["smooth"] == 0 and before["mean"] > 0


def test_noise_of_a_tensor_is_what_an_interpreter_of_our_own_says(pair):
    from ai_edge_litert.interpreter import Interpreter

    square = photos(1)[0]
    row = quantisation_noise(*pair, [square])[0]
    values = []
    for path in pair:
        interpreter = Interpreter(str(path), experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], square[None])
        interpreter.invoke()
        name = next(op.outputs[0].name for op in read_operations(pair[1]) if op.layer == row.layer)
        detail = next(one for one in interpreter.get_tensor_details() if one["name"] == name)
        scale, zero = detail["quantization"]
        value = interpreter.get_tensor(detail["index"]).astype(np.float64)
        values.append((value - zero) * scale if scale else value)
    wanted = np.mean((values[0] - values[1]) ** 2) / np.mean(values[0] ** 2)
    assert row.noise == pytest.approx(wanted, rel=1e-3)


def test_a_layer_in_float_is_tried_on_what_is_left_at_the_end(pair):
    squares = photos(4)
    found = noise_without(pair[0], squares, ["smooth", "mean"])
    assert list(found) == ["", "smooth", "mean"]
    # What the first layer adds does not reach the second; with the second in float, eight bits end before it.
    assert 0 < found["smooth"] < found[""] and 0 < found["mean"] != found[""]
    # What the file leaves in float already stays so.
    kept = noise_without(pair[0], squares, [], keep_float="^smooth$")
    assert kept == {"": found["smooth"]}
    with pytest.raises(ValueError, match="nothing in eight bits"):
        noise_without(pair[0], squares, ["mean"], keep_float="^smooth$")


def test_layers_that_are_named_stay_in_float(detector, disc_set, pair, tmp_path):
    """And what they lost before is not lost any more."""
    path = tmp_path / "kept.tflite"
    deploy.export(
        detector, path, precision="int8", outputs="raw", calibration=disc_set, keep_float="^smooth$"
    )
    assert (in_eight_bits(pair[1]), in_eight_bits(path)) == ({"smooth", "mean"}, {"mean"})
    squares = photos(4)
    float_, int8, kept = (Runner(each.read_bytes()) for each in (*pair, path))
    error = [
        np.mean([np.mean((one(square)[0] - float_(square)[0]) ** 2) for square in squares])
        for one in (int8, kept)
    ]
    assert error[1] < error[0]


def in_eight_bits(path) -> set[str]:
    """Layers of a file whose output is int8."""
    return {
        op.layer for op in read_operations(path) if op.outputs[0].dtype == "int8" and op.name != "QUANTIZE"
    }


def test_a_detector_brings_the_layers_that_its_files_leave_in_float(
    detector, disc_set, monkeypatch, tmp_path
):
    monkeypatch.setattr(type(detector), "keep_float", "^smooth$")
    said = {"precision": "int8", "outputs": "raw", "calibration": disc_set}
    for name, given, layers in (("own", {}, {"mean"}), ("none", {"keep_float": ""}, {"smooth", "mean"})):
        deploy.export(detector, tmp_path / f"{name}.tflite", **said, **given)
        assert in_eight_bits(tmp_path / f"{name}.tflite") == layers
        about = deploy.read_metadata(tmp_path / f"{name}.tflite")
        assert about.get("keep_float") == (None if given else "^smooth$")
    # float32 has all in float, and needs no word of it
    deploy.export(detector, tmp_path / "float.tflite", outputs="raw", check_photos=disc_set)


def test_keep_float_that_does_nothing_is_said(detector, disc_set, tmp_path):
    for given, reason in (
        ("blurr", "'blurr', which no layer is called; there are .*blur"),
        ("(", "no regular expression"),
        (".", "leaves nothing in eight bits"),
    ):
        with pytest.raises(ValueError, match=reason):
            deploy.export(
                detector, tmp_path / "a.tflite", precision="int8", calibration=disc_set, keep_float=given
            )
    with pytest.raises(ValueError, match="keep_float is 'blur' and precision float32"):
        deploy.export(detector, tmp_path / "a.tflite", keep_float="blur")
    assert not (tmp_path / "a.tflite").exists()


def test_files_that_do_not_belong_together_are_told(pair, exported):
    with pytest.raises(ValueError, match="no layer computes in eight bits"):
        quantisation_noise(pair[0], pair[0], photos(1))
    with pytest.raises(ValueError, match="cannot be compared"):
        quantisation_noise(exported()[0], pair[1], photos(1))
    with pytest.raises(ValueError, match="there are no photos"):
        quantisation_noise(*pair, [])
