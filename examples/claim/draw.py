"""Draw a scene: a background, things, and the individual, whose shape is its kind and whose fill are its looks."""

import io
import math
from random import Random

from PIL import Image, ImageDraw, ImageFilter
from world import COLOURS, Scene

SIZE = 96  # pixels of the square picture
_BIG = 2 * SIZE  # drawn larger, for smooth edges
Point = tuple[float, float]
# The outline of each kind in a unit square, facing right; several parts are joined.
SHAPES: dict[str, list[list[Point]]] = {
    "falcon": [[(0.1, 0.55), (0.45, 0.3), (0.6, 0.05), (0.68, 0.32), (0.85, 0.35), (0.97, 0.45), (0.8, 0.5), (0.6, 0.7),
                (0.3, 0.95), (0.32, 0.68)]],
    "owl": [[(0.25, 0.1), (0.35, 0.2), (0.65, 0.2), (0.75, 0.1), (0.8, 0.45), (0.72, 0.85), (0.5, 1.0), (0.28, 0.85),
             (0.2, 0.45)]],
    "fish": [[(0.0, 0.3), (0.22, 0.45), (0.45, 0.27), (0.75, 0.3), (1.0, 0.5), (0.75, 0.7), (0.45, 0.73), (0.22, 0.55),
              (0.0, 0.7)]],
    "lighthouse": [[(0.38, 0.22), (0.62, 0.22), (0.72, 1.0), (0.28, 1.0)], [(0.36, 0.08), (0.64, 0.08), (0.64, 0.2),
                   (0.36, 0.2)], [(0.32, 0.08), (0.5, 0.0), (0.68, 0.08)]],
    "tower": [[(0.3, 0.2), (0.3, 0.05), (0.4, 0.05), (0.4, 0.14), (0.46, 0.14), (0.46, 0.05), (0.54, 0.05),
               (0.54, 0.14), (0.6, 0.14), (0.6, 0.05), (0.7, 0.05), (0.7, 0.2), (0.66, 1.0), (0.34, 1.0)]],
    "house": [[(0.1, 0.45), (0.5, 0.1), (0.9, 0.45), (0.82, 0.45), (0.82, 1.0), (0.18, 1.0), (0.18, 0.45)]],
    "sailboat": [[(0.48, 0.02), (0.48, 0.7), (0.1, 0.7)], [(0.54, 0.15), (0.9, 0.7), (0.54, 0.7)], [(0.05, 0.76),
                 (0.95, 0.76), (0.8, 1.0), (0.2, 1.0)]],
    "truck": [[(0.02, 0.3), (0.62, 0.3), (0.62, 0.85), (0.02, 0.85)], [(0.66, 0.48), (0.86, 0.48), (0.98, 0.66),
              (0.98, 0.85), (0.66, 0.85)]],
    "kite": [[(0.5, 0.0), (0.88, 0.38), (0.5, 0.85), (0.12, 0.38)], [(0.5, 0.85), (0.58, 0.92), (0.46, 1.0),
             (0.44, 0.92)]],
    "teapot": [[(0.25, 0.4), (0.4, 0.3), (0.6, 0.3), (0.75, 0.42), (0.98, 0.35), (0.82, 0.75), (0.7, 0.9), (0.3, 0.9),
                (0.18, 0.65), (0.02, 0.6), (0.04, 0.45)], [(0.44, 0.2), (0.56, 0.2), (0.56, 0.28), (0.44, 0.28)]],
    "cactus": [[(0.42, 0.05), (0.58, 0.05), (0.58, 0.5), (0.72, 0.5), (0.72, 0.25), (0.85, 0.25), (0.85, 0.64),
                (0.58, 0.64), (0.58, 1.0), (0.42, 1.0), (0.42, 0.75), (0.15, 0.75), (0.15, 0.35), (0.28, 0.35),
                (0.28, 0.61), (0.42, 0.61)]],
    "robot": [[(0.32, 0.05), (0.68, 0.05), (0.68, 0.3), (0.32, 0.3)], [(0.25, 0.34), (0.75, 0.34), (0.75, 0.74),
              (0.25, 0.74)], [(0.3, 0.76), (0.44, 0.76), (0.44, 1.0), (0.3, 1.0)], [(0.56, 0.76), (0.7, 0.76),
              (0.7, 1.0), (0.56, 1.0)], [(0.08, 0.36), (0.2, 0.36), (0.2, 0.7), (0.08, 0.7)], [(0.8, 0.36),
              (0.92, 0.36), (0.92, 0.7), (0.8, 0.7)]],
}  # fmt: skip
_GROUNDS = {  # sky and ground
    "beach": ((150, 205, 235), (225, 205, 150)), "meadow": ((170, 215, 240), (120, 180, 90)),
    "desert": ((240, 220, 180), (205, 160, 100)), "snow": ((190, 200, 215), (245, 248, 250)),
    "forest": ((90, 130, 100), (60, 85, 55)), "street": ((175, 175, 180), (95, 95, 100)),
    "lake": ((165, 200, 225), (70, 130, 170)), "night sky": ((20, 25, 60), (35, 40, 55)),
}  # fmt: skip


