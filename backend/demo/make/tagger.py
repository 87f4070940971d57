"""The tagger: a small network that reads pictures of the world, as an ONNX file in WD14's layout.

It is taught attributes (one class each for up to two things and the background); the probability of a tag is
put together from theirs inside the file, so that rare pairs like "teal moon" need no examples of their own.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend import keyed
from backend.demo.make.attributes import CLASSES_OF_TWO, classes
from backend.demo.make.course import Course, Moment, Pace
from backend.demo.make.pictures import Pixels, pixels_of, scene_of, world_picture
from backend.demo.world import BACKGROUNDS, COLOURS, FACES, PATTERNS, SCENES, SHAPES, SIZE, SIZES, Scene
from backend.errors import EnvironmentFault
from backend.families.parts.vae import Vae
from backend.wholefile import replacing, write_text

_BATCH = 32
_PLAIN = 0.3
"""Share of scenes with one big thing without pattern and face."""
COUNT = 12000
"""Pictures that the tagger learns from."""
RETURNED = 0.15
"""Share of them that are shown as the VAE hands them back, with noise in between."""
OPSET = 17
RATINGS = ("general", "sensitive", "questionable", "explicit")


class Tagger(nn.Module):
    """Pictures (B, 3, SIZE, SIZE) in -1..1 -> logits of each attribute of :data:`CLASSES_OF_TWO`."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        fine, middle, coarse = 2 * width, 3 * width, 4 * width
        self.near = nn.Sequential(_step(3, width, 5), _step(width, fine), _step(fine, middle))
        last = 6 * width
        self.far = nn.Sequential(_step(middle, coarse), _step(coarse, last), _step(last, last, stride=1))
        self.mix = nn.Sequential(nn.Linear(16 * (middle + last) + last, 160), nn.SiLU())
        self.head = nn.Linear(160, sum(map(len, CLASSES_OF_TWO.values())))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        near = self.near(pixels)
        far = self.far(near)
        seen = (F.avg_pool2d(near, near.shape[-1] // 4).flatten(1), far.flatten(1), far.amax(dim=(2, 3)))
        logits = self.head(self.mix(torch.cat(seen, dim=1)))
        return logits.split(list(map(len, CLASSES_OF_TWO.values())), dim=-1)


def _step(before: int, after: int, side: int = 3, stride: int = 2) -> nn.Sequential:
    conv = nn.Conv2d(before, after, side, stride=stride, padding=side // 2)
    return nn.Sequential(conv, nn.GroupNorm(4, after), nn.SiLU())


def tags() -> list[str]:
    """Every tag of the world, in the order of :func:`tag_probabilities`."""
    pairs = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    grounds = [name if name in SCENES else f"{name} background" for name in BACKGROUNDS]
    return ["1object", "2objects", *SHAPES, *pairs, *PATTERNS[1:], *FACES[1:], *SIZES, *grounds]


def tag_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Probabilities (B, tags) out of the attributes' logits, taken as independent of each other."""
    seen = {name: part.softmax(dim=-1) for name, part in zip(CLASSES_OF_TWO, logits, strict=True)}
    names = [name.removeprefix("second ") for name in CLASSES_OF_TWO if name.startswith("second ")]
    things = [{name: seen[name] for name in names}, {name: seen[f"second {name}"][:, 1:] for name in names}]
    for thing in things:
        thing["pair"] = (thing["colour"].unsqueeze(2) * thing["shape"].unsqueeze(1)).flatten(1)
    found = {name: _either(things[0][name], things[1][name]) for name in (*names, "pair")}
    alone = seen["second shape"][:, :1]
    return torch.cat(
        [alone, 1 - alone, found["shape"], found["pair"], found["pattern"][:, 1:], found["face"][:, 1:],
         found["size"], seen["background"]], dim=1,
    )  # fmt: skip


def _either(one: Tensor, other: Tensor) -> Tensor:
    return 1 - (1 - one) * (1 - other)


class Wd14(nn.Module):
    """The tagger as WD14 files are: (B, height, width, 3) BGR from 0 to 255 -> ratings, then tags."""

    def __init__(self, tagger: Tagger) -> None:
        super().__init__()
        self.tagger = tagger
        self.ratings = torch.tensor([[1.0, 0.0, 0.0, 0.0]])

    def forward(self, pictures: Tensor) -> Tensor:
        pixels = pictures.flip(-1).permute(0, 3, 1, 2) / 127.5 - 1
        found = tag_probabilities(self.tagger(pixels))
        ratings = self.ratings + 0 * found[:, :1]  # the world is for everybody; as many rows as pictures
        return torch.cat([ratings, found], dim=1)


def examples(seed: int, indices: range, coder: Vae | None = None) -> tuple[Pixels, Tensor, list[Scene]]:
    """Pictures, class numbers (N, attributes) and scenes; through ``coder`` and back when there is one."""
    found = [world_picture(seed, index, _PLAIN) for index in indices]
    pictures = np.stack([picture for _, picture in found])
    if coder is not None:
        pictures = returned(coder, pictures, keyed.generator(seed, "returned"))
    scenes = [scene for scene, _ in found]
    return pictures, torch.tensor([classes(scene, CLASSES_OF_TWO) for scene in scenes]), scenes


@torch.no_grad()
def returned(coder: Vae, pictures: Pixels, generator: torch.Generator | None = None) -> Pixels:
    """Pictures as the VAE hands them back; with ``generator``, up to a third of noise in the latents."""
    parts: list[Pixels] = []
    for first in range(0, len(pictures), 20):
        latents = coder.posterior(pixels_of(pictures[first : first + 20]))[0]
        if generator is not None:
            spread = torch.rand(len(latents), 1, 1, 1, generator=generator) / 3
            latents = latents + latents.std() * spread * torch.randn(latents.shape, generator=generator)
        back = (coder.decode(latents).clamp(-1, 1) + 1) * 127.5
        parts.append(back.round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def worn(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Blurred, shifted and noisy, as pictures are that went through a model."""
    if torch.rand((), generator=generator) < 0.5:
        pixels = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    shift = 0.06 * torch.randn(len(pixels), 3, 1, 1, generator=generator)
    strength = 0.12 * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    return pixels + shift + strength * torch.randn(pixels.shape, generator=generator)


def train(work: Path, pace: Pace, coder: Vae, seed: int, count: int = COUNT) -> Course:
    """Train a tagger, half of the time on worn pictures."""
    torch.manual_seed(seed)
    tagger = Tagger()
    course = Course(work, "tagger", tagger, pace)
    whole = int(count * (1 - RETURNED))
    first, last = examples(seed, range(whole)), examples(seed, range(whole, count), coder)
    pictures, wanted = np.concatenate([first[0], last[0]]), torch.cat([first[1], last[1]])

    def loss_of(moment: Moment) -> Tensor:
        generator = keyed.generator(seed, "tagger", moment.step)
        chosen = torch.randint(count, (_BATCH,), generator=generator)
        pixels = pixels_of(pictures[chosen.numpy()])
        if moment.step % 2:
            pixels = worn(pixels, generator)
        losses = [F.cross_entropy(part, wanted[chosen, column]) for column, part in enumerate(tagger(pixels))]
        return torch.stack(losses).mean()

    course.run(loss_of)
    return course


def write(tagger: Tagger, folder: Path, seed: int, count: int, made: Mapping[str, object]) -> int:
    """Write ``model.onnx`` and ``selected_tags.csv`` into ``folder``; returns the size of both in bytes.

    :raises EnvironmentFault: when the package onnx is missing.
    """
    try:
        import onnx  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        command = "pip install -r requirements/make.txt"
        raise EnvironmentFault("writing ONNX files needs the package **onnx**", next=command) from error
    data = io.BytesIO()
    torch.onnx.export(
        Wd14(tagger).eval(), (torch.zeros(2, SIZE, SIZE, 3),), cast(Any, data),
        dynamo=False, opset_version=OPSET, input_names=["input"], output_names=["output"],
        dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
    )  # fmt: skip
    graph = onnx.load_from_string(data.getvalue())
    onnx.helper.set_model_props(graph, {"atelier.made": json.dumps(made)})
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "model.onnx") as new:
        new.file.write(graph.SerializeToString())
    write_text(folder / "selected_tags.csv", table(seed, count))
    return sum(path.stat().st_size for path in folder.iterdir())


def table(seed: int, count: int) -> str:
    """``selected_tags.csv``: ratings have category 9, tags 0; how often each was seen in training."""
    seen = Counter(tag for index in range(count) for tag in scene_of(seed, index, _PLAIN)[0].tags())
    rows = [(f"{name}", 9, count if name == "general" else 0) for name in RATINGS]
    rows += [(tag.replace(" ", "_"), 0, seen[tag]) for tag in tags()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("tag_id", "name", "category", "count"))
    writer.writerows((number, *row) for number, row in enumerate(rows))
    return text.getvalue()
