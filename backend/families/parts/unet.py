"""The conditional U-Net of latent diffusion (Rombach et al. 2022), with diffusers' parameter names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.families.parts.attention import Attention
from backend.families.parts.checkpointing import Checkpointed


@dataclass(frozen=True)
class UNetShape:
    """Dimensions of a U-Net; one entry a level, from the finest to the coarsest."""

    widths: tuple[int, ...] = (320, 640, 1280, 1280)
    depths: tuple[int, ...] = (1, 1, 1, 0)
    """Transformer blocks after each resnet of a level; 0: the level does not attend."""
    middle_depth: int = 1
    layers: int = 2
    """Resnets a level on the way down; one more on the way up."""
    context_width: int = 768
    in_channels: int = 4
    out_channels: int = 4
    heads: int | tuple[int, ...] = 8
    """Attention heads: the same at all levels, or a number for each."""
    norm_groups: int = 32
    linear: bool = False
    """The projections into and out of the transformers are linear layers, not 1x1 convolutions."""
    label_width: int = 0
    """Numbers of the label (size and pooled text) beside the timestep; 0: none."""

    @property
    def time_width(self) -> int:
        return self.widths[0] * 4

    @property
    def level_heads(self) -> tuple[int, ...]:
        """Attention heads of each level; levels that do not attend have a number as well."""
        return (self.heads,) * len(self.widths) if isinstance(self.heads, int) else self.heads


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoids (B, width) float32, cosines first (Vaswani et al. 2017; period 10000)."""
    half = width // 2
    rates = torch.exp(
        -math.log(10000.0) * torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    )
    angles = timesteps[:, None].float() * rates[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)


