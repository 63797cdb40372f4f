"""How a photo becomes the network's square, and how boxes find the way back.

Training, `detect`, `evaluate` and the clients of exported files all go through here. The resize is
plain bilinear sampling without antialiasing and without a half-pixel shift: pixel x of the network's
square shows the photo at x * W / size. MediaPipe Tasks samples in the same way, so a photo of twelve
megapixels gives the same boxes in Python and on the phone.
"""

from __future__ import annotations

import collections
import concurrent.futures
import glob
import io
import os
import pathlib
import warnings
from collections.abc import Iterable

import numpy as np

RESIZES = ("stretch", "letterbox")
# Pixels of a side of a network's square: what a stranger's file promises has a limit.
MAX_SQUARE = 8192
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
# The colour beyond the photo's border (letterbox, zooming out): ImageNet's mean, RGB.
BORDER = (124, 116, 104)
# A header may promise any size; a photo beyond this is refused before it is decoded. Pillow has a limit of
# its own, a little above; OpenCV samples photos of less than 2^15 pixels a side.
MAX_PIXELS, MAX_SIDE = 175_000_000, 32_000
_TOO_LARGE = f"is more than {MAX_PIXELS // 10**6} megapixels or {MAX_SIDE} pixels a side; make it smaller"
# Of its file, in bytes: as large as the largest photo without any packing.
MAX_BYTES = 2**30
# Pillow's names of `SUFFIXES`; it knows many more kinds, some of which call other programs.
_KINDS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
# Numbers of tags in EXIF and TIFF.
_WIDTH, _HEIGHT, _ORIENTATION = 256, 257, 274


def read(photo) -> np.ndarray:
    """Reads one photo.

    Args:
        photo: path of an image file; an array (H, W, 3) uint8 RGB, which is returned as it is; or a
            `PIL.Image`.

    Returns:
        (H, W, 3) uint8, RGB, turned upright as its EXIF orientation says.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no readable image, or is truncated, or the array is not (H, W, 3) uint8; or it
            is larger than `MAX_PIXELS` or `MAX_SIDE`.
    """
    if isinstance(photo, (str, os.PathLike)):
        return _read_file(os.fspath(photo))
    array = _of_pillow(photo) if hasattr(photo, "getexif") else np.asarray(photo)
    if array.dtype != np.uint8:
        raise ValueError(
            f"the photo is an array of {array.dtype}; give uint8 RGB values from 0 to 255, "
            "for example (photo * 255).astype('uint8')"
        )
    if array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise ValueError(
            f"the photo is an array of shape {array.shape}; give (height, width, 3) RGB, one photo "
            "an array (put several in a list)"
        )
    if max(array.shape) > MAX_SIDE or array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise ValueError(f"the photo is an array of shape {array.shape} and {_TOO_LARGE}")
    return array


def _of_pillow(image) -> np.ndarray:
    """What a `PIL.Image` shows; its array where values are integers of more than eight bits, or floats."""
    if image.mode[0] in "IF":
        return np.asarray(image)
    return _turned(np.asarray(image.convert("RGB")), _orientation(image))


def read_ahead(photos: Iterable, ahead: int, threads: int = 2):
    """Reads photos one after the other, the next ones by threads while the caller is busy.

    Args:
        photos: what `read` takes, as many as there may be: they are gone through as they are needed.
        ahead: how many are read, or being read, before they are asked for.
        threads: that read.

    Yields:
        (H, W, 3) uint8 RGB for each photo; the ValueError or OSError in place of one that cannot be read.
    """
    waiting: collections.deque = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for photo in photos:
            waiting.append(pool.submit(_read_or_error, photo))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def check(photos: Iterable):
    """Reads photos and keeps none: says of the first that cannot be read what `read` says.

    Args:
        photos: what `read` takes.

    Raises:
        FileNotFoundError, ValueError, OSError: as `read`.
    """
    for found in read_ahead(photos, ahead=8, threads=4):
        if isinstance(found, Exception):
            raise found


def _read_or_error(photo):
    try:
        return read(photo)
    except (OSError, ValueError) as error:
        return error


def listed(photos) -> tuple[list, bool]:
    """One photo or many, as `detect` takes them, as a list; and whether it was one.

    Args:
        photos: what `read` takes, or something to go through that gives such.
    """
    # What cannot be gone through is one photo too, or `read` says why it is none.
    one = (
        isinstance(photos, (str, os.PathLike)) or not isinstance(photos, Iterable)
        or getattr(photos, "ndim", 0) in (2, 3)
    )
    return ([photos] if one else list(photos)), one


def path_of(photo) -> str | None:
    """A photo's file, where it came as one; see `read`."""
    return os.fspath(photo) if isinstance(photo, (str, os.PathLike)) else None


