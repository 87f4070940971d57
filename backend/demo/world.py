"""The demo world: a seeded renderer of small cartoon pictures that are easy to describe.

One or two things of a shape, colour, pattern, face and size stand before a plain background or in
one of four scenes. Each picture comes with a natural caption and with tags. The same
:class:`Scene` and seed always give the same picture.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import Image, ImageDraw

SIZE = 128
"""Side of a picture in pixels."""
_SCALE = 3
"""Pictures are drawn this many times larger and shrunk."""

Colour = tuple[int, int, int]
Point = tuple[float, float]

COLOURS: dict[str, Colour] = {
    "red": (222, 52, 48),
    "orange": (245, 140, 32),
    "yellow": (250, 214, 58),
    "green": (58, 170, 72),
    "teal": (32, 168, 168),
    "blue": (52, 104, 220),
    "purple": (138, 72, 190),
    "pink": (246, 134, 178),
    "brown": (142, 92, 52),
    "black": (44, 44, 50),
    "white": (248, 248, 244),
    "gray": (142, 146, 154),
}
SCENES = ("meadow", "beach", "night", "snow")
BACKGROUNDS = (*COLOURS, *SCENES)
PATTERNS = ("plain", "striped", "dotted", "checked")
FACES = ("none", "smiling", "sad")
SIZES = ("big", "small")
_SCENE_WORDS = {
    "meadow": "in a meadow",
    "beach": "on a beach",
    "night": "at night under stars",
    "snow": "in the snow",
}


@dataclass(frozen=True)
class Thing:
    """One object of a picture."""

    shape: str
    colour: str
    pattern: str = "plain"
    face: str = "none"
    size: str = "big"

    def words(self) -> str:
        """``small red striped star with a smiling face``."""
        parts = [self.size if self.size == "small" else "", self.colour]
        parts += [self.pattern if self.pattern != "plain" else "", self.shape]
        text = " ".join(part for part in parts if part)
        return text if self.face == "none" else f"{text} with a {self.face} face"

    def tags(self) -> list[str]:
        found = [self.shape, f"{self.colour} {self.shape}"]
        found += [self.pattern] if self.pattern != "plain" else []
        found += [self.face] if self.face != "none" else []
        return [*found, self.size]


@dataclass(frozen=True)
class Scene:
    """What a picture shows."""

    things: tuple[Thing, ...]
    background: str

    def caption(self) -> str:
        """``a red star and a blue fish on a yellow background``."""
        things = " and ".join(_with_article(thing.words()) for thing in self.things)
        return f"{things} {self.place()}"

    def place(self) -> str:
        """The caption's end: ``on a yellow background``, ``in the snow``."""
        return _SCENE_WORDS.get(self.background, f"on {_with_article(self.background)} background")

    def tags(self) -> list[str]:
        """Tags in the manner of taggers: count, things, background."""
        count = "1object" if len(self.things) == 1 else "2objects"
        place = self.background if self.background in SCENES else f"{self.background} background"
        found = [count, *(tag for thing in self.things for tag in thing.tags()), place]
        return list(dict.fromkeys(found))


def every_word() -> list[str]:
    """Every word that captions are made of, in alphabetical order."""
    things = [Thing(shape, colour, pattern, face, size) for shape in SHAPES for colour in COLOURS
              for pattern in PATTERNS for face in FACES for size in SIZES]  # fmt: skip
    captions = [Scene((thing, thing), "red").caption() for thing in things]
    captions += [Scene((Thing("star", "orange"),), place).caption() for place in BACKGROUNDS]
    return sorted({word for caption in captions for word in caption.split()})


def random_scene(rng: random.Random, *, plain: float = 0.4, two: float = 0.12) -> Scene:
    """A scene drawn from the whole world.

    ``plain``: chance of one big thing without pattern or face; ``two``: chance of two things.
    Neighbouring colours never hide each other: things and plain backgrounds differ in colour.
    """
    background = rng.choice(list(COLOURS)) if rng.random() < 0.72 else rng.choice(SCENES)
    count = 2 if rng.random() < two else 1
    simple = rng.random() < plain
    free = [name for name in COLOURS if name != background and not _close(name, background)]
    colours = rng.sample(free, count)
    return Scene(tuple(_random_thing(rng, colour, simple) for colour in colours), background)


def _random_thing(rng: random.Random, colour: str, simple: bool) -> Thing:
    shape = rng.choice(list(SHAPES))
    if simple:
        return Thing(shape, colour)
    pattern = rng.choice(PATTERNS[1:]) if rng.random() < 0.45 else "plain"
    face = rng.choice(FACES[1:]) if rng.random() < 0.4 and shape not in _NO_FACE else "none"
    return Thing(shape, colour, pattern, face, "small" if rng.random() < 0.25 else "big")


