"""The demo's new subject: twelve pictures of a small green creature that no model has met before.

Drawn, not photographed: the same seed always gives the same pictures.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

SIZE = 128
"""Side of a picture in pixels."""
TRIGGER = "sks creature"
FOLDER = f"10_{TRIGGER}"
"""The pictures' folder, named the way trainers read it: repeats, then the words that stand for it."""
_SCALE = 4
"""Pictures are drawn this many times larger and shrunk, which smooths the outlines."""

GREEN = (45, 160, 65)
LIGHT = (132, 205, 120)
HORN = (250, 214, 58)
INK = (28, 58, 36)
WHITE = (252, 252, 248)

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """How the creature stands; lengths are shares of the picture's side."""

    words: str
    size: float = 0.27
    """Radius of the body."""
    lean: float = 0.0
    """Degrees, to the right."""
    lift: float = 0.0
    """Height above its place."""
    squash: float = 1.0
    """Height of the body over its width."""
    look: Point = (0.0, 0.0)
    """Where the eye looks, each from -1 to 1."""
    arms: Point = (0.15, 0.15)
    """How far each arm is raised: 0 hangs, 1 points up."""
    asleep: bool = False


PICTURES: tuple[tuple[Pose, str], ...] = (
    (Pose("standing"), "blue"),
    (Pose("waving", arms=(0.1, 0.95), look=(0.3, -0.2)), "meadow"),
    (Pose("jumping", lift=0.11, squash=1.1, arms=(0.9, 0.9)), "yellow"),
    (Pose("leaning to the left", lean=-16, look=(-0.7, 0.0)), "pink"),
    (Pose("leaning to the right", lean=16, look=(0.7, 0.0)), "beach"),
    (Pose("asleep", squash=0.85, arms=(0.0, 0.0), asleep=True), "night"),
    (Pose("small", size=0.19, look=(0.0, -0.4)), "snow"),
    (Pose("seen from near", size=0.35), "orange"),
    (Pose("looking up", look=(0.0, -0.9), arms=(0.4, 0.4)), "night"),
    (Pose("looking down", look=(0.0, 0.8), lean=4), "purple"),
    (Pose("cheering", arms=(1.0, 1.0), squash=1.05), "meadow"),
    (Pose("sitting", squash=0.8, size=0.28, arms=(0.05, 0.05), look=(0.5, 0.3)), "beach"),
)
_PLAIN: dict[str, Colour] = {
    "blue": (92, 148, 232), "yellow": (250, 222, 110), "pink": (246, 164, 196),
    "orange": (246, 170, 84), "purple": (158, 112, 206),
}  # fmt: skip
_SCENE_WORDS = {
    "meadow": "in a meadow", "beach": "on a beach", "night": "at night under stars", "snow": "in the snow",
}  # fmt: skip


def caption(pose: Pose, scene: str) -> str:
    """What a person would write under the picture."""
    return f"{TRIGGER}, {pose.words}, {_SCENE_WORDS.get(scene, f'on a {scene} background')}"


def make_dataset(folder: Path, seed: int = 7) -> Path:
    """Write the twelve pictures with a caption file beside each; returns the folder to train on.

    Pictures that are there already are written again: they are the same.
    """
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for index, (pose, scene) in enumerate(PICTURES, start=1):
        draw(pose, scene, seed + index).save(target / f"{index:02d}.png")
        (target / f"{index:02d}.txt").write_text(caption(pose, scene) + "\n", encoding="utf-8")
    return folder


