"""photo: what is read, what is refused, and the way to the square and back."""

import os
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from kerasdet import photo


@pytest.fixture
def picture():
    """(40, 60, 3), left half red, right half green, one blue corner below on the right."""
    array = np.zeros((40, 60, 3), np.uint8)
    array[:, :30, 0] = array[:, 30:, 1] = 255
    array[30:, 50:] = (0, 0, 255)
    return array


# === read ===


def test_array_comes_back_as_it_is(picture):
    assert photo.read(picture) is picture


def test_png_file_is_read_as_rgb(picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.read(tmp_path / "a.png"), picture)
    np.testing.assert_array_equal(photo.read(str(tmp_path / "a.png")), picture)


def test_exif_orientation_is_applied(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    path = tmp_path / "turned.jpg"
    Image.fromarray(picture).save(path, exif=exif, quality=95)
    upright = photo.read(path)
    assert upright.shape == (60, 40, 3)
    difference = np.abs(upright.astype(int) - np.rot90(picture, -1))
    assert difference[5:25, 5:35].mean() < 10 and difference[52:58, 2:8].mean() < 40


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_opencv_turns_them(picture, tmp_path, kind, orientation):
    """And the header alone says which size they have then."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{kind}"
    Image.fromarray(picture).save(path, exif=exif, lossless=True)
    expected = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert expected.shape == ((40, 60, 3) if orientation < 5 else (60, 40, 3))
    np.testing.assert_array_equal(photo.read(path), expected)
    assert photo.size_of(path) == expected.shape[1::-1]


@pytest.mark.parametrize("mode, kind", [("RGB", "png"), ("L", "png"), ("P", "png"), ("RGBA", "png"),
                                        ("RGB", "tiff")])
def test_pillows_images_are_read_as_their_files_are(picture, tmp_path, mode, kind):
    image = Image.fromarray(picture).convert(mode)
    exif = Image.Exif()
    exif[274] = 6
    path = tmp_path / f"a.{kind}"
    image.save(path, exif=exif)
    opened = photo.read(Image.open(path))
    assert opened.shape == (picture.shape[1], picture.shape[0], 3)
    np.testing.assert_allclose(opened.astype(int), photo.read(path), atol=2)


def test_sixteen_bits_that_hold_twelve_warn(tmp_path):
    dark = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) % 2400
    Image.fromarray(dark).save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=r"a\.png: has sixteen bits a value, and none is above 2399"):
        photo.read(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Image.fromarray(dark * 20).save(tmp_path / "b.png")
        photo.read(tmp_path / "b.png")
        Image.new("L", (8, 8)).save(tmp_path / "c.png")
        photo.read(tmp_path / "c.png")


def test_what_xmp_says_of_orientation_is_passed_over(picture, tmp_path):
    """As browsers, OpenCV and MediaPipe do; Pillow turns such a photo."""
    said = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    Image.fromarray(picture).save(tmp_path / "a.jpg", xmp=said)
    with Image.open(tmp_path / "a.jpg") as header:
        assert header.getexif()[0x0112] == 6
    assert photo.read(tmp_path / "a.jpg").shape == (40, 60, 3)
    assert photo.size_of(tmp_path / "a.jpg") == (60, 40)


def test_other_pixel_formats_become_eight_bit_rgb(picture, tmp_path):
    Image.fromarray(picture).convert("L").save(tmp_path / "grey.png")
    grey = photo.read(tmp_path / "grey.png")
    assert grey.shape == (40, 60, 3) and np.ptp(grey, axis=-1).max() == 0

    Image.fromarray(np.dstack([picture, np.full((40, 60), 255, np.uint8)])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.read(tmp_path / "a.png"), picture)

    Image.fromarray(picture).quantize(8).save(tmp_path / "palette.png")
    np.testing.assert_allclose(photo.read(tmp_path / "palette.png"), picture, atol=8)

    deep = picture[..., ::-1].astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    np.testing.assert_array_equal(photo.read(tmp_path / "deep.png"), picture)


def jpeg(path, seed=0, **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", **options)
    return path.read_bytes()


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_truncated_jpeg_is_refused(tmp_path, kept):
    path = tmp_path / "cut.jpg"
    data = jpeg(path)
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ValueError, match=r"cut\.jpg: the JPEG image is truncated or damaged"):
        photo.read(path)


def test_a_thumbnail_does_not_hide_that_the_photo_is_cut(tmp_path):
    """The little JPEG inside the header has an end of its own."""
    inside = jpeg(tmp_path / "thumbnail.jpg")[:60_000]
    assert len(inside) < 65_000
    data = jpeg(tmp_path / "a.jpg", 1)
    segment = b"\xff\xe1" + struct.pack(">H", len(inside) + 4) + inside + b"\xff\xd9"
    whole = data[:2] + segment + data[2:]
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole)
    assert photo.read(path).shape == (120, 160, 3)
    path.write_bytes(whole[: len(segment) + 2000])
    with pytest.raises(ValueError, match="truncated"):
        photo.read(path)


def test_what_phones_append_to_a_jpeg_does_no_harm(tmp_path):
    """Motion photos carry a film behind the picture's end."""
    path = tmp_path / "motion.jpg"
    data = jpeg(path)
    before = photo.read(path)
    path.write_bytes(data + b"\x00\x00\x00\x18ftypmp42" + bytes(20_000))
    np.testing.assert_array_equal(photo.read(path), before)


def test_progressive_jpeg_is_whole(tmp_path):
    jpeg(tmp_path / "a.jpg", progressive=True)
    assert photo.read(tmp_path / "a.jpg").shape == (120, 160, 3)


def test_truncated_png_is_refused(tmp_path):
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut\.png"):
        photo.read(path)


@pytest.mark.parametrize("content", [b"", b"not a picture at all\n", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / "notes.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"notes\.jpg"):
        photo.read(path)


def test_missing_file_and_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.jpg: no such photo"):
        photo.read(tmp_path / "none.jpg")
    with pytest.raises(ValueError, match="is a folder"):
        photo.read(tmp_path)


@pytest.mark.parametrize("side", [14_200, 60_000])
def test_a_header_that_promises_too_much_is_refused_unread(tmp_path, side):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match=r"bomb\.png"):
        photo.read(path)


def promise(kind, width, height):
    """The beginning of a picture whose header promises a size."""
    if kind == "JPEG":
        frame = struct.pack(">HBHHB", 17, 8, height, width, 3) + b"\x01\x22\0\x02\x11\1\x03\x11\1"
        return b"\xff\xd8\xff\xc0" + frame + b"\xff\xd9"
    if kind == "WEBP":
        body = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (width - 1).to_bytes(3, "little")
        body += (height - 1).to_bytes(3, "little")
        return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    if kind == "BMP":
        head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head
    rows = ((256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in rows)
    return b"II*\0" + struct.pack("<IH", 8, len(rows)) + entries + bytes(4)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "TIFF"])
def test_no_kind_of_picture_is_a_bomb(tmp_path, kind):
    # A JPEG's header holds 65,535 at most.
    side = 65_000 if kind == "JPEG" else 100_000
    path = tmp_path / f"bomb.{kind.lower()}"
    path.write_bytes(promise(kind, side, side))
    for read in (photo.read, photo.size_of):
        with pytest.raises(ValueError, match=rf"{path.name}: "):
            read(path)


def test_what_is_no_photo_file_is_not_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "endless.jpg"):
        with pytest.raises(ValueError, match=f"{name}: is no ordinary file"):
            photo.read(tmp_path / name)
    with open(tmp_path / "long.jpg", "wb") as file:
        file.truncate(2**40)  # a hole: takes no room on the disk
    with pytest.raises(ValueError, match="long.jpg: has 1099511627776 bytes, more than any photo"):
        photo.read(tmp_path / "long.jpg")
    # Of the kinds that Pillow knows, some are programs.
    (tmp_path / "page.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    with pytest.raises(ValueError, match="page.jpg: is not an image that can be read"):
        photo.read(tmp_path / "page.jpg")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5, 3), np.float32), "array of float32; give uint8"),
        (np.zeros((4, 5, 3), np.int64), "array of int64"),
        (np.zeros((4, 5), np.uint8), r"shape \(4, 5\)"),
        (np.zeros((4, 5, 4), np.uint8), r"shape \(4, 5, 4\)"),
        (np.zeros((2, 4, 5, 3), np.uint8), r"shape \(2, 4, 5, 3\)"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        (np.zeros((2, 32_001, 3), np.uint8), r"shape \(2, 32001, 3\) and is more than 175 mega"),
        (np.broadcast_to(np.uint8(0), (14_000, 14_000, 3)), "is more than 175 megapixels .* make it smaller"),
    ],
)
def test_arrays_that_are_no_photo_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        photo.read(array)


