"""Small SD 3 checkpoints with random weights, made from a seed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from backend import keyed
from backend.families.parts.clip import ClipShape
from backend.families.parts.vae import VaeShape
from backend.families.sd3.layout import original_shapes
from backend.families.sd3.load import Shapes
from backend.families.sd3.mmdit import MMDiTShape
from backend.families.sd3.positions import sincos
from backend.families.sd3.t5 import T5Shape
from backend.families.store import Entry, write_tensors

CLIP_L = ClipShape(width=32, inner=64, layers=3, heads=4, projection=32)
CLIP_G = ClipShape(width=48, inner=64, layers=4, heads=4, activation="gelu", projection=48)
T5 = T5Shape(width=96, inner=64, layers=2, heads=4, head_size=8, vocabulary=32128)
VAE = VaeShape(
    widths=(16, 16, 32, 32), layers=1, latent_channels=16, norm_groups=8,
    scaling_factor=1.5305, shift_factor=0.0609, quant=False,
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Which of the published models it is built like."""

    qk_norm: bool = False
    dual: frozenset[int] = frozenset()
    t5: bool = True


MEDIUM = Kind()
MEDIUM35 = Kind(qk_norm=True, dual=frozenset({0, 1}))
LARGE35 = Kind(qk_norm=True)


def shapes_of(kind: Kind) -> Shapes:
    transformer = MMDiTShape(
        width=64, depth=4, heads=4, inner=256, context_width=96, pooled_width=80, grid=24,
        qk_norm=kind.qk_norm, dual=kind.dual,
    )  # fmt: skip
    return Shapes(transformer, CLIP_L, CLIP_G, VAE, T5 if kind.t5 else None)


def components() -> dict[str, dict[str, object]]:
    return {
        "transformer": {"num_attention_heads": 4},
        "clip_l": {"num_attention_heads": CLIP_L.heads, "hidden_act": "quick_gelu"},
        "clip_g": {"num_attention_heads": CLIP_G.heads, "hidden_act": "gelu"},
        "vae": {"norm_num_groups": 8, "scaling_factor": 1.5305, "shift_factor": 0.0609},
    }


def build(path: Path, kind: Kind = MEDIUM, dtype: torch.dtype = torch.float16, seed: int = 0) -> Path:
    """Write a small checkpoint in the original layout."""
    names = original_shapes(shapes_of(kind))
    entries = [Entry(name, shape, dtype, partial(weight, name, shape, seed)) for name, shape in names.items()]
    entries.append(Entry("text_encoders.clip_l.logit_scale", (), torch.float32, lambda: torch.tensor(4.6)))
    write_tensors(path, entries, {"atelier.components": json.dumps(components())})
    return path


def weight(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    if name.endswith("pos_embed"):
        side = math.isqrt(shape[1])
        places = torch.arange(side)[None] * (64 / side)
        return sincos(places, places, shape[2])
    if "norm" in name or ".ln_" in name:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    if len(shape) == 1:
        return torch.zeros(shape)
    noise = torch.randn(shape, generator=keyed.generator(seed, "weight", name))
    if "token_embedding" in name or "position_embedding" in name:
        return noise * 0.02
    if name.endswith("shared.weight"):
        return noise
    return noise / math.sqrt(math.prod(shape[1:]))
