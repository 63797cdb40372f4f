"""export: a detector into a file for a device, checked against the detector first."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from kerasdet.deploy import convert, flatbuffer, metadata, parity, quantise, saved_model
from kerasdet.deploy.litert import Runner
from kerasdet.deploy.report import ExportReport, ParityError

PRECISIONS = ("float32", "float16", "int8", "int8_weights")
OUTPUTS = ("detections", "boxes", "raw")
INPUT_DTYPES = ("uint8", "float32")
# Ranges of activations settle after some hundred photos. A hundred photos may hold less than two hundred sure
# boxes, among which one in twenty that moves is hardly told from one in twenty-five.
CALIBRATION_PHOTOS, FEW_PHOTOS, CHECK_PHOTOS = 200, 100, 200
THREADS = 2
_OTHER_FORMATS = (".keras", ".h5", ".onnx", ".pb", ".mlmodel", ".pt", ".lite")


def export(
    detector,
    path,
    *,
    precision: str = "float32",
    outputs: str = "detections",
    calibration=None,
    input_dtype: str = "uint8",
    check_photos=None,
    keep_float: str | None = None,
    overwrite: bool = False,
    on_parity: str = "error",
) -> ExportReport:
    """Writes a detector for a device.

    The file takes one RGB photo (1, S, S, 3) with values 0..255, normalises it itself, and uses
    LiteRT's builtin operators only. Before it is written, the same photos go through Keras and
    through the file, and what they find is compared.

    Args:
        detector: a `Detector`.
        path: a name that ends in `.tflite` gives a LiteRT file, any other a SavedModel folder.
        precision: "float32"; "float16", half the size; "int8", a third of the size and, on CPUs with
            eight-bit products, the fastest, needs `calibration`; "int8_weights", as small, as fast as
            float32, needs none. A SavedModel is float32.
        outputs: where the graph ends. "detections": boxes (1, N, 4) as ymin, xmin, ymax, xmax
            from 0 to 1, classes, scores and count, which MediaPipe's ObjectDetector runs as it is.
            "boxes": decoded candidates (with parts) before non-maximum suppression. "raw": the
            heads, for delegates that run convolutions only; of two stages the second looks at regions that
            the graph has to choose first, so their raw files hold gathers and suppression too.
        calibration: photos as the device will see them, which give int8 its ranges: a `Dataset` or
            a list of paths or arrays; 100 or more. Labels, where there are any, are used for AP.
        input_dtype: "uint8", or "float32" (values still 0..255) for delegates without CAST.
        check_photos: photos to compare on, a `Dataset` or a list; None takes `calibration`, or
            drawn scenes if there is none.
        keep_float: for int8, layers that stay in float: a regular expression that is found in their names, as
            `kerasdet report INT8 --float FLOAT` prints them with what each loses. None takes the detector's
            own, see `Detector.keep_float`; "" leaves none.
        overwrite: replace what is at `path`.
        on_parity: "error" writes nothing when file and Keras disagree; "warn" warns and writes.

    Returns:
        `ExportReport`; print it.

    Raises:
        FileExistsError: `path` exists.
        OSError: `path` cannot be written.
        ValueError: an unknown option, int8 without calibration photos, no or unreadable photos, keep_float
            without int8 or of no layer.
        RuntimeError: Keras does not run on TensorFlow.
        ConversionError: an operator has no LiteRT builtin.
        ParityError: file and Keras disagree.
    """
    path = Path(path)
    is_file = path.suffix.lower() == ".tflite"
    _check_options(path, is_file, precision, outputs, calibration, input_dtype, on_parity)
    if keep_float is not None and precision != "int8":
        raise ValueError(f"keep_float is {keep_float!r} and precision {precision}; it is for int8 only")
    if is_file and convert.given_proposals(detector):
        raise ValueError(
            f"{path}: a .tflite gets a photo and nothing else, and {type(detector).__name__} is given "
            "proposals too; give a folder name for a SavedModel, or export a FasterRCNN"
        )
    _check_backend()
    _check_path(path, is_file, overwrite)
    if outputs == "detections" and detector.resize != "stretch":
        warnings.warn(
            f"{path}: the detector learned photos with resize={detector.resize!r}, and MediaPipe Tasks "
            "stretch them: there its boxes will be worse on photos that are not square. kerasdet's own "
            "clients do as the file says; for MediaPipe, train with resize='stretch'",
            stacklevel=3,
        )
    if is_file and outputs == "raw" and hasattr(detector, "propose"):
        warnings.warn(
            f"{path}: the second stage of {type(detector).__name__} looks at regions that the graph chooses "
            "first, so its raw file holds gathers and suppression, which GPUs leave to the CPU; of one-stage "
            "detectors raw files run on GPUs as a whole",
            stacklevel=3,
        )
    check = _check_set(detector, calibration, check_photos)
    options = {"precision": precision, "outputs": outputs, "input_dtype": input_dtype}
    if precision == "int8" and keep_float is None:
        keep_float = detector.keep_float
    with convert.in_full_precision(detector):
        if not is_file:
            return _export_folder(detector, path, check, options, on_parity)
        return _export_file(detector, path, check, options, calibration, keep_float, on_parity)


def _export_file(detector, path, check, options, calibration, keep_float, on_parity) -> ExportReport:
    precision, outputs, input_dtype = options["precision"], options["outputs"], options["input_dtype"]
    data, names = convert.convert(detector, outputs, input_dtype, half=precision == "float16")
    calibrated = ""
    if precision == "int8":
        seen = _calibration_set(detector, calibration)
        calibrated = _coverage(seen, detector)
        data = quantise.quantise(data, seen.squares, keep_float or None)
    elif precision == "int8_weights":
        data = quantise.quantise_weights(data)
    about = describe(detector, names, options, path.stem)
    if precision == "int8" and keep_float:
        about["keep_float"] = keep_float
    data = metadata.attach(data, about)
    runner = Runner(data, THREADS)
    found = [dict(zip(names, runner(square), strict=True)) for square in check.squares]
    report = ExportReport(
        path=str(path),
        **options,
        output_shapes=dict(zip(names, runner.output_shapes, strict=True)),
        size=0,
        parity=_judge(detector, found, check, outputs, precision, path, on_parity),
        latency_ms=latency(runner, check.squares[0]),
        threads=THREADS,
        operators=flatbuffer.op_histogram(data),
        scales=flatbuffer.int8_steps(data),
        calibrated=calibrated,
    )
    data = metadata.append_files(data, about | {"report": _numbers(report)})
    _write(path, data)
    return dataclasses.replace(report, size=len(data))


def describe(detector, names: list[str], options: dict, title: str) -> dict:
    """What a file says of itself: the content of its `kerasdet.json`."""
    return {
        "format": 1,
        "name": getattr(detector, "name", None) or title,
        **options,
        "output_names": list(names),
        "classes": list(detector.classes),
        "parts": list(detector.parts),
        "image_size": detector.image_size,
        "resize": detector.resize,
        "nms_iou": detector.nms_iou,
    }


def latency(runner: Runner, square: np.ndarray, seconds: float = 1.0) -> float:
    """Median milliseconds of one inference, over about a second and at least ten of them."""
    for _ in range(3):
        runner(square)
    times = []
    while len(times) < 10 or (sum(times) < seconds and len(times) < 200):
        start = time.perf_counter()
        runner(square)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1000


# --- Before anything is converted ----------------------------------------------------------------


def _check_options(path, is_file, precision, outputs, calibration, input_dtype, on_parity):
    for name, value, known in (
        ("precision", precision, PRECISIONS),
        ("outputs", outputs, OUTPUTS),
        ("input_dtype", input_dtype, INPUT_DTYPES),
        ("on_parity", on_parity, ("error", "warn")),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; give one of {', '.join(known)}")
    if path.suffix in _OTHER_FORMATS:
        raise ValueError(
            f"{path}: {path.suffix} is not written by export; end the name in .tflite for LiteRT, "
            "or give a folder name for a SavedModel (a .keras file is written by detector.save)"
        )
    if precision == "int8" and calibration is None:
        raise ValueError(
            "int8 needs photos to find the ranges of values; give calibration=, a Dataset or a "
            "list of photos like those the device will see (100 or more)"
        )
    if not is_file and precision != "float32":
        raise ValueError(
            f"{path}: a SavedModel is float32; end the name in .tflite for {precision}"
        )


def _check_backend():
    import keras

    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            f"Keras runs on {backend}, and export needs TensorFlow: save the detector with "
            "detector.save('mine.keras'), start Python with KERAS_BACKEND=tensorflow, and export "
            "kerasdet.load('mine.keras')"
        )


def _check_path(path: Path, is_file: bool, overwrite: bool):
    if path.exists():
        if not overwrite:
            raise FileExistsError(f"{path} exists; give overwrite=True (--overwrite) to replace it")
        if is_file and path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; give another name")
        if not is_file and not path.is_dir():
            raise NotADirectoryError(f"{path} is a file; end the name in .tflite, or give another folder")
        if other := [] if is_file else sorted({entry.name for entry in path.iterdir()} - saved_model.NAMES):
            raise FileExistsError(
                f"{path} holds other things than a SavedModel ({', '.join(other[:3])}) and is not replaced; "
                "give a new name"
            )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise type(error)(
            error.errno,
            f"cannot write to the folder {path.parent} ({error.strerror}); give another path",
        ) from error


def _check_set(detector, calibration, check_photos) -> parity.CheckSet:
    if check_photos is not None:
        photos, source = check_photos, "check_photos"
    elif calibration is not None:
        photos, source = calibration, "calibration"
    else:
        photos, source = parity.synthetic_photos(), "synthetic"
    return parity.load_squares(detector, photos, CHECK_PHOTOS, source)


def _calibration_set(detector, calibration) -> parity.CheckSet:
    if len(calibration) < FEW_PHOTOS:
        warnings.warn(
            f"int8 is calibrated on {len(calibration)} photos; with fewer than {FEW_PHOTOS} the "
            "ranges may miss what the device will see",
            stacklevel=5,
        )
    return parity.load_squares(detector, calibration, CALIBRATION_PHOTOS, "calibration")


def _coverage(seen: parity.CheckSet, detector) -> str:
    """What int8 was calibrated on: how many photos, and of which classes they show objects."""
    text = f"{len(seen.squares)} photos"
    if seen.dataset is None:
        return f"{text} without labels"
    labels = set(np.concatenate([sample.labels for sample in seen.dataset]).tolist())
    shown = {seen.dataset.classes[label] for label in labels}
    missing = [name for name in detector.classes if name not in shown]
    text += f" with objects of {len(detector.classes) - len(missing)} of {len(detector.classes)} classes"
    return f"{text}; none of {', '.join(missing)}" if missing else text


# --- After ---------------------------------------------------------------------------------------


def _judge(detector, found, check, outputs, precision, path, on_parity):
    keras = parity.run_keras(detector, check, outputs)
    compare = parity.compare_raw if outputs == "raw" else parity.compare
    result = compare(keras, found, check, detector, precision)
    wrong = parity.failures(result, precision)
    if not result.boxes:
        warnings.warn(
            f"nothing scored {parity.SURE} on the {result.photos} photos of the comparison, which "
            "therefore says nothing; give check_photos= (--calibration) with objects, or train the detector",
            stacklevel=5,
        )
    if wrong:
        text = (
            f"{path}: the {precision} file and Keras disagree on {result.photos} photos "
            f"({result.source}): {'; '.join(wrong)}"
        )
        if on_parity == "error":
            hint = "keep_float leaves layers in float, " if precision == "int8" else ""
            raise ParityError(
                f"{text}. Nothing was written; {hint}on_parity='warn' (--on-parity warn) writes it all "
                "the same"
            )
        warnings.warn(text, stacklevel=5)
    return result


def _numbers(report: ExportReport) -> dict:
    kept = dataclasses.asdict(report)
    return {name: kept[name] for name in ("parity", "latency_ms", "threads", "scales")}


def _write(path: Path, data: bytes):
    # Written beside and then moved, so that a full disk leaves no half file under the name; moved when it is
    # closed, since Windows moves no open file.
    file = tempfile.NamedTemporaryFile(dir=path.parent, delete=False)
    try:
        with file:
            file.write(data)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
    except BaseException:
        os.unlink(file.name)
        raise


def _export_folder(detector, path, check, options, on_parity) -> ExportReport:
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        folder = Path(work) / "saved_model"
        names = saved_model.save(detector, folder, options["outputs"], options["input_dtype"])
        found, shapes, milliseconds = saved_model.run(folder, check, names)
        result = _judge(detector, found, check, options["outputs"], "float32", path, on_parity)
        report = ExportReport(
            path=str(path), **options, output_shapes=shapes, size=0, parity=result,
            latency_ms=milliseconds, threads=os.cpu_count() or 1,
        )
        about = describe(detector, names, options, path.name) | {"report": _numbers(report)}
        metadata.write_beside(folder, about)
        before = Path(work) / "before"
        if path.exists():
            os.replace(path, before)
        try:
            os.replace(folder, path)
        except BaseException:
            if before.exists():
                os.replace(before, path)
            raise
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return dataclasses.replace(report, size=size)
