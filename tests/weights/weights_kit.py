"""What the tests of merging, extracting and resizing share."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.weights.networkfile import open_network

Q = "unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
TEXT = "te_text_model_encoder_layers_0_self_attn_q_proj"
CONV = "unet_down_blocks_0_resnets_0_conv1"
PROJ = "unet_down_blocks_0_attentions_0_proj_in"
SHAPES: dict[str, tuple[int, ...]] = {Q: (32, 32), TEXT: (48, 48), PROJ: (32, 32, 1, 1), CONV: (32, 32, 3, 3)}
"""Modules of the narrow SD 1.x checkpoint and the shapes of their weights."""


def products(path: Path) -> dict[str, Tensor]:
    """What each pair of a file adds to its weight, flat."""
    pairs = open_network(path).pairs()
    return {n: (f.up.float().flatten(1) @ f.down.float().flatten(1)) * f.scale for n, f in pairs.items()}


def distance(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest distance of two products, relative to the second."""
    assert found.keys() == wanted.keys()
    return max(float((found[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted)


def make_lora(
    path: Path,
    rank: int = 4,
    alpha: float = 2,
    seed: int = 0,
    shapes: dict[str, tuple[int, ...]] = SHAPES,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A LoRA file with falling singular values."""
    draw = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, (out, inner, *kernel) in shapes.items():
        falling = 0.6 ** torch.arange(rank)
        tensors[f"lora_{name}.lora_down.weight"] = torch.randn(rank, inner, *kernel, generator=draw)
        up = torch.randn(out, rank, generator=draw) * falling
        tensors[f"lora_{name}.lora_up.weight"] = up.reshape(out, rank, *[1] * len(kernel))
        tensors[f"lora_{name}.alpha"] = torch.tensor(float(alpha))
    save_file(tensors, path, metadata)
    return path


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def tensors_of(path: Path) -> dict[str, Tensor]:
    return load_file(path)


def left_behind(folder: Path) -> list[str]:
    """Names of files under a temporary name."""
    return [path.name for path in folder.iterdir() if path.name.endswith(".partial")]