# === square and back ===


def test_matrices_by_hand():
    np.testing.assert_allclose(photo.square_matrix(50, 200, 100), [[0.5, 0, 0], [0, 2, 0]])
    # 200 wide becomes 100, 50 high becomes 25, with 37.5 above and below.
    expected = [[0.5, 0, 0], [0, 0.5, 37.5]]
    np.testing.assert_allclose(photo.square_matrix(50, 200, 100, "letterbox"), expected)
    with pytest.raises(ValueError, match="resize is 'crop'; give one of stretch, letterbox"):
        photo.square_matrix(50, 200, 100, "crop")


def test_stretch_samples_without_half_pixel_shift():
    """Pixel x of the square shows the photo at x * W / size, between pixels linearly."""
    ramp = np.tile(np.arange(0, 200, 10, dtype=np.uint8)[None, :, None], (20, 1, 3))  # 20 wide
    square, _ = photo.to_square(ramp, 8)
    np.testing.assert_allclose(square[3, :, 0], 10 * np.arange(8) * 20 / 8, atol=1)
    assert square.shape == (8, 8, 3) and square.dtype == np.uint8


def test_letterbox_pads_with_the_border_colour(picture):
    square, _ = photo.to_square(picture, 60, "letterbox")
    assert (square[:9] == photo.BORDER).all() and (square[51:] == photo.BORDER).all()
    np.testing.assert_array_equal(square[10:50], picture)


