"""Sets of pictures of the demo world, by name: to train on, to look at, and for tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from backend.demo import planted, style, subject
from backend.demo.world import random_scene, render
from backend.errors import InputError

CLASS_FOLDER = "1_thing"
"""Regularisation pictures: one repeat, of things in general."""
CLASS_COUNT = 48


def make_regularisation(folder: Path, seed: int = 7, count: int = CLASS_COUNT) -> Path:
    """Write pictures of what the model knows already, with captions; returns the folder to give as
    ``reg_data_dir``. Shown beside a new subject, they keep a LoRA from leaking into other things."""
    target = folder / CLASS_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    for index in range(1, count + 1):
        scene = random_scene(rng, plain=0.8, two=0.0)
        render(scene, rng.randrange(2**31)).save(target / f"{index:02d}.png")
        (target / f"{index:02d}.txt").write_text(scene.caption() + "\n", encoding="utf-8")
    return folder


def _make_planted(folder: Path, seed: int) -> Path:
    return planted.plant(folder, seed).config


SETS: Mapping[str, Callable[[Path, int], Path]] = {
    "subject": subject.make_dataset,
    "style": style.make_dataset,
    "regularisation": make_regularisation,
    "planted": _make_planted,
}
"""What there is: a new subject, a new style, class pictures, and a dataset full of faults."""


def make(what: str, folder: Path, seed: int) -> Path:
    """Write a set into ``folder``; returns what to train on: a folder, or the planted set's dataset file.

    :raises InputError: when the folder has something in it already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("there is something in the folder already", where=str(folder), next="name a new one")
    folder.mkdir(parents=True, exist_ok=True)
    return SETS[what](folder, seed)