def draw(pose: Pose, scene: str, seed: int) -> Image.Image:
    """The creature in a scene, RGB, ``SIZE`` pixels square. The seed places clouds, stars and flakes."""
    side = SIZE * _SCALE
    picture = Image.new("RGB", (side, side), _PLAIN.get(scene, WHITE))
    pen = ImageDraw.Draw(picture)
    if scene in _SCENES:
        _SCENES[scene](pen, random.Random(seed))
    layer = Image.new("RGBA", (side, side))
    _draw_creature(ImageDraw.Draw(layer), pose)
    foot = (side // 2, round(side * 0.8))
    turned = layer.rotate(-pose.lean, resample=Image.Resampling.BICUBIC, center=foot)
    picture.paste(turned, (0, -round(pose.lift * side)), turned)
    return picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _draw_creature(pen: ImageDraw.ImageDraw, pose: Pose) -> None:
    side = SIZE * _SCALE
    radius = pose.size * side
    height = radius * pose.squash
    centre = (side / 2, side * 0.8 - height)
    for sign, raised in zip((-1, 1), pose.arms, strict=True):
        _draw_foot(pen, centre, radius, height, sign)
        _draw_arm(pen, centre, radius, sign, raised)
        _draw_horn(pen, centre, radius, height, sign)
    _oval(pen, centre, radius, height, GREEN, outline=radius * 0.07)
    _oval(pen, (centre[0], centre[1] + height * 0.45), radius * 0.55, height * 0.42, LIGHT)
    for sign in (-1, 1):
        _draw_eye(pen, (centre[0] + sign * radius * 0.36, centre[1] - height * 0.3), radius * 0.32, pose)
    _draw_mouth(pen, (centre[0], centre[1] + height * 0.3), radius * 0.3)


def _draw_foot(pen: ImageDraw.ImageDraw, centre: Point, radius: float, height: float, sign: int) -> None:
    place = (centre[0] + sign * radius * 0.42, centre[1] + height * 0.95)
    _oval(pen, place, radius * 0.3, radius * 0.16, GREEN, outline=radius * 0.07)


def _draw_arm(pen: ImageDraw.ImageDraw, centre: Point, radius: float, sign: int, raised: float) -> None:
    angle = math.radians(60 - 130 * raised)
    start = (centre[0] + sign * radius * 0.85, centre[1] + radius * 0.1)
    end = (start[0] + sign * math.cos(angle) * radius * 0.6, start[1] + math.sin(angle) * radius * 0.6)
    for width, colour in ((0.34, INK), (0.2, GREEN)):
        pen.line([start, end], fill=colour, width=round(radius * width))
        _oval(pen, end, radius * width / 2, radius * width / 2, colour)


def _draw_horn(pen: ImageDraw.ImageDraw, centre: Point, radius: float, height: float, sign: int) -> None:
    base = (centre[0] + sign * radius * 0.5, centre[1] - height * 0.75)
    tip = (base[0] + sign * radius * 0.22, base[1] - radius * 0.55)
    left, right = (base[0] - radius * 0.2, base[1]), (base[0] + radius * 0.2, base[1])
    pen.polygon([left, tip, right], fill=HORN)
    pen.line([left, tip, right], fill=INK, width=round(radius * 0.07), joint="curve")


def _draw_eye(pen: ImageDraw.ImageDraw, centre: Point, radius: float, pose: Pose) -> None:
    if pose.asleep:
        box = (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
        return pen.arc(box, 20, 160, fill=INK, width=round(radius * 0.2))
    _oval(pen, centre, radius, radius, WHITE, outline=radius * 0.16)
    pupil = (centre[0] + pose.look[0] * radius * 0.4, centre[1] + pose.look[1] * radius * 0.4)
    _oval(pen, pupil, radius * 0.45, radius * 0.45, INK)
    shine = (pupil[0] - radius * 0.15, pupil[1] - radius * 0.15)
    return _oval(pen, shine, radius * 0.13, radius * 0.13, WHITE)


def _draw_mouth(pen: ImageDraw.ImageDraw, centre: Point, radius: float) -> None:
    box = (centre[0] - radius, centre[1] - radius * 0.9, centre[0] + radius, centre[1] + radius * 0.7)
    pen.arc(box, 20, 160, fill=INK, width=round(radius * 0.22))


def _oval(
    pen: ImageDraw.ImageDraw, centre: Point, wide: float, high: float, fill: Colour, outline: float = 0.0
) -> None:
    for grow, colour in ((outline, INK), (0.0, fill)) if outline else ((0.0, fill),):
        x, y = wide + grow, high + grow
        pen.ellipse((centre[0] - x, centre[1] - y, centre[0] + x, centre[1] + y), fill=colour)


def _meadow(pen: ImageDraw.ImageDraw, chance: random.Random) -> None:
    side = SIZE * _SCALE
    pen.rectangle((0, 0, side, side), fill=(150, 208, 246))
    pen.rectangle((0, side * 0.68, side, side), fill=(150, 206, 92))
    for _ in range(3):
        _cloud(pen, (chance.uniform(0, side), chance.uniform(0.08, 0.3) * side))
    for _ in range(14):
        place = (chance.uniform(0, side), chance.uniform(0.72, 0.98) * side)
        colour = chance.choice(((250, 250, 250), (250, 220, 80), (240, 140, 180)))
        _oval(pen, place, 8, 8, colour)


def _beach(pen: ImageDraw.ImageDraw, chance: random.Random) -> None:
    side = SIZE * _SCALE
    pen.rectangle((0, 0, side, side), fill=(168, 222, 250))
    pen.rectangle((0, side * 0.5, side, side), fill=(56, 150, 200))
    pen.rectangle((0, side * 0.7, side, side), fill=(244, 220, 160))
    _oval(pen, (chance.uniform(0.12, 0.25) * side, side * 0.16), 40, 40, (255, 236, 120))


def _night(pen: ImageDraw.ImageDraw, chance: random.Random) -> None:
    side = SIZE * _SCALE
    pen.rectangle((0, 0, side, side), fill=(28, 34, 84))
    pen.rectangle((0, side * 0.75, side, side), fill=(52, 66, 92))
    for _ in range(26):
        size = chance.uniform(2, 5)
        _oval(pen, (chance.uniform(0, side), chance.uniform(0, 0.7) * side), size, size, (255, 246, 190))


def _snow(pen: ImageDraw.ImageDraw, chance: random.Random) -> None:
    side = SIZE * _SCALE
    pen.rectangle((0, 0, side, side), fill=(178, 206, 232))
    pen.rectangle((0, side * 0.7, side, side), fill=(246, 250, 255))
    for _ in range(40):
        _oval(pen, (chance.uniform(0, side), chance.uniform(0, side)), 5, 5, WHITE)


def _cloud(pen: ImageDraw.ImageDraw, centre: Point) -> None:
    for shift, size in ((-34, 22), (0, 32), (34, 22)):
        _oval(pen, (centre[0] + shift, centre[1]), size * 1.2, size, WHITE)


_SCENES: dict[str, Callable[[ImageDraw.ImageDraw, random.Random], None]] = {
    "meadow": _meadow,
    "beach": _beach,
    "night": _night,
    "snow": _snow,
}
