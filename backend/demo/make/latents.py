"""Latents of scenes, made in shards of a thousand so that a stopped run loses little."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from backend.demo.make.pictures import world_picture
from backend.families.parts.vae import Vae

SHARD = 1000
PLAIN = {"plain": 1.0, "mixed": 0.3}
"""Collections, and the share of scenes in each that show one big thing without pattern and face."""


def fill(work: Path, vae: Vae, collection: str, count: int, seed: int) -> None:
    """Make the shards that are missing of the first ``count`` scenes of a collection."""
    for shard in range(-(-count // SHARD)):
        path = _path(work, collection, shard)
        if path.exists():
            continue
        found = torch.cat(list(_encoded(vae, collection, shard, seed)))
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.npy")
        np.save(part, found.numpy())
        part.replace(path)
        print(f"latents: {collection} {(shard + 1) * SHARD}", flush=True)


@torch.no_grad()
def _encoded(vae: Vae, collection: str, shard: int, seed: int) -> Iterator[Tensor]:
    for first in range(shard * SHARD, (shard + 1) * SHARD, 20):
        pictures = [world_picture(seed, index, PLAIN[collection])[1] for index in range(first, first + 20)]
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        yield (vae.posterior(pixels)[0] * vae.shape.scaling_factor).half()


def read(work: Path, collection: str) -> Tensor:
    """All latents (N, C, h, w) of a collection that are there, in half precision, in order."""
    parts: list[Tensor] = []
    while (path := _path(work, collection, len(parts))).exists():
        parts.append(torch.from_numpy(np.load(path)))
    return torch.cat(parts)


def forget(work: Path) -> None:
    """Remove all latents: they belong to another VAE."""
    for path in (work / "latents").glob("*.npy"):
        path.unlink(missing_ok=True)


def _path(work: Path, collection: str, shard: int) -> Path:
    return work / "latents" / f"{collection}-{shard:04d}.npy"
