"""How detections, and objects as labelled, are drawn onto their photo."""

from __future__ import annotations

import math

# Bright on any photo, neighbours far apart in hue.
PALETTE = (
    (255, 92, 92),
    (64, 196, 255),
    (255, 202, 58),
    (118, 220, 110),
    (203, 133, 255),
    (255, 146, 43),
    (38, 222, 193),
    (255, 121, 198),
    (168, 198, 42),
    (122, 152, 255),
)
_DARK = (18, 20, 24)
_LIGHT = (255, 255, 255)
_GREY = (200, 203, 208)
# How strong an object's pixels are coloured, of 255.
_TINT = 110


def draw(photo, found):
    """Draws boxes, names and scores.

    Args:
        photo: (H, W, 3) uint8 RGB array.
        found: `Detections` on it.

    Returns:
        PIL.Image, RGB, (W, H).
    """
    from PIL import Image

    image, canvas, font, line = _begin(photo)
    one_class = len(set(found.labels.tolist())) <= 1
    colours = _colours(found.labels, one_class)
    for row in reversed(range(len(found) if found.masks is not None else 0)):
        tint = Image.fromarray(found.mask(row).astype("uint8") * _TINT)
        canvas.bitmap((0, 0), tint, fill=colours[row])
    # The best are drawn last, so that they lie on top; their tags choose their places first.
    for row in reversed(range(len(found))):
        for boxes in found.parts.values():
            _frame(canvas, boxes[row], colours[row], max(1, line // 2))
        _frame(canvas, found.boxes[row], colours[row], line)
    parts = [box.tolist() for boxes in found.parts.values() for box in boxes]
    placed = []
    for row, name in enumerate(found.names):
        score = f"{found.scores[row]:.2f}"
        text = f"{name} {score}"
        # In a crowd of one class the name is known and a plate wider than its box hides neighbours.
        room = found.boxes[row, 2] - found.boxes[row, 0]
        if one_class and len(found) > 1 and font.getlength(text) > 1.3 * room:
            text = score
        _tag(canvas, found.boxes[row], text, colours[row], font, line, image.size, placed, parts)
    return image


def draw_labels(photo, boxes, labels, classes, parts=(), ignore=(), masks=()):
    """Draws what is labelled on a photo.

    Colours tell classes apart, and the class is written beside the box; where the set has only one, colours
    tell the objects apart and nothing is written. Parts are drawn thin, ignore regions crossed out in grey.

    Args:
        photo: (H, W, 3) uint8 RGB array.
        boxes: (n, 4) xyxy pixels of this array.
        labels: (n,) int, index into `classes`.
        classes: the set's class names.
        parts: boxes of parts, as pairs of an object's row and its (4,) box.
        ignore: (m, 4) regions.
        masks: each object's polygons, (k, 2) x and y each, filled; () for none.

    Returns:
        PIL.Image, RGB, (W, H).
    """
    image, canvas, font, line = _begin(photo)
    one_class = len(classes) == 1
    colours = _colours(labels, one_class)
    for row, outline in enumerate(masks):
        for points in outline:
            canvas.polygon([tuple(map(float, corner)) for corner in points], fill=(*colours[row], _TINT))
    for x1, y1, x2, y2 in ignore:
        for ends in ((x1, y1, x2, y2), (x1, y2, x2, y1)):
            canvas.line(tuple(map(float, ends)), fill=_GREY, width=max(1, line // 2))
        _frame(canvas, (x1, y1, x2, y2), _GREY, max(1, line // 2))
    for row, box in parts:
        _frame(canvas, box, colours[row], max(1, line // 2))
    # The smallest are drawn last, so that they lie on top.
    order = sorted(range(len(boxes)), key=lambda row: -math.prod(boxes[row][2:] - boxes[row][:2]))
    for row in order:
        _frame(canvas, boxes[row], colours[row], line)
    placed = []
    for row in [] if one_class else reversed(order):
        name = classes[labels[row]]
        _tag(canvas, boxes[row], name, colours[row], font, line, image.size, placed, [])
    return image


def draw_notes(photo, notes):
    """Draws boxes that each say something of their own.

    Args:
        photo: (H, W, 3) uint8 RGB array.
        notes: each a (4,) box xyxy in pixels of this array, a text, the number of a colour of `PALETTE`, and
            another box, drawn thin in the same colour, or None. The first are drawn last, on top.

    Returns:
        PIL.Image, RGB, (W, H).
    """
    image, canvas, font, line = _begin(photo)
    notes = [(box, text, PALETTE[colour % len(PALETTE)], other) for box, text, colour, other in notes]
    for box, _, colour, other in reversed(notes):
        if other is not None:
            _frame(canvas, other, colour, max(1, line // 2))
        _frame(canvas, box, colour, line)
    placed = []
    for box, text, colour, _ in notes:
        _tag(canvas, box, text, colour, font, line, image.size, placed, [])
    return image


def _colours(labels, one_class: bool) -> list[tuple[int, int, int]]:
    """A colour for each object: that of its class, or one of its own where all are of one class."""
    return [PALETTE[(row if one_class else int(label)) % len(PALETTE)] for row, label in enumerate(labels)]


def _begin(photo):
    """The image to draw on, its canvas, and a font and a width of lines that suit its size."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(photo).convert("RGB")
    side = math.sqrt(image.width * image.height)
    font = ImageFont.load_default(max(10, round(side / 44)))
    return image, ImageDraw.Draw(image, "RGBA"), font, max(2, round(side / 260))


def _frame(canvas, box, colour, line):
    """A coloured frame with a faint dark rim inside and outside, to show on any ground."""
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    if x2 <= x1 or y2 <= y1:
        return
    rim = max(1, line // 3)
    canvas.rectangle((x1 - rim, y1 - rim, x2 + rim, y2 + rim), outline=(*_DARK, 110), width=rim)
    inner = (x1 + line, y1 + line, x2 - line, y2 - line)
    if inner[0] < inner[2] and inner[1] < inner[3]:
        canvas.rectangle(inner, outline=(*_DARK, 110), width=rim)
    canvas.rectangle((x1, y1, x2, y2), outline=(*colour, 255), width=line)


def _tag(canvas, box, text, colour, font, line, size, placed, parts):
    """Writes `text` on a plate at the box, where it hides no earlier tag and few heads."""
    left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
    pad = max(2, (bottom - top) // 3)
    # The height of a plate is the font's, not the letters', so that all plates are alike.
    ascent, descent = font.getmetrics()
    width, height = right - left + 2 * pad, ascent + descent + pad
    x1, y1, x2, y2 = (round(float(value)) for value in box)
    places = [
        (x1, y1 - height),  # above
        (x2 - width + 1, y1 - height),
        (x1, y2 + 1),  # below
        (x2 - width + 1, y2 + 1),
        (x1 + line, y1 + line),  # inside
        (x1 + line, y2 - line - height),
        (x2 - line - width, y1 + line),
    ]
    plates = [_inside(x, y, width, height, size) for x, y in places]
    best = min(
        plates,
        key=lambda plate: (
            5 * sum(_shared(plate, tag) for tag in placed)
            + sum(_shared(plate, part) for part in parts)
        ),
    )
    placed.append(best)
    canvas.rounded_rectangle(best, radius=max(2, pad // 2), fill=(*colour, 235))
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    canvas.text(
        (best[0] + pad - left, best[1] + (height - ascent - descent) / 2),
        text,
        font=font,
        fill=_DARK if bright > 120 else _LIGHT,
    )


def _inside(x, y, width, height, size):
    x = max(0, min(x, size[0] - width))
    y = max(0, min(y, size[1] - height))
    return (x, y, x + width, y + height)


def _shared(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)
