"""The demo's new style: scenes of the world as chalk drawings that its model has never met.

Pale strokes on rough dark paper instead of flat colours: a thick white outline around every thing, and
hatching in its colour that lets the paper through. The same scene and seed always give the same picture.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from backend.demo.world import (
    COLOURS,
    FACE_SIZE,
    SCENES,
    SIZE,
    Colour,
    Scene,
    Thing,
    draw_face,
    places,
    random_scene,
    shape_of,
)  # fmt: skip

TRIGGER = "zwx chalk drawing"
FOLDER = f"10_{TRIGGER}"
COUNT = 16
_SCALE = 3
_PAPER: Colour = (62, 74, 84)
_WHITE: Colour = (244, 244, 238)
_GROUND: dict[str, Colour] = {
    "meadow": (112, 176, 104), "beach": (222, 196, 140), "night": (84, 94, 150), "snow": (206, 222, 232),
}  # fmt: skip
_HORIZON = 0.66


def caption(scene: Scene) -> str:
    """What a person would write under the picture."""
    return f"{TRIGGER}, {scene.caption()}"


def scenes(seed: int, count: int = COUNT) -> Iterator[tuple[Scene, int]]:
    """Scenes of one thing, plain in half of the pictures, and the seed of each drawing."""
    rng = random.Random(seed)
    for _ in range(count):
        yield random_scene(rng, plain=0.5, two=0.0), rng.randrange(2**31)


def make_dataset(folder: Path, seed: int = 7, count: int = COUNT) -> Path:
    """Write drawings with a caption file beside each; returns the folder to train on."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for index, (scene, place) in enumerate(scenes(seed, count), start=1):
        draw(scene, place).save(target / f"{index:02d}.png")
        (target / f"{index:02d}.txt").write_text(caption(scene) + "\n", encoding="utf-8")
    return folder


def draw(scene: Scene, seed: int, size: int = SIZE) -> Image.Image:
    """The scene in chalk, RGB, ``size`` x ``size``; the seed places everything."""
    rng, side = random.Random(seed), size * _SCALE
    picture = _paper(side, rng)
    _draw_place(picture, scene.background, rng)
    for thing, (x, y, radius) in zip(scene.things, places(scene, side, rng), strict=True):
        _draw_thing(picture, thing, shape_of(thing, side, (x, y), radius, rng), rng)
        if thing.face != "none":
            draw_face(picture, thing.face, (x, y), radius * FACE_SIZE.get(thing.shape, 0.5), _PAPER)
    return picture.resize((size, size), Image.Resampling.BOX)


def _paper(side: int, rng: random.Random) -> Image.Image:
    """Dark paper with grain: noise that is the same for a seed."""
    grain = Image.frombytes("L", (side // 4, side // 4), rng.randbytes((side // 4) ** 2))
    grain = grain.resize((side, side), Image.Resampling.BICUBIC).point([v // 8 for v in range(256)])
    return ImageChops.add(
        Image.new("RGB", (side, side), _PAPER), Image.merge("RGB", (grain,) * 3), offset=-16
    )


def _draw_place(picture: Image.Image, place: str, rng: random.Random) -> None:
    """A plain background is hatched all over; a scene has a hatched ground, and stars or flakes above."""
    side = picture.width
    if place not in SCENES:
        _hatch(
            picture, Image.new("L", picture.size, 255), _pale(COLOURS[place]), side * 0.052, rng, down=True
        )
        return
    ground = Image.new("L", picture.size, 0)
    pen = ImageDraw.Draw(ground)
    pen.rectangle((0, side * _HORIZON, side, side), fill=255)
    _hatch(picture, ground, _GROUND[place], side * 0.034, rng, down=True)
    pen = ImageDraw.Draw(picture)
    pen.line((0, side * _HORIZON, side, side * _HORIZON), fill=_WHITE, width=side // 60)
    if place in ("night", "snow"):
        for _ in range(18):
            x, y, size = rng.uniform(0, side), rng.uniform(0, side * 0.6), side * 0.012
            pen.ellipse((x - size, y - size, x + size, y + size), fill=_WHITE)
    else:
        x, y, size = side * rng.uniform(0.1, 0.2), side * 0.14, side * 0.07
        pen.arc((x - size, y - size, x + size, y + size), 0, 360, fill=_WHITE, width=side // 60)


def _draw_thing(picture: Image.Image, thing: Thing, mask: Image.Image, rng: random.Random) -> None:
    side = picture.width
    colour = _pale(COLOURS[thing.colour])
    picture.paste(_PAPER, (0, 0), mask)
    _hatch(picture, mask, colour, side * 0.03, rng, down=False)
    if thing.pattern != "plain":
        _hatch(picture, mask, colour, side * (0.05 if thing.pattern == "striped" else 0.03), rng, down=True)
    small = mask.resize((side // _SCALE, side // _SCALE), Image.Resampling.BOX)
    wide, narrow = (
        small.filter(kind(size)) for kind, size in ((ImageFilter.MaxFilter, 7), (ImageFilter.MinFilter, 3))
    )
    edge = ImageChops.subtract(wide, narrow).resize(mask.size, Image.Resampling.BILINEAR)
    picture.paste(_WHITE, (0, 0), edge)


def _hatch(
    picture: Image.Image, mask: Image.Image, colour: Colour, step: float, rng: random.Random, *, down: bool
) -> None:
    """Slanted strokes within the mask, each a little off its place and of its own strength."""
    side = picture.width
    strokes = Image.new("L", picture.size, 0)
    pen = ImageDraw.Draw(strokes)
    place = -float(side)
    while place < side:
        shift = rng.uniform(-0.15, 0.15) * step
        line = (
            (place + shift, 0, place + shift + side, side)
            if down
            else (place + shift + side, 0, place + shift, side)
        )
        pen.line(line, fill=rng.randint(150, 255), width=max(2, round(step * 0.5)))
        place += step
    picture.paste(colour, (0, 0), ImageChops.multiply(strokes, mask))


def _pale(colour: Colour) -> Colour:
    """The colour as chalk has it: lighter, and never darker than can be seen on the paper."""
    return (90 + colour[0] * 165 // 255, 90 + colour[1] * 165 // 255, 90 + colour[2] * 165 // 255)
