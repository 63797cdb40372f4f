"""LiteRTDetector on our files and on others'."""

import concurrent.futures
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from discs import CLASSES, DIAMETER, photo
from skimage import data

from kerasdet import deploy
from kerasdet.deploy import flatbuffer, litert, metadata

PEER = Path(__file__).parents[3] / "shared" / "peers" / "ssd_mobilenet_v1_coco_uint8_300.tflite"


@pytest.mark.parametrize("outputs", ["detections", "boxes"])
def test_it_finds_what_keras_finds(detector, exported, outputs):
    runner = deploy.LiteRTDetector(exported(outputs=outputs)[0], threads=1)
    assert (runner.classes, runner.image_size, runner.resize) == (CLASSES, 96, "stretch")
    pictures = [photo(seed, scale)[0] for seed, scale in ((0, 1), (1, 2), (2, 5))]
    for ours, keras_ in zip(
        runner.detect(iter(pictures)), detector.detect(iter(pictures)), strict=True
    ):
        assert len(ours) > 0
        np.testing.assert_allclose(ours.boxes, keras_.boxes, atol=0.01)
        np.testing.assert_allclose(ours.scores, keras_.scores, atol=1e-4)
        assert ours.names == keras_.names


def test_boxes_files_carry_parts_row_for_row(exported):
    runner = deploy.LiteRTDetector(exported(outputs="boxes")[0])
    found = runner.detect(photo(1)[0])
    assert runner.parts == ("core",) and found.parts["core"].shape == found.boxes.shape
    # The core stands in the middle of its disc, half as large.
    centre = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    cores = found.parts["core"]
    np.testing.assert_allclose((cores[:, :2] + cores[:, 2:]) / 2, centre, atol=2)
    np.testing.assert_allclose(cores[:, 2] - cores[:, 0], DIAMETER / 2, atol=2)
    assert deploy.LiteRTDetector(exported()[0]).parts == ()


def test_one_photo_gives_one_result_and_keeps_what_it_is_told_to(exported, disc_set):
    runner = deploy.LiteRTDetector(exported()[0])
    path = disc_set[0].path
    found = runner.detect(path)
    assert found.path == path and found.photo.shape == (96, 96, 3)
    (found,) = runner.detect([path], keep_photo=False)
    assert found.photo is None and found.path == path
    assert len(runner.detect(path, score=0.9999)) < len(found)


def test_threads_share_a_file(exported):
    """Each gets its own photo's boxes."""
    runner = deploy.LiteRTDetector(exported()[0], threads=1)
    pictures = [photo(seed)[0] for seed in range(4)]
    alone = runner.detect(pictures)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            for one, other in zip(alone, pool.map(runner.detect, pictures), strict=True):
                np.testing.assert_array_equal(one.boxes, other.boxes)


def test_it_evaluates_a_labelled_set(exported, disc_set):
    metrics = deploy.LiteRTDetector(exported()[0]).evaluate_detections(disc_set)
    assert metrics["AP50"] == pytest.approx(1.0) and metrics["AP/red"] > 0.7


