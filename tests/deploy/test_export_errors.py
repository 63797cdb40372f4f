"""Bad input: what is wrong, and that nothing is converted before it is said."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from discs import DiscDetector, photos
from needed import needed

from kerasdet import deploy


class Untouchable:
    """A detector whose graph must not be asked for."""

    classes, parts, image_size, resize, nms_iou = ("a",), (), 96, "stretch", 0.5

    def forward(self, images, outputs):
        raise AssertionError("the export started before it had looked at its arguments")


def test_unknown_options_name_the_known_ones(tmp_path):
    for option, value in (
        ("precision", "int4"), ("outputs", "nms"), ("input_dtype", "int8"), ("on_parity", "ignore")
    ):
        with pytest.raises(ValueError, match=f"{option} is {value!r}; give one of "):
            deploy.export(Untouchable(), tmp_path / "a.tflite", **{option: value})


def test_other_formats_are_refused(tmp_path):
    for name in ("a.onnx", "a.keras", "a.h5"):
        with pytest.raises(ValueError, match="end the name in .tflite"):
            deploy.export(Untouchable(), tmp_path / name)
    with pytest.raises(ValueError, match="a SavedModel is float32"):
        deploy.export(Untouchable(), tmp_path / "folder", precision="float16")


def test_int8_needs_calibration_photos(tmp_path):
    path = tmp_path / "a.tflite"
    with pytest.raises(ValueError, match="give calibration="):
        deploy.export(Untouchable(), path, precision="int8")
    with pytest.raises(ValueError, match="calibration is empty"):
        deploy.export(Untouchable(), path, precision="int8", calibration=[])
    with pytest.raises(FileNotFoundError, match="missing.jpg"):
        deploy.export(Untouchable(), path, precision="int8", calibration=["missing.jpg"])
    with pytest.raises(ValueError, match="calibration is 'photos/'; give a Dataset or a list"):
        deploy.export(Untouchable(), path, precision="int8", calibration="photos/")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    with pytest.raises(ValueError, match="broken.jpg"):
        deploy.export(Untouchable(), path, precision="int8", calibration=[str(broken)])


def test_few_calibration_photos_warn(detector, tmp_path):
    with pytest.warns(UserWarning, match="int8 is calibrated on 5 photos; with fewer than 100"):
        deploy.export(
            detector, tmp_path / "a.tflite", precision="int8", calibration=photos(5),
            on_parity="warn",
        )


def test_what_exists_is_replaced_only_on_demand(detector, tmp_path, monkeypatch):
    path = tmp_path / "a.tflite"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        deploy.export(Untouchable(), path)
    assert path.read_text() == "mine"
    deploy.export(detector, path, overwrite=True, check_photos=photos(2))
    assert path.read_bytes()[4:8] == b"TFL3"
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="holds other things"):
        deploy.export(Untouchable(), folder, overwrite=True)
    assert (folder / "thesis.txt").exists()
    with pytest.raises(NotADirectoryError, match="thesis.txt is a file; end the name in .tflite"):
        deploy.export(Untouchable(), folder / "thesis.txt", overwrite=True)
    saved = tmp_path / "saved"
    deploy.export(detector, saved, check_photos=photos(2))
    deploy.export(detector, saved, check_photos=photos(2), outputs="raw", overwrite=True)
    assert '"outputs": "raw"' in (saved / "kerasdet.json").read_text()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.tflite", "mine", "saved"]
    # What cannot be put in its place, as Windows refuses while a folder is looked at, costs nothing.
    replace = os.replace

    def refuses(source, target):
        if Path(source).name == "saved_model":
            raise PermissionError("in use")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuses)
        with pytest.raises(PermissionError, match="in use"):
            deploy.export(detector, saved, check_photos=photos(2), overwrite=True)
    assert '"outputs": "raw"' in (saved / "kerasdet.json").read_text()
    # A SavedModel with something of the user's beside it is not ours alone.
    (saved / "notes.txt").write_text("measured on Monday")
    with pytest.raises(FileExistsError, match=r"saved holds other things than a SavedModel \(notes\.txt\)"):
        deploy.export(Untouchable(), saved, overwrite=True)
    assert (saved / "notes.txt").exists()


def test_a_path_that_cannot_be_written_is_told_before_converting(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write to .*file \(File exists\); give another path"):
        deploy.export(Untouchable(), tmp_path / "file" / "a.tflite")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        return  # root writes anywhere
    with pytest.raises(PermissionError, match="cannot write to the folder .*locked"):
        deploy.export(Untouchable(), locked / "a.tflite")


def test_a_new_folder_is_made_for_the_file(detector, tmp_path):
    deploy.export(detector, tmp_path / "new" / "a.tflite", check_photos=photos(2))
    assert (tmp_path / "new" / "a.tflite").is_file()


@keras.saving.register_keras_serializable(package="kerasdet_test")
class ErfInverse(keras.layers.Layer):
    def call(self, x):
        return keras.ops.erfinv(x)


def test_an_operator_without_a_builtin_is_named_with_its_layer(tmp_path):
    detector = DiscDetector()
    out = dict(detector.model.output)
    out["scale"] = ErfInverse(name="bad_layer")(out["scale"])
    detector.model = keras.Model(detector.model.input, out)
    with pytest.raises(deploy.ConversionError, match="Erfinv.*bad_layer.*builtin operators") as told:
        deploy.export(detector, tmp_path / "a.tflite")
    assert "outputs='raw'" in str(told.value)
    assert not list(tmp_path.iterdir())


def test_other_backends_are_told_how_to_export(tmp_path):
    needed("jax")
    code = """
        from kerasdet import deploy
        class Net:
            classes, parts, image_size, resize, nms_iou = ("a",), (), 96, "stretch", 0.5
        try:
            deploy.export(Net(), "a.tflite")
        except RuntimeError as error:
            print(error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "KERAS_BACKEND=tensorflow" in result.stdout, result.stderr
    assert "kerasdet.load" in result.stdout


def test_two_outputs_that_are_one_tensor_are_told(tmp_path):
    class Twice(DiscDetector):
        def forward(self, images, outputs="detections"):
            found = super().forward(images, "raw")
            return {"a": found["scale"], "b": found["scale"] * np.float32(1)}

    with pytest.raises(ValueError, match="merged or dropped"):
        deploy.export(Twice(), tmp_path / "a.tflite")
