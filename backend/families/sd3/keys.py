"""Names of SD 3's transformer: original single-file layout <-> diffusers.

The original layout has queries, keys and values in one tensor, diffusers has three; the last norm
and the last block's norm of the text have shift and scale in the other order there.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

_ENDS = {
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
_STREAMS = {
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "context_block.attn.proj": ("attn.to_add_out",),
    "context_block.attn.ln_q": ("attn.norm_added_q",),
    "context_block.attn.ln_k": ("attn.norm_added_k",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
    "context_block.mlp.fc2": ("ff_context.net.2",),
    "context_block.adaLN_modulation.1": ("norm1_context.linear",),
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn.proj": ("attn.to_out.0",),
    "x_block.attn.ln_q": ("attn.norm_q",),
    "x_block.attn.ln_k": ("attn.norm_k",),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block.attn2.proj": ("attn2.to_out.0",),
    "x_block.attn2.ln_q": ("attn2.norm_q",),
    "x_block.attn2.ln_k": ("attn2.norm_k",),
    "x_block.mlp.fc1": ("ff.net.0.proj",),
    "x_block.mlp.fc2": ("ff.net.2",),
    "x_block.adaLN_modulation.1": ("norm1.linear",),
}


class Twin(NamedTuple):
    """What a tensor of the original layout is in diffusers."""

    names: tuple[str, ...]
    """Joined along the first side they are the tensor."""
    swapped: bool = False
    """Its first half is the second one there."""


def twin(name: str, depth: int) -> Twin:
    """Of a tensor of the transformer (without prefix) with ``depth`` blocks.

    Raises:
        KeyError: there is no such tensor.
    """
    if name == "pos_embed":
        return Twin(("pos_embed.pos_embed",))
    module, _, leaf = name.rpartition(".")
    if module in _ENDS:
        return Twin((f"{_ENDS[module]}.{leaf}",), module == "final_layer.adaLN_modulation.1")
    match = re.fullmatch(r"joint_blocks\.(\d+)\.(.+)", module)
    if match is None:
        raise KeyError(name)
    inner = _STREAMS[match[2]]
    last = int(match[1]) == depth - 1 and match[2] == "context_block.adaLN_modulation.1"
    return Twin(tuple(f"transformer_blocks.{match[1]}.{other}.{leaf}" for other in inner), last)


def from_diffusers(names: Collection[str]) -> dict[str, Twin]:
    """Original name -> its twin, for a transformer with the tensors ``names`` of diffusers."""
    blocks = [re.match(r"transformer_blocks\.(\d+)\.", name) for name in names]
    depth = 1 + max((int(match[1]) for match in blocks if match), default=-1)
    there = frozenset(names)
    found: dict[str, Twin] = {}
    for block in range(depth):
        for module in _STREAMS:
            _add(found, f"joint_blocks.{block}.{module}", depth, there)
    for module in _ENDS:
        _add(found, module, depth, there)
    if "pos_embed.pos_embed" in there:
        found["pos_embed"] = twin("pos_embed", depth)
    return found


def _add(found: dict[str, Twin], module: str, depth: int, there: Collection[str]) -> None:
    for leaf in ("weight", "bias"):
        other = twin(f"{module}.{leaf}", depth)
        if all(name in there for name in other.names):
            found[f"{module}.{leaf}"] = other