def _close(one: str, other: str) -> bool:
    """Colours that a picture this small cannot keep apart well."""
    scene = {"meadow": {"green"}, "beach": {"yellow"}, "night": {"black", "blue"}, "snow": {"white", "gray"}}
    return one in scene.get(other, set())


def render(scene: Scene, seed: int, size: int = SIZE) -> Image.Image:
    """The picture, RGB, ``size`` x ``size``. ``seed`` decides place, tilt and small details."""
    rng = random.Random(seed)
    side = size * _SCALE
    picture = Image.new("RGB", (side, side))
    _draw_background(picture, scene.background, rng)
    for thing, (x, y, radius) in zip(scene.things, places(scene, side, rng), strict=True):
        draw_thing(picture, thing, (x, y), radius, rng)
    return picture.resize((size, size), Image.Resampling.BOX)


def places(scene: Scene, side: int, rng: random.Random) -> Iterator[tuple[float, float, float]]:
    """Centre and radius of each thing, in pixels of a picture that is ``side`` wide."""
    count = len(scene.things)
    for index, thing in enumerate(scene.things):
        radius = side * (0.36 if thing.size == "big" else 0.19) * (1.0 if count == 1 else 0.6)
        radius *= rng.uniform(0.93, 1.07)
        x = side * (0.5 if count == 1 else (0.28, 0.72)[index])
        wiggle = 0.05 if thing.size == "big" else 0.14
        yield x + side * rng.uniform(-wiggle, wiggle), side * (0.5 + rng.uniform(-wiggle, wiggle)), radius


def draw_thing(picture: Image.Image, thing: Thing, centre: Point, radius: float, rng: random.Random) -> None:
    """Draw one thing with outline, pattern and face onto ``picture``."""
    side = picture.width
    mask = shape_of(thing, side, centre, radius, rng)
    fill = Image.new("RGB", picture.size, COLOURS[thing.colour])
    if thing.pattern != "plain":
        _draw_pattern(fill, thing.pattern, COLOURS[thing.colour], side * 0.058, rng)
    outline = max(3, int(side * 0.012)) | 1
    grown = _grow(mask, outline)
    picture.paste(_ink(COLOURS[thing.colour]), (0, 0), grown)
    picture.paste(fill, (0, 0), mask)
    if thing.face != "none":
        draw_face(
            picture, thing.face, centre, radius * FACE_SIZE.get(thing.shape, 0.5), COLOURS[thing.colour]
        )


def shape_of(thing: Thing, side: int, centre: Point, radius: float, rng: random.Random) -> Image.Image:
    """The thing's shape, a little tilted, as a mask of ``side`` x ``side`` pixels."""
    mask = Image.new("L", (side, side), 0)
    SHAPES[thing.shape](ImageDraw.Draw(mask), centre, radius, rng.uniform(-0.12, 0.12))
    return mask


