"""Names of LoRA weights for SD 3's transformer: kohya's (original layers) <-> diffusers' / PEFT's.

diffusers has queries, keys and values apart, and the two norms that only shift and scale the other
way round. Text encoders are named as for other models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_STREAMS: Mapping[str, tuple[str, ...]] = {
    "context_block_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "context_block_attn_proj": ("attn.to_add_out",),
    "context_block_mlp_fc1": ("ff_context.net.0.proj",),
    "context_block_mlp_fc2": ("ff_context.net.2",),
    "context_block_adaLN_modulation_1": ("norm1_context.linear",),
    "x_block_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block_attn_proj": ("attn.to_out.0",),
    "x_block_attn2_qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block_attn2_proj": ("attn2.to_out.0",),
    "x_block_mlp_fc1": ("ff.net.0.proj",),
    "x_block_mlp_fc2": ("ff.net.2",),
    "x_block_adaLN_modulation_1": ("norm1.linear",),
}
_ENDS: Mapping[str, tuple[str, ...]] = {
    "x_embedder_proj": ("pos_embed.proj",),
    "t_embedder_mlp_0": ("time_text_embed.timestep_embedder.linear_1",),
    "t_embedder_mlp_2": ("time_text_embed.timestep_embedder.linear_2",),
    "y_embedder_mlp_0": ("time_text_embed.text_embedder.linear_1",),
    "y_embedder_mlp_2": ("time_text_embed.text_embedder.linear_2",),
    "context_embedder": ("context_embedder",),
    "final_layer_linear": ("proj_out",),
    "final_layer_adaLN_modulation_1": ("norm_out.linear",),
}
_ROOT = "lora_unet_"
_KOHYA = re.compile(r"^lora_unet_(?:joint_blocks_(\d+)_)?(\w+)$")
_PEFT = re.compile(r"^transformer\.(?:transformer_blocks\.(\d+)\.)?(.+?)\.lora_([AB])(?:\.\w+)?\.weight$")


def is_joint(names: Iterable[str]) -> bool:
    """True for kohya names of SD 3's transformer."""
    return any(name.startswith(f"{_ROOT}joint_blocks_") for name in names)


def is_peft(names: Iterable[str]) -> bool:
    """True for diffusers' names of SD 3's transformer."""
    return any(name.startswith("transformer.transformer_blocks.") and ".lora_" in name for name in names)


def to_diffusers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The transformer's part of a LoRA in kohya's names; alpha / r goes into B, which has no alpha there.

    Raises:
        KeyError: a module that the transformer does not have.
    """
    found: dict[str, Tensor] = {}
    for key, down in weights.items():
        name, _, part = key.partition(".")
        if part != "lora_down.weight" or not name.startswith(_ROOT):
            continue
        up, alpha = weights[f"{name}.lora_up.weight"], weights.get(f"{name}.alpha")
        scale = 1.0 if alpha is None else float(alpha) / down.shape[0]
        found |= _module(name, down, (up.float() * scale).to(up.dtype))
    return found


def _module(name: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    block, inner = _split(name)
    targets = _ENDS[inner] if block is None else _STREAMS[inner]
    if _is_swapped(inner, down, up):
        up = torch.cat(up.chunk(2)[::-1])
    found: dict[str, Tensor] = {}
    for target, rows in zip(targets, up.chunk(len(targets)), strict=True):
        # A split LoRA has ranks that only one of the three uses.
        used = rows.flatten(1).any(dim=0) if len(targets) > 1 and rows.any() else slice(None)
        path = (
            f"transformer.{target}" if block is None else f"transformer.transformer_blocks.{block}.{target}"
        )
        found[f"{path}.lora_A.weight"] = down[used].contiguous()
        found[f"{path}.lora_B.weight"] = rows[:, used].contiguous()
    return found


def _split(name: str) -> tuple[str | None, str]:
    match = _KOHYA.match(name)
    assert match is not None, f"not a module of the transformer: {name}"
    return match[1], match[2]


def _is_swapped(inner: str, down: Tensor, up: Tensor) -> bool:
    """Norms with a shift and a scale only: the last one, and the last block's of the text."""
    return inner.endswith("adaLN_modulation_1") and up.shape[0] == 2 * down.shape[1]


def to_kohya(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """diffusers' names -> kohya's, with alpha = rank. Other names pass."""
    pairs: dict[str, dict[str, Tensor]] = {}
    found: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        match = _PEFT.match(key)
        if match is None:
            found[key] = tensor
            continue
        pairs.setdefault(f"{match[1] or ''}:{match[2]}", {})[match[3]] = tensor
    for prefix, table in (("joint_blocks_", _STREAMS), ("", _ENDS)):
        for block in sorted({name.split(":")[0] for name in pairs}, key=lambda text: int(text or -1)):
            if bool(block) == bool(prefix):
                start = f"{_ROOT}{prefix}{block}_" if block else _ROOT
                for inner, targets in table.items():
                    parts = [pairs.get(f"{block}:{target}") for target in targets]
                    found |= _joined(start + inner, inner, parts)
    return found


def _joined(name: str, inner: str, parts: list[dict[str, Tensor] | None]) -> dict[str, Tensor]:
    """One pair out of one, or of up to three side by side."""
    there = [part for part in parts if part is not None]
    if not there:
        return {}
    width = there[0]["B"].shape[0]
    ups = [torch.zeros(width, 0) if part is None else part["B"] for part in parts]
    down = torch.cat([part["A"] for part in there])
    up = ups[0] if len(parts) == 1 else torch.block_diag(*ups).to(there[0]["B"].dtype)
    if _is_swapped(inner, down, up):
        up = torch.cat(up.chunk(2)[::-1])
    return {
        f"{name}.lora_down.weight": down,
        f"{name}.lora_up.weight": up,
        f"{name}.alpha": torch.tensor(float(down.shape[0])),
    }
