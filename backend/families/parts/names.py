"""Names of U-Net and VAE weights: original single-file layout <-> diffusers, for any width and depth.

Names are those of the part alone, without the prefix that a whole checkpoint puts before them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_RESNET_BACK = {new: old for old, new in _RESNET.items()}
_UNET_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def unet_to_diffusers(names: Collection[str]) -> dict[str, str]:
    """Original name -> diffusers name, for those of ``names`` that belong to a U-Net."""
    found = [re.match(r"input_blocks\.(\d+)\.0\.op\.weight", name) for name in names]
    # Resnets a level: the first downsampler stands right after the first level's.
    layers = min((int(match[1]) for match in found if match), default=3) - 1
    return {name: new for name in names if (new := _unet_name(name, layers))}


def unet_to_original(names: Collection[str]) -> dict[str, str]:
    """Diffusers name -> original name; the inverse of :func:`unet_to_diffusers`."""
    layers = 1 + max(
        (int(name.split(".")[3]) for name in names if name.startswith("down_blocks.0.resnets.")), default=1
    )
    attends = {int(name.split(".")[1]) for name in names if re.match(r"up_blocks\.\d+\.attentions\.", name)}
    return {name: _unet_back(name, layers, attends) for name in names}


def vae_to_diffusers(names: Collection[str]) -> dict[str, str]:
    """Original name -> diffusers name, for those of ``names`` that belong to a VAE."""
    found = [re.match(r"decoder\.up\.(\d+)\.", name) for name in names]
    levels = 1 + max((int(match[1]) for match in found if match), default=0)
    return {name: new for name in names if (new := _vae_name(name, levels))}


def vae_to_original(names: Collection[str]) -> dict[str, str]:
    """Diffusers name -> original name; the inverse of :func:`vae_to_diffusers`."""
    levels = 1 + max(
        (int(name.split(".")[2]) for name in names if name.startswith("decoder.up_blocks.")), default=0
    )
    return {name: _vae_back(name, levels) for name in names}


def modern_vae_names(names: Iterable[str]) -> dict[str, str]:
    """Name in a diffusers VAE file -> today's name (``query`` became ``to_q`` and so on)."""
    found: dict[str, str] = {}
    for name in names:
        module, _, leaf = name.rpartition(".")
        stem, _, last = module.rpartition(".")
        renamed = f"{stem}.{_OLD_VAE_ATTENTION.get(last, last)}" if ".attentions." in name else module
        found[name] = f"{renamed}.{leaf}"
    return found


def _unet_name(name: str, layers: int) -> str | None:
    module, _, leaf = name.rpartition(".")
    if module in _UNET_ENDS:
        return f"{_UNET_ENDS[module]}.{leaf}"
    match = re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)", module)
    if match:
        down = match[1] == "input"
        block, layer = divmod(int(match[2]) - down, layers + 1)
        place = f"{'down' if down else 'up'}_blocks.{block}"
        return f"{place}.{_unet_inner(match[3], match[4], layer)}.{leaf}"
    match = re.fullmatch(r"middle_block\.([012])\.(.+)", module)
    if match:
        return f"mid_block.{_MIDDLE[match[1]]}.{_RESNET.get(match[2], match[2])}.{leaf}"
    return None


def _unet_inner(slot: str, rest: str, layer: int) -> str:
    if rest == "op":
        return "downsamplers.0.conv"
    if rest == "conv":
        return "upsamplers.0.conv"
    return f"resnets.{layer}.{_RESNET.get(rest, rest)}" if slot == "0" else f"attentions.{layer}.{rest}"


def _unet_back(name: str, layers: int, attends: Collection[int]) -> str:
    module, _, leaf = name.rpartition(".")
    for old, new in _UNET_ENDS.items():
        if module == new:
            return f"{old}.{leaf}"
    place, _, rest = module.partition(".")
    if place == "mid_block":
        kind, index, inner = rest.split(".", 2)
        slot = next(old for old, new in _MIDDLE.items() if new == f"{kind}.{index}")
        return f"middle_block.{slot}.{_RESNET_BACK.get(inner, inner)}.{leaf}"
    block, kind, index, inner = rest.split(".", 3)
    down = place == "down_blocks"
    start = int(block) * (layers + 1) + down
    side = "input" if down else "output"
    if kind == "downsamplers":
        return f"{side}_blocks.{start + layers}.0.op.{leaf}"
    if kind == "upsamplers":
        return f"{side}_blocks.{start + layers}.{2 if int(block) in attends else 1}.conv.{leaf}"
    if kind == "resnets":
        return f"{side}_blocks.{start + int(index)}.0.{_RESNET_BACK[inner]}.{leaf}"
    return f"{side}_blocks.{start + int(index)}.1.{inner}.{leaf}"


_VAE_FORWARD = (
    (r"mid\.block_1\.", "mid_block.resnets.0."),
    (r"mid\.block_2\.", "mid_block.resnets.1."),
    (r"nin_shortcut", "conv_shortcut"),
    (r"norm_out", "conv_norm_out"),
    (r"down\.(\d+)\.block\.", r"down_blocks.\1.resnets."),
    (r"down\.(\d+)\.downsample\.", r"down_blocks.\1.downsamplers.0."),
    (r"up\.(\d+)\.block\.", r"up_blocks.\1.resnets."),
    (r"up\.(\d+)\.upsample\.", r"up_blocks.\1.upsamplers.0."),
)
_VAE_BACK = (
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
    (r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block."),
    (r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample."),
    (r"up_blocks\.(\d+)\.resnets\.", r"up.\1.block."),
    (r"up_blocks\.(\d+)\.upsamplers\.0\.", r"up.\1.upsample."),
)


def _vae_name(name: str, levels: int) -> str | None:
    if not name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")):
        return None
    match = re.fullmatch(r"(encoder|decoder)\.mid\.attn_1\.(\w+)\.(\w+)", name)
    if match:
        return f"{match[1]}.mid_block.attentions.0.{_VAE_ATTENTION[match[2]]}.{match[3]}"
    return _turned(_replaced(name, _VAE_FORWARD), levels)


def _vae_back(name: str, levels: int) -> str:
    match = re.fullmatch(r"(encoder|decoder)\.mid_block\.attentions\.0\.(.+)\.(\w+)", name)
    if match:
        old = next(old for old, new in _VAE_ATTENTION.items() if new == match[2])
        return f"{match[1]}.mid.attn_1.{old}.{match[3]}"
    return _replaced(_turned(name, levels), _VAE_BACK)


def _replaced(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


def _turned(name: str, levels: int) -> str:
    """The decoder's levels are counted from the other end in the two layouts."""
    return re.sub(r"(up_blocks\.)(\d+)", lambda match: f"{match[1]}{levels - 1 - int(match[2])}", name)
