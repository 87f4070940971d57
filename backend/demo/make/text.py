"""The text encoder: trained alone to know every attribute of a caption, then frozen.

While it is trained its vocabulary is small: the pieces that captions of the world are made of, and
rows of noise that stand for all other words, so that those do no harm. ``widened`` brings it to
CLIP's vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend import keyed
from backend.demo.make.attributes import CLASSES_OF_TWO, classes
from backend.demo.make.course import Course, Moment, Pace
from backend.demo.make.pictures import scene_of
from backend.demo.world import Scene, random_scene
from backend.families.parts.clip import ClipShape, ClipTextModel
from backend.families.parts.tokenizer import ClipTokenizer

NOISE_ROWS = 64
_NOISE_CHANCE = 0.15
_TAG_CHANCE = 0.12
_BATCH = 32


def caption_of(scene: Scene, rng: random.Random) -> str:
    """What a person might write: mostly the natural caption, sometimes its tags in any order."""
    if rng.random() >= _TAG_CHANCE:
        return scene.caption()
    tags = scene.tags()
    return ", ".join(rng.sample(tags, len(tags)))


@dataclass(frozen=True)
class Words:
    """The small vocabulary: ``known`` are CLIP's ids, in the order of rows; noise rows follow."""

    known: tuple[int, ...]
    tokenizer: ClipTokenizer

    @property
    def rows(self) -> int:
        return len(self.known) + NOISE_ROWS

    def ids(self, captions: Sequence[str], rng: random.Random | None = None) -> Tensor:
        """Row numbers (B, 77) of captions; with ``rng``, noise is put between some of the words."""
        table = {clip: row for row, clip in enumerate(self.known)}
        start, end = table[self.tokenizer.start], table[self.tokenizer.end]
        found: list[list[int]] = []
        for caption in captions:
            inner = [table.get(piece, len(table)) for piece in self.tokenizer.ids(caption)]
            if rng is not None and rng.random() < _NOISE_CHANCE:
                for _ in range(rng.randint(1, 3)):
                    inner.insert(rng.randint(0, len(inner)), len(table) + rng.randrange(NOISE_ROWS))
            row = [start, *inner[:75], end]
            found.append(row + [end] * (77 - len(row)))
        return torch.tensor(found)


@cache
def words() -> Words:
    """Every piece that occurs in captions and tags of the world."""
    tokenizer = ClipTokenizer()
    rng = random.Random(0)
    pieces: set[int] = set()
    for _ in range(6000):
        scene = random_scene(rng)
        pieces.update(tokenizer.ids(f"{scene.caption()}, {', '.join(scene.tags())}"))
    return Words((tokenizer.start, tokenizer.end, *sorted(pieces)), tokenizer)


class Reader(nn.Module):
    """A text encoder with the small vocabulary, and a head that tells the attributes."""

    def __init__(self, shape: ClipShape) -> None:
        super().__init__()
        self.encoder = ClipTextModel(replace(shape, vocabulary=words().rows))
        self.head = nn.Linear(shape.width, sum(map(len, CLASSES_OF_TWO.values())))
        with torch.no_grad():
            for name, parameter in self.encoder.named_parameters():
                if "embedding" in name:
                    parameter.normal_(std=0.1)

    def renew_noise(self, generator: torch.Generator) -> None:
        """New noise rows, as large as the known ones: no particular noise is to be learnt."""
        table = self.encoder.text_model.embeddings.token_embedding.weight
        known = len(table) - NOISE_ROWS
        with torch.no_grad():
            noise = torch.randn(table[known:].shape, generator=generator)
            table[known:] = noise * table[:known].std() + table[:known].mean(dim=0)

    def forward(self, ids: Tensor) -> tuple[Tensor, ...]:
        """Logits (B, 77, values) of each attribute in turn, at every position."""
        return self.head(self.encoder(ids)).split(list(map(len, CLASSES_OF_TWO.values())), dim=-1)


def _batch(seed: int, step: int, count: int) -> tuple[Tensor, Tensor]:
    """Row numbers (B, 77) and class numbers (B, attributes)."""
    rng = keyed.python(seed, "text", step)
    scenes = [random_scene(rng, plain=0.3, two=0.25) for _ in range(count)]
    ids = words().ids([caption_of(scene, rng) for scene in scenes], rng)
    return ids, torch.tensor([classes(scene, CLASSES_OF_TWO) for scene in scenes])


def train(work: Path, shape: ClipShape, pace: Pace, seed: int) -> Course:
    """Train until every position from the end of the caption on knows every attribute."""
    torch.manual_seed(seed)
    reader = Reader(shape)
    course = Course(work, "text", reader, pace)

    def loss_of(moment: Moment) -> Tensor:
        reader.renew_noise(keyed.generator(seed, "text-noise", moment.step))
        ids, wanted = _batch(seed, moment.step, _BATCH)
        after = (ids == 1) / (ids == 1).sum(dim=1, keepdim=True)
        total = torch.zeros(())
        for column, logits in enumerate(reader(ids)):
            goal = wanted[:, column, None].expand(-1, 77)
            each = F.cross_entropy(logits.flatten(0, 1), goal.flatten(), reduction="none").view_as(ids)
            total = total + (each * after).sum() / len(ids)
        return total / len(CLASSES_OF_TWO)

    course.run(loss_of)
    return course


@torch.no_grad()
def accuracies(reader: Reader, seed: int, count: int = 512) -> dict[str, float]:
    """Share of fresh captions whose attributes are read right at the last position."""
    ids, wanted = _batch(seed, -1, count)
    return {
        name: (logits[:, -1].argmax(dim=-1) == wanted[:, column]).float().mean().item()
        for (name, column), logits in zip(
            ((name, column) for column, name in enumerate(CLASSES_OF_TWO)), reader(ids), strict=True
        )
    }


def widened(reader: Reader, shape: ClipShape, seed: int) -> ClipTextModel:
    """The text encoder with CLIP's whole vocabulary; words outside the world are noise."""
    small = reader.encoder.state_dict()
    name = "text_model.embeddings.token_embedding.weight"
    known = words().known
    rows = small[name][: len(known)]
    generator = keyed.generator(seed, "vocabulary")
    table = torch.randn(shape.vocabulary, shape.width, generator=generator) * rows.std() + rows.mean(dim=0)
    table[torch.tensor(known)] = rows
    model = ClipTextModel(shape)
    model.load_state_dict({**small, name: table})
    return model.eval().requires_grad_(False)


@torch.no_grad()
def contexts(reader: Reader, captions: Sequence[str], rng: random.Random | None = None) -> Tensor:
    """Hidden states (N, 77, width) in half precision, to train a U-Net with."""
    ids = words().ids(captions, rng)
    return torch.cat([reader.encoder(part).half() for part in ids.split(64)])


def scene_captions(seed: int, indices: range, plain: float, rng: random.Random) -> list[str]:
    """Captions of the scenes with these numbers."""
    return [caption_of(scene_of(seed, index, plain)[0], rng) for index in indices]
