"""Files that are damaged or made to do harm: what is refused before LiteRT gets it, and how."""

import copy
import io
import sys
import tracemalloc
import zipfile
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from discs import photo
from needed import needed

import kerasdet
from kerasdet import deploy
from kerasdet.deploy import flatbuffer, metadata, trial, verify


@pytest.fixture(scope="module")
def sound(exported):
    """A sound file's bytes, without what stands behind the model."""
    return flatbuffer.write(flatbuffer.read(exported()[0].read_bytes()))


def altered(sound, change) -> bytes:
    """The file after `change(model, graph)` of its tree."""
    model = flatbuffer.read(sound)
    change(model, model.subgraphs[0])
    return flatbuffer.write(model)


def put(array, place, value):
    array = np.array(array)
    array[place] = value
    return array


def convolutions(model, graph):
    return [op for op in graph.operators if flatbuffer.op_name(model, op) == "CONV_2D"]


def unwritten(model, graph):
    """A convolution reads what nothing writes."""
    second = convolutions(model, graph)[1]
    graph.tensors.append(copy.copy(graph.tensors[second.inputs[0]]))
    second.inputs = put(second.inputs, 0, len(graph.tensors) - 1)


def missing(model, graph):
    second = convolutions(model, graph)[1]
    second.inputs = put(second.inputs, 0, -1)


def beyond(model, graph):
    second = convolutions(model, graph)[1]
    second.inputs = put(second.inputs, 0, len(graph.tensors))


def twice(model, graph):
    first, second = convolutions(model, graph)[:2]
    second.outputs = first.outputs


def no_kind(model, graph):
    graph.operators[0].opcodeIndex = len(model.operatorCodes)


def loop(model, graph):
    code = model.operatorCodes[convolutions(model, graph)[0].opcodeIndex]
    code.builtinCode, code.deprecatedBuiltinCode = 119, 119  # WHILE


def giant(model, graph):
    tensor = graph.tensors[convolutions(model, graph)[0].outputs[0]]
    tensor.shape = put(tensor.shape, 1, 2**30)


def many_giants(model, graph):
    for operator in graph.operators:
        graph.tensors[operator.outputs[0]].shape = np.array([1, 2**26], np.int32)
        graph.tensors[operator.outputs[0]].type = 0  # float32


def negative(model, graph):
    tensor = graph.tensors[convolutions(model, graph)[0].outputs[0]]
    tensor.shape = put(tensor.shape, 0, -1)


def short(model, graph):
    kernel = graph.tensors[convolutions(model, graph)[0].inputs[1]]
    buffer = model.buffers[kernel.buffer]
    buffer.data = np.array(buffer.data[:-4], np.uint8)


def no_buffer(model, graph):
    graph.tensors[0].buffer = len(model.buffers)


def strange(model, graph):
    graph.tensors[0].type = 99


def two_inputs(model, graph):
    graph.inputs = np.array([0, 0], np.int32)


def no_output(model, graph):
    graph.outputs = put(graph.outputs, 0, len(graph.tensors))


def empty(model, graph):
    model.subgraphs = []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (unwritten, r"operator \d+, CONV_2D, reads tensor \d+, which nothing has written before"),
        (missing, r"operator \d+, CONV_2D, reads tensor -1 of"),
        (beyond, r"operator \d+, CONV_2D, reads tensor \d+ of"),
        (twice, r"operator \d+, CONV_2D, writes tensor \d+, which has its values already"),
        (no_kind, r"operator 0 is of kind \d+, which does not exist"),
        (loop, r"operator \d+, WHILE, runs other graphs; a detector is one graph, without loops"),
        (giant, r"tensor \d+ has the shape .*, more than 1073741824 bytes"),
        (many_giants, r"its tensors take [\d.]+ GB, more than 4\.3"),
        (negative, r"tensor \d+ has the shape \[-1, "),
        (short, r"tensor \d+ has the shape .*, \d+ bytes, and \d+ are in the file"),
        (no_buffer, r"tensor 0 has its values in buffer \d+, which does not exist"),
        (strange, "tensor 0 is of an unknown type, 99"),
        (two_inputs, "it has 2 inputs and 4 outputs; a detector has one input"),
        (no_output, r"its inputs and outputs name tensor \d+ of"),
        (empty, "it holds no graph"),
    ],
)
def test_a_graph_that_does_not_hold_together(sound, tmp_path, change, said):
    verify.check(sound)
    path = tmp_path / "evil.tflite"
    path.write_bytes(altered(sound, change))
    with pytest.raises(ValueError, match=rf"evil\.tflite: cannot be run, {said}"):
        deploy.LiteRTDetector(path)


