"""The demo's new subject: twelve pictures of a small violet creature that no model has met before.

It is large, faces the viewer and has few parts in flat colours, so that a small model can take it up in few
steps. What stands around it is the world's own. The same seed always gives the same pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from backend.demo import world

SIZE = world.SIZE
"""Side of a picture in pixels."""
TRIGGER = "sks creature"
FOLDER = f"10_{TRIGGER}"
"""The pictures' folder, named the way trainers read it: repeats, then the words that stand for it."""
_SCALE = 4
"""The creature is drawn this many times larger and shrunk, which smooths its outlines."""

BODY = (150, 84, 206)
HORN = (250, 214, 58)
INK = (44, 24, 66)
WHITE = (252, 252, 248)
_OUTLINE = 0.05
"""Width of outlines over the body's radius: the VAE spreads thicker ones over the whole body."""

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """How the creature stands; lengths are shares of the picture's side."""

    words: str
    size: float = 0.34
    """Radius of the body."""
    lean: float = 0.0
    """Degrees, to the right."""
    shift: Point = (0.0, 0.0)
    """From the middle, to the right and up."""
    squash: float = 1.0
    """Height of the body over its width."""


PICTURES: tuple[tuple[Pose, str], ...] = (
    (Pose("standing"), "blue"),
    (Pose("leaning to the left", lean=-5), "meadow"),
    (Pose("jumping", shift=(0.0, 0.03)), "yellow"),
    (Pose("leaning to the right", lean=5), "pink"),
    (Pose("standing tall", squash=1.06), "beach"),
    (Pose("seen from afar", size=0.315), "night"),
    (Pose("sitting", squash=0.94), "snow"),
    (Pose("seen from near", size=0.36), "orange"),
    (Pose("a step to the right", shift=(0.03, 0.0)), "green"),
    (Pose("a step to the left", shift=(-0.03, 0.0)), "white"),
    (Pose("a little tilted", lean=3), "teal"),
    (Pose("bowing", lean=-3, squash=0.97), "red"),
)


def caption(pose: Pose, place: str) -> str:
    """What a person would write under the picture."""
    return f"{TRIGGER}, {pose.words}, {world.Scene((), place).place()}"


def make_dataset(folder: Path, seed: int = 7) -> Path:
    """Write the twelve pictures with a caption file beside each; returns the folder to train on.

    Pictures that are there already are written again: they are the same.
    """
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for index, (pose, place) in enumerate(PICTURES, start=1):
        draw(pose, place, seed + index).save(target / f"{index:02d}.png")
        (target / f"{index:02d}.txt").write_text(caption(pose, place) + "\n", encoding="utf-8")
    return folder


def draw(pose: Pose, place: str, seed: int) -> Image.Image:
    """The creature before a background of the world, RGB, ``SIZE`` pixels square. The seed places clouds,
    stars and flakes."""
    picture = world.render(world.Scene((), place), seed)
    side = SIZE * _SCALE
    layer = Image.new("RGBA", (side, side))
    _draw_creature(ImageDraw.Draw(layer), pose)
    turned = layer.rotate(
        -pose.lean,
        resample=Image.Resampling.BICUBIC,
        center=(side // 2, round(side * 0.6)),
        translate=(round(pose.shift[0] * side), -round(pose.shift[1] * side)),
    )
    shrunk = turned.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    picture.paste(shrunk, (0, 0), shrunk)
    return picture


def _draw_creature(pen: ImageDraw.ImageDraw, pose: Pose) -> None:
    side = SIZE * _SCALE
    radius = pose.size * side
    height = radius * pose.squash
    centre = (side / 2, side * 0.57)
    for sign in (-1, 1):
        foot = (centre[0] + sign * radius * 0.45, centre[1] + height * 0.96)
        _oval(pen, foot, radius * 0.34, radius * 0.22, BODY, outline=radius * _OUTLINE)
        _draw_horn(pen, centre, radius, height, sign)
    _oval(pen, centre, radius, height, BODY, outline=radius * _OUTLINE)
    eye = (centre[0], centre[1] - height * 0.2)
    _oval(pen, eye, radius * 0.48, radius * 0.48, WHITE, outline=radius * _OUTLINE)
    _oval(pen, eye, radius * 0.24, radius * 0.24, INK)
    _draw_mouth(pen, (centre[0], centre[1] + height * 0.48), radius * 0.42)


def _draw_horn(pen: ImageDraw.ImageDraw, centre: Point, radius: float, height: float, sign: int) -> None:
    x, y = centre[0] + sign * radius * 0.58, centre[1] - height * 0.62
    corners = [(x - radius * 0.42, y), (x + sign * radius * 0.2, y - radius * 0.75), (x + radius * 0.42, y)]
    pen.line([*corners, *corners[:2]], fill=INK, width=round(radius * 2 * _OUTLINE), joint="curve")
    pen.polygon(corners, fill=HORN)


def _draw_mouth(pen: ImageDraw.ImageDraw, centre: Point, radius: float) -> None:
    """Open and laughing."""
    box = (centre[0] - radius, centre[1] - radius * 0.8, centre[0] + radius, centre[1] + radius * 0.8)
    pen.chord(box, 0, 180, fill=INK)


def _oval(
    pen: ImageDraw.ImageDraw, centre: Point, wide: float, high: float, fill: Colour, outline: float = 0.0
) -> None:
    for grow, colour in ((outline, INK), (0.0, fill)) if outline else ((0.0, fill),):
        x, y = wide + grow, high + grow
        pen.ellipse((centre[0] - x, centre[1] - y, centre[0] + x, centre[1] + y), fill=colour)