@pytest.mark.parametrize("resize", photo.RESIZES)
@pytest.mark.parametrize("size", [(48, 160), (300, 90), (64, 64)])
def test_boxes_find_the_way_back(resize, size):
    height, width = size
    rng = np.random.default_rng(5)
    low = rng.uniform(0, 0.5, (20, 2)) * [width, height]
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.5, (20, 2)) * [width, height]], -1)
    _, matrix = photo.to_square(np.zeros((*size, 3), np.uint8), 64, resize)
    inside = photo.transform_boxes(boxes, matrix)
    assert inside.min() >= 0 and inside.max() <= 64
    np.testing.assert_allclose(photo.boxes_to_photo(inside, matrix, size), boxes, atol=1e-3)


def test_boxes_are_clipped_to_the_photo():
    matrix = photo.square_matrix(50, 200, 100, "letterbox")
    boxes = np.array([[-10, 0, 120, 100]], np.float32)
    np.testing.assert_allclose(photo.boxes_to_photo(boxes, matrix, (50, 200)), [[0, 0, 200, 50]])
    assert photo.boxes_to_photo(np.zeros((0, 4)), matrix, (50, 200)).shape == (0, 4)


def test_mirrored_boxes_keep_their_order():
    flip = np.array([[-1.0, 0, 100], [0, 1, 0]])
    np.testing.assert_allclose(photo.transform_boxes(np.array([[10, 20, 30, 40]]), flip), [[70, 20, 90, 40]])


@pytest.mark.parametrize("width", [64, 256, 1024])
def test_mirrored_things_lie_as_far_from_their_boxes_as_others(width):
    """A network sees both in training and one kind afterwards. By the middle of a soft bright column."""
    size, middle = 64, width * 0.4
    line = 255 * np.exp(-(((np.arange(width) + 0.5 - middle) / (width / 16)) ** 2) / 2)
    image = np.tile(line[None, :, None], (8, 1, 3)).astype(np.uint8)
    box, aside = np.array([[middle - 5, 0, middle + 5, 8]]), []
    for sign in (1, -1):
        matrix = np.array([[sign * size / width, 0, 0 if sign == 1 else size], [0, 1, 0]])
        line = photo.warp(image, matrix, (size, 8))[4, :, 0].astype(float)
        seen = ((np.arange(size) + 0.5) * line).sum() / line.sum()
        left, _, right, _ = photo.transform_boxes(box, matrix)[0]
        aside.append(seen - (left + right) / 2)
    assert aside[0] == pytest.approx((1 - size / width) / 2, abs=0.06)
    assert aside[1] == pytest.approx(aside[0], abs=0.06)


def test_mirrored_picture_is_the_exact_mirror_image(picture):
    square = picture[:40, :40]
    mirrored = photo.warp(square, np.array([[-1.0, 0, 40], [0, 1, 0]]), 40)
    np.testing.assert_array_equal(mirrored, square[:, ::-1])
