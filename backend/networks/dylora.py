"""DyLoRA (Valipour et al. 2022): a LoRA that can be cut to lower ranks afterwards.

At each step every module draws a block of ``unit`` ranks, starting at k. Only that block gets
gradients. The file is that of a LoRA; the first n ranks of it are a LoRA as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.networks.base import Attachable, NetworkSpec
from backend.networks.common import Adapter, AdapterNetwork, Forward
from backend.networks.lora import DEFAULT_DIM, LORAPLUS, LoRA, assemble
from backend.networks.spec import RANK, Reader, read_arguments, refuse
from backend.networks.weighted import Dropouts

ARGUMENTS: dict[str, Reader] = {"unit": RANK, **LORAPLUS}


class DyLoRA(LoRA):
    """As :class:`LoRA`; in training one block of ranks at a time.

    With ``nested`` off (sd-scripts) all ranks take part and the effect counts alpha / r *
    sqrt(r / (k + unit)); with it on (LyCORIS, and the paper) the ranks behind the block are left out
    and it counts alpha / (k + unit), as a file cut to k + unit ranks does.

    The block is drawn from torch's generator (the trainer seeds it for each step), without waiting
    for the device.
    """

    def __init__(
        self, base: nn.Module, rank: int, alpha: float, unit: int, init: torch.Generator | None, nested: bool
    ) -> None:
        super().__init__(base, rank, alpha, Dropouts(), init)
        self.unit, self.nested = unit, nested

    def forward(self, x: Tensor, base: Forward) -> Tensor:
        """Shapes as the base module's; dtype as its output."""
        if not self.training:
            return super().forward(x, base)
        out, down, up = base(x), self.lora_down.weight, self.lora_up.weight
        rank = down.shape[0]
        start = torch.randint(0, rank, (), device=x.device) // self.unit * self.unit
        end = start + self.unit
        places = torch.arange(rank, device=x.device)
        chosen = (places >= start) & (places < end)
        down = torch.where(chosen.view(-1, *[1] * (down.dim() - 1)), down, down.detach())
        up = torch.where(chosen.view(1, -1, *[1] * (up.dim() - 2)), up, up.detach())
        if x.dtype != down.dtype and not torch.is_autocast_enabled(x.device.type):
            x = x.to(down.dtype)
        linear = self.convolution is None
        hidden = F.linear(x, down) if self.convolution is None else F.conv2d(x, down, **self.convolution)
        if self.nested:
            kept = (places < end).to(hidden.dtype)
            hidden = hidden * (kept if linear else kept.view(-1, 1, 1))
            factor = rank / end
        else:
            factor = torch.sqrt(rank / end)
        added = F.linear(hidden, up) if linear else F.conv2d(hidden, up)
        return out + (added * (factor * self.strength * self.scale)).to(out.dtype)


def check_unit(module: str, rank: int, unit: int, name: str = "unit") -> None:
    """Raises:
    InputError: the rank is no multiple of the unit.
    """
    if rank % unit:
        raise refuse(
            f"{module} needs a rank that is a multiple of {name}",
            why=f"network_dim is {rank}, {name} is {unit}",
            next=f"for example network_dim {(rank // unit + 1) * unit}",
        )


def create(modules: Iterable[Attachable], spec: NetworkSpec, *, seed: int = 0) -> AdapterNetwork:
    """A new DyLoRA on the modules that a LoRA would have.

    Raises:
        InputError: arguments that DyLoRA does not know, or ranks that do not fit ``unit``.
    """
    name = "networks.dylora"
    spec, own = read_arguments(name, spec, ARGUMENTS, ("conv_dim", "conv_alpha"))
    rank, unit = spec.dim or DEFAULT_DIM, own.get("unit", 1)
    check_unit(name, rank, unit)
    if spec.conv_dim is not None and spec.conv_dim != rank:
        raise refuse(
            f"{name} needs conv_dim to be equal to network_dim ({rank}), not {spec.conv_dim}",
            next=f"set conv_dim to {rank}, or leave it out",
        )

    def make(module: nn.Module, rank: int, alpha: float, init: torch.Generator) -> Adapter:
        return DyLoRA(module, rank, spec.alpha or 0.0, unit, init, nested=False)

    return assemble(modules, spec, own, make, seed)


def shaped_like(module: nn.Module, parts: Mapping[str, Tensor], spec: NetworkSpec) -> Adapter:
    """For a file's LoRA pair, to train on."""
    _, own = read_arguments("networks.dylora", spec, ARGUMENTS, ("conv_dim", "conv_alpha"))
    rank, unit = parts["lora_down.weight"].shape[0], own.get("unit", 1)
    check_unit("networks.dylora", rank, unit)
    return DyLoRA(module, rank, 0.0, unit, None, nested=False)
