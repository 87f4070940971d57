"""LoRA-FA (Zhang et al. 2023): LoRA whose down weights stay as drawn; only up is trained.

Half of the trained numbers and of the optimizer's memory; the file is that of a LoRA.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from backend.networks.base import Attachable, NetworkSpec
from backend.networks.common import Adapter, AdapterNetwork
from backend.networks.lora import BLOCKS, LoRA, assemble
from backend.networks.spec import read_arguments
from backend.networks.weighted import Dropouts, Weight


class FrozenDownLoRA(LoRA):
    """As :class:`LoRA`; ``lora_down.weight`` is a buffer, normal with variance 2 / (in + r)."""

    factors = ("lora_up.weight",)

    def __init__(
        self, base: nn.Module, rank: int, alpha: float, drop: Dropouts, init: torch.Generator | None
    ) -> None:
        super().__init__(base, rank, alpha, drop, None)
        down = torch.empty(self.lora_down.weight.shape)
        if init is not None:
            inputs = down[0].numel()
            down.normal_(std=math.sqrt(2.0 / (inputs + rank)), generator=init)
        self.lora_down = Weight(down, frozen=True)


def create(modules: Iterable[Attachable], spec: NetworkSpec, *, seed: int = 0) -> AdapterNetwork:
    """A new LoRA-FA on the modules that a LoRA would have.

    Raises:
        InputError: a network argument that LoRA-FA does not know, or cannot read.
    """
    spec, own = read_arguments("networks.lora_fa", spec, BLOCKS)
    drop = Dropouts.of(spec)

    def make(module: nn.Module, rank: int, alpha: float, init: torch.Generator) -> Adapter:
        return FrozenDownLoRA(module, rank, alpha, drop, init)

    return assemble(modules, spec, own, make, seed)


def shaped_like(module: nn.Module, parts: Mapping[str, Tensor], spec: NetworkSpec) -> Adapter:
    """For a file's LoRA pair, to train on."""
    rank = parts["lora_down.weight"].shape[0]
    return FrozenDownLoRA(module, rank, 0.0, Dropouts.of(spec), None)