def find(arguments: list[str]) -> list[pathlib.Path]:
    """The photos that paths, folders (with those inside) and patterns mean, each once.

    Raises:
        FileNotFoundError: an argument that means nothing.
        ValueError: a folder without photos.
    """
    found: list[pathlib.Path] = []
    for argument in arguments:
        path = pathlib.Path(argument)
        if path.is_dir():
            inside = within(path)
            if not inside:
                kinds = ", ".join(sorted(SUFFIXES))
                raise ValueError(f"{argument}: no photos in this folder ({kinds})")
            found += inside
        elif path.exists():
            found.append(path)
        elif matches := [p for p in sorted(glob.glob(argument, recursive=True)) if os.path.isfile(p)]:
            found += map(pathlib.Path, matches)
        else:
            raise FileNotFoundError(f"{argument}: no such photo, folder or pattern")
    return list(dict.fromkeys(found))


def within(folder: pathlib.Path) -> list[pathlib.Path]:
    """The photos in a folder and those inside, by their names' endings, in order; see `files_within`."""
    return [path for path in files_within(folder) if path.suffix.lower() in SUFFIXES]


def files_within(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files in a folder and those inside, linked ones too, in order.

    What is hidden by a name that begins with a dot is left out: "._a.jpg" is what macOS leaves beside a.jpg
    on other systems' disks, ".ipynb_checkpoints" what Jupyter does.
    """
    found, seen = [], set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a folder that it lies in has no end
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = (pathlib.Path(place, name) for name in files if not name.startswith("."))
        found += [path for path in paths if path.is_file()]
    return sorted(found)


def _read_file(path: str) -> np.ndarray:
    import cv2

    data = _bytes_of(path)
    header = _header(io.BytesIO(data), path)
    image = None
    if not _is_truncated(data):
        try:
            # Which kinds OpenCV turns upright hangs on its version.
            how = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
            image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
        except cv2.error:  # said below
            pass
    # Whatever OpenCV read of it, if not what the header promised.
    if image is None or image.shape[0] * image.shape[1] > MAX_PIXELS:
        raise ValueError(
            f"{path}: the {header.format} image is truncated or damaged, or of a kind that OpenCV cannot "
            "decode; replace it, or save it as JPEG or PNG"
        )
    if header.format != "JPEG":  # which has eight bits
        _warn_if_black(image, data, path)
    # But a TIFF, whose orientation is no note in it but part of the format, is always turned.
    return image if header.format == "TIFF" else _turned(image, _orientation(header))


def _warn_if_black(image: np.ndarray, data: bytes, path: str) -> None:
    """Of sixteen bits a value the upper eight are kept, of which twelve bits or fewer fill next to none."""
    if image.max() >= 16:
        return
    import cv2

    full = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if full.dtype == np.uint16 and 0 < full.max() < 4096:
        warnings.warn(
            f"{path}: has sixteen bits a value, and none is above {full.max()} of 65535, so it is all but "
            "black; scale its values up",
            stacklevel=2,
        )


def size_of(path: str | os.PathLike) -> tuple[int, int]:
    """Width and height of a photo as it is shown, from its header alone.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no image that can be read, or one beyond `MAX_PIXELS`.
    """
    path = os.fspath(path)
    _check_file(path)
    with open(path, "rb") as file:
        header = _header(file, path)
        size = header.size
        if header.format == "TIFF":  # whose size some versions of Pillow have turned already
            size = header.tag_v2[_WIDTH], header.tag_v2[_HEIGHT]
        return size[::-1] if _orientation(header) >= 5 else size


def _orientation(header) -> int:
    """How a photo lies in its file, 1 to 8 as EXIF numbers it; 1 is upright.

    Cameras store an upright photo lying down and note it. Only EXIF's note counts, as in other programs: not
    XMP's, which `header.getexif()` would take in its place (and decode the whole of a PNG).
    """
    from PIL import Image

    try:
        if header.format == "TIFF":
            said = header.tag_v2.get(_ORIENTATION, 1)
        else:
            note = Image.Exif()
            note.load(header.info.get("exif") or b"")
            said = note.get(_ORIENTATION, 1)
        return said if said in range(1, 9) else 1
    except Exception:  # a damaged note
        return 1


def _turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """The photo upright, see `_orientation`."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _bytes_of(path: str) -> bytes:
    _check_file(path)
    with open(path, "rb") as file:
        return file.read()


def _check_file(path: str) -> None:
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such photo")
    if os.path.isdir(path):
        raise ValueError(f"{path}: is a folder; give the path of a photo")
    # A set from a stranger may have links to devices, which never end, or pipes, which never begin.
    if not os.path.isfile(path):
        raise ValueError(f"{path}: is no ordinary file; give the path of a photo")
    if os.path.getsize(path) > MAX_BYTES:
        raise ValueError(
            f"{path}: has {os.path.getsize(path)} bytes, more than any photo ({MAX_BYTES}); take it away"
        )


def _header(file, path: str):
    """The `PIL.Image` of an opened file, its size checked, before a pixel is decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        header = Image.open(file, formats=_KINDS)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: is not an image that can be read; give a JPEG or PNG") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: {_TOO_LARGE} ({error})") from error
    # Anything: Pillow's readers of headers trust what they read.
    except Exception as error:
        raise ValueError(
            f"{path}: cannot be read as an image ({error}); replace it, or save it as JPEG or PNG"
        ) from error
    width, height = header.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ValueError(f"{path}: {_TOO_LARGE} ({width}x{height})")
    return header


def _is_truncated(data: bytes) -> bool:
    # OpenCV fills what is missing of a cut JPEG with grey and says nothing. A whole one has an end
    # mark (EOI) after its first scan; not at the very end, phones append films and depth maps.
    if not data.startswith(b"\xff\xd8"):
        return False
    # Thumbnails inside the header segments have ends of their own: walk over those by their lengths.
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        if data[at + 1 : at + 2] == b"\xff":
            at += 1
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) < 0


def square_matrix(height: int, width: int, size: int, resize: str = "stretch") -> np.ndarray:
    """The affine map from a photo's pixels to the network's square.

    Args:
        height, width: the photo's size in pixels.
        size: side of the network's square in pixels.
        resize: "stretch" fills the square (what MediaPipe does); "letterbox" keeps the aspect ratio,
            the photo in the middle.

    Returns:
        (2, 3) float64, taking (x, y, 1) of the photo to (x, y) of the square.
    """
    if resize == "stretch":
        return np.array([[size / width, 0, 0], [0, size / height, 0]], np.float64)
    if resize == "letterbox":
        scale = size / max(height, width)
        return np.array(
            [[scale, 0, (size - width * scale) / 2], [0, scale, (size - height * scale) / 2]], np.float64
        )
    raise ValueError(f"resize is {resize!r}; give one of {', '.join(RESIZES)}")


def warp(image: np.ndarray, matrix: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Samples `image` into what `matrix` (2, 3) maps it to: a square, or a part (width, height) of one.

    uint8 in and out.
    """
    import cv2

    size = (size, size) if isinstance(size, int) else size
    # Boxes speak of pixel edges, sampling of pixel indices: mirrored at scale 1, edge x lies at size - x but
    # pixel x at size - 1 - x. At scale m all is shown (1 - m) / 2 px right of its box, by this sampling;
    # mirrored it has to be so too, or a network would learn the mean of left and right.
    mirrored = np.array([[0, 0, max(0, -matrix[0, 0])], [0, 0, max(0, -matrix[1, 1])]], np.float64)
    return cv2.warpAffine(
        image, matrix - mirrored, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
        borderValue=BORDER,
    )


def to_square(image: np.ndarray, size: int, resize: str = "stretch") -> tuple[np.ndarray, np.ndarray]:
    """The network's square of a photo.

    Args:
        image: (H, W, 3) uint8.
        size: side of the square in pixels.
        resize: see `square_matrix`.

    Returns:
        The square (size, size, 3) uint8, and the matrix (2, 3) from photo to square.
    """
    matrix = square_matrix(image.shape[0], image.shape[1], size, resize)
    if resize == "stretch":
        return _stretch(image, size), matrix
    return warp(image, matrix, size), matrix


def _stretch(image: np.ndarray, size: int) -> np.ndarray:
    """The square as MediaPipe Tasks makes it, to the last bit.

    MediaPipe samples with OpenCV's fixed-point warp: positions are rounded to 32nds of a pixel, and the
    border is repeated. A single grey level can move a peak between two cells that are all but equal, so
    `warp`, which interpolates exactly, would not do.
    """
    import cv2

    height, width = image.shape[:2]
    x = np.rint(np.arange(size) * (width / size) * 32).astype(np.int64)
    y = np.rint(np.arange(size) * (height / size) * 32).astype(np.int64)
    whole = np.stack(np.meshgrid(x >> 5, y >> 5), -1).astype(np.int16)
    fraction_x, fraction_y = np.meshgrid(x & 31, y & 31)
    fraction = (fraction_y * 32 + fraction_x).astype(np.uint16)
    return cv2.remap(image, whole, fraction, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def transform_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Boxes (..., 4) xyxy through an affine map without rotation; a flip keeps x1 <= x2."""
    scale, shift = np.diag(matrix[:, :2]), matrix[:, 2]
    corners = np.reshape(boxes, (*np.shape(boxes)[:-1], 2, 2)) * scale + shift
    low, high = np.min(corners, -2), np.max(corners, -2)
    return np.concatenate([low, high], -1).astype(np.float32)


def boxes_to_photo(boxes: np.ndarray, matrix: np.ndarray, photo_size: Iterable[int]) -> np.ndarray:
    """Boxes of the network's square in the photo's own pixels, clipped to the photo.

    Args:
        boxes: (..., 4) xyxy pixels of the square.
        matrix: (2, 3), what `to_square` returned.
        photo_size: (H, W) of the photo.

    Returns:
        (..., 4) float32 xyxy pixels of the photo.
    """
    height, width = photo_size
    scale, shift = np.diag(matrix[:, :2]), matrix[:, 2]
    corners = np.reshape(boxes, (*np.shape(boxes)[:-1], 2, 2))
    corners = (corners - shift) / scale
    corners = np.clip(corners, 0, [width, height])
    return np.reshape(corners, np.shape(boxes)).astype(np.float32)
