"""Names of SDXL's U-Net blocks: diffusers' (``down_blocks_1_attentions_0``) -> the original layout's
(``input_blocks_4_1``), by which networks for SDXL are named in memory and in files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

_RESNET: Mapping[str, str] = {
    "norm1": "in_layers_0",
    "conv1": "in_layers_2",
    "time_emb_proj": "emb_layers_1",
    "norm2": "out_layers_0",
    "conv2": "out_layers_3",
    "conv_shortcut": "skip_connection",
}
_ENDS: Mapping[str, str] = {
    "conv_in": "input_blocks_0_0",
    "conv_out": "out_2",
    "time_embedding_linear_1": "time_embed_0",
    "time_embedding_linear_2": "time_embed_2",
    "add_embedding_linear_1": "label_emb_0_0",
    "add_embedding_linear_2": "label_emb_0_2",
}
_MIDDLE: Mapping[str, str] = {"resnets_0": "0", "attentions_0": "1", "resnets_1": "2"}
_PREFIX = re.compile(r"^((?:lora|oft)_unet_)(.+)$")
_BLOCK = re.compile(r"(down|up)_blocks_(\d)_(resnets|attentions)_(\d)_(.+)")
_MID = re.compile(r"mid_block_(resnets_[01]|attentions_0)_(.+)")
_SAMPLER = re.compile(r"(down|up)_blocks_(\d)_(?:down|up)samplers_0_conv")
_SDXL = re.compile(
    r"^(?:lora_te2_|(?:lora|oft)_unet_(?:add_embedding|(?:down|up)_blocks_\d_attentions_\d_transformer_blocks_1_))"
)
_DIFFUSERS = re.compile(r"^(?:lora|oft)_unet_(?:down_blocks|up_blocks|mid_block)_")


def is_by_diffusers_blocks(names: Iterable[str]) -> bool:
    """True for kohya names of a network for SDXL whose U-Net blocks are named as in diffusers."""
    names = list(names)
    return any(map(_SDXL.match, names)) and any(map(_DIFFUSERS.match, names))


def to_original_blocks(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights with the U-Net's modules named by the original layout's blocks."""
    found: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        module, dot, part = key.partition(".")
        found[f"{_original(module)}{dot}{part}"] = tensor
    return found


def _original(module: str) -> str:
    match = _PREFIX.match(module)
    if match is None:
        return module
    prefix, path = match.groups()
    return prefix + (_ENDS.get(path) or _inside_block(path) or _middle(path) or _sampler(path) or path)


def _inside_block(path: str) -> str:
    match = _BLOCK.fullmatch(path)
    if match is None:
        return ""
    side, level, kind, index, inner = match.groups()
    number = 3 * int(level) + int(index) + (side == "down")
    return f"{_side(side)}_blocks_{number}_{_slot(kind, inner)}"


def _slot(kind: str, inner: str) -> str:
    return f"0_{_RESNET.get(inner, inner)}" if kind == "resnets" else f"1_{inner}"


def _middle(path: str) -> str:
    match = _MID.fullmatch(path)
    if match is None:
        return ""
    place, inner = match.groups()
    return f"middle_block_{_MIDDLE[place]}_{_RESNET.get(inner, inner) if place != 'attentions_0' else inner}"


def _sampler(path: str) -> str:
    match = _SAMPLER.fullmatch(path)
    if match is None:
        return ""
    level = int(match[2])
    if match[1] == "down":
        return f"input_blocks_{3 * level + 3}_0_op"
    return f"output_blocks_{3 * level + 2}_2_conv"


def _side(side: str) -> str:
    return "input" if side == "down" else "output"
