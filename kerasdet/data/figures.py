"""People-like figures, things that are none, and places to stand in, drawn with Pillow.

Everything is drawn without antialiasing on a canvas `SUPERSAMPLING` times as large, which is
averaged down afterwards: the edges come out smooth and a figure's box is exact to a third of a
pixel. Lengths are canvas pixels; `rng` is a numpy Generator: a seed gives the same drawing.
"""

from __future__ import annotations

import colorsys
import dataclasses
import math

import numpy as np
from PIL import Image, ImageDraw

SUPERSAMPLING = 3
_SKIN = ((244, 208, 177), (224, 172, 105), (198, 134, 66), (141, 85, 36), (92, 58, 34))
_HAIR = ((35, 26, 22), (77, 52, 34), (140, 96, 52), (205, 170, 105), (150, 150, 150), (120, 50, 30))


@dataclasses.dataclass
class Figure:
    """A drawn person: RGBA `image` at `corner` (x, y) of the canvas; masks of body and head."""

    body: Image.Image
    head: Image.Image
    image: Image.Image
    corner: tuple[int, int]

    def box(self, mask: Image.Image) -> tuple[float, float, float, float]:
        """What `mask` (of this figure's size) covers, xyxy in pixels of the picture."""
        x1, y1, x2, y2 = mask.getbbox()
        x, y = self.corner
        return tuple(side / SUPERSAMPLING for side in (x1 + x, y1 + y, x2 + x, y2 + y))


def colour(rng, saturation=(0.1, 0.8), value=(0.2, 0.95)) -> tuple[int, int, int]:
    """A random RGB colour of any hue."""
    rgb = colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return tuple(int(255 * channel) for channel in rgb)


def shade(rgb, factor: float) -> tuple[int, int, int]:
    """`rgb` made darker (below 1) or lighter (above)."""
    return tuple(int(min(255, max(0, channel * factor))) for channel in rgb)


# === People ===


def draw_person(rng, height: float, foot: tuple[float, float]) -> Figure:
    """A person of `height`, who stands with both feet around `foot` (x, y)."""
    h = height
    wide, tall = int(1.1 * h), int(1.15 * h)
    image = Image.new("RGBA", (wide, tall), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    middle, top = wide / 2, 0.08 * h
    build = rng.uniform(0.8, 1.25)
    side_view = rng.random() < 0.35
    skin, hair = _SKIN[rng.integers(len(_SKIN))], _HAIR[rng.integers(len(_HAIR))]
    shirt, trousers, shoes = colour(rng), colour(rng, (0, 0.6), (0.1, 0.7)), colour(rng, (0, 0.4))
    shoulder = (0.085 if side_view else 0.125) * h * build
    hip = (0.07 if side_view else 0.088) * h * build
    neck_y, hip_y, ground = top + 0.165 * h, top + 0.53 * h, top + h
    stride = rng.uniform(0.02, 0.16 if side_view else 0.07) * h
    sleeve = shirt if rng.random() < 0.6 else skin

    def limb(points, width, fill):
        draw.line(points, fill=fill, width=max(1, int(width)), joint="curve")
        for x, y in points:
            draw.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=fill)

    def arm(side, fill):
        swing = rng.uniform(-0.10, 0.13) * h
        raised = rng.random() < 0.12
        start = (middle + side * shoulder * 0.92, neck_y + 0.045 * h)
        elbow = (start[0] + side * 0.03 * h + swing * 0.4, start[1] + 0.16 * h)
        reach = -0.10 if raised else rng.uniform(0.11, 0.16)
        hand = (elbow[0] + side * 0.02 * h + swing * 0.6, elbow[1] + reach * h)
        limb([start, elbow, hand], 0.055 * h * build, fill)
        draw_disc(draw, hand, 0.03 * h, skin)

    arm(-1, shade(sleeve, 0.8))
    for side in (-1, 1):
        foot_x = middle + side * (hip * 0.5 + stride)
        knee = (middle + side * (hip * 0.55 + stride * 0.6), (hip_y + ground) / 2)
        leg = shade(trousers, 0.8 if side < 0 else 1)
        start = (middle + side * hip * 0.5, hip_y)
        limb([start, knee, (foot_x, ground - 0.045 * h)], 0.085 * h * build, leg)
        toe = 0.035 * h if side_view else side * 0.012 * h
        box = (foot_x - 0.045 * h + toe, ground - 0.055 * h, foot_x + 0.045 * h + toe, ground)
        draw.ellipse(box, fill=shoes)
    if rng.random() < 0.25:  # a skirt
        hem = hip_y + rng.uniform(0.08, 0.25) * h
        points = [(middle - hip, hip_y - 0.1 * h), (middle + hip, hip_y - 0.1 * h)]
        points += [(middle + hip * 1.6, hem), (middle - hip * 1.6, hem)]
        draw.polygon(points, fill=shade(shirt, 0.85))
    _draw_torso(rng, image, (middle, neck_y, hip_y), shoulder, hip, shirt)
    if rng.random() < 0.2:  # a bag
        x = middle + shoulder * 0.8
        box = (x, hip_y - 0.14 * h, x + 0.12 * h, hip_y + 0.03 * h)
        draw.rounded_rectangle(box, radius=0.02 * h, fill=colour(rng))
    arm(1, sleeve)
    draw.rectangle(
        (middle - 0.022 * h, neck_y - 0.05 * h, middle + 0.022 * h, neck_y + 0.03 * h),
        fill=shade(skin, 0.85),
    )
    head = Image.new("RGBA", (wide, tall), (0, 0, 0, 0))
    _draw_head(rng, ImageDraw.Draw(head), (middle, top), h, skin, hair, side_view)
    image.alpha_composite(head)
    corner = (round(foot[0] - middle), round(foot[1] - ground))
    return Figure(image.getchannel("A"), head.getchannel("A"), image, corner)


