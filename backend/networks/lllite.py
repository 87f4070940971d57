"""ControlNet-LLLite: a light ControlNet for SDXL by kohya-ss, with the names of its files.

Each linear layer of attention that reads the picture gets a small network: the guide picture is brought
to the layer's grid by convolutions, put beside the layer's input brought to few numbers, and the result
is added to that input. It starts as nothing: the last layer is zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend import keyed
from backend.errors import InputError, Problem
from backend.networks.base import Attachable
from backend.networks.common import Adapter, AdapterNetwork, Forward, by_module

DEFAULT_COND_DIM = 32
DEFAULT_DIM = 64
"""Of the example in LLLite's own document, for outlines (Canny)."""
PREFIX = "lllite_"
_NAME = re.compile(
    r"^unet_(?:input_blocks_(?P<input>\d+)|middle_block)_1_transformer_blocks_\d+_(?:attn1_to_[qkv]|attn2_to_q)$"
)
_DEEP_FROM = 7
"""Input blocks from here on, and the middle, work at a quarter of the latents' sides; those before at
half."""
_GRID = {2: 16, 3: 32}
"""Depth -> pixels of the guide picture to a side of one cell of the layer's grid."""


class LLLite(Adapter):
    """What steers one linear layer. Parameters have the names of the file, float32."""

    def __init__(
        self, base: nn.Linear, depth: int, cond_dim: int, dim: int, dropout: float | None = None
    ) -> None:
        """``depth``: 2 or 3, how far the layer's grid lies below the picture's."""
        super().__init__()
        half, width = cond_dim // 2, base.in_features
        middle = [] if depth == 2 else [nn.Conv2d(half, half, 4, 4), nn.ReLU()]
        last = nn.Conv2d(half, cond_dim, 4, 4) if depth == 2 else nn.Conv2d(half, cond_dim, 2, 2)
        self.conditioning1 = nn.Sequential(nn.Conv2d(3, half, 4, 4), nn.ReLU(), *middle, last)
        self.down = nn.Sequential(nn.Linear(width, dim), nn.ReLU())
        self.mid = nn.Sequential(nn.Linear(dim + cond_dim, dim), nn.ReLU())
        self.up = nn.Sequential(nn.Linear(dim, width))
        self.cell, self.dropout = _GRID[depth], dropout
        self.guide: Tensor | None = None
        """(B, cells, cond_dim) of the picture that is followed."""

    def show(self, pixels: Tensor | None) -> None:
        """Follow ``pixels`` (B, 3, H, W) in -1..1 from now on; None: nothing.

        Pictures whose sides are no multiple of the grid are filled up at their right and lower edge.
        """
        if pixels is None:
            self.guide = None
            return
        sides = [math.ceil(side / self.cell) for side in pixels.shape[-2:]]
        missing = [cells * self.cell - side for cells, side in zip(sides, pixels.shape[-2:], strict=True)]
        weight = cast("Tensor", self.conditioning1[0].weight)
        filled = F.pad(pixels.to(weight.device, weight.dtype), (0, missing[1], 0, missing[0]), "replicate")
        self.guide = self.conditioning1(filled).flatten(2).transpose(1, 2)

    def forward(self, x: Tensor, base: Forward) -> Tensor:
        """As the layer; ``x`` (k B, cells, width) may hold the guide's pictures several times over."""
        if self.guide is None or not self.strength:
            return base(x)
        weight = cast("Tensor", self.down[0].weight)
        fits = x.dtype == weight.dtype or torch.is_autocast_enabled(x.device.type)
        own = x if fits else x.to(weight.dtype)
        guide = self.guide.repeat(len(x) // len(self.guide), 1, 1)
        lean = self.down(own)
        hidden = self.mid(torch.cat([guide.to(lean.dtype), lean], dim=-1))
        if self.dropout and self.training:
            hidden = F.dropout(hidden, self.dropout)
        return base(x + self.strength * self.up(hidden).to(x.dtype))

    def draw(self, seed: int, name: str) -> None:
        """First weights: PyTorch's own distributions, drawn by key; the last layer is zero."""
        for key, parameter in self.named_parameters():
            layer = cast("Any", self.get_submodule(key.rpartition(".")[0]))
            bound = 1 / math.sqrt(layer.weight[0].numel())
            generator = keyed.generator(seed, "lllite", name, key)
            with torch.no_grad():
                parameter.zero_() if key.startswith("up.") else parameter.uniform_(
                    -bound, bound, generator=generator
                )


class LLLiteNetwork(AdapterNetwork):
    """All that steers a U-Net; ``show`` says by which picture."""

    prefix = PREFIX

    def show(self, pixels: Tensor | None) -> None:
        """Follow ``pixels`` (B, 3, H, W) in -1..1 in what is predicted from now on; None: nothing.

        With gradients on, they reach the weights that read the picture; it has to be shown again after
        those have changed.
        """
        for adapter in self.adapters().values():
            cast("LLLite", adapter).show(pixels)


def create(
    modules: Iterable[Attachable],
    *,
    cond_dim: int = DEFAULT_COND_DIM,
    dim: int = DEFAULT_DIM,
    dropout: float | None = None,
    seed: int = 0,
) -> LLLiteNetwork:
    """A new network on the modules of an SDXL U-Net (136 of them at full size), not yet attached."""
    sites = [(site, _depth(site.name)) for site in modules if _depth(site.name)]
    network = LLLiteNetwork(
        (site, LLLite(cast("nn.Linear", site.module), depth, cond_dim, dim, dropout)) for site, depth in sites
    )
    for name, adapter in network.adapters().items():
        cast("LLLite", adapter).draw(seed, name)
    return network


def from_weights(
    weights: Mapping[str, Tensor], modules: Iterable[Attachable], dropout: float | None = None
) -> LLLiteNetwork:
    """The network that a file's weights describe, loaded, not yet attached; sizes are the file's.

    Raises:
        InputError: the file is no LLLite, damaged, or for another model.
    """
    parts = by_module(weights)
    sites = {PREFIX + site.name: site for site in modules}
    odd = [name for name in parts if not name.startswith(PREFIX)]
    if odd or not parts:
        what = "this is no ControlNet-LLLite" + (f" (it has {odd[0]})" if odd else "")
        raise InputError(Problem(what, next="choose a ControlNet-LLLite for SDXL"))
    unknown = [name for name in parts if name not in sites or not _depth(sites[name].name)]
    if unknown:
        raise InputError(
            Problem(
                f"this ControlNet-LLLite does not fit the model: {unknown[0]} is not in it",
                why="it was made for another kind of model, or steers layers that are not known here",
                next="choose a ControlNet-LLLite for SDXL and a base model of SDXL",
            )
        )
    network = LLLiteNetwork((sites[name], _shaped(sites[name], own, dropout)) for name, own in parts.items())
    network.load_weights(weights)
    return network


def sizes_of(weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """(numbers of the guide picture, inner numbers) of a file: ``cond_emb_dim`` and ``network_dim``."""
    down = next(tensor for name, tensor in weights.items() if name.endswith(".down.0.weight"))
    mid = next(tensor for name, tensor in weights.items() if name.endswith(".mid.0.weight"))
    return mid.shape[1] - down.shape[0], down.shape[0]


def _shaped(site: Attachable, parts: Mapping[str, Tensor], dropout: float | None) -> LLLite:
    lacks = {"down.0.weight", "mid.0.weight"} - parts.keys()
    if lacks:
        raise InputError(
            Problem(f"the file lacks {PREFIX}{site.name}.{min(lacks)}", why="it is incomplete or damaged")
        )
    dim = parts["down.0.weight"].shape[0]
    cond_dim = parts["mid.0.weight"].shape[1] - dim
    return LLLite(cast("nn.Linear", site.module), _depth(site.name), cond_dim, dim, dropout)


def _depth(name: str) -> int:
    """2 or 3 for a module that is steered, 0 for any other."""
    match = _NAME.match(name)
    if match is None:
        return 0
    return 2 if match["input"] and int(match["input"]) < _DEEP_FROM else 3