def test_raw_files_and_other_files_are_refused(exported, tmp_path):
    with pytest.raises(ValueError, match="ends in raw heads.*outputs='boxes'"):
        deploy.LiteRTDetector(exported(outputs="raw")[0])
    with pytest.raises(FileNotFoundError, match="none.tflite: no such file"):
        deploy.LiteRTDetector(tmp_path / "none.tflite")
    (tmp_path / "text.tflite").write_text("hello, this is text")
    with pytest.raises(ValueError, match="not a .tflite file"):
        deploy.LiteRTDetector(tmp_path / "text.tflite")
    bare = tmp_path / "bare.tflite"  # a file of other outputs, without kerasdet.json
    bare.write_bytes(flatbuffer.write(flatbuffer.read(exported(outputs="raw")[0].read_bytes())))
    with pytest.raises(ValueError, match="four are needed"):
        deploy.LiteRTDetector(bare)
    whole = exported()[0].read_bytes()
    for kept in (40, len(whole) // 2, len(whole) * 4 // 5):
        (tmp_path / "cut.tflite").write_bytes(whole[:kept])
        with pytest.raises(ValueError, match="cut.tflite: .*(damaged or cut off|LiteRT cannot run it)"):
            deploy.LiteRTDetector(tmp_path / "cut.tflite")


def test_a_foreign_file_without_labels_has_numbers_for_names(exported, tmp_path):
    model = flatbuffer.read(exported()[0].read_bytes())
    model.metadata = []
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(flatbuffer.write(model))
    picture, _, labels = photo(3)
    numbered = deploy.LiteRTDetector(foreign)
    found = numbered.detect(picture)
    assert sorted(found.names) == sorted(str(label) for label in labels)
    named = deploy.LiteRTDetector(foreign, classes=("red", "blue"))
    assert named.detect(picture).names == [CLASSES[int(name)] for name in found.names]
    own = deploy.LiteRTDetector(exported()[0])
    assert [each.unnamed for each in (numbered, named, own)] == [True, False, False]


@pytest.mark.filterwarnings("ignore:int8 is calibrated on")
def test_eight_bits_that_may_stand_for_anything_are_refused(exported, tmp_path, monkeypatch):
    """Cast to int8, pixels from 128 on would be negative."""
    model = flatbuffer.read(exported("int8")[0].read_bytes())
    (number,) = model.subgraphs[0].inputs
    image = model.subgraphs[0].tensors[number]
    assert image.type == 3  # uint8
    image.type = 9  # int8
    (tmp_path / "foreign.tflite").write_bytes(flatbuffer.write(model))
    with pytest.raises(ValueError, match=r"foreign\.tflite: takes int8 .* only images of uint8 or float32"):
        deploy.LiteRTDetector(tmp_path / "foreign.tflite")

    class Bytes(litert.Runner):
        def __init__(self, *given):
            super().__init__(*given)
            self.output_dtypes = [np.uint8, *self.output_dtypes[1:]]

    monkeypatch.setattr(litert, "Runner", Bytes)
    with pytest.raises(ValueError, match="gives float32, uint8; .* outputs of float32 work"):
        deploy.LiteRTDetector(exported()[0])


def test_float_images_of_foreign_files_are_normalised_as_their_metadata_say(exported, tmp_path, monkeypatch):
    model = flatbuffer.read(exported()[0].read_bytes())
    (number,) = model.subgraphs[0].inputs
    model.subgraphs[0].tensors[number].type = 0  # float32
    foreign = tmp_path / "foreign.tflite"
    foreign.write_bytes(flatbuffer.write(model))
    # A mean and a deviation that make of these photos those that our own file is given.
    mean, std = [10.0, 20.0, 30.0], [0.5, 0.5, 0.5]
    monkeypatch.setattr(
        metadata, "read_metadata", lambda _: {"classes": (), "normalization": (mean, std)}
    )
    runner = deploy.LiteRTDetector(foreign)
    monkeypatch.undo()
    own = deploy.LiteRTDetector(exported()[0])
    assert (runner.dtype, own.dtype) == ("float32", "uint8")
    half = photo(5)[0] // 2
    found, wanted = runner.run(half + np.array(mean, np.uint8)), own.run(half * 2)
    assert wanted["scores"].max() > 0.3
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)

    for mean, std in (([1.0, 2.0], [1.0]), ([0.0], [0.0]), ([np.nan], [1.0]), ([0.0], [1.0] * 4)):
        monkeypatch.setattr(
            metadata, "read_metadata", lambda _, said=(mean, std): {"classes": (), "normalization": said}
        )
        with pytest.raises(ValueError, match=r"foreign\.tflite: says that images are normalised by "):
            deploy.LiteRTDetector(foreign)
    monkeypatch.undo()
    model.metadata = []
    foreign.write_bytes(flatbuffer.write(model))
    with pytest.raises(ValueError, match=r"foreign\.tflite: .* does not say how they are normalised"):
        deploy.LiteRTDetector(foreign)


def test_the_peer_detector_runs():
    path = os.environ.get("KERASDET_PEER", PEER)
    if not os.path.exists(path):
        pytest.skip(f"{path} is not here; set KERASDET_PEER to a foreign .tflite with four outputs")
    found = deploy.LiteRTDetector(path).detect(data.chelsea(), score=0.4)
    assert found.labels.tolist() == [16], found  # a cat, in COCO's order
    x1, y1, x2, y2 = found.boxes[0]
    assert x1 < 150 and y1 < 60 and x2 > 330 and y2 > 250  # of 451 x 300 pixels; it fills the photo


def test_it_needs_neither_keras_nor_tensorflow(exported):
    code = f"""
        import sys
        for name in ("keras", "tensorflow"):
            sys.modules[name] = None  # importing it now raises ImportError
        import numpy as np
        from kerasdet import deploy
        found = deploy.LiteRTDetector({str(exported()[0])!r}).detect(
            np.full((50, 60, 3), 120, np.uint8))
        print("found", len(found))
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.stdout.startswith("found"), result.stderr


def test_importing_deploy_loads_nothing_heavy():
    code = "import sys, kerasdet.deploy; print({'keras', 'tensorflow', 'cv2'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.stdout.strip() == "set()", result.stderr


def test_suppression_is_greedy_and_by_class():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10], [0, 0, 10, 10]], np.float32)
    # IoU of rows 0, 1: 90/110 = .82; rows 0, 2: 80/120 = .67; rows 1, 2: .82. Row 1 falls to row 0
    # and cannot drop row 2; row 3 is another class.
    assert litert.suppress(boxes, np.array([0, 0, 0, 1]), 0.7) == [0, 2, 3]
    assert litert.suppress(boxes, np.array([0, 0, 0, 1]), 0.5) == [0, 3]
