"""The multimodal diffusion transformer of Stable Diffusion 3 (Esser et al. 2024), with the original
layout's parameter names.

Two streams, the text's (``context_block``) and the picture's (``x_block``), have weights of their
own and meet in the attention of each joint block. SD 3.5 norms queries and keys; the first blocks
of SD 3.5 medium attend a second time inside the picture (``attn2``).

B pictures, L text tokens, N patches, D width, h and w latent sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.families.parts.checkpointing import Checkpointed
from backend.families.parts.unet import timestep_embedding
from backend.families.sd3.positions import Positions
from backend.families.sd3.swap import BlockSwap

HEAD_SIZE = 64
"""Numbers a head in every published model."""
TIME_WIDTH = 256
"""Sinusoids of a timestep."""


@dataclass(frozen=True)
class MMDiTShape:
    """Dimensions of a transformer."""

    width: int = 1536
    depth: int = 24
    heads: int = 24
    inner: int = 6144
    """Width inside the feed-forward parts."""
    context_width: int = 4096
    pooled_width: int = 2048
    in_channels: int = 16
    out_channels: int = 16
    patch: int = 2
    grid: int = 192
    """Sides of the table of positions, in patches."""
    qk_norm: bool = False
    dual: frozenset[int] = frozenset()
    """Blocks with a second attention."""

    @property
    def variant(self) -> str:
        """Which published model it is built like: ``medium``, ``5-medium`` or ``5-large``."""
        if self.dual:
            return "5-medium"
        return "5-large" if self.qk_norm else "medium"


class Attention(nn.Module):
    """Projections of one stream. ``pre_only``: it only gives keys and values to the other."""

    def __init__(self, shape: MMDiTShape, pre_only: bool = False) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, shape.width * 3)
        if not pre_only:
            self.proj = nn.Linear(shape.width, shape.width)
        self.normed = shape.qk_norm
        if shape.qk_norm:
            self.ln_q = nn.RMSNorm(shape.width // shape.heads, eps=1e-6)
            self.ln_k = nn.RMSNorm(shape.width // shape.heads, eps=1e-6)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, heads, tokens, width / heads) of ``x`` (B, tokens, width)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return (self.ln_q(q), self.ln_k(k), v) if self.normed else (q, k, v)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, heads, tokens, size) -> (B, tokens, width)."""
    q, k = q.to(v.dtype), k.to(v.dtype)  # norms may have left another type under autocast
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    def __init__(self, shape: MMDiTShape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.width, shape.inner)
        self.fc2 = nn.Linear(shape.inner, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def modulation(width: int, count: int) -> nn.Sequential:
    """``adaLN_modulation``: ``count`` shifts, scales and gates out of the condition (Peebles & Xie 2022)."""
    return nn.Sequential(nn.SiLU(), nn.Linear(width, width * count))


def normed(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights, then the condition's scale and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Stream(nn.Module):
    """One side of a joint block."""

    def __init__(self, shape: MMDiTShape, pre_only: bool = False, dual: bool = False) -> None:
        super().__init__()
        self.pre_only, self.dual = pre_only, dual
        self.attn = Attention(shape, pre_only)
        if dual:
            self.attn2 = Attention(shape)
        if not pre_only:
            self.mlp = Mlp(shape)
        self.count = 2 if pre_only else 9 if dual else 6
        self.adaLN_modulation = modulation(shape.width, self.count)

    def values(self, condition: Tensor) -> tuple[Tensor, ...]:
        """Shift and scale before attention, gate after it, shift, scale and gate of the feed-forward
        part, and the first three for the second attention: (B, 1, D) each."""
        return self.adaLN_modulation(condition)[:, None].chunk(self.count, dim=-1)

    def finish(self, x: Tensor, mixed: Tensor, values: Sequence[Tensor]) -> Tensor:
        """The stream after attention, with its :meth:`values`."""
        _, _, gate, shift, scale, mlp_gate = values[:6]
        after = x + gate * self.attn.proj(mixed)
        if self.dual:
            second = self.attn2.project(normed(x, values[6], values[7]))
            after = after + values[8] * self.attn2.proj(attend(*second))
        return after + mlp_gate * self.mlp(normed(after, shift, scale))


class JointBlock(nn.Module):
    def __init__(self, shape: MMDiTShape, index: int) -> None:
        super().__init__()
        last = index == shape.depth - 1
        self.context_block = Stream(shape, pre_only=last)
        self.x_block = Stream(shape, dual=index in shape.dual)

    def forward(self, context: Tensor, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """``context`` (B, L, D), ``x`` (B, N, D); the last block leaves the context as it is."""
        streams = (self.context_block, context), (self.x_block, x)
        values = [stream.values(condition) for stream, _ in streams]
        parts = [
            stream.attn.project(normed(tokens, value[0], value[1]))
            for (stream, tokens), value in zip(streams, values, strict=True)
        ]
        mixed = attend(*(torch.cat(pair, dim=2) for pair in zip(*parts, strict=True)))
        text, picture = mixed.split([context.shape[1], x.shape[1]], dim=1)
        if not self.context_block.pre_only:
            context = self.context_block.finish(context, text, values[0])
        return context, self.x_block.finish(x, picture, values[1])


class PatchEmbed(nn.Module):
    def __init__(self, shape: MMDiTShape) -> None:
        super().__init__()
        self.proj = nn.Conv2d(shape.in_channels, shape.width, shape.patch, stride=shape.patch)

    def forward(self, latents: Tensor) -> Tensor:
        return self.proj(latents).flatten(2).transpose(1, 2).contiguous()


class Embedder(nn.Module):
    """``mlp.0``, SiLU, ``mlp.2``: for the timestep and for the pooled text."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, out), nn.SiLU(), nn.Linear(out, out))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class FinalLayer(nn.Module):
    def __init__(self, shape: MMDiTShape) -> None:
        super().__init__()
        self.linear = nn.Linear(shape.width, shape.patch**2 * shape.out_channels)
        self.adaLN_modulation = modulation(shape.width, 2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, dim=-1)
        return self.linear(normed(x, shift, scale))


class MMDiT(Checkpointed):
    """Predicts the velocity of noisy latents (B, C, h, w) at timesteps (B,) in 0..1000."""

    pos_embed: Tensor
    swap: BlockSwap | None = None

    def __init__(self, shape: MMDiTShape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("pos_embed", torch.empty(1, shape.grid**2, shape.width))
        self.x_embedder = PatchEmbed(shape)
        self.t_embedder = Embedder(TIME_WIDTH, shape.width)
        self.y_embedder = Embedder(shape.pooled_width, shape.width)
        self.context_embedder = nn.Linear(shape.context_width, shape.width)
        self.joint_blocks = nn.ModuleList([JointBlock(shape, index) for index in range(shape.depth)])
        self.final_layer = FinalLayer(shape)
        self.positions = Positions(shape.grid)

    def forward(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, pooled: Tensor, crops: Tensor | None = None
    ) -> Tensor:
        """``context`` (B, L, 4096), ``pooled`` (B, 2048); ``crops``: see :class:`Positions`.

        The timesteps stay float32 up to the sinusoids: bfloat16 cannot tell 900 from 901.
        """
        patch = self.shape.patch
        rows, columns = latents.shape[-2] // patch, latents.shape[-1] // patch
        x = self.x_embedder(latents)
        x = (x + self.positions.of(self.pos_embed, rows, columns, crops)).to(x.dtype)
        time = timestep_embedding(timesteps, TIME_WIDTH).to(x.dtype)
        condition = self.t_embedder(time) + self.y_embedder(pooled)
        context = self.context_embedder(context)
        for index, block in enumerate(self.joint_blocks):
            runner = block if self.swap is None else self.swap.around(index, block)
            context, x = self.run(runner, context, x, condition)
        return self._picture(self.final_layer(x, condition), rows, columns)

    def _picture(self, patches: Tensor, rows: int, columns: int) -> Tensor:
        """(B, N, patch * patch * C) -> (B, C, h, w)."""
        patch, channels = self.shape.patch, self.shape.out_channels
        grid = patches.reshape(-1, rows, columns, patch, patch, channels).permute(0, 5, 1, 3, 2, 4)
        return grid.reshape(-1, channels, rows * patch, columns * patch)


def mmdit_shape(shapes: Mapping[str, Sequence[int]], heads: int | None = None) -> MMDiTShape:
    """Dimensions read from ``shapes`` (parameter name -> shape).

    Heads have 64 numbers, unless the norms of queries say otherwise or ``heads`` is given.
    """
    width, channels, patch, _ = shapes["x_embedder.proj.weight"]
    blocks = {int(name.split(".")[1]) for name in shapes if name.startswith("joint_blocks.")}
    norm = shapes.get("joint_blocks.0.x_block.attn.ln_q.weight")
    return MMDiTShape(
        width=width,
        depth=len(blocks),
        heads=heads or (width // norm[0] if norm else max(1, width // HEAD_SIZE)),
        inner=shapes["joint_blocks.0.x_block.mlp.fc1.weight"][0],
        context_width=shapes["context_embedder.weight"][1],
        pooled_width=shapes["y_embedder.mlp.0.weight"][1],
        in_channels=channels,
        out_channels=shapes["final_layer.linear.weight"][0] // patch**2,
        patch=patch,
        grid=math.isqrt(shapes["pos_embed"][1]),
        qk_norm=norm is not None,
        dual=frozenset(i for i in blocks if f"joint_blocks.{i}.x_block.attn2.qkv.weight" in shapes),
    )
