"""Runs a detector that kerasdet exported, with NumPy, Pillow and LiteRT alone: on a Raspberry Pi, a server.

    pip install numpy pillow ai-edge-litert
    python detect.py mine.tflite street.jpg park.jpg --out found/
    python detect.py mine.tflite --camera 0 --out found/      (and: pip install opencv-python-headless)
    python detect.py mine.tflite --camera pi --out found/     (a Pi's own; and: apt install python3-picamera2)

This one file is all there is to copy. In a program of your own:

    from detect import Detector

    detector = Detector("mine.tflite")
    for found in detector.detect(photo):            # (H, W, 3) uint8 RGB
        print(found.name, found.score, found.box)   # box: x1, y1, x2, y2 in the photo's pixels
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import reprlib
import sys
import time
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageDraw, ImageFont, ImageOps

# What a terminal takes as a command, or a program as the end of a line.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# What a file says of itself and has to be known to run it: what is right, in code and in words.
NEEDED = {
    "outputs": (lambda value: value in ("raw", "boxes", "detections"), "raw, boxes or detections"),
    "classes": (
        lambda value: isinstance(value, list) and value and all(
            isinstance(name, str) and not CONTROL.search(name) for name in value
        ),
        "a list of names without line breaks or other control characters",
    ),
    "resize": (lambda value: value in ("stretch", "letterbox"), "stretch or letterbox"),
}
# Bytes of that text, and side of a network's square in pixels: a file may promise any.
MAX_TEXT, MAX_SIZE = 2**20, 4096
# Kinds of photos: Pillow knows many more, some of which call other programs. A header may promise any size.
KINDS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
MAX_PIXELS, MAX_SIDE = 175_000_000, 32_000
# The colour beyond the photo's border where a photo keeps its shape: ImageNet's mean, RGB.
BORDER = (124, 116, 104)
COLOURS = ("#ff5c5c", "#40c4ff", "#ffca3a", "#76dc6e", "#cb85ff", "#ff922b", "#26dec1", "#ff79c6")


# Those that this program may use, where the system says so.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclasses.dataclass
class Found:
    """One object: its class's name, its score from 0 to 1, its box x1, y1, x2, y2 in the photo's pixels."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    label: int

    def __str__(self):
        return f"{self.name} {self.score:.2f} at {', '.join(f'{side:.0f}' for side in self.box)}"


