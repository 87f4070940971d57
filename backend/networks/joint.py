"""Ranks for the layers of a multimodal transformer (SD 3).

Names of modules are kohya's: ``unet_joint_blocks_0_x_block_attn_qkv``. Arguments are those of
sd-scripts' ``networks.lora_sd3``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from backend.networks.spec import FLAG, WHOLE, WORDS, Reader, refuse

_BLOCK = re.compile(r"unet_joint_blocks_(\d+)_")
_KINDS: Mapping[str, str] = {
    "context_attn_dim": "context_block_attn",
    "context_mlp_dim": "context_block_mlp",
    "context_mod_dim": "context_block_adaLN_modulation",
    "x_attn_dim": "x_block_attn",
    "x_mlp_dim": "x_block_mlp",
    "x_mod_dim": "x_block_adaLN_modulation",
}
"""Argument -> what the names of its layers hold."""
_ENDS = (
    "context_embedder",
    "t_embedder",
    "x_embedder",
    "y_embedder",
    "final_layer_adaLN_modulation",
    "final_layer_linear",
)
"""Layers outside of the blocks, in the order of ``emb_dims``."""
ARGUMENTS: dict[str, Reader] = {
    **dict.fromkeys(_KINDS, WHOLE),
    "emb_dims": WORDS,
    "train_block_indices": Reader(WORDS.read, WORDS.expected, has_none=True),
    "split_qkv": FLAG,
    "train_t5xxl": FLAG,  # read by who chooses the parts that are trained
}


@dataclass(frozen=True)
class Joint:
    """What the arguments say; None where they leave it to the network's own values."""

    dims: Mapping[str, int]
    ends: tuple[int, ...] | None
    blocks: frozenset[int] | None

    @classmethod
    def read(cls, arguments: Mapping[str, Any], names: Iterable[str]) -> Joint | None:
        """From the arguments' values; None when there are none.

        Raises:
            InputError: the model is no such transformer, or a value cannot be read.
        """
        given = ARGUMENTS.keys() & arguments.keys() - {"train_t5xxl"}
        if not given:
            return None
        numbers = {int(match[1]) for name in names if (match := _BLOCK.match(name))}
        if not numbers:
            raise refuse(
                f"{', '.join(sorted(given))}: this model has no layers of that sort, or they are not trained",
                why="they are those of an SD 3 transformer",
                next="leave these arguments out",
            )
        dims = {mark: int(arguments[key]) for key, mark in _KINDS.items() if key in arguments}
        if any(rank < 0 for rank in dims.values()):
            raise refuse("ranks are whole numbers from 0")
        blocks = _blocks(arguments.get("train_block_indices"), max(numbers) + 1)
        return cls(dims, _six(arguments.get("emb_dims")), blocks)

    def rank(self, name: str, default: int) -> int:
        """Rank of a module of the transformer (name without ``lora_``); 0: none."""
        block = _BLOCK.match(name)
        if block is None:
            return self._end(name)
        if self.blocks is not None and int(block[1]) not in self.blocks:
            return 0
        rest = name[block.end() :]
        return next((rank for mark, rank in self.dims.items() if rest.startswith(mark)), default)

    def names(self, name: str) -> bool:
        """Whether it gives a rank to a layer outside of the blocks."""
        return self._end(name) > 0

    def _end(self, name: str) -> int:
        for mark, rank in zip(_ENDS, self.ends or (), strict=False):
            if name.startswith(f"unet_{mark}"):
                return rank
        return 0


def _six(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.strip("[]() ").split(",")]
    if len(parts) != len(_ENDS) or not all(part.isdigit() for part in parts):
        raise refuse(
            f"network argument emb_dims: expected six whole numbers with commas between, got '{text}'"
        )
    return tuple(map(int, parts))


def _blocks(text: str | None, count: int) -> frozenset[int] | None:
    """Blocks named by ``all``, ``none``, or numbers and ranges such as ``0-3,7``."""
    if text is None or text == "all":
        return None
    found: set[int] = set()
    for item in [] if text == "none" else text.split(","):
        first, _, last = item.strip().partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise refuse(f"network argument train_block_indices: expected blocks such as 0-3,7, got '{text}'")
        found |= set(range(int(first), int(last or first) + 1))
    if found and max(found) >= count:
        raise refuse(
            f"train_block_indices names block {max(found)}; there are {count}",
            next=f"numbers go from 0 to {count - 1}",
        )
    return frozenset(found)