def aliased(subgraphs=1, tensors=1, operators=0, operands=0, name="image", kind=0) -> bytes:
    """A small file in which one graph, one tensor and one operator stand many times."""
    builder = flatbuffers.Builder(1024)

    def vector(offset, count):
        builder.StartVector(4, count, 4)
        for _ in range(count):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def table(start, end, **fields):
        start(builder)
        for field, value in fields.items():
            getattr(schema, field)(builder, value)
        return end(builder)

    numbers = builder.CreateNumpyVector(np.zeros(operands, np.int32))
    text, shape = builder.CreateString(name), builder.CreateNumpyVector(np.array([1, 4, 4, 3], np.int32))
    tensor = table(schema.TensorStart, schema.TensorEnd, TensorAddName=text, TensorAddShape=shape)
    operator = table(schema.OperatorStart, schema.OperatorEnd, OperatorAddInputs=numbers)
    all_tensors, all_operators = vector(tensor, tensors), vector(operator, operators)
    graph = table(
        schema.SubGraphStart, schema.SubGraphEnd, SubGraphAddTensors=all_tensors,
        SubGraphAddOperators=all_operators,
    )
    code = table(schema.OperatorCodeStart, schema.OperatorCodeEnd, OperatorCodeAddBuiltinCode=kind)
    buffer = table(schema.BufferStart, schema.BufferEnd)
    codes, buffers, graphs = vector(code, 1), vector(buffer, 1), vector(graph, subgraphs)
    builder.Finish(
        table(
            schema.ModelStart, schema.ModelEnd, ModelAddVersion=3, ModelAddOperatorCodes=codes,
            ModelAddBuffers=buffers, ModelAddSubgraphs=graphs,
        ),
        b"TFL3",
    )
    return bytes(builder.Output())


def test_a_report_reads_one_graph_however_often_it_stands_there(tmp_path):
    path = tmp_path / "many.tflite"
    path.write_bytes(aliased(subgraphs=300, tensors=300))
    deploy.delegate_report(path)  # what is imported is not counted
    tracemalloc.start()
    assert deploy.delegate_report(path).operations == []
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("many", "said"),
    [
        ({"operators": 2000, "operands": 1000}, "its operators read and write more than 1000000 tensors"),
        ({"tensors": 100, "name": "n" * 2**20}, "the names of its tensors are longer than"),
        ({"tensors": 100_001}, "it has 100001 tables of a kind, more than 100000"),
    ],
)
def test_more_in_a_graph_than_a_detector_has(tmp_path, many, said):
    path = tmp_path / "many.tflite"
    path.write_bytes(aliased(**many))
    with pytest.raises(ValueError, match=rf"many\.tflite: cannot be read, {said}"):
        deploy.delegate_report(path)
    with pytest.raises(ValueError, match=said):
        verify.check(path.read_bytes())


def test_an_operator_with_other_inputs_than_its_kind(tmp_path):
    path = tmp_path / "odd.tflite"
    path.write_bytes(aliased(operators=1, operands=1, kind=schema.BuiltinOperator.GATHER))
    with pytest.raises(ValueError, match=r"odd\.tflite: an operator has other inputs than its kind has"):
        deploy.delegate_report(path)


def test_a_tensor_without_a_name_is_reported_all_the_same(sound, tmp_path):
    def nameless(model, graph):
        for tensor in graph.tensors:
            tensor.name = None

    path = tmp_path / "bare.tflite"
    path.write_bytes(altered(sound, nameless))
    found = deploy.delegate_report(path)
    assert {op.outputs[0].name.split()[0] for op in found.operations} == {"tensor"}