class Detector:
    """A detector in a `.tflite` file that ends in boxes, classes, scores and count.

    What a file says is checked here, what it computes is not: one made to do so can take LiteRT down, and
    this program with it. `kerasdet.load` tries a stranger's file in a process of its own first.

    Args:
        path: what `kerasdet export` wrote; its default, `--outputs detections`, is the one needed.
        threads: CPU threads an inference uses, 1 or more.

    Attributes:
        classes: tuple of str. size: side of the network's square in pixels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file that kerasdet wrote, one that is damaged, or one that ends in other outputs.
    """

    def __init__(self, path: str | os.PathLike, threads: int = CORES):
        if threads < 1:
            raise ValueError(f"threads is {threads}; give 1 or more")
        self._path = path
        about = _about(pathlib.Path(path))
        self.classes = tuple(about["classes"])
        self._resize = about["resize"]
        with _naming(path):
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            inputs = self._interpreter.get_input_details()
            self._outputs = self._interpreter.get_output_details()
        takes = _shapes((each["dtype"], each["shape"]) for each in inputs)
        self._gives = _shapes((each["dtype"], each["shape"]) for each in self._outputs)
        square = re.fullmatch(r"(uint8|float32) 1x([1-9]\d*)x\2x3", takes)
        rows = re.fullmatch(r"float32 1x(\d+)x4, float32 1x\1, float32 1x\1, float32 1", self._gives)
        if not square or not rows or int(square[2]) > MAX_SIZE:
            raise ValueError(
                f"{path}: takes {takes} and gives {self._gives}, not a square photo of up to {MAX_SIZE} px "
                "and boxes, classes, scores, count; export it again with --outputs detections"
            )
        self.size = int(square[2])
        self._input = inputs[0]
        with _naming(path):
            self._interpreter.allocate_tensors()

    def detect(self, photo: np.ndarray, score: float = 0.3) -> list[Found]:
        """Finds objects.

        Args:
            photo: (H, W, 3) uint8 RGB.
            score: what scores lower is left out.

        Returns:
            The objects, best first.

        Raises:
            ValueError: the photo is none; the file cannot be run after all, or finds a class that it has no
                name for.
        """
        photo = np.asarray(photo)
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[-1] != 3 or 0 in photo.shape:
            raise ValueError(
                f"the photo is an array of shape {photo.shape} and type {photo.dtype}; give "
                "(height, width, 3) uint8, RGB values from 0 to 255, one photo an array"
            )
        height, width = photo.shape[:2]
        scale, shift = _placement(height, width, self.size, self._resize)
        boxes, classes, scores, count = self._run(_to_square(photo, self.size, self._resize))
        # Rows beyond the count are empty; what is no number, or ends before it begins, a damaged file gave.
        live = (np.arange(len(scores)) < count) & np.isfinite(boxes).all(-1) & np.isfinite(scores)
        live &= (boxes[:, :2] <= boxes[:, 2:]).all(-1)
        # ymin, xmin, ymax, xmax from 0 to 1, as x and y of two corners of the photo.
        corners = boxes.reshape(-1, 2, 2)[..., ::-1] * self.size
        boxes = np.clip((corners - shift) / scale, 0, (width, height)).reshape(-1, 4)
        labels = np.rint(np.nan_to_num(classes, nan=-1)).clip(-1, 1e9).astype(int)
        found = []
        for row in np.flatnonzero(live & (scores > 0) & (scores >= score)):
            label = labels[row].item()
            if not 0 <= label < len(self.classes):
                raise ValueError(
                    f"{self._path}: finds class {label}, and has names for 0 to {len(self.classes) - 1}; "
                    "export it again"
                )
            found.append(Found(self.classes[label], scores[row].item(), tuple(boxes[row].tolist()), label))
        return sorted(found, key=lambda each: -each.score)

    def _run(self, square: np.ndarray) -> list[np.ndarray]:
        """Boxes (n, 4), classes (n,), scores (n,) and count () of a (size, size, 3) uint8 square."""
        with _naming(self._path):
            self._interpreter.set_tensor(self._input["index"], square[None].astype(self._input["dtype"]))
            self._interpreter.invoke()
            values = [self._interpreter.get_tensor(output["index"]) for output in self._outputs]
        gave = _shapes((value.dtype, value.shape) for value in values)
        if gave != self._gives:
            raise ValueError(f"{self._path}: gave {gave}, and promised {self._gives}; export it again")
        return [value[0] for value in values]


