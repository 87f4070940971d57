"""Randomness by key instead of by stream.

Each random draw belongs to (seed, purpose, image, visit). The same key gives the same numbers on
every machine, device and number of workers, and after every resume, because nothing is drawn
"next". ``purpose`` keeps draws of different kinds independent of each other.
"""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def key(seed: int, purpose: str, *parts: str | int) -> int:
    """A 63-bit number that depends on every part (BLAKE2b of the parts, order matters)."""
    text = "\x1f".join([str(seed), purpose, *map(str, parts)])
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def python(seed: int, purpose: str, *parts: str | int) -> random.Random:
    """A Python generator for one key: captions, crops, permutations."""
    return random.Random(key(seed, purpose, *parts))


def generator(seed: int, purpose: str, *parts: str | int) -> torch.Generator:
    """A torch generator on the CPU for one key: noise, timesteps, dropout."""
    import torch

    return torch.Generator().manual_seed(key(seed, purpose, *parts))
