"""How well the parts do: tagger and captioner on pictures they have not seen, the model by the tagger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from backend import families, keyed
from backend.demo.make.pictures import world_picture
from backend.demo.reading import CaptionReader, TagReader
from backend.demo.world import BACKGROUNDS, COLOURS, SCENES, SHAPES, SIZE, Scene, random_scene
from backend.generate.engine import generate
from backend.generate.request import Request

STEPS = 20
SCALE = 5.0
SAMPLER = "dpmsolver++"
Drawn = Sequence[tuple[Scene, Image.Image]]
"""Scenes, and pictures that should show them."""


def fresh(seed: int, count: int) -> list[tuple[Scene, Image.Image]]:
    """The first scenes of all kinds of a seed, and their pictures."""
    found = [world_picture(seed, index, 0.3) for index in range(count)]
    return [(scene, Image.fromarray(pixels)) for scene, pixels in found]


def plain_prompts(count: int = 100, seed: int = 20) -> list[Scene]:
    """The fixed prompts: one big thing, a colour, a background."""
    rng = keyed.python(seed, "prompts")
    return [random_scene(rng, plain=1.0, two=0.0) for _ in range(count)]


def draw_prompts(path: Path, count: int = 100) -> list[tuple[Scene, Image.Image]]:
    """Pictures of the fixed prompts by the model in ``path``; each prompt's seed is its number."""
    scenes = plain_prompts(count)
    requests = [
        Request(scene.caption(), "", SIZE, SIZE, seed, STEPS, SCALE, SAMPLER, batch=10)
        for seed, scene in enumerate(scenes)
    ]
    return list(zip(scenes, generate(families.load(path), requests), strict=True))


def marks(reader: TagReader, drawn: Drawn) -> Mapping[str, float]:
    """Share of pictures whose first thing's shape and colour, and whose background, are read right."""
    seen = [_likeliest(reader.tags, row) for row in reader.probabilities([picture for _, picture in drawn])]
    asked = [(scene.things[0].shape, scene.things[0].colour, scene.background) for scene, _ in drawn]
    right = np.array([[a == b for a, b in zip(*pair, strict=True)] for pair in zip(seen, asked, strict=True)])
    shares = dict(zip(("shape", "colour", "background"), right.mean(axis=0).tolist(), strict=True))
    return {**shares, "all three": float(right.all(axis=1).mean())}


def _likeliest(tags: Sequence[str], row: npt.NDArray[np.float32]) -> tuple[str, str, str]:
    """Shape, colour of things and background; a colour's weight is that of all its things."""
    weight = dict(zip(tags, row.tolist(), strict=True))
    colours = {colour: sum(weight[f"{colour} {shape}"] for shape in SHAPES) for colour in COLOURS}
    grounds = {name: weight[name if name in SCENES else f"{name} background"] for name in BACKGROUNDS}
    return (
        max(SHAPES, key=lambda shape: weight[shape]),
        max(colours, key=colours.__getitem__),
        max(grounds, key=grounds.__getitem__),
    )


def try_tagger(folder: Path, drawn: Drawn) -> Mapping[str, float]:
    """Tell the tagger's micro-F1, and the share of pictures whose tags are all right."""
    found = [set(tags) for tags in TagReader(folder).tags_of([picture for _, picture in drawn])]
    wanted = [set(scene.tags()) for scene, _ in drawn]
    whole = sum(one == other for one, other in zip(found, wanted, strict=True)) / len(wanted)
    return tell("the tagger", {"micro-F1": micro_f1(found, wanted), "every tag": whole})


def micro_f1(found: Sequence[set[str]], wanted: Sequence[set[str]]) -> float:
    """Harmonic mean of precision and recall over all tags of all pictures together."""
    right = sum(len(one & other) for one, other in zip(found, wanted, strict=True))
    total = sum(map(len, found)) + sum(map(len, wanted))
    return 2 * right / total if total else 1.0


def try_captioner(folder: Path, drawn: Drawn) -> Mapping[str, float]:
    """Tell the share of captions with the right colours, shapes, place, and of those right in every word."""
    captions = CaptionReader(folder).captions_of([picture for _, picture in drawn])
    return tell("the captioner", agreement(captions, [scene for scene, _ in drawn]))


def agreement(captions: Sequence[str], scenes: Sequence[Scene]) -> Mapping[str, float]:
    """Share of captions that name every thing's colour, every shape, the place; and of those quite right."""
    pairs = list(zip(captions, scenes, strict=True))
    rights = {
        "colour": [_named(text, scene, [thing.colour for thing in scene.things]) for text, scene in pairs],
        "shape": [_named(text, scene, [thing.shape for thing in scene.things]) for text, scene in pairs],
        "place": [text.endswith(scene.place()) for text, scene in pairs],
        "every word": [text == scene.caption() for text, scene in pairs],
    }
    return {name: sum(right) / len(right) for name, right in rights.items()}


def _named(text: str, scene: Scene, wanted: Sequence[str]) -> bool:
    """Whether the words of the things, without their place, hold all that is wanted, and as many things."""
    things = text.removesuffix(scene.place()).split(" on a")[0].split()
    return things.count("and") == len(scene.things) - 1 and all(
        things.count(word) >= wanted.count(word) for word in wanted
    )


def tell(what: str, rates: Mapping[str, float]) -> Mapping[str, float]:
    """Print shares as percentages; returns them."""
    print(f"{what}: " + ", ".join(f"{name} {rate:.1%}" for name, rate in rates.items()), flush=True)
    return rates


def sheet(pictures: Sequence[Image.Image], columns: int = 10) -> Image.Image:
    """Pictures side by side in rows."""
    rows = -(-len(pictures) // columns)
    paper = Image.new("RGB", (columns * SIZE, rows * SIZE), (250, 250, 247))
    for index, picture in enumerate(pictures):
        paper.paste(picture, (index % columns * SIZE, index // columns * SIZE))
    return paper
