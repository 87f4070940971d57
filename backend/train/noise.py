"""Noise and timesteps of each picture at each visit, keyed and drawn on the CPU.

The numbers of a picture at a visit do not depend on what else is in its batch, on the device, or
on how often the run was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from backend import keyed

Key = tuple[str, int]
"""(picture id, visit)."""


@dataclass(frozen=True)
class NoiseRules:
    """How noise is made from standard normal draws."""

    seed: int
    noise_offset: float | None = None
    min_timestep: int = 0
    max_timestep: int = 1000


def draw_timesteps(rules: NoiseRules, keys: Sequence[Key]) -> Tensor:
    """Uniform whole timesteps in [min_timestep, max_timestep), (B,) int64."""

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randint(rules.min_timestep, rules.max_timestep, (), generator=generator)

    return _stack(rules.seed, "timestep", keys, draw)


def draw_noise(rules: NoiseRules, keys: Sequence[Key], shape: Sequence[int]) -> Tensor:
    """Noise for latents of ``shape`` (C, h, w), (B, C, h, w) float32.

    With ``noise_offset`` o each channel of each picture is shifted by o * N(0, 1), so that the
    model can learn means it otherwise never has to.
    """
    noise = _stack(rules.seed, "noise", keys, lambda g: torch.randn(tuple(shape), generator=g))
    if rules.noise_offset:
        shift = _stack(rules.seed, "offset", keys, lambda g: torch.randn((shape[0], 1, 1), generator=g))
        noise = noise + rules.noise_offset * shift
    return noise


def _stack(seed: int, purpose: str, keys: Sequence[Key], draw: Callable[[torch.Generator], Tensor]) -> Tensor:
    return torch.stack([draw(keyed.generator(seed, purpose, name, visit)) for name, visit in keys])