def _grow(mask: Image.Image, width: int) -> Image.Image:
    """The mask made wider by ``width`` pixels on each side (a quick dilation on a smaller copy)."""
    from PIL import ImageFilter

    small = mask.resize((mask.width // 3, mask.height // 3), Image.Resampling.BOX)
    grown = small.filter(ImageFilter.MaxFilter(2 * max(1, width // 3) + 1))
    return grown.resize(mask.size, Image.Resampling.BILINEAR).point(
        [255 if v > 96 else 0 for v in range(256)]
    )


def _ink(colour: Colour) -> Colour:
    """Colour of the outline: a dark shade, or a lighter one for dark things."""
    dark = sum(colour) < 200
    return (110, 110, 122) if dark else (int(colour[0] * 0.35), int(colour[1] * 0.35), int(colour[2] * 0.35))


def draw_face(picture: Image.Image, face: str, centre: Point, radius: float, colour: Colour) -> None:
    """Two eyes and a mouth around ``centre``."""
    pen = ImageDraw.Draw(picture)
    x, y = centre
    ink = (250, 250, 250) if sum(colour) < 300 else (30, 26, 34)
    for direction in (-1, 1):
        _disc(pen, (x + direction * radius * 0.42, y - radius * 0.22), radius * 0.17, ink)
    width = max(3, int(radius * 0.15))
    box = (x - radius * 0.45, y - radius * 0.15, x + radius * 0.45, y + radius * 0.55)
    if face == "smiling":
        pen.arc(box, 20, 160, fill=ink, width=width)
    else:
        pen.arc(
            (box[0], box[1] + radius * 0.42, box[2], box[3] + radius * 0.42), 200, 340, fill=ink, width=width
        )


def _shade(colour: Colour) -> Colour:
    """A clearly lighter shade of dark colours, a darker one of light ones."""
    if sum(colour) < 420:
        return (int(colour[0] * 0.38 + 158), int(colour[1] * 0.38 + 158), int(colour[2] * 0.38 + 158))
    return (colour[0] // 2, colour[1] // 2, colour[2] // 2)


def _draw_pattern(fill: Image.Image, pattern: str, colour: Colour, step: float, rng: random.Random) -> None:
    """Stripes, dots or checks in a lighter or darker shade of ``colour``."""
    pen = ImageDraw.Draw(fill)
    other = _shade(colour)
    side, offset = fill.width, rng.uniform(0, step)
    count = int(side / step) + 2
    if pattern == "striped":
        for index in range(0, count * 2, 2):
            x = index * step - side * 0.4 + offset
            pen.polygon(
                [(x, 0), (x + step, 0), (x + step + side * 0.35, side), (x + side * 0.35, side)], fill=other
            )
        return
    for row in range(count):
        for column in range(count):
            x, y = column * step + offset - step, row * step + offset - step
            if pattern == "checked" and (row + column) % 2 == 0:
                pen.rectangle((x, y, x + step, y + step), fill=other)
            if pattern == "dotted" and row % 2 == 0 and column % 2 == 0:
                _disc(pen, (x + step * (1.0 if row % 4 else 0.0), y), step * 0.52, other)


# Backgrounds


def _draw_background(picture: Image.Image, name: str, rng: random.Random) -> None:
    if name in COLOURS:
        base = COLOURS[name]
        soft = tuple(int(c * 0.84 + 255 * 0.12) for c in base) if name not in ("black", "white") else base
        picture.paste(soft, (0, 0, *picture.size))
        return
    _SCENE_DRAWERS[name](picture, ImageDraw.Draw(picture), rng)


def _meadow(picture: Image.Image, pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    side = picture.width
    pen.rectangle((0, 0, side, side), fill=(150, 208, 244))
    _cloud(pen, (side * rng.uniform(0.12, 0.3), side * 0.13), side * 0.07)
    pen.ellipse((-side * 0.3, side * 0.6, side * 1.3, side * 1.6), fill=(104, 186, 84))
    for _ in range(14):
        x, y = rng.uniform(0, side), rng.uniform(side * 0.78, side)
        _disc(pen, (x, y), side * 0.014, rng.choice([(255, 240, 120), (255, 255, 255), (250, 170, 200)]))


def _beach(picture: Image.Image, pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    side = picture.width
    pen.rectangle((0, 0, side, side), fill=(176, 226, 248))
    pen.rectangle((0, side * 0.42, side, side), fill=(44, 146, 200))
    pen.rectangle((0, side * 0.68, side, side), fill=(240, 218, 160))
    _disc(pen, (side * rng.uniform(0.78, 0.9), side * 0.13), side * 0.08, (255, 226, 110))


def _night(picture: Image.Image, pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    side = picture.width
    pen.rectangle((0, 0, side, side), fill=(28, 34, 84))
    for _ in range(22):
        _disc(
            pen,
            (rng.uniform(0, side), rng.uniform(0, side * 0.8)),
            side * rng.uniform(0.006, 0.014),
            (250, 246, 200),
        )
    pen.ellipse((-side * 0.2, side * 0.8, side * 1.2, side * 1.5), fill=(20, 22, 52))


def _snow(picture: Image.Image, pen: ImageDraw.ImageDraw, rng: random.Random) -> None:
    side = picture.width
    pen.rectangle((0, 0, side, side), fill=(172, 196, 222))
    for x in (0.08, 0.9):
        _polygon(
            pen,
            [(side * x, side * 0.28), (side * (x - 0.13), side * 0.72), (side * (x + 0.13), side * 0.72)],
            (52, 110, 92),
        )
    pen.ellipse((-side * 0.3, side * 0.64, side * 1.3, side * 1.7), fill=(244, 248, 252))
    for _ in range(26):
        _disc(pen, (rng.uniform(0, side), rng.uniform(0, side)), side * 0.011, (255, 255, 255))


_SCENE_DRAWERS: dict[str, Callable[[Image.Image, ImageDraw.ImageDraw, random.Random], None]] = {
    "meadow": _meadow,
    "beach": _beach,
    "night": _night,
    "snow": _snow,
}


def _cloud(pen: ImageDraw.ImageDraw, centre: Point, radius: float) -> None:
    for dx, dy, scale in ((-1.0, 0.15, 0.75), (0.0, -0.1, 1.0), (1.0, 0.15, 0.75)):
        _disc(pen, (centre[0] + dx * radius, centre[1] + dy * radius), radius * scale, (255, 255, 255))


# Shapes: each fills its mask around a centre within a radius, tilted by some radians.


def _circle(pen: ImageDraw.ImageDraw, c: Point, r: float, tilt: float) -> None:
    _disc(pen, c, r * 0.95, 255)


def _square(pen: ImageDraw.ImageDraw, c: Point, r: float, tilt: float) -> None:
    _polygon(pen, _turned(c, [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], r, tilt * 0.5))


def _triangle(pen: ImageDraw.ImageDraw, c: Point, r: float, tilt: float) -> None:
    _polygon(pen, _turned(c, [(0, -1.05), (1.0, 0.75), (-1.0, 0.75)], r, tilt * 0.5))


def _diamond(pen: ImageDraw.ImageDraw, c: Point, r: float, tilt: float) -> None:
    _polygon(pen, _turned(c, [(0, -1.1), (0.72, 0), (0, 1.1), (-0.72, 0)], r, tilt * 0.3))


def _star(pen: ImageDraw.ImageDraw, c: Point, r: float, tilt: float) -> None:
    points = [
        (
            math.sin(k * math.pi / 5) * (1.1 if k % 2 == 0 else 0.48),
            -math.cos(k * math.pi / 5) * (1.1 if k % 2 == 0 else 0.48),
        )
        for k in range(10)
    ]
    _polygon(pen, _turned(c, points, r, tilt))


def _heart(pen: ImageDraw.ImageDraw, c: Point, r: float, tilt: float) -> None:
    points = []
    for k in range(48):
        t = 2 * math.pi * k / 48
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 16.5, -y / 15.5 - 0.05))
    _polygon(pen, _turned(c, points, r, tilt))


def _moon(pen: ImageDraw.ImageDraw, c: Point, r: float, tilt: float) -> None:
    _disc(pen, c, r, 255)
    cut = _turned(c, [(0.48, -0.18)], r, tilt)[0]
    _disc(pen, cut, r * 0.82, 0)


def _ring(pen: ImageDraw.ImageDraw, c: Point, r: float, tilt: float) -> None:
    _disc(pen, c, r, 255)
    _disc(pen, c, r * 0.5, 0)


def _cross(pen: ImageDraw.ImageDraw, c: Point, r: float, tilt: float) -> None:
    w = 0.34
    outline = [
        (-w, -1),
        (w, -1),
        (w, -w),
        (1, -w),
        (1, w),
        (w, w),
        (w, 1),
        (-w, 1),
        (-w, w),
        (-1, w),
        (-1, -w),
        (-w, -w),
    ]
    _polygon(pen, _turned(c, outline, r, tilt))


def _flower(pen: ImageDraw.ImageDraw, c: Point, r: float, tilt: float) -> None:
    for k in range(6):
        angle = tilt + k * math.pi / 3
        _disc(pen, (c[0] + math.cos(angle) * r * 0.62, c[1] + math.sin(angle) * r * 0.62), r * 0.42, 255)
    _disc(pen, c, r * 0.5, 255)


def _house(pen: ImageDraw.ImageDraw, c: Point, r: float, tilt: float) -> None:
    _polygon(pen, _turned(c, [(-0.72, -0.15), (0.72, -0.15), (0.72, 0.95), (-0.72, 0.95)], r, 0))
    _polygon(pen, _turned(c, [(0, -1.05), (1.05, -0.1), (-1.05, -0.1)], r, 0))
    _polygon(pen, _turned(c, [(-0.17, 0.42), (0.17, 0.42), (0.17, 0.95), (-0.17, 0.95)], r, 0), 0)


def _fish(pen: ImageDraw.ImageDraw, c: Point, r: float, tilt: float) -> None:
    pen.ellipse((c[0] - r * 1.05, c[1] - r * 0.62, c[0] + r * 0.55, c[1] + r * 0.62), fill=255)
    _polygon(pen, _turned(c, [(0.3, 0), (1.1, -0.7), (1.1, 0.7)], r, 0))


SHAPES: dict[str, Callable[[ImageDraw.ImageDraw, Point, float, float], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "heart": _heart,
    "moon": _moon,
    "ring": _ring,
    "cross": _cross,
    "flower": _flower,
    "house": _house,
    "fish": _fish,
}
_NO_FACE = ("ring", "moon", "house")
FACE_SIZE = {"star": 0.42, "triangle": 0.42, "cross": 0.36, "fish": 0.34, "flower": 0.48, "diamond": 0.45}


def _disc(pen: ImageDraw.ImageDraw, c: Point, r: float, fill: Colour | int) -> None:
    pen.ellipse((c[0] - r, c[1] - r, c[0] + r, c[1] + r), fill=fill)


def _polygon(pen: ImageDraw.ImageDraw, points: list[Point], fill: Colour | int = 255) -> None:
    pen.polygon(points, fill=fill)


def _turned(c: Point, points: list[Point], r: float, tilt: float) -> list[Point]:
    sin, cos = math.sin(tilt), math.cos(tilt)
    return [(c[0] + r * (x * cos - y * sin), c[1] + r * (x * sin + y * cos)) for x, y in points]


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