def test_a_bias_may_be_left_out(sound):
    """As in convolutions without one; of other operators every input has to be there."""
    def no_bias(model, graph):
        first = convolutions(model, graph)[0]
        first.inputs = put(first.inputs, 2, -1)

    verify.check(altered(sound, no_bias))


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.filterwarnings("ignore:int8 is calibrated on")
def test_our_own_files_hold_together(exported, precision):
    for outputs in ("detections", "boxes", "raw") if precision == "float32" else ("detections",):
        verify.check(exported(precision, outputs)[0].read_bytes())


# === What stands behind the model ===


def with_zip(sound, path, files, compression=zipfile.ZIP_STORED):
    tail = io.BytesIO()
    tail.write(sound)
    with zipfile.ZipFile(tail, "a", compression) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    path.write_bytes(tail.getvalue())
    return path


ABOUT = '{"classes": ["a"], "parts": [], "outputs": "boxes", "resize": "stretch", "nms_iou": 0.5}'


def test_a_zip_that_grows_or_leads_elsewhere(sound, tmp_path):
    path, deflated = tmp_path / "evil.tflite", zipfile.ZIP_DEFLATED
    bomb = {"labels.txt": "x" * 300_000_000}
    with pytest.raises(ValueError, match=r"evil\.tflite: the zip .*'labels.txt' is longer than 1048576"):
        metadata.read_metadata(with_zip(sound, path, bomb, deflated))
    assert path.stat().st_size < len(sound) + 10**6
    for packed in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(ValueError, match=r"evil\.tflite: the zip .*'labels.txt' is packed in a way"):
            metadata.read_metadata(with_zip(sound, path, {"labels.txt": "cat"}, packed))
    with pytest.raises(ValueError, match="the zip behind the model cannot be read .*101 files"):
        metadata.read_metadata(with_zip(sound, path, {f"{i}.txt": "" for i in range(101)}))
    with pytest.raises(ValueError, match="a label is .*, with a control character"):
        metadata.read_metadata(with_zip(sound, path, {"labels.txt": "one\n\x1b[2J\n"}))
    # Names are never paths: nothing is unpacked.
    outside = {"../../../outside_labels.txt": "one\ntwo\n", "/tmp/x.bin": "x" * 2_000_000}
    about = metadata.read_metadata(with_zip(sound, path, outside))
    assert about["classes"] == ("one", "two")
    assert not list(tmp_path.parent.rglob("outside_labels.txt"))


def test_a_damaged_zip(sound, tmp_path):
    path = with_zip(sound, tmp_path / "evil.tflite", {"labels.txt": "one\ntwo\n" * 9}, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    data[data.index(b"labels.txt", len(sound)) + 12] ^= 255
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"evil\.tflite: the zip behind the model cannot be read"):
        metadata.read_metadata(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('["a"]', '"a"', "classes is 'a'; it has to be a list of names"),
        ('"parts": []', '"parts": [1]', r"parts is '\[1\]'; it has to be a list of names"),
        ('"boxes"', '"pickle"', "outputs is 'pickle'; it has to be raw, boxes or detections"),
        ('"stretch"', "3", "resize is '3'; it has to be one of stretch, letterbox"),
        ('["a"]', r'["a\u001b[2J"]', r"classes is .*; it has to be a list of names, without control"),
        ('"parts"', '"image_size": 1000000, "parts"', "image_size is '1000000'; it has to be a whole number"),
        ("0.5", "NaN", "nms_iou is 'nan'; it has to be null or a number"),
        ('"parts": [], ', "", "parts is missing"),
        ('"outputs": "boxes", ', "", "outputs is missing"),
        (ABOUT, "[" * 100_000, "not json"),
        (ABOUT, "7", "is '7' and not an object"),
    ],
)
def test_what_a_file_says_of_itself_is_checked(sound, tmp_path, old, new, said):
    path = with_zip(sound, tmp_path / "evil.tflite", {"kerasdet.json": ABOUT.replace(old, new)})
    with pytest.raises(ValueError, match=rf"evil\.tflite, kerasdet\.json: {said}"):
        metadata.read_metadata(path)