@contextlib.contextmanager
def _naming(path: str | os.PathLike):
    """Says which file it was that LiteRT could not run."""
    try:
        yield
    except (ValueError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: LiteRT cannot run it ({reason}); is it complete?") from error


def _shapes(arrays) -> str:
    """Types and shapes in one line: "uint8 1x320x320x3"."""
    return ", ".join(f"{np.dtype(kind)} {'x'.join(map(str, shape))}" for kind, shape in arrays)


def _about(path: pathlib.Path) -> dict:
    """What the file says of itself: kerasdet.json, in the zip behind the model."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with path.open("rb") as file:
        try:
            about = json.loads(_text(file))
            if not isinstance(about, dict) or not about.keys() >= NEEDED.keys():
                raise ValueError(f"kerasdet.json lacks one of {', '.join(NEEDED)}")
        # Anything: zipfile trusts what it reads.
        except Exception as error:
            raise ValueError(
                f"{path}: not a .tflite that kerasdet export wrote, or cut off ({error}); export it again"
            ) from error
    for key, (right, what) in NEEDED.items():
        if not right(about[key]):
            shown = reprlib.repr(about[key])
            raise ValueError(f"{path}: kerasdet.json says {key} is {shown}, not {what}; export it again")
    if about["outputs"] != "detections":
        raise ValueError(f"{path}: ends in {about['outputs']}; export it with --outputs detections")
    return about


def _text(file) -> bytes:
    """The bytes of kerasdet.json, and no more of them than it can have."""
    with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo("kerasdet.json")
        # Other ways of packing unpack all at once, however little is asked for.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("kerasdet.json is packed in a way that no export packs it")
        with archive.open(entry) as packed:
            text = packed.read(MAX_TEXT + 1)
    if len(text) > MAX_TEXT:
        raise ValueError(f"kerasdet.json is longer than {MAX_TEXT} bytes")
    return text


# === The network's square ===


def _placement(height: int, width: int, size: int, resize: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift, (x, y) each, from a photo's pixels to the square's."""
    sides = np.array([width, height], float)
    if resize == "stretch":
        return size / sides, np.zeros(2)
    scale = size / sides.max()
    return np.full(2, scale), (size - sides * scale) / 2


def _to_square(photo: np.ndarray, size: int, resize: str) -> np.ndarray:
    """The photo as the network sees it: (size, size, 3) uint8, by plain bilinear sampling."""
    height, width = photo.shape[:2]
    scale, shift = _placement(height, width, size, resize)
    if resize == "stretch":
        # To 32nds of a pixel, as MediaPipe does; beyond the last pixel it is repeated.
        x, y = (np.rint(np.arange(size) * (side / size) * 32) / 32 for side in (width, height))
        low_end, beyond = 0, ((0, 1), (0, 1), (0, 0))
        padded = np.pad(photo, beyond, mode="edge")
    else:
        x, y = ((np.arange(size) - shift[i]) / scale[i] for i in (0, 1))
        low_end = -1
        padded = np.empty((height + 2, width + 2, 3), np.uint8)
        padded[:] = BORDER
        padded[1:-1, 1:-1] = photo
    x, y = np.clip(x, low_end, width), np.clip(y, low_end, height)
    left, top = (np.floor(position).astype(int) for position in (x, y))
    across, down = (x - left)[None, :, None], (y - top)[:, None, None]
    # Rows and columns of `padded`; what is beyond a border goes on as the border.
    columns = [np.minimum(left + i - low_end, padded.shape[1] - 1) for i in (0, 1)]
    rows = [np.minimum(top + i - low_end, padded.shape[0] - 1) for i in (0, 1)]
    above, below = (
        padded[row][:, columns[0]] * (1 - across) + padded[row][:, columns[1]] * across for row in rows
    )
    return (above * (1 - down) + below * down + 0.5).astype(np.uint8)


# === Photos in, pictures out ===


def read(path: str | os.PathLike) -> np.ndarray:
    """A photo as (H, W, 3) uint8 RGB, turned upright.

    Raises:
        FileNotFoundError, ValueError: no such file; not an image that can be read, or too large a one.
    """
    try:
        with Image.open(path, formats=KINDS) as image:
            if image.width * image.height > MAX_PIXELS or max(image.size) > MAX_SIDE:
                raise Image.DecompressionBombError(f"{image.width}x{image.height}")
            # Without EXIF's note Pillow turns a photo by XMP's, which kerasdet and browsers pass over.
            for name in ("xmp", "XML:com.adobe.xmp"):
                image.info.pop(name, None)
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
                image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such photo") from error
    except Image.DecompressionBombError as error:
        most = f"{MAX_PIXELS // 10**6} megapixels or {MAX_SIDE} pixels a side"
        raise ValueError(f"{path}: is more than {most} ({error}); make it smaller") from error
    # Anything: Pillow's readers trust what they read.
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as an image ({error}); give a JPEG, PNG, BMP, WebP or TIFF"
        ) from error


def draw(photo: np.ndarray, found: list[Found]) -> Image.Image:
    """The photo with boxes, names and scores; colours tell classes apart, or the objects of one class.

    The names grow with the photo where Pillow is 10.1 or newer, and are small before.
    """
    picture = Image.fromarray(photo)
    canvas = ImageDraw.Draw(picture)
    side = (picture.width * picture.height) ** 0.5
    line, font = max(2, round(side / 260)), _font(max(10, round(side / 44)))
    grows = isinstance(font, ImageFont.FreeTypeFont)
    one_class = len({each.label for each in found}) <= 1
    for row, each in reversed(list(enumerate(found))):  # the best lie on top
        colour = COLOURS[(row if one_class else each.label) % len(COLOURS)]
        canvas.rectangle(each.box, outline=colour, width=line)
        text = f"{each.name} {each.score:.2f}"
        if not grows:  # the small font has no other letters, and says so with an error
            text = text.encode("latin-1", "replace").decode("latin-1")
        corner = each.box[0] + line, max(0, each.box[1] - 1.4 * (font.size if grows else 10))
        canvas.rectangle(canvas.textbbox(corner, text, font=font), fill=colour, outline=colour, width=line)
        canvas.text(corner, text, font=font, fill="#121418")
    return picture


def _font(size: int):
    """Pillow's own font in this size; its small one where Pillow is older than 10.1 or lacks FreeType."""
    try:
        return ImageFont.load_default(size)
    except (TypeError, ImportError):
        return ImageFont.load_default()


