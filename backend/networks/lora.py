"""LoRA (Hu et al. 2021) on linear layers and convolutions.

``W x + strength * alpha / r * up(drop(down x))``. By default the linear layers and 1x1
convolutions of text encoders and attention blocks have one (LierLa); with ``conv_dim`` resnets and
samplers as well (C3Lier): their linear layers and 1x1 convolutions with ``dim``, larger kernels
with ``conv_dim``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend import keyed
from backend.networks.base import Attachable, NetworkSpec
from backend.networks.common import Adapter, AdapterNetwork, Forward, by_module
from backend.networks.delta import Factors, delta
from backend.networks.spec import with_arguments

DEFAULT_DIM = 4
DEFAULT_CONV_ALPHA = 1.0
_ALWAYS = frozenset({"text", "attention"})


@dataclass(frozen=True)
class Dropouts:
    """Shares left out in training."""

    values: float = 0.0
    """Of the rank's activations, one by one."""
    ranks: float = 0.0
    """Of ranks, for each picture."""
    modules: float = 0.0
    """Of modules, for the whole batch."""

    @classmethod
    def of(cls, spec: NetworkSpec) -> Dropouts:
        return cls(spec.dropout or 0.0, spec.rank_dropout or 0.0, spec.module_dropout or 0.0)


class _Weight(nn.Module):
    """Holds one parameter, so that its name in the file ends in ``.weight``."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


class LoRA(Adapter):
    """The pair of one module.

    Parameters: ``lora_down.weight`` (r, in) or (r, in, k, k), ``lora_up.weight`` (out, r) or
    (out, r, 1, 1), float32. They work under autocast, and beside a base in half precision.
    Dropouts act in training only. They are drawn from torch's global generator inside the forward
    (the trainer seeds it for each step), so gradient checkpointing repeats them exactly.
    """

    alpha: Tensor

    def __init__(
        self, base: nn.Module, rank: int, alpha: float, drop: Dropouts, init: torch.Generator | None
    ) -> None:
        """``alpha`` 0 means the rank; ``init`` None leaves down undefined, to be loaded."""
        super().__init__()
        self.convolution: dict[str, Any] | None = None
        if isinstance(base, nn.Linear):
            down, up = (rank, base.in_features), (base.out_features, rank)
        else:
            assert isinstance(base, nn.Conv2d) and base.groups == 1 and base.padding_mode == "zeros"
            down, up = (rank, base.in_channels, *base.kernel_size), (base.out_channels, rank, 1, 1)
            self.convolution = {"stride": base.stride, "padding": base.padding, "dilation": base.dilation}
        self.lora_down = _Weight(torch.empty(down))
        if init is not None:
            nn.init.kaiming_uniform_(self.lora_down.weight, a=math.sqrt(5), generator=init)
        self.lora_up = _Weight(torch.zeros(up))
        self.register_buffer("alpha", torch.tensor(float(alpha or rank)))
        self.drop = drop
        self.scale = 1.0
        self.refresh()
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())

    def forward(self, x: Tensor, base: Forward) -> Tensor:
        """Shapes as the base module's; dtype as its output."""
        out = base(x)
        down, up = self.lora_down.weight, self.lora_up.weight
        if x.dtype != down.dtype and not torch.is_autocast_enabled(x.device.type):
            x = x.to(down.dtype)
        if self.convolution is None:
            hidden = F.linear(x, down)
            added = F.linear(self._dropped(hidden) if self.training else hidden, up)
        else:
            hidden = F.conv2d(x, down, **self.convolution)
            added = F.conv2d(self._dropped(hidden) if self.training else hidden, up)
        return torch.add(out, added.to(out.dtype), alpha=self.strength * self.scale)

    def weight_delta(self) -> Tensor:
        return delta(Factors(self.lora_down.weight.detach(), self.lora_up.weight.detach(), float(self.alpha)))

    def complete(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """No alpha, or 0, means alpha = rank."""
        down, alpha = tensors.get("lora_down.weight"), tensors.get("alpha")
        if down is None or (alpha is not None and float(alpha)):
            return tensors
        return {**tensors, "alpha": torch.tensor(float(down.shape[0]))}

    def refresh(self) -> None:
        self.scale = float(self.alpha) / self.lora_down.weight.shape[0]

    def _dropped(self, hidden: Tensor) -> Tensor:
        """Dropouts on the rank's activations: (B, ..., r), of a convolution (B, r, h, w)."""
        if self.drop.values:
            hidden = F.dropout(hidden, self.drop.values)
        if self.drop.ranks:
            axis = hidden.dim() - 1 if self.convolution is None else 1
            shape = [size if i in (0, axis) else 1 for i, size in enumerate(hidden.shape)]
            keep = 1.0 - self.drop.ranks
            hidden = hidden * (torch.rand(shape, device=hidden.device) < keep).to(hidden.dtype) / keep
        if self.drop.modules:
            # A product instead of a branch: nothing waits for the device, and graphs stay whole.
            hidden = hidden * (torch.rand((), device=hidden.device) >= self.drop.modules).to(hidden.dtype)
        return hidden


def create(modules: Iterable[Attachable], spec: NetworkSpec, *, seed: int = 0) -> AdapterNetwork:
    """A new LoRA on ``modules``, without effect until trained (up is zero).

    Each down weight is drawn from its own generator, keyed by ``seed`` and the module's name, so
    the order of creation and the choice of modules do not matter.

    Raises:
        InputError: a network argument that LoRA does not know, or cannot read.
    """
    spec = with_arguments("networks.lora", spec)
    drop = Dropouts.of(spec)
    sites: list[tuple[Attachable, Adapter]] = []
    for site in modules:
        size = _size(site, spec)
        if size is not None:
            init = keyed.generator(seed, "init", site.name)
            sites.append((site, LoRA(site.module, *size, drop, init)))
    return AdapterNetwork(sites)


def from_weights(
    weights: Mapping[str, Tensor], modules: Iterable[Attachable], spec: NetworkSpec
) -> AdapterNetwork:
    """The LoRA of a file (kohya names), each module with its own rank and alpha.

    Modules that the file does not speak of get none. Of ``spec`` only the dropouts count.

    Raises:
        InputError: the shapes are those of another model.
    """
    drop = Dropouts.of(with_arguments("networks.lora", spec))
    ranks = {
        name: parts["lora_down.weight"].shape[0]
        for name, parts in by_module(weights).items()
        if "lora_down.weight" in parts
    }
    sites: list[tuple[Attachable, Adapter]] = []
    for site in modules:
        rank = ranks.get(AdapterNetwork.prefix + site.name)
        if rank is not None:
            sites.append((site, LoRA(site.module, rank, 0.0, drop, None)))
    network = AdapterNetwork(sites)
    network.unused = tuple(network.load_weights(weights))
    return network


def _size(site: Attachable, spec: NetworkSpec) -> tuple[int, float] | None:
    """(rank, alpha) of a module's LoRA, or None when it has none."""
    if site.container not in _ALWAYS and spec.conv_dim is None:
        return None
    if isinstance(site.module, nn.Linear) or site.module.kernel_size == (1, 1):
        return spec.dim or DEFAULT_DIM, spec.alpha or 0.0
    if spec.conv_dim is None:
        return None
    return spec.conv_dim, DEFAULT_CONV_ALPHA if spec.conv_alpha is None else spec.conv_alpha