def test_promises_of_other_outputs_than_the_file_has(sound, tmp_path):
    path = with_zip(sound, tmp_path / "evil.tflite", {"kerasdet.json": ABOUT})
    with pytest.raises(ValueError, match=r"evil\.tflite: outputs have the shapes .*; three are needed"):
        deploy.LiteRTDetector(path)


def test_what_is_no_number_is_no_box():
    class TwoClasses:
        classes, parts, image_size = ("a", "b"), (), 10

    found = {
        "boxes_rel_yxyx": np.array(
            [[0, 0, np.nan, 1], [0, 0, 0.5, 1], [0, 0, 1, np.inf], [0.5, 0, 0.2, 1]], np.float32
        ),
        "classes": np.array([0, 1, 1, 1], np.float32), "scores": np.array([0.9, 0.8, 0.7, 0.6], np.float32),
        "count": np.float32(np.nan),
    }

    def run(**changes):
        return deploy.litert.to_detections(found | changes, TwoClasses, np.eye(2, 3), (10, 10), 0.1, None)

    assert len(run()) == 0
    np.testing.assert_array_equal(run(count=np.float32(4)).boxes, [[0, 0, 10, 5]])
    with pytest.raises(ValueError, match="label -1 has no name among 2 classes"):
        run(count=np.float32(3), classes=np.array([0, np.nan, 1, 1], np.float32))


# === The trial ===


def test_a_sound_file_passes_its_trial(exported):
    found = kerasdet.load(exported()[0]).detect(photo(1)[0])
    assert len(found) > 0


@pytest.mark.parametrize(
    ("program", "how"),
    [("import os; os.abort()", "signal 6"), ("import ctypes; ctypes.string_at(0)", "signal 11")],
)
def test_what_breaks_litert_breaks_another_process(exported, monkeypatch, program, how):
    monkeypatch.setattr(trial, "_PROGRAM", program)
    with pytest.raises(ValueError, match=rf"\.tflite: LiteRT breaks down on it \({how}\)"):
        trial.run_once(exported()[0])


def test_a_trial_imports_nothing_that_lies_about(exported, tmp_path, monkeypatch):
    """A stranger's folder may hold a numpy.py beside its .tflite, and the command be given in there."""
    (tmp_path / "numpy.py").write_text("open('was_run', 'w')")
    monkeypatch.chdir(tmp_path)
    trial.run_once(exported()[0])
    assert not (tmp_path / "was_run").exists()


def test_a_trial_that_could_not_be_made_blames_no_file(exported, monkeypatch):
    monkeypatch.setattr(trial, "_PROGRAM", "import no_such_module")
    with pytest.raises(ValueError, match="could not be tried .*No module named 'no_such_module'"):
        trial.run_once(exported()[0])


def test_a_trial_that_does_not_end(exported, monkeypatch):
    monkeypatch.setattr(trial, "_PROGRAM", "import time; time.sleep(60)")
    monkeypatch.setattr(trial, "SECONDS", 1)
    with pytest.raises(ValueError, match="did not come to an end within 1 s"):
        trial.run_once(exported()[0])


# === Fuzz ===


def test_hostile_models(sound, tmp_path):
    """What says whether a file is run is never surprised itself; `bench/fuzz.py` runs them, and many more."""
    needed("hypothesis")
    from hypothesis import given, settings

    sys.path.append(str(Path(__file__).parents[2] / "bench"))
    import hostile

    path, verdicts = tmp_path / "model.tflite", set()

    @settings(max_examples=60, derandomize=True, database=None, deadline=None)
    @given(hostile.models(sound))
    def look(data):
        path.write_bytes(data)
        try:
            metadata.read_metadata(path)
            verify.check(data)
            verdicts.add("passed")
        except ValueError as error:
            verdicts.add(str(error)[:20])

    look()
    assert "passed" in verdicts and len(verdicts) > 3
