"""What a low-rank pair adds to a weight, for merging and measuring.

A LoRA changes a weight W (out, in) or (out, in, k, k) by ``alpha / r * up @ down`` with down
(r, in[, k, k]) and up (out, r[, 1, 1]) (Hu et al. 2021, "LoRA"; convolutions as one matrix product
over in * k * k).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.errors import InputError, Problem
from backend.networks.common import by_module, fitted


@dataclass(frozen=True)
class Factors:
    """One module's pair as a file holds it."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return self.alpha / self.rank


def factors(weights: Mapping[str, Tensor]) -> dict[str, Factors]:
    """The pairs of a LoRA in kohya's names: module name (``lora_unet_...``) -> factors.

    No alpha, or 0, counts as the rank.

    Raises:
        InputError: a module has anything else than a down and an up tensor of one rank.
    """
    return {name: _pair(name, parts) for name, parts in by_module(weights).items()}


def _pair(name: str, parts: Mapping[str, Tensor]) -> Factors:
    down, up = parts.get("lora_down.weight"), parts.get("lora_up.weight")
    rest = parts.keys() - {"lora_down.weight", "lora_up.weight", "alpha"}
    if down is None or up is None or rest or up.shape[1] != down.shape[0] or up[0, 0].numel() != 1:
        raise InputError(
            Problem(
                f"{name} is no LoRA pair",
                why=f"it holds {', '.join(f'{key} {list(t.shape)}' for key, t in sorted(parts.items()))}",
            )
        )
    alpha = parts.get("alpha")
    return Factors(down, up, float(0 if alpha is None else alpha) or float(down.shape[0]))


def delta(pair: Factors, ratio: float = 1.0, shape: Iterable[int] | None = None) -> Tensor:
    """``ratio * alpha / r * up @ down`` in float32 on the factors' device.

    Args:
        shape: the weight's shape, when it may differ from the pair's by sides of length 1 (a LoRA
            of a 1x1 convolution on a linear layer, or the reverse).

    Raises:
        InputError: the pair does not fit ``shape``.
    """
    product = pair.up.float().flatten(1) @ pair.down.float().flatten(1)
    product = product.mul_(ratio * pair.scale).reshape(pair.up.shape[0], *pair.down.shape[1:])
    if shape is None:
        return product
    found = fitted(product, shape)
    if found is None:
        raise InputError(
            Problem(
                f"a LoRA for a weight of {list(product.shape)} on a weight of {list(shape)}",
                why="it was made for another model",
            )
        )
    return found


def norm(pair: Factors) -> float:
    """Frobenius norm of the delta without building it: sqrt(sum(up^T up * down down^T))."""
    up, down = pair.up.float().flatten(1), pair.down.float().flatten(1)
    square = ((up.T @ up) * (down @ down.T)).sum()
    return abs(pair.scale) * float(torch.sqrt(square.clamp_min(0)))