class TimestepEmbedding(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class Resnet(nn.Module):
    """Two normalised convolutions beside a shortcut; ``time_width`` 0: no timestep (the VAE's)."""

    def __init__(self, width: int, out: int, time_width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, width, eps)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1)
        if time_width:
            self.time_emb_proj = nn.Linear(time_width, out)
        self.norm2 = nn.GroupNorm(groups, out, eps)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(width, out, 1) if width != out else None

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """``time`` (B, time_width) has been through SiLU already."""
        h = self.conv1(F.silu(self.norm1(x)))
        if time is not None:
            h = h + self.time_emb_proj(time)[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class GatedGelu(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner * 2)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([GatedGelu(width, width * 4), nn.Identity(), nn.Linear(width * 4, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class TransformerBlock(nn.Module):
    def __init__(self, width: int, heads: int, context_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, context_width)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        tokens = tokens + self.attn1(self.norm1(tokens))
        tokens = tokens + self.attn2(self.norm2(tokens), context)
        return tokens + self.ff(self.norm3(tokens))


class Transformer(Checkpointed):
    """Pixels as tokens through transformer blocks, with a projection (1x1) in and out."""

    def __init__(self, shape: UNetShape, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(shape.norm_groups, width, 1e-6)
        self.linear = shape.linear
        self.proj_in = nn.Linear(width, width) if shape.linear else nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(width, heads, shape.context_width) for _ in range(depth)]
        )
        self.proj_out = nn.Linear(width, width) if shape.linear else nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        normed = self.norm(x)
        tokens = self.proj_in(_tokens(normed)) if self.linear else _tokens(self.proj_in(normed))
        for block in self.transformer_blocks:
            tokens = self.run(block, tokens, context)
        if self.linear:
            return x + _picture(self.proj_out(tokens), x)
        return x + self.proj_out(_picture(tokens, x))


def _tokens(picture: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h w, C)."""
    return picture.flatten(2).transpose(1, 2)


def _picture(tokens: Tensor, like: Tensor) -> Tensor:
    """(B, h w, C) -> (B, C, h, w) with the sides of ``like``."""
    return tokens.transpose(1, 2).unflatten(2, like.shape[2:]).contiguous()


class Downsample(nn.Module):
    """Halves the sides. The VAE's pads only right and below (``lopsided``)."""

    def __init__(self, width: int, lopsided: bool = False) -> None:
        super().__init__()
        self.lopsided = lopsided
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=0 if lopsided else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.lopsided else x)


class Upsample(nn.Module):
    """Enlarges to ``size`` (height, width), doubled when not given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        if size is None:
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


class Level(nn.Module):
    """Resnets, each followed by a transformer where the level has them, then a change of size."""

    def __init__(self, resnets: list[Resnet], attentions: list[Transformer]) -> None:
        super().__init__()
        if attentions:
            self.attentions = nn.ModuleList(attentions)
        self.resnets = nn.ModuleList(resnets)
        self.has_attention = bool(attentions)

    def attention(self, index: int) -> nn.Module | None:
        return self.attentions[index] if self.has_attention and index < len(self.attentions) else None


class UNet(Checkpointed):
    """Predicts from noisy latents (B, C, h, w), timesteps (B,), context (B, L, D) and, where the
    shape has one, a label (B, label_width).

    A context (B, layers, L, D) has a text for each transformer, in the order in which they run
    (Voynov et al. 2023, "P+")."""

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        self.shape = shape
        first, last = shape.widths[0], shape.widths[-1]
        self.conv_in = nn.Conv2d(shape.in_channels, first, 3, padding=1)
        self.time_embedding = TimestepEmbedding(first, shape.time_width)
        if shape.label_width:
            self.add_embedding = TimestepEmbedding(shape.label_width, shape.time_width)
        self.down_blocks = nn.ModuleList(_down_levels(shape))
        self.up_blocks = nn.ModuleList(_up_levels(shape))
        self.mid_block = Level(
            [_resnet(shape, last, last), _resnet(shape, last, last)],
            _transformers(shape, len(shape.widths) - 1, shape.middle_depth, 1),
        )
        self.conv_norm_out = nn.GroupNorm(shape.norm_groups, first, 1e-5)
        self.conv_out = nn.Conv2d(first, shape.out_channels, 3, padding=1)

    def forward(
        self, sample: Tensor, timesteps: Tensor, context: Tensor, label: Tensor | None = None
    ) -> Tensor:
        sinusoids = timestep_embedding(timesteps, self.shape.widths[0]).to(sample.dtype)
        time = self.time_embedding(sinusoids)
        if self.shape.label_width:
            assert label is not None, "this U-Net is told sizes and pooled text"
            time = time + self.add_embedding(label.to(sample.dtype))
        time = F.silu(time)
        x = self.conv_in(sample)
        skips, texts = [x], self._texts(context)
        for level in self.down_blocks:
            x = self._down(cast(Level, level), x, time, texts, skips)
        x = self._middle(x, time, texts)
        for level in self.up_blocks:
            x = self._up(cast(Level, level), x, time, texts, skips)
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def context_layers(self) -> tuple[str, ...]:
        """Names of the transformers in the order in which they run, by the original layout's blocks."""
        resnets = self.shape.layers
        down = [
            f"IN{1 + level * (resnets + 1) + index:02d}"
            for level, depth in enumerate(self.shape.depths)
            for index in range(resnets if depth else 0)
        ]
        up = [
            f"OUT{level * (resnets + 1) + index:02d}"
            for level, depth in enumerate(reversed(self.shape.depths))
            for index in range(resnets + 1 if depth else 0)
        ]
        return (*down, *(["MID"] if self.shape.middle_depth else []), *up)

    def _texts(self, context: Tensor) -> list[Tensor]:
        """The text of each transformer, the last one's first."""
        count = len(self.context_layers())
        texts = context.unbind(1) if context.dim() == 4 else (context,) * count
        assert len(texts) == count, f"{len(texts)} texts for {count} transformers"
        return list(reversed(texts))

    def _step(self, level: Level, index: int, x: Tensor, time: Tensor, texts: list[Tensor]) -> Tensor:
        """One resnet of a level and the transformer after it."""
        x = self.run(level.resnets[index], x, time)
        attention = level.attention(index)
        return x if attention is None else attention(x, texts.pop())

    def _down(
        self, level: Level, x: Tensor, time: Tensor, texts: list[Tensor], skips: list[Tensor]
    ) -> Tensor:
        for index in range(len(level.resnets)):
            x = self._step(level, index, x, time, texts)
            skips.append(x)
        for sampler in getattr(level, "downsamplers", ()):
            x = sampler(x)
            skips.append(x)
        return x

    def _middle(self, x: Tensor, time: Tensor, texts: list[Tensor]) -> Tensor:
        x = self._step(self.mid_block, 0, x, time, texts)
        return self._step(self.mid_block, 1, x, time, texts)

    def _up(self, level: Level, x: Tensor, time: Tensor, texts: list[Tensor], skips: list[Tensor]) -> Tensor:
        for index in range(len(level.resnets)):
            x = self._step(level, index, torch.cat([x, skips.pop()], dim=1), time, texts)
        for sampler in getattr(level, "upsamplers", ()):
            height, width = skips[-1].shape[-2:]  # latents with odd sides do not just double
            x = sampler(x, (height, width))
        return x


def _resnet(shape: UNetShape, width: int, out: int) -> Resnet:
    return Resnet(width, out, shape.time_width, shape.norm_groups, 1e-5)


def _transformers(shape: UNetShape, level: int, depth: int, count: int) -> list[Transformer]:
    """``count`` transformers of ``depth`` blocks each, none where the depth is 0."""
    width, heads = shape.widths[level], shape.level_heads[level]
    return [Transformer(shape, width, heads, depth) for _ in range(count if depth else 0)]


def _down_levels(shape: UNetShape) -> list[Level]:
    levels: list[Level] = []
    before = shape.widths[0]
    for index, width in enumerate(shape.widths):
        entries = [before] + [width] * (shape.layers - 1)
        attentions = _transformers(shape, index, shape.depths[index], len(entries))
        level = Level([_resnet(shape, entry, width) for entry in entries], attentions)
        if index < len(shape.widths) - 1:
            level.downsamplers = nn.ModuleList([Downsample(width)])
        levels.append(level)
        before = width
    return levels


def _up_levels(shape: UNetShape) -> list[Level]:
    """Levels from the coarsest to the finest; each resnet also takes one skip connection."""
    skips = [shape.widths[0]]
    for index, width in enumerate(shape.widths):
        skips += [width] * shape.layers + ([width] if index < len(shape.widths) - 1 else [])
    levels: list[Level] = []
    before = shape.widths[-1]
    for index in reversed(range(len(shape.widths))):
        width = shape.widths[index]
        resnets: list[Resnet] = []
        for _ in range(shape.layers + 1):
            resnets.append(_resnet(shape, before + skips.pop(), width))
            before = width
        attentions = _transformers(shape, index, shape.depths[index], len(resnets))
        level = Level(resnets, attentions)
        if index:
            level.upsamplers = nn.ModuleList([Upsample(width)])
        levels.append(level)
    return levels


def unet_shape(
    shapes: Mapping[str, Sequence[int]],
    heads: int | tuple[int, ...] = 8,
    norm_groups: int = 32,
    linear: bool = False,
) -> UNetShape:
    """Dimensions read from ``shapes`` (diffusers' parameter name -> shape)."""
    levels = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("down_blocks."))
    layers = 1 + max(int(name.split(".")[3]) for name in shapes if name.startswith("down_blocks.0.resnets."))
    context = shapes["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"]
    label = shapes.get("add_embedding.linear_1.weight", (0, 0))
    return UNetShape(
        widths=tuple(shapes[f"down_blocks.{level}.resnets.0.conv1.weight"][0] for level in range(levels)),
        depths=tuple(_depth(shapes, f"down_blocks.{level}.attentions.0.") for level in range(levels)),
        middle_depth=_depth(shapes, "mid_block.attentions.0."),
        layers=layers,
        context_width=context[1],
        in_channels=shapes["conv_in.weight"][1],
        out_channels=shapes["conv_out.weight"][0],
        heads=heads,
        norm_groups=norm_groups,
        linear=linear,
        label_width=label[1],
    )


def _depth(shapes: Mapping[str, Sequence[int]], attention: str) -> int:
    """Transformer blocks of one attention."""
    start = f"{attention}transformer_blocks."
    return len({name[len(start) :].split(".")[0] for name in shapes if name.startswith(start)})