def _draw_torso(rng, image, spine, shoulder, hip, shirt) -> None:
    middle, neck_y, hip_y = spine
    round_off = shoulder * 0.35
    mask = Image.new("L", image.size, 0)
    cut = ImageDraw.Draw(mask)
    cut.polygon(
        [
            (middle - shoulder + round_off, neck_y),
            (middle + shoulder - round_off, neck_y),
            (middle + shoulder, neck_y + round_off),
            (middle + hip * 1.08, hip_y + 0.02 * (hip_y - neck_y)),
            (middle - hip * 1.08, hip_y + 0.02 * (hip_y - neck_y)),
            (middle - shoulder, neck_y + round_off),
        ],
        fill=255,
    )
    cloth = Image.new("RGBA", image.size, shirt + (255,))
    pattern = ImageDraw.Draw(cloth)
    if rng.random() < 0.3:  # stripes
        step = max(3, int((hip_y - neck_y) / rng.integers(4, 9)))
        for y in range(int(neck_y), int(hip_y) + step, 2 * step):
            pattern.rectangle((0, y, image.width, y + step), fill=shade(shirt, 0.6) + (255,))
    if rng.random() < 0.3:  # an open jacket
        inner = colour(rng) + (255,)
        pattern.rectangle((middle - hip * 0.35, 0, middle + hip * 0.35, image.height), fill=inner)
    pattern.rectangle((0, 0, middle - shoulder * 0.55, image.height), fill=shade(shirt, 0.82))
    image.paste(cloth, (0, 0), mask)


def _draw_head(rng, draw, crown, h, skin, hair, side_view) -> None:
    x, y = crown
    high, half = 0.135 * h, 0.05 * h
    face = (x - half, y, x + half, y + high)
    if rng.random() < 0.35:  # long hair
        low = y + high * rng.uniform(0.95, 1.25)
        draw.rounded_rectangle((x - half * 1.2, y, x + half * 1.2, low), half, fill=hair)
    draw.ellipse(face, fill=skin)
    if rng.random() < 0.15:  # seen from behind
        draw.ellipse((x - half * 1.04, y, x + half * 1.04, y + high * 0.92), fill=hair)
    else:
        tilt = 25 if side_view else 0
        draw.chord((x - half * 1.1, y - 0.008 * h, x + half * 1.1, y + high), 180 - tilt, 360, hair)
        eyes = (0.45,) if side_view else (-0.4, 0.4)
        for eye in eyes:
            draw_disc(draw, (x + eye * half, y + high * 0.55), 0.006 * h, (30, 25, 25))
        lips = (x - half * 0.35, y + high * 0.76, x + half * 0.35, y + high * 0.8)
        draw.rectangle(lips, fill=shade(skin, 0.7))
    if rng.random() < 0.2:  # a cap
        cap = colour(rng)
        draw.chord((x - half * 1.15, y - 0.015 * h, x + half * 1.15, y + high * 0.8), 180, 360, cap)
        brim = (x - half * 1.3, y + high * 0.33, x + half * 1.3, y + high * 0.4)
        draw.rectangle(brim, fill=shade(cap, 0.8))


