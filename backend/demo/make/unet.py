"""The U-Net: weighted epsilon loss on cached latents, plain scenes first, all of them at the end.

Loss and timesteps: the squared error of the noise times clamp(SNR, 0.25, 4) / SNR, which is the squared
error of the picture with bounded weights (compare Hang et al. 2023, arXiv 2303.09556), at timesteps
skewed to the noisy end, where the text decides. With plain weights a small model ignores its text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from backend import keyed
from backend.demo.make import latents as store
from backend.demo.make import text
from backend.demo.make.course import Course, Moment, Pace
from backend.families.parts.unet import Level, Resnet, Transformer, UNet, UNetShape

BATCH = 16
SKEW = 0.5
"""Timesteps are 1000 u^SKEW with u even between 0 and 1; smaller: noisier."""
LOW, HIGH = 0.25, 4.0
DROPOUT = 0.1
"""Share of pictures that are shown without their caption, for guidance."""


@dataclass(frozen=True)
class Lesson:
    """What one call teaches."""

    mixed_from: float = 0.6
    """Share of the time after which scenes of all kinds are shown beside plain ones."""
    skew: float = SKEW


def fresh(shape: UNetShape, seed: int) -> UNet:
    """A U-Net that predicts its own input as noise before any training: nearly right when much is noise."""
    torch.manual_seed(seed)
    unet = UNet(shape)
    with torch.no_grad():
        for module in unet.modules():
            if isinstance(module, Resnet):
                nn.init.zeros_(module.conv2.weight)
            if isinstance(module, Transformer):
                nn.init.zeros_(module.proj_out.weight)
        _hand_on_the_noise(unet)
    return unet


def _hand_on_the_noise(unet: UNet) -> None:
    """Latents go through the last skip connection to the output, as pairs of both signs."""
    count, width = unet.shape.in_channels, unet.shape.widths[0]
    group = width // unet.shape.norm_groups
    assert group <= count, "a norm group must hold one sign only"
    last = cast(Resnet, cast(Level, unet.up_blocks[-1]).resnets[-1]).conv_shortcut
    assert last is not None
    nn.init.zeros_(unet.conv_out.weight)
    for layer in (unet.conv_in, last, unet.conv_out):
        nn.init.zeros_(cast(Tensor, layer.bias))
    for sign, first in ((1.0, 0), (-1.0, count)):
        for channel in range(count):
            own = first + channel
            unet.conv_in.weight[own] = 0.0
            unet.conv_in.weight[own, channel, 1, 1] = sign
            last.weight[own] = 0.0
            last.weight[own, last.weight.shape[1] - width + own, 0, 0] = 1.0
            unet.conv_out.weight[channel, own, 1, 1] = sign


def alphas_cumprod() -> Tensor:
    """The schedule of SD 1.x, (1000,)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float32) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


def loss_weights(alphas: Tensor) -> Tensor:
    """Weight of the noise's squared error at each timestep."""
    snr = alphas / (1 - alphas)
    return snr.clamp(LOW, HIGH) / snr


class Examples:
    """Latents with their contexts, from which batches are drawn by step."""

    def __init__(self, work: Path, collection: str, reader: text.Reader, seed: int) -> None:
        self.latents = store.read(work, collection)
        rng = keyed.python(seed, "captions", collection)
        numbers = range(len(self.latents))
        captions = text.scene_captions(seed, numbers, store.PLAIN[collection], rng)
        self.contexts = text.contexts(reader, captions, rng)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(self.latents), (count,), generator=generator)
        return self.latents[chosen].float(), self.contexts[chosen].float()


def noisy_loss(
    unet: nn.Module,
    clean: Tensor,
    context: Tensor,
    alphas: Tensor,
    generator: torch.Generator,
    skew: float = SKEW,
) -> Tensor:
    """Weighted squared error of the predicted noise at timesteps spread evenly over the skewed range."""
    count = len(clean)
    even = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    timesteps = (1000 * even**skew).long().clamp(max=999)
    noise = torch.randn(clean.shape, generator=generator)
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
    error = (unet(noisy, timesteps, context) - noise).square().mean(dim=(1, 2, 3))
    return (error * loss_weights(alphas)[timesteps]).mean()


def train(work: Path, shape: UNetShape, reader: text.Reader, pace: Pace, seed: int, lesson: Lesson) -> Course:
    """Train on plain scenes, from a part of the time on half and half with scenes of all kinds."""
    unet = fresh(shape, seed)
    course = Course(work, "unet", unet, pace)
    alphas = alphas_cumprod()
    nothing = text.contexts(reader, [""]).float()
    shown = {"plain": Examples(work, "plain", reader, seed)}

    def loss_of(moment: Moment) -> Tensor:
        generator = keyed.generator(seed, "unet", moment.step)
        if moment.share >= lesson.mixed_from and "mixed" not in shown:
            shown.update({name: Examples(work, name, reader, seed) for name in store.PLAIN})
        each = BATCH // len(shown)
        parts = [examples.draw(each, generator) for examples in shown.values()]
        order = torch.randperm(each * len(parts), generator=generator)
        clean = torch.cat([part[0] for part in parts])[order]
        context = torch.cat([part[1] for part in parts])[order]
        dropped = torch.rand(len(clean), generator=generator) < DROPOUT
        context = torch.where(dropped.view(-1, 1, 1), nothing, context)
        return noisy_loss(unet, clean, context, alphas, generator, lesson.skew)

    course.run(loss_of)
    return course
