"""Pictures to train on: scenes of the world, and far wider ones that only the VAE sees."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from backend import keyed
from backend.demo.world import SIZE, Scene, random_scene, render

Pixels = npt.NDArray[np.uint8]
"""Pictures (N, SIZE, SIZE, 3)."""
Rgb = tuple[int, int, int]
_LETTERS = "ABCDEFGHJKLMNPRSTUVXYZaeghmr0123456789?!&@#*+="


def scene_of(seed: int, index: int, plain: float) -> tuple[Scene, int]:
    """The ``index``-th scene of an endless seeded list, and the seed of its picture."""
    rng = keyed.python(seed, "scene", index)
    lonely = plain >= 1.0
    return random_scene(rng, plain=plain, two=0.0 if lonely else 0.12), rng.randrange(2**31)


def world_picture(seed: int, index: int, plain: float) -> tuple[Scene, Pixels]:
    """A scene and its picture (SIZE, SIZE, 3)."""
    scene, picture_seed = scene_of(seed, index, plain)
    return scene, np.asarray(render(scene, picture_seed), dtype=np.uint8)


def pixels_of(pictures: Pixels) -> torch.Tensor:
    """(N, 3, SIZE, SIZE) in -1..1."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def wide_picture(rng: random.Random, size: int = SIZE) -> Pixels:
    """Colours, shapes, lines, letters and patterns of any kind, drawn at twice the size."""
    side = 2 * size
    picture = _ground(rng, side)
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.choice((1, 2, 3, 4, 6, 9))):
        rng.choice((_polygon, _ellipse, _line, _letters, _arc, _pattern, _polygon, _ellipse))(pen, rng, side)
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX), dtype=np.uint8)


def pool(path: Path, count: int, seed: int) -> Pixels:
    """Pictures for the VAE, half of the world and half wide; kept in ``path`` for the next start."""
    if path.exists():
        stored: Pixels = np.load(path, mmap_mode="r")
        if len(stored) == count:
            return stored
    pictures = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)
    for index in range(count):
        if index % 2:
            pictures[index] = world_picture(seed, index, 0.3)[1]
        else:
            pictures[index] = wide_picture(keyed.python(seed, "wide", index))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npy")
    np.save(part, pictures)
    part.replace(path)
    return pictures


def _rgb(rng: random.Random) -> Rgb:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _ground(rng: random.Random, side: int) -> Image.Image:
    """One colour, or a gradient between two."""
    if rng.random() < 0.5:
        return Image.new("RGB", (side, side), _rgb(rng))
    ramp = Image.linear_gradient("L") if rng.random() < 0.7 else Image.radial_gradient("L")
    turned = ramp.rotate(rng.uniform(0, 360), expand=False, fillcolor=128).resize((side, side))
    both = Image.new("RGB", (side, side), _rgb(rng)), Image.new("RGB", (side, side), _rgb(rng))
    return Image.composite(both[0], both[1], turned)


def _spot(rng: random.Random, side: int) -> tuple[float, float, float]:
    """A centre, and a radius of 3 % to 45 % of the side, small ones more often."""
    radius = side * 0.03 * 15 ** rng.random()
    return rng.uniform(0, side), rng.uniform(0, side), radius


def _outline(rng: random.Random) -> tuple[Rgb | None, int]:
    return (_rgb(rng), rng.choice((2, 3, 4, 6))) if rng.random() < 0.5 else (None, 0)


def _polygon(pen: ImageDraw.ImageDraw, rng: random.Random, side: int) -> None:
    x, y, radius = _spot(rng, side)
    turns = sorted(rng.uniform(0, 2 * math.pi) for _ in range(rng.randint(3, 9)))
    points = [(x + math.cos(t) * radius * rng.uniform(0.5, 1), y + math.sin(t) * radius) for t in turns]
    colour, width = _outline(rng)
    pen.polygon(points, fill=_rgb(rng), outline=colour, width=max(1, width))


def _ellipse(pen: ImageDraw.ImageDraw, rng: random.Random, side: int) -> None:
    x, y, radius = _spot(rng, side)
    other = radius * rng.uniform(0.5, 1)
    colour, width = _outline(rng)
    pen.ellipse((x - radius, y - other, x + radius, y + other), fill=_rgb(rng), outline=colour, width=width)


def _line(pen: ImageDraw.ImageDraw, rng: random.Random, side: int) -> None:
    points = [(rng.uniform(0, side), rng.uniform(0, side)) for _ in range(rng.randint(2, 5))]
    pen.line(points, fill=_rgb(rng), width=rng.choice((2, 3, 4, 6, 10)), joint="curve")


def _arc(pen: ImageDraw.ImageDraw, rng: random.Random, side: int) -> None:
    x, y, radius = _spot(rng, side)
    start = rng.uniform(0, 360)
    box = (x - radius, y - radius, x + radius, y + radius)
    pen.arc(box, start, start + rng.uniform(60, 300), fill=_rgb(rng), width=rng.choice((2, 4, 6, 8)))


def _letters(pen: ImageDraw.ImageDraw, rng: random.Random, side: int) -> None:
    text = "".join(
        rng.choice("ABCDEFGHJKLMNPRSTUVXYZaeghmr0123456789?!&@#*+=") for _ in range(rng.randint(1, 6))
    )
    font = ImageFont.load_default(rng.choice((14, 20, 28, 44, 70)))
    pen.text((rng.uniform(0, side * 0.8), rng.uniform(0, side * 0.8)), text, fill=_rgb(rng), font=font)


def _pattern(pen: ImageDraw.ImageDraw, rng: random.Random, side: int) -> None:
    """Stripes, dots or checks in a box."""
    x, y, radius = _spot(rng, side)
    step = rng.uniform(8, 40)
    kind, fill = rng.randrange(3), _rgb(rng)
    count = min(14, int(2 * radius / step) + 1)
    for row in range(count):
        left, top = x - radius, y - radius + row * step
        if kind == 0:
            pen.rectangle((left, top, left + 2 * radius, top + step / 2), fill=fill)
            continue
        for column in range(row % 2, count, 2):
            box = (left + column * step, top, left + (column + 1) * step, top + step)
            (pen.rectangle if kind == 1 else pen.ellipse)(box, fill=fill)