def draw_disc(draw: ImageDraw.ImageDraw, centre, radius: float, fill) -> None:
    """A filled circle."""
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


# === Things that are no people ===


def draw_thing(rng, draw: ImageDraw.ImageDraw, height: float, foot: tuple[float, float]) -> None:
    """A lamp post, tree, car, bin or sign, scaled to stand among people of `height`."""
    x, y = foot
    h = height
    kind = rng.integers(5)
    if kind == 0:
        metal = colour(rng, (0, 0.2), (0.15, 0.5))
        draw.rectangle((x - 0.03 * h, y - 1.9 * h, x + 0.03 * h, y), fill=metal)
        draw.rectangle((x - 0.03 * h, y - 1.9 * h, x + 0.3 * h, y - 1.86 * h), fill=metal)
        draw.ellipse((x + 0.2 * h, y - 1.92 * h, x + 0.4 * h, y - 1.78 * h), fill=(250, 240, 190))
    elif kind == 1:
        bark = shade((105, 75, 50), rng.uniform(0.7, 1.2))
        draw.rectangle((x - 0.07 * h, y - 0.9 * h, x + 0.07 * h, y), fill=bark)
        leaf = shade((60, 125, 50), rng.uniform(0.6, 1.3))
        for _ in range(9):
            dx, dy = rng.normal(0, 0.22 * h), rng.normal(0, 0.2 * h)
            radius = rng.uniform(0.15, 0.32) * h
            tone = shade(leaf, rng.uniform(0.8, 1.2))
            draw_disc(draw, (x + dx, y - 1.3 * h + dy), radius, tone)
    elif kind == 2:
        paint = colour(rng, (0, 0.9))
        left, right = x - 1.1 * h, x + 1.1 * h
        cabin = [(x - 0.7 * h, y - 0.45 * h), (x - 0.4 * h, y - 0.82 * h)]
        cabin += [(x + 0.4 * h, y - 0.82 * h), (x + 0.75 * h, y - 0.45 * h)]
        draw.polygon(cabin, fill=shade(paint, 0.9))
        glass = [(a * 0.8 + x * 0.2, b * 0.86 + (y - 0.5 * h) * 0.14) for a, b in cabin]
        draw.polygon(glass, fill=(150, 180, 195))
        draw.rounded_rectangle((left, y - 0.5 * h, right, y - 0.1 * h), 0.12 * h, fill=paint)
        for wheel in (-0.65, 0.65):
            draw_disc(draw, (x + wheel * h, y - 0.13 * h), 0.17 * h, (30, 30, 32))
            draw_disc(draw, (x + wheel * h, y - 0.13 * h), 0.09 * h, (150, 150, 155))
    elif kind == 3:
        body = colour(rng, (0.2, 0.8), (0.2, 0.6))
        draw.rectangle((x - 0.14 * h, y - 0.5 * h, x + 0.14 * h, y), fill=body)
        lid = (x - 0.17 * h, y - 0.57 * h, x + 0.17 * h, y - 0.48 * h)
        draw.rounded_rectangle(lid, 0.03 * h, fill=shade(body, 0.7))
    else:
        draw.rectangle((x - 0.02 * h, y - 1.2 * h, x + 0.02 * h, y), fill=(130, 130, 135))
        draw_disc(draw, (x, y - 1.3 * h), 0.19 * h, colour(rng, (0.6, 1), (0.5, 0.9)))
        bar = (x - 0.12 * h, y - 1.33 * h, x + 0.12 * h, y - 1.27 * h)
        draw.rectangle(bar, fill=(240, 240, 240))


