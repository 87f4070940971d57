"""Which weights of a model are trained, and at which rate: whole parts, or block by block."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from backend.errors import InputError, Problem
from backend.families.base import DiffusionModel
from backend.families.parts.latent import LatentDiffusion
from backend.settings import Settings
from backend.settings.sections_whole import XL_BLOCKS

_DENOISER = "unet"
_JOINT = re.compile(r"joint_blocks\.(\d+)\.")


@dataclass(frozen=True)
class Regions:
    """The weights of the trained parts, and what settings say of single blocks."""

    parts: Mapping[str, nn.Module]
    """The trained parts by name."""
    frozen: frozenset[str] = frozenset()
    """Those that stay as they are."""
    blocks: Mapping[str, int] = field(default_factory=dict[str, int])
    """Those that have a rate by block -> the number of the block."""
    block_rates: tuple[float, ...] = ()

    @classmethod
    def of(cls, settings: Settings, model: DiffusionModel, parts: Mapping[str, nn.Module]) -> Regions:
        """As the settings ask.

        Raises:
            InputError: they ask for blocks that this model has not, or leave nothing to train.
        """
        weights = _weights(parts)
        rates = block_rates(settings.whole.block_lr)
        blocks = _xl_blocks(model, weights) if rates else {}
        frozen = {name for name, block in blocks.items() if not rates[block]}
        frozen |= _last_blocks(settings.whole.num_last_block_to_freeze or 0, weights)
        if len(frozen) == len(weights):
            raise InputError(
                "nothing would be trained", why="every block has a learning rate of 0", key="block_lr"
            )
        return cls(parts, frozenset(frozen), blocks, rates)

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """``part.name`` -> every weight of the trained parts, as it is now: a wrapper for several
        processes puts others in their place."""
        return _weights(self.parts)

    def trained(self) -> dict[str, nn.Parameter]:
        """``part.name`` -> weight, of those that are trained."""
        return {name: weight for name, weight in self.weights.items() if name not in self.frozen}

    def groups(self, rates: Mapping[str, float]) -> list[dict[str, Any]]:
        """Optimizer groups: one for each part, or block of the denoiser."""
        found: dict[str, dict[str, Any]] = {}
        for name, weight in self.trained().items():
            part, block = name.partition(".")[0], self.blocks.get(name)
            group = part if block is None else f"{part}_block{block:02d}"
            rate = rates[part] if block is None else self.block_rates[block]
            found.setdefault(group, {"params": [], "lr": rate, "name": group})["params"].append(weight)
        return list(found.values())

    def notes(self) -> list[Problem]:
        """What a person should know of weights that stay as they are."""
        if not self.frozen:
            return []
        weights = self.weights
        count = sum(weights[name].numel() for name in self.frozen)
        return [Problem(f"{count:,} numbers of the trained parts stay as they are, by block")]


def _weights(parts: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    return {f"{p}.{n}": w for p, module in parts.items() for n, w in module.named_parameters()}


def block_rates(text: str | None) -> tuple[float, ...]:
    """``block_lr`` as numbers: one for each block; one number counts for all."""
    found = tuple(float(part) for part in (text or "").split(",") if part.strip())
    return found * XL_BLOCKS if len(found) == 1 else found


def _xl_blocks(model: DiffusionModel, weights: Mapping[str, nn.Parameter]) -> dict[str, int]:
    """Weight of SDXL's U-Net -> its block, by the original layout's numbering."""
    assert isinstance(model, LatentDiffusion), "refused for other families"
    names = [name for name in weights if name.startswith(f"{_DENOISER}.")]
    return {pieces[0]: xl_block(name) for name, pieces in model.layout.original(names).items()}


_STARTS = (("input_blocks", 1), ("middle_block", 10), ("output_blocks", 13))


def xl_block(original: str) -> int:
    """Block of a tensor by its original name without ``model.diffusion_model.``.

    >>> xl_block("input_blocks.4.1.proj_in.weight"), xl_block("label_emb.0.0.weight"), xl_block("out.2.bias")
    (5, 0, 22)
    """
    name = original.removeprefix("model.diffusion_model.")
    for start, first in _STARTS:
        found = re.match(rf"{start}\.(\d+)\.", name)
        if found:
            return first + int(found[1])
    return 0 if name.startswith(("time_embed.", "label_emb.")) else XL_BLOCKS - 1


def _last_blocks(count: int, weights: Mapping[str, nn.Parameter]) -> set[str]:
    """Weights of the last blocks of SD 3's transformer."""
    numbers = {name: int(found[1]) for name in weights if (found := _JOINT.search(name))}
    total = max(numbers.values(), default=-1) + 1
    if count > total:
        raise InputError(
            f"num_last_block_to_freeze {count} is too many: this model has {total} blocks",
            next=f"give at most {total}",
            key="num_last_block_to_freeze",
        )
    return {name for name, number in numbers.items() if number >= total - count}
