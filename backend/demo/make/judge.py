"""The judge: a small network that reads a picture's attributes, and the prompts it is asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from backend import keyed
from backend.demo.make.attributes import CLASSES, classes
from backend.demo.make.course import Course, Moment, Pace
from backend.demo.make.pictures import Pixels
from backend.demo.world import SIZE, Scene, random_scene, render

_BATCH = 32
_COUNT = 4000
"""Pictures that the judge learns from."""


class Judge(nn.Module):
    """Pictures (B, 3, SIZE, SIZE) in -1..1 -> logits of each attribute of their one thing."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [width, 2 * width, 3 * width, 4 * width, 6 * width]
        layers: list[nn.Module] = []
        before = 3
        for index, out in enumerate(widths):
            side = 5 if index == 0 else 3
            layers += [nn.Conv2d(before, out, side, stride=2, padding=side // 2)]
            layers += [nn.GroupNorm(4, out), nn.SiLU()]
            before = out
        self.body = nn.Sequential(*layers, nn.Conv2d(before, before, 3, padding=1), nn.SiLU())
        self.head = nn.Linear(before * 17, sum(map(len, CLASSES.values())))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        deep = self.body(pixels)
        pooled = torch.cat([F.adaptive_avg_pool2d(deep, 4).flatten(1), deep.amax(dim=(2, 3))], dim=1)
        return self.head(pooled).split(list(map(len, CLASSES.values())), dim=-1)


def lonely_scene(seed: int, index: int) -> tuple[Scene, int]:
    """A scene of one thing of any kind, and the seed of its picture."""
    rng = keyed.python(seed, "judge", index)
    return random_scene(rng, plain=0.4, two=0.0), rng.randrange(2**31)


def examples(seed: int, indices: range) -> tuple[Pixels, Tensor]:
    """Pictures and class numbers (N, attributes)."""
    scenes = [lonely_scene(seed, index) for index in indices]
    pictures = np.stack([np.asarray(render(scene, place), dtype=np.uint8) for scene, place in scenes])
    return pictures, torch.tensor([classes(scene) for scene, _ in scenes])


def pixels_of(pictures: Pixels) -> Tensor:
    """(N, 3, SIZE, SIZE) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _worn(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Blurred and noisy, as pictures are that went through a model."""
    if torch.rand((), generator=generator) < 0.5:
        pixels = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    shift = 0.08 * torch.randn(len(pixels), 3, 1, 1, generator=generator)
    strength = 0.15 * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    return pixels + shift + strength * torch.randn(pixels.shape, generator=generator)


def train(work: Path, pace: Pace, seed: int, count: int = _COUNT) -> Course:
    """Train a judge on worn pictures."""
    torch.manual_seed(seed)
    judge = Judge()
    course = Course(work, "judge", judge, pace)
    pictures, wanted = examples(seed, range(count))

    def loss_of(moment: Moment) -> Tensor:
        generator = keyed.generator(seed, "judge", moment.step)
        chosen = torch.randint(count, (_BATCH,), generator=generator)
        pixels = _worn(pixels_of(pictures[chosen.numpy()]), generator)
        losses = [
            F.cross_entropy(logits, wanted[chosen, column]) for column, logits in enumerate(judge(pixels))
        ]
        return torch.stack(losses).mean()

    course.run(loss_of)
    return course


@torch.no_grad()
def read(judge: Judge, pixels: Tensor) -> Tensor:
    """Class numbers (N, attributes) that the judge sees."""
    seen = [
        torch.stack([logits.argmax(dim=-1) for logits in judge(part)], dim=1) for part in pixels.split(64)
    ]
    return torch.cat(seen)


def scores(seen: Tensor, wanted: Tensor, names: Sequence[str] = tuple(CLASSES)) -> Mapping[str, float]:
    """Share of right answers by attribute."""
    columns = {name: column for column, name in enumerate(CLASSES)}
    return {name: (seen == wanted)[:, columns[name]].float().mean().item() for name in names}


def plain_prompts(count: int = 100, seed: int = 20) -> list[Scene]:
    """The fixed prompts: one big thing, a colour, a background."""
    rng = keyed.python(seed, "prompts")
    return [random_scene(rng, plain=1.0, two=0.0) for _ in range(count)]


def sheet(pictures: Sequence[Image.Image], columns: int = 10) -> Image.Image:
    """Pictures side by side in rows."""
    rows = -(-len(pictures) // columns)
    paper = Image.new("RGB", (columns * SIZE, rows * SIZE), (250, 250, 247))
    for index, picture in enumerate(pictures):
        paper.paste(picture, (index % columns * SIZE, index // columns * SIZE))
    return paper