# === Places ===


def draw_place(rng, width: int, height: int) -> tuple[Image.Image, float]:
    """A street, a park or a wall, RGB; and the y where the ground begins."""
    horizon = height * rng.uniform(0.35, 0.55)
    sky = colorsys.hsv_to_rgb(rng.uniform(0.52, 0.64), rng.uniform(0, 0.55), rng.uniform(0.6, 1))
    above = tuple(int(255 * channel) for channel in sky)
    ground = colour(rng, (0, 0.3), (0.35, 0.75))
    kind = rng.integers(3)
    if kind == 1:
        ground = shade((105, 150, 75), rng.uniform(0.6, 1.2))
    image = _gradient(above, shade(above, rng.uniform(0.85, 1.25)), width, height)
    floor = _gradient(shade(ground, 0.85), shade(ground, 1.15), width, int(height - horizon) + 1)
    image.paste(floor, (0, int(horizon)))
    draw = ImageDraw.Draw(image)
    if kind == 0:
        _draw_houses(rng, draw, width, horizon)
        edge = horizon + (height - horizon) * rng.uniform(0.1, 0.3)
        draw.rectangle((0, horizon, width, edge), fill=shade(ground, rng.uniform(0.6, 1.3)))
    elif kind == 1:
        for _ in range(rng.integers(3, 8)):
            x, radius = rng.uniform(0, width), rng.uniform(0.05, 0.25) * width
            tone = shade((75, 115, 65), rng.uniform(0.6, 1.3))
            box = (x - radius, horizon - radius * 0.6, x + radius, horizon + radius * 0.6)
            draw.chord(box, 180, 360, fill=tone)
    else:
        _draw_bricks(rng, draw, width, horizon)
    return image, horizon


def _gradient(top, bottom, width: int, height: int) -> Image.Image:
    ramp = np.linspace(0, 1, height)[:, None, None]
    column = (1 - ramp) * np.array(top) + ramp * np.array(bottom)
    pixels = np.broadcast_to(column, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _draw_houses(rng, draw, width: int, horizon: float) -> None:
    x = -rng.uniform(0, 0.2) * width
    while x < width:
        wide, high = rng.uniform(0.15, 0.4) * width, rng.uniform(0.4, 1.0) * horizon
        wall = colour(rng, (0.05, 0.5), (0.35, 0.9))
        draw.rectangle((x, horizon - high, x + wide, horizon), fill=wall)
        pane = wide / rng.integers(3, 6)
        window = shade(wall, rng.uniform(0.4, 0.7))
        for column in np.arange(x + pane * 0.25, x + wide - pane * 0.6, pane):
            for row in np.arange(horizon - high + pane * 0.3, horizon - pane * 0.8, pane * 1.2):
                draw.rectangle((column, row, column + pane * 0.5, row + pane * 0.7), fill=window)
        x += wide


def _draw_bricks(rng, draw, width: int, horizon: float) -> None:
    wall = colour(rng, (0.1, 0.6), (0.4, 0.8))
    draw.rectangle((0, 0, width, horizon), fill=shade(wall, 0.75))
    high = max(6.0, horizon / rng.integers(10, 22))
    long = high * rng.uniform(2, 3)
    for row in range(math.ceil(horizon / high)):
        y = row * high
        for x in np.arange(-long * (row % 2) / 2, width, long):
            brick = shade(wall, rng.uniform(0.85, 1.15))
            low = min(y + high * 0.88, horizon)
            draw.rectangle((x, y, x + long * 0.94, low), fill=brick)


def finish(rng, canvas: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The canvas averaged down to `size` (width, height), with light, mottling and noise."""
    width, height = size
    pixels = np.asarray(canvas.reduce(SUPERSAMPLING), np.float32)
    coarse = rng.normal(0, 7, (max(2, height // 12), max(2, width // 12))).astype(np.float32)
    mottled = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    pixels = pixels * rng.uniform(0.65, 1.15) + mottled[..., None]
    pixels += rng.normal(0, rng.uniform(1, 7), pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