def camera(number: int):
    """Photos of a camera, (H, W, 3) uint8 RGB each, without end. Needs OpenCV, and it alone does.

    Raises:
        ImportError, ValueError: no OpenCV; no such camera.
        OSError: the camera gives no more pictures.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError("--camera needs OpenCV: pip install opencv-python-headless") from error
    device = cv2.VideoCapture(number)
    # Only the newest: a queue of old pictures would be looked at where inference is slower than the camera.
    device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    if not device.isOpened():
        raise ValueError(f"camera {number} cannot be opened; give another number, or plug one in")
    try:
        while True:
            there, frame = device.read()
            if not there:
                raise OSError(f"camera {number} gives no more pictures; is it still plugged in?")
            yield np.ascontiguousarray(frame[..., ::-1])  # OpenCV has blue first
    finally:
        device.release()


def pi_camera():
    """As `camera`, of the one on a Raspberry Pi's own connector, which OpenCV does not know. Needs Picamera2.

    Raises:
        ImportError, ValueError: no Picamera2; no camera, or another program has it.
    """
    try:
        from picamera2 import Picamera2
    except ImportError as error:
        raise ImportError("--camera pi needs Picamera2: sudo apt install python3-picamera2") from error
    try:
        device = Picamera2()
    except (RuntimeError, IndexError) as error:
        raise ValueError(f"the Raspberry Pi's camera cannot be opened ({error}); is it connected?") from error
    try:
        # libcamera names formats from the last byte: this is red first.
        device.configure(device.create_video_configuration({"format": "BGR888", "size": (1280, 720)}))
        device.start()
        while True:
            yield np.ascontiguousarray(device.capture_array()[..., :3])
    finally:
        device.close()


def _camera_name(text: str) -> int | str:
    try:
        return text if text == "pi" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor pi") from None


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns 2 if something could not be read."""
    parser = argparse.ArgumentParser(description="Finds objects with a .tflite that kerasdet exported.")
    parser.add_argument("model", help="the .tflite file")
    parser.add_argument("photos", nargs="*", help="photos to look at")
    parser.add_argument(
        "--camera", type=_camera_name, metavar="NUMBER",
        help="or look at a camera; the first is 0, a Raspberry Pi's own is pi",
    )
    parser.add_argument("--score", type=float, default=0.3, help="leave out what scores lower (0.3)")
    parser.add_argument("--out", type=pathlib.Path, help="a folder for pictures with the boxes drawn")
    parser.add_argument("--threads", type=int, default=CORES, help="CPU threads (all)")
    given = parser.parse_args(arguments)
    if bool(given.photos) == (given.camera is not None):
        parser.error("give photos, or --camera")
    names = [f"{pathlib.Path(path).stem}_found.jpg" for path in given.photos]
    if given.out is not None:
        # To the disks of macOS and Windows a.jpg and A.jpg are one.
        if len({name.casefold() for name in names}) < len(names):
            parser.error("two photos have the same name, and so would their pictures; give one --out each")
        if there := [given.out / name for name in names if (given.out / name).exists()]:
            parser.error(f"{there[0]} is there already; give another --out, or move it away")
    wrong = 0
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # it may not have the letters of a class or a file
    try:
        detector = Detector(given.model, given.threads)
        if given.out is not None:
            given.out.mkdir(parents=True, exist_ok=True)
        if given.camera is not None:
            for photo in pi_camera() if given.camera == "pi" else camera(given.camera):
                # One picture that is replaced: a loop must not fill the disk.
                _look(detector, photo, "camera", given.score, given.out and given.out / "camera.jpg")
        for path, name in zip(given.photos, names, strict=True):
            try:
                _look(detector, read(path), path, given.score, given.out and given.out / name)
            except (ValueError, FileNotFoundError) as error:
                print(f"skipped: {error}", file=sys.stderr)
                wrong = 2
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # It is how a camera loop ends; of photos some are left.
        return 130 if given.photos else wrong
    return wrong


def _look(detector: Detector, photo: np.ndarray, name: str, score: float, target: pathlib.Path | None):
    begin = time.perf_counter()
    found = detector.detect(photo, score)
    took = (time.perf_counter() - begin) * 1000
    print(f"{name}: {'; '.join(map(str, found)) or 'nothing'} ({took:.0f} ms)", flush=True)
    if target is not None:
        # In one step: who looks at a camera's picture never sees half of one.
        partial = target.with_name(f".{target.name}.partial")
        draw(photo, found).save(partial, "JPEG", quality=92)
        os.replace(partial, target)


if __name__ == "__main__":
    sys.exit(main())
