"""What an exported model draws for the fixed prompts, as the judge sees it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from backend import families
from backend.demo.make.attributes import CLASSES, classes
from backend.demo.make.judge import Judge, pixels_of, plain_prompts, read, scores, sheet
from backend.demo.world import SIZE
from backend.generate.engine import generate
from backend.generate.request import Request

ASKED = ("shape", "colour", "background")
STEPS = 20
SCALE = 5.0
SAMPLER = "dpmsolver++"


def draw_prompts(path: Path, count: int = 100) -> list[Image.Image]:
    """Pictures of the fixed prompts by the model in ``path``; each prompt's seed is its number."""
    requests = [
        Request(scene.caption(), "", SIZE, SIZE, seed, STEPS, SCALE, SAMPLER, batch=10)
        for seed, scene in enumerate(plain_prompts(count))
    ]
    return generate(families.load(path), requests)


def score(path: Path, judge: Judge, count: int = 100) -> tuple[Mapping[str, float], Image.Image]:
    """Share of right shapes, colours, backgrounds and of pictures with all three, and the sheet."""
    pictures = draw_prompts(path, count)
    seen = read(judge, pixels_of(np.stack([np.asarray(picture) for picture in pictures])))
    wanted = torch.tensor([classes(scene) for scene in plain_prompts(count)])
    columns = [list(CLASSES).index(name) for name in ASKED]
    everything = (seen == wanted)[:, columns].all(dim=1).float().mean().item()
    return {**scores(seen, wanted, ASKED), "all three": everything}, sheet(pictures)
