"""Noise and timesteps of each picture at each visit, keyed and drawn on the CPU.

The numbers of a picture at a visit do not depend on what else is in its batch, on the device, or
on how often the run was interrupted. So where sd-scripts draws one number for a batch (a random
strength, a size of multi-resolution noise), here each picture has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from backend import keyed

if TYPE_CHECKING:
    from backend.settings.sections import LossSettings
    from backend.train.flow import FlowTimes

Key = tuple[str, int]
"""(picture id, visit)."""


@dataclass(frozen=True)
class NoiseRules:
    """How noise is made from standard normal draws."""

    seed: int
    noise_offset: float | None = None
    noise_offset_random_strength: bool = False
    adaptive_noise_scale: float | None = None
    multires_noise_iterations: int | None = None
    multires_noise_discount: float = 0.3
    ip_noise_gamma: float | None = None
    ip_noise_gamma_random_strength: bool = False
    min_timestep: int = 0
    max_timestep: int = 1000
    flow: FlowTimes | None = None
    """How timesteps of a flow are drawn; None: of a diffusion."""

    @classmethod
    def of(cls, loss: LossSettings, seed: int, flow: FlowTimes | None = None) -> NoiseRules:
        """The rules that the settings ask for."""
        return cls(
            seed,
            loss.noise_offset,
            loss.noise_offset_random_strength,
            loss.adaptive_noise_scale,
            loss.multires_noise_iterations,
            loss.multires_noise_discount,
            loss.ip_noise_gamma,
            loss.ip_noise_gamma_random_strength,
            loss.min_timestep,
            loss.max_timestep,
            flow,
        )


def draw_timesteps(rules: NoiseRules, keys: Sequence[Key]) -> Tensor:
    """Uniform whole timesteps in [min_timestep, max_timestep), (B,) int64; equal bounds are a constant.

    Those of a flow are float32 and need not be uniform.
    """
    if rules.flow is not None:
        return rules.flow.draw(rules.seed, keys, rules.min_timestep, rules.max_timestep)
    bound = max(rules.max_timestep, rules.min_timestep + 1)

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randint(rules.min_timestep, bound, (), generator=generator)

    return _stack(rules.seed, "timestep", keys, draw)


def draw_noise(rules: NoiseRules, keys: Sequence[Key], latents: Tensor) -> Tensor:
    """Noise for ``latents`` (B, C, h, w), same shape, float32 on the CPU: the target of noise prediction."""
    shape = latents.shape[1:]
    noise = _stack(rules.seed, "noise", keys, lambda g: torch.randn(shape, generator=g))
    if rules.noise_offset:
        noise = noise + _offset(rules, keys, latents)
    if rules.multires_noise_iterations:
        rows = [
            multires(row[None], _multires_draws(rules, key, row), discount=rules.multires_noise_discount)
            for row, key in zip(noise, keys, strict=True)
        ]
        noise = torch.cat(rows)
    return noise


def draw_input_noise(rules: NoiseRules, keys: Sequence[Key], noise: Tensor) -> Tensor:
    """The noise that is really added: with ``ip_noise_gamma`` g, e + g * N(0, 1) (Ning et al. 2023)."""
    if not rules.ip_noise_gamma:
        return noise
    extra = _stack(rules.seed, "input", keys, lambda g: torch.randn(noise.shape[1:], generator=g))
    strength = _strength(rules, "input strength", keys, rules.ip_noise_gamma_random_strength)
    return noise + rules.ip_noise_gamma * strength * extra


def _offset(rules: NoiseRules, keys: Sequence[Key], latents: Tensor) -> Tensor:
    """A shift of each channel of each picture, (B, C, 1, 1): offset * N(0, 1).

    It lets the model learn means that it otherwise never has to. ``adaptive_noise_scale`` s adds
    s * |mean of the channel| to the offset, which never falls below 0.
    """
    assert rules.noise_offset is not None
    strength = _strength(rules, "offset strength", keys, rules.noise_offset_random_strength)
    size = rules.noise_offset * strength
    if rules.adaptive_noise_scale is not None:
        means = latents.detach().float().cpu().mean(dim=(2, 3), keepdim=True)
        size = (size + rules.adaptive_noise_scale * means.abs()).clamp(min=0.0)
    channels = latents.shape[1]
    draws = _stack(rules.seed, "offset", keys, lambda g: torch.randn((channels, 1, 1), generator=g))
    return size * draws


def multires(noise: Tensor, draws: Sequence[Tensor], *, discount: float) -> Tensor:
    """Noise of several resolutions added up and brought back to unit deviation ("pyramid noise").

    ``noise`` (B, C, h, w); ``draws`` are standard normal, the i-th of its own smaller size (B, C, h_i,
    w_i), and count discount^i.
    """
    size = (noise.shape[-2], noise.shape[-1])
    for level, draw in enumerate(draws):
        noise = noise + F.interpolate(draw, size=size, mode="bilinear") * discount**level
    return noise / noise.std()


def multires_sizes(size: tuple[int, int], draws: Sequence[float]) -> list[tuple[int, int]]:
    """(h_i, w_i) of each level: the full size divided by (2 + 2u)^i, until a side is 1.

    ``draws`` are the u in 0..1, one a level.
    """
    found: list[tuple[int, int]] = []
    for level, draw in enumerate(draws):
        ratio = (2.0 + 2.0 * draw) ** level
        height, width = max(1, int(size[0] / ratio)), max(1, int(size[1] / ratio))
        found.append((height, width))
        if height == 1 or width == 1:
            break
    return found


def _multires_draws(rules: NoiseRules, key: Key, noise: Tensor) -> list[Tensor]:
    generator = keyed.generator(rules.seed, "multires", *key)
    ratios = torch.rand(rules.multires_noise_iterations or 0, generator=generator).tolist()
    channels, height, width = noise.shape
    sizes = multires_sizes((height, width), ratios)
    return [torch.randn((1, channels, *size), generator=generator) for size in sizes]


def _strength(rules: NoiseRules, purpose: str, keys: Sequence[Key], random: bool) -> Tensor | float:
    """1, or a uniform number for each picture, (B, 1, 1, 1)."""
    if not random:
        return 1.0
    return _stack(rules.seed, purpose, keys, lambda g: torch.rand((1, 1, 1), generator=g))


def _stack(seed: int, purpose: str, keys: Sequence[Key], draw: Callable[[torch.Generator], Tensor]) -> Tensor:
    return torch.stack([draw(keyed.generator(seed, purpose, name, visit)) for name, visit in keys])