def jpeg(scene: Scene) -> bytes:
    """Return the picture of a scene, encoded."""
    chance = Random(scene.seed)
    picture = _background(scene.place, chance)
    for number, (thing, colour) in enumerate(scene.things):
        _thing(picture, thing, COLOURS[colour], (0.12, 0.88)[(number + scene.left) % 2], chance)
    _individual(picture, scene)
    small = picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=88)
    return out.getvalue()


def _background(place: str, chance: Random) -> Image.Image:
    sky, ground = (tuple(min(255, max(0, c + chance.randint(-10, 10))) for c in colour) for colour in _GROUNDS[place])
    picture = Image.new("RGB", (_BIG, _BIG), sky)
    draw, horizon = ImageDraw.Draw(picture), int(_BIG * chance.uniform(0.6, 0.72))
    draw.rectangle((0, horizon, _BIG, _BIG), ground)
    for _ in range(9):
        x, y = chance.randrange(_BIG), chance.randrange(horizon)
        if place == "night sky":
            draw.ellipse((x, y, x + 3, y + 3), (250, 250, 220))
        elif place == "forest":
            draw.polygon([(x, horizon - 70), (x - 18, horizon + 4), (x + 18, horizon + 4)], (40, 90, 50))
        elif place == "street":
            draw.rectangle((x, horizon - 50 - y // 4, x + 22, horizon), (130, 125, 130))
    return picture.filter(ImageFilter.GaussianBlur(1.5))


def _thing(picture: Image.Image, thing: str, colour: tuple[int, ...], across: float, chance: Random) -> None:
    draw, size = ImageDraw.Draw(picture), int(_BIG * chance.uniform(0.13, 0.18))
    x, y = int(across * _BIG), int(_BIG * 0.86)
    box = (x - size // 2, y - size, x + size // 2, y)
    if thing == "ball":
        draw.ellipse(box, colour)
    elif thing == "box":
        draw.rectangle(box, colour, outline=(60, 45, 30), width=2)
    elif thing == "stone":
        draw.ellipse((box[0], y - size // 2, box[2], y), colour)
    elif thing == "bush":
        for dx in (-size // 3, 0, size // 3):
            draw.ellipse((x + dx - size // 3, y - size // 2 - abs(dx) // 9, x + dx + size // 3, y), colour)
    else:  # a lamp or a flag on a pole
        draw.line((x, y - 2 * size, x, y), (70, 70, 70), 4)
        top = (x - size // 3, y - 2 * size, x + size // 3, y - 3 * size // 2)
        (draw.ellipse if thing == "lamp" else draw.rectangle)(top, colour)


def _individual(picture: Image.Image, scene: Scene) -> None:
    size = int(scene.size * _BIG)
    mask = Image.new("L", (size, size), 0)
    for part in SHAPES[scene.who.kind]:
        points = [((1 - x if scene.left else x) * size, y * size) for x, y in part]
        ImageDraw.Draw(mask).polygon(points, 255)
    at = (int(scene.across * _BIG - size / 2), int(_BIG * 0.9 - size))
    shade = Image.new("RGB", mask.size, (40, 40, 45))
    picture.paste(shade, (at[0] + 4, at[1] + 4), mask.point(lambda level: level // 3))
    picture.paste(_fill(scene, size), at, mask)


def _fill(scene: Scene, size: int) -> Image.Image:
    """Return a square with the colours and the pattern of the individual."""
    who, step = scene.who, size // 7
    second = COLOURS[who.second]
    filled = Image.new("RGB", (size, size), COLOURS[who.colour])
    draw = ImageDraw.Draw(filled)
    if who.pattern == "striped":
        for y in range(0, size, 2 * step):
            draw.rectangle((0, y, size, y + step), second)
    elif who.pattern == "halved":
        draw.rectangle((0, size // 2, size, size), second)
    elif who.pattern == "ringed":
        for radius in range(size, 0, -2 * step):
            for r, colour in ((radius, second), (radius - step, COLOURS[who.colour])):
                draw.ellipse((size / 2 - r, size / 2 - r, size / 2 + r, size / 2 + r), colour)
    elif who.pattern in ("dotted", "checked"):
        for row, column in ((r, c) for r in range(math.ceil(size / step)) for c in range(math.ceil(size / step))):
            box = (column * step, row * step, (column + 1) * step, (row + 1) * step)
            if who.pattern == "checked" and (row + column) % 2:
                draw.rectangle(box, second)
            elif who.pattern == "dotted" and row % 2 and column % 2:
                draw.ellipse(box, second)
    return filled
