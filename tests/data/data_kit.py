"""Makes pictures, folders, settings and plans for the dataset engine's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backend.data.plan import build_plan
from backend.data.types import DatasetPlan
from backend.settings import Settings


def noise_picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def add_picture(
    folder: Path, name: str, size: tuple[int, int] = (96, 64), caption: str | None = "a, b"
) -> Path:
    """A noisy picture and, unless None, its .txt caption."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    noise_picture(size, seed=sum(map(ord, name))).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def settings(**values: Any) -> Settings:
    return Settings.from_flat({"resolution": "64", "caption_extension": ".txt", **values})


def plan_of(folder: Path, verify: bool = True, **values: Any) -> DatasetPlan:
    return build_plan(settings(train_data_dir=str(folder), **values), verify=verify)


def notes_of(plan: DatasetPlan) -> str:
    return "\n".join(note.text() for note in plan.notes)
