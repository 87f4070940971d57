"""The autoencoder of latent diffusion (Rombach et al. 2022), with diffusers' parameter names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.families.parts.attention import Attention
from backend.families.parts.unet import Downsample, Resnet, Upsample


@dataclass(frozen=True)
class VaeShape:
    """Dimensions of an autoencoder; one width a level, from the finest to the coarsest."""

    widths: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    """Resnets a level in the encoder; one more in the decoder."""
    latent_channels: int = 4
    norm_groups: int = 32
    scaling_factor: float = 0.18215
    shift_factor: float = 0.0
    """Taken from latents before they are scaled."""
    quant: bool = True
    """1x1 convolutions stand between latents and encoder or decoder."""


class VaeAttention(Attention):
    """Attention of one head over all pixels, with its norm and shortcut."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__(width, 1, bias=True)
        self.group_norm = nn.GroupNorm(groups, width, 1e-6)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """``tokens`` is a picture (B, C, h, w) here."""
        flat = self.group_norm(tokens).flatten(2).transpose(1, 2)
        mixed = super().forward(flat)
        return tokens + mixed.transpose(1, 2).unflatten(2, tokens.shape[2:])


class VaeLevel(nn.Module):
    def __init__(self, widths: list[int], out: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([_resnet(width, out, groups) for width in widths])

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        for name in ("downsamplers", "upsamplers"):
            for sampler in getattr(self, name, ()):
                x = sampler(x)
        return x


class VaeMiddle(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([VaeAttention(width, groups)])
        self.resnets = nn.ModuleList([_resnet(width, width, groups) for _ in range(2)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


def _resnet(width: int, out: int, groups: int) -> Resnet:
    return Resnet(width, out, 0, groups, 1e-6)


class VaeEncoder(nn.Module):
    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, shape.widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        before = shape.widths[0]
        for index, width in enumerate(shape.widths):
            level = VaeLevel([before] + [width] * (shape.layers - 1), width, shape.norm_groups)
            if index < len(shape.widths) - 1:
                level.downsamplers = nn.ModuleList([Downsample(width, lopsided=True)])
            self.down_blocks.append(level)
            before = width
        self.mid_block = VaeMiddle(before, shape.norm_groups)
        self.conv_norm_out = nn.GroupNorm(shape.norm_groups, before, 1e-6)
        self.conv_out = nn.Conv2d(before, shape.latent_channels * 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class VaeDecoder(nn.Module):
    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        before = shape.widths[-1]
        self.conv_in = nn.Conv2d(shape.latent_channels, before, 3, padding=1)
        self.up_blocks = nn.ModuleList()
        self.mid_block = VaeMiddle(before, shape.norm_groups)
        for index in reversed(range(len(shape.widths))):
            width = shape.widths[index]
            level = VaeLevel([before] + [width] * shape.layers, width, shape.norm_groups)
            if index:
                level.upsamplers = nn.ModuleList([Upsample(width)])
            self.up_blocks.append(level)
            before = width
        self.conv_norm_out = nn.GroupNorm(shape.norm_groups, before, 1e-6)
        self.conv_out = nn.Conv2d(before, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Vae(nn.Module):
    """Pictures (B, 3, H, W) in -1..1 <-> unscaled latents (B, C, H/8, W/8)."""

    def __init__(self, shape: VaeShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = VaeEncoder(shape)
        self.decoder = VaeDecoder(shape)
        if shape.quant:
            both = shape.latent_channels * 2
            self.quant_conv = nn.Conv2d(both, both, 1)
            self.post_quant_conv = nn.Conv2d(shape.latent_channels, shape.latent_channels, 1)

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents, float32."""
        moments = self.encoder(pixels)
        moments = self.quant_conv(moments) if self.shape.quant else moments
        mean, log_variance = moments.float().chunk(2, dim=1)
        return mean, torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latents) if self.shape.quant else latents)


def vae_shape(
    shapes: Mapping[str, Sequence[int]],
    norm_groups: int = 32,
    scaling_factor: float = 0.18215,
    shift_factor: float = 0.0,
) -> VaeShape:
    """Dimensions read from ``shapes`` (diffusers' parameter name -> shape)."""
    start = "encoder.down_blocks."
    levels = 1 + max(int(name.split(".")[2]) for name in shapes if name.startswith(start))
    layers = 1 + max(int(name.split(".")[4]) for name in shapes if name.startswith(f"{start}0.resnets."))
    return VaeShape(
        widths=tuple(shapes[f"{start}{level}.resnets.0.conv1.weight"][0] for level in range(levels)),
        layers=layers,
        latent_channels=shapes["decoder.conv_in.weight"][1],
        norm_groups=norm_groups,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
        quant="quant_conv.weight" in shapes,
    )
