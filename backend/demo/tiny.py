"""Checkpoints with random weights, made from a seed: small ones of each family, helpers for full ones.

They have every tensor of the real thing, and values of a size that keeps pictures finite and lets
a training move.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from backend import keyed
from backend.families.parts.clip import ClipShape
from backend.families.parts.loading import Shapes
from backend.families.parts.unet import UNetShape
from backend.families.parts.vae import VaeShape
from backend.families.sd1.layout import original_shapes
from backend.families.sd2 import layout as sd2
from backend.families.sdxl import layout as sdxl
from backend.families.store import Entry, write_tensors

TINY_UNET = UNetShape(widths=(32, 64, 80, 80), context_width=48, norm_groups=16)
TINY_TEXT = ClipShape(width=48, inner=96, heads=6)
TINY_VAE = VaeShape(widths=(16, 24, 32, 32), norm_groups=8)

TINY_SD2 = Shapes(
    UNetShape(widths=(16, 32, 32, 48), heads=(2, 4, 4, 6), context_width=24, norm_groups=8, linear=True),
    {"text_encoder": ClipShape(width=24, inner=48, layers=3, heads=3, activation="gelu")},
    TINY_VAE,
)
TINY_SDXL = Shapes(
    UNetShape(
        widths=(16, 32, 48), depths=(0, 1, 2), middle_depth=2, heads=(2, 4, 6), context_width=40,
        norm_groups=8, linear=True, label_width=24 + 6 * 256,
    ),
    {
        "text_encoder": ClipShape(width=16, inner=32, layers=3, heads=2),
        "text_encoder_2": ClipShape(width=24, inner=48, layers=4, heads=3, activation="gelu", projection=24),
    },
    replace(TINY_VAE, scaling_factor=0.13025),
)  # fmt: skip

_RESIDUAL_ENDS = (".out_layers.3.weight", ".proj_out.weight", ".to_out.0.weight", ".ff.net.2.weight",
                  ".conv2.weight", ".fc2.weight", ".c_proj.weight", ".out_proj.weight")  # fmt: skip
_GAINS: Mapping[str, float] = {
    "model.diffusion_model.out.2.weight": 0.5,
    "first_stage_model.decoder.conv_out.weight": 0.5,
    "first_stage_model.post_quant_conv.weight": 0.2,
}


def build_tiny_sd15(path: Path, seed: int = 0) -> None:
    """Write a narrow SD 1.x (fp16, original layout, about 15 MB, 1130 tensors) to ``path``."""
    components = {
        "unet": {"attention_head_dim": TINY_UNET.heads, "norm_num_groups": TINY_UNET.norm_groups},
        "text_encoder": {"num_attention_heads": TINY_TEXT.heads, "hidden_act": TINY_TEXT.activation},
        "vae": {"norm_num_groups": TINY_VAE.norm_groups, "scaling_factor": TINY_VAE.scaling_factor},
    }
    shapes = original_shapes(TINY_UNET, TINY_TEXT, TINY_VAE)
    write_random(path, shapes, torch.float16, seed, {"atelier.components": json.dumps(components)})


def build_tiny_sd2(path: Path, seed: int = 0, metadata: Mapping[str, str] | None = None) -> None:
    """Write a narrow and shallow SD 2.x (fp16, original layout, 4 MB) to ``path``."""
    shapes = sd2.original_shapes(TINY_SD2.unet, TINY_SD2.texts["text_encoder"], TINY_SD2.vae)
    components = {"atelier.components": json.dumps(TINY_SD2.components())}
    write_random(path, shapes, torch.float16, seed, {**components, **(metadata or {})})


def build_tiny_sdxl(path: Path, seed: int = 0, metadata: Mapping[str, str] | None = None) -> None:
    """Write a narrow and shallow SDXL (fp16, original layout, 6 MB, with its 23 blocks) to ``path``."""
    texts = TINY_SDXL.texts
    shapes = sdxl.original_shapes(
        TINY_SDXL.unet, texts["text_encoder"], texts["text_encoder_2"], TINY_SDXL.vae
    )
    components = {"atelier.components": json.dumps(TINY_SDXL.components())}
    write_random(path, shapes, torch.float16, seed, {**components, **(metadata or {})})


def write_random(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    seed: int,
    metadata: Mapping[str, str],
    seen: Callable[[str], None] = lambda _: None,
) -> None:
    """Write a checkpoint of random tensors, one at a time; ``seen`` hears each name as it is made."""

    def make(name: str, shape: tuple[int, ...]) -> Tensor:
        seen(name)
        return random_weight(name, shape, seed)

    entries = [Entry(name, shape, dtype, partial(make, name, shape)) for name, shape in shapes.items()]
    write_tensors(path, entries, {"format": "pt", **metadata})


def random_weight(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """A weight by its place in the network: norms are ones, biases zeros, the rest normal numbers.

    Each output of a layer has about the variance of its inputs (LeCun et al. 1998); ends of
    residual branches give half, so that depth does not blow up.
    """
    if name == "first_stage_model.quant_conv.weight":
        return _quant_weight(shape, seed)
    if name == "first_stage_model.quant_conv.bias":
        return torch.cat([torch.zeros(shape[0] // 2), torch.full((shape[0] // 2,), -4.0)])
    if len(shape) == 1:
        is_norm_weight = name.endswith(".weight")
        return torch.ones(shape) if is_norm_weight else torch.zeros(shape)
    noise = torch.randn(shape, generator=keyed.generator(seed, "weight", name))
    if "embedding" in name:
        return noise * 0.02
    gain = _GAINS.get(name, 0.5 if name.endswith(_RESIDUAL_ENDS) else 1.0)
    return noise * (gain / math.sqrt(math.prod(shape[1:])))


def _quant_weight(shape: tuple[int, ...], seed: int) -> Tensor:
    """Means of about unit variance after scaling by 0.18215, and small, even variances."""
    noise = torch.randn(shape, generator=keyed.generator(seed, "weight", "quant_conv"))
    rows = torch.tensor([5.0] * (shape[0] // 2) + [0.1] * (shape[0] // 2)).view(-1, 1, 1, 1)
    return noise * rows / math.sqrt(shape[1])
