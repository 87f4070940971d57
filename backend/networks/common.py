"""What all networks made of one adapter a module share: attaching, groups, names, loading.

A kind of network is a subclass of :class:`Adapter` and a function that decides which modules get
one; :class:`AdapterNetwork` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn

from backend.errors import InputError, Problem
from backend.networks.base import Attachable
from backend.networks.dialects import normalised

Forward = Callable[[Tensor], Tensor]
_SLOT = "_atelier_adapters"
DENOISER = "unet"
"""The part of the modules of the denoiser; all others are text encoders."""


class Adapter(nn.Module):
    """The weights that change one module's output.

    Its parameters and buffers are what the file holds for that module, by the names of the file.
    """

    strength: float = 1.0
    ups: frozenset[str] = frozenset()
    """Parameters that LoRA+ moves faster (Hayou et al. 2024): the ones that start at 0."""
    factors: tuple[str, ...] = ()
    """Parameters of which the change is a plain product; empty when its norm cannot be held down so."""

    def forward(self, x: Tensor, base: Forward) -> Tensor:
        """Output of the module for ``x``; ``base`` is the module without this adapter."""
        raise AssertionError("an adapter without a forward")

    def weight_delta(self) -> Tensor:
        """What the adapter adds to the module's weight at strength 1: float32, shaped as that weight."""
        raise AssertionError("an adapter that cannot be merged")

    def bias_delta(self) -> Tensor | None:
        """What the adapter adds to the module's bias at strength 1, float32, if anything."""
        return None

    def export(self) -> dict[str, Tensor]:
        """What a file for other programs holds; what a restore point holds is ``state_dict``."""
        return self.state_dict()

    def complete(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file's tensors for this adapter with what a file may leave out filled in."""
        return tensors

    def refresh(self) -> None:
        """Called after weights were copied in: recompute what derives from them."""


@dataclass(frozen=True)
class Pace:
    """How the rates of single adapters and parameters differ from their part's rate."""

    blocks: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """Adapter name -> (block, factor of the rate)."""
    plus: Mapping[str, float] = field(default_factory=dict)
    """Part -> factor for the parameters that LoRA+ moves faster."""

    def of(self, name: str, part: str, is_up: bool) -> tuple[str, float]:
        """(name of the optimizer group, factor of the part's rate)."""
        title, factor = part, 1.0
        if name in self.blocks:
            block, factor = self.blocks[name]
            title = f"{part} block {block:02d}"
        if is_up and part in self.plus:
            return f"{title} plus", factor * self.plus[part]
        return title, factor


class AdapterNetwork(nn.Module):
    """A network with at most one :class:`Adapter` for each module of a model.

    ``state_dict`` has the names of the file. Attaching replaces the ``forward`` of single modules
    and nothing else: the model's tree and the names in its ``state_dict`` stay. Networks may be
    attached on top of each other and detached in any order.
    """

    prefix = "lora_"

    def __init__(self, adapters: Iterable[tuple[Attachable, Adapter]]) -> None:
        super().__init__()
        self._sites = [
            (self.prefix + site.name, site.part, site.module, adapter) for site, adapter in adapters
        ]
        for name, _, _, adapter in self._sites:
            self.add_module(name, adapter)
        self._strength = 1.0
        self._attached = False
        self.unused: tuple[str, ...] = ()
        """Names in the file it was made from that no module of the model takes."""
        self.pace = Pace()

    @property
    def strength(self) -> float:
        """Multiplies the network's effect; may be changed at any time."""
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = float(value)
        for adapter in self.adapters().values():
            adapter.strength = self._strength

    def set_strengths(self, *, denoiser: float, text: float) -> None:
        """As :attr:`strength`, with one of their own for the text encoders."""
        self._strength = float(denoiser)
        for _, part, _, adapter in self._sites:
            adapter.strength = self._strength if part == DENOISER else float(text)

    def adapters(self) -> dict[str, Adapter]:
        """Adapters by the name that stands in the file (``lora_unet_...``)."""
        return {name: adapter for name, _, _, adapter in self._sites}

    def attach(self) -> None:
        """Let the modules' forward use the network."""
        assert not self._attached, "a network attached twice"
        for _, _, module, adapter in self._sites:
            _add(module, adapter)
        self._attached = True

    def detach(self) -> None:
        """Give the modules the forward back that they have without this network."""
        assert self._attached, "a network detached that was not attached"
        for _, _, module, adapter in self._sites:
            _remove(module, adapter)
        self._attached = False

    def parts(self) -> tuple[str, ...]:
        """Parts that have at least one module, in the order of the modules."""
        return tuple(dict.fromkeys(part for _, part, _, _ in self._sites))

    def parameter_groups(self, rates: Mapping[str, float]) -> list[dict[str, Any]]:
        """Optimizer groups ``{"params", "lr", "name"}``: one for each part with a rate above 0, or
        several where :class:`Pace` says so.

        Parts left out are frozen (``requires_grad`` off), so that no gradient is computed for them.
        """
        groups: dict[str, dict[str, Any]] = {}
        for name, part, _, adapter in self._sites:
            rate = rates.get(part, 0.0)
            for key, parameter in adapter.named_parameters():
                parameter.requires_grad_(bool(rate))
                title, factor = self.pace.of(name, part, key in adapter.ups)
                if rate and factor:
                    group = groups.setdefault(title, {"params": [], "lr": rate * factor, "name": title})
                    group["params"].append(parameter)
        return list(groups.values())

    def weights(self) -> dict[str, Tensor]:
        """A copy of all tensors on the CPU, by the names of the file, in the parameters' dtype."""
        return {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in self.state_dict().items()
        }

    def file_weights(self) -> dict[str, Tensor]:
        """As :meth:`weights`, as other programs read them: what only training needs is folded in."""
        return {
            f"{name}.{part}": tensor.detach().to("cpu", copy=True).contiguous()
            for name, adapter in self.adapters().items()
            for part, tensor in adapter.export().items()
        }

    @torch.no_grad()
    def constrain(self, limit: float) -> None:
        """Shorten every module's change to a Frobenius norm of at most ``limit`` (max norm).

        All factors of a change are shortened alike. Nothing waits for the device.
        """
        for adapter in self.adapters().values():
            assert adapter.factors, "a kind whose norm cannot be held down"
            length = adapter.weight_delta().norm()
            share = (limit / length.clamp(min=limit)) ** (1 / len(adapter.factors))
            parameters = dict(adapter.named_parameters())
            for name in adapter.factors:
                if name in parameters:
                    parameters[name].mul_(share)

    def can_constrain(self) -> bool:
        """Whether :meth:`constrain` has a meaning for all of its adapters."""
        return all(adapter.factors for adapter in self.adapters().values())

    @torch.no_grad()
    def merge(self, ratio: float = 1.0) -> None:
        """Add ``ratio`` times its effect to the modules' own weights, for good."""
        for _, _, module, adapter in self._sites:
            host = cast("Any", module)
            change, bias = adapter.weight_delta(), adapter.bias_delta()
            host.weight.copy_(host.weight.float() + ratio * change.to(host.weight.device))
            if bias is not None:
                host.bias.copy_(host.bias.float() + ratio * bias.to(host.bias.device))

    def named_weights(self) -> dict[str, nn.Parameter]:
        """The trainable parameters themselves, by the names of the file."""
        return dict(self.named_parameters())

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor]) -> list[str]:
        """Copy weights by name, in any dialect; returns the names that nothing here takes.

        A module that the file does not speak of keeps its weights. All shapes are checked before
        the first tensor is copied.

        Raises:
            InputError: tensors of a module have another shape (another rank, another model) or
                some of them are missing.
        """
        found = by_module(normalised(weights))
        plan: list[tuple[Tensor, Tensor]] = []
        for name, adapter in self.adapters().items():
            if name in found:
                plan += _pairs(name, adapter, adapter.complete(found.pop(name)))
        for target, source in plan:
            target.copy_(source)
        for adapter in self.adapters().values():
            adapter.refresh()
        return [f"{name}.{part}" if part else name for name, parts in found.items() for part in parts]


def by_module(weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """{"name.part": tensor} -> {"name": {"part": tensor}}; module names hold no dot."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in weights.items():
        name, _, part = key.partition(".")
        found.setdefault(name, {})[part] = tensor
    return found


def fitted(tensor: Tensor, shape: Iterable[int]) -> Tensor | None:
    """``tensor`` in ``shape`` when they differ by sides of length 1 only (1x1 kernels), else None."""
    shape = tuple(shape)
    if [n for n in tensor.shape if n != 1] != [n for n in shape if n != 1]:
        return None
    return tensor.reshape(shape)


_OTHER = (
    "choose a file of the kind that is trained, or give network_module and its arguments as for that file"
)


def _pairs(name: str, adapter: Adapter, tensors: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """(own tensor, tensor of the file) for one adapter."""
    own = adapter.state_dict(keep_vars=True)
    if missing := own.keys() - tensors.keys():
        raise InputError(
            Problem(
                f"the file lacks {name}.{min(missing)}",
                why="it is incomplete or of another kind",
                next=_OTHER,
            )
        )
    if extra := tensors.keys() - own.keys():
        raise InputError(
            Problem(
                f"the file has {name}.{min(extra)}, which this kind of network does not know", next=_OTHER
            )
        )
    pairs: list[tuple[Tensor, Tensor]] = []
    for part, target in own.items():
        source = fitted(tensors[part], target.shape)
        if source is None:
            raise InputError(_misfit(f"{name}.{part}", tuple(tensors[part].shape), tuple(target.shape)))
        pairs.append((target, source))
    return pairs


def _misfit(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> Problem:
    return Problem(
        f"{name} is {list(found)} in the file and {list(expected)} here",
        why="the file has another rank, or was made for another model",
        next="switch on dim_from_weights to take ranks from the file, or set network_dim to its rank",
        key="network_dim",
    )


class _Slot:
    """Adapters of one module in the order of attaching, and the forward it had before."""

    def __init__(self, module: nn.Module) -> None:
        self.adapters: list[Adapter] = []
        self.earlier = cast("Forward | None", module.__dict__.get("forward"))

    def apply(self, module: nn.Module) -> None:
        forward = self.earlier or MethodType(type(module).forward, module)
        for adapter in self.adapters:
            forward = partial(adapter.forward, base=forward)
        module.forward = forward


def _add(module: nn.Module, adapter: Adapter) -> None:
    slot = module.__dict__.setdefault(_SLOT, _Slot(module))
    slot.adapters.append(adapter)
    slot.apply(module)


def _remove(module: nn.Module, adapter: Adapter) -> None:
    slot: _Slot = module.__dict__[_SLOT]
    slot.adapters = [other for other in slot.adapters if other is not adapter]
    if slot.adapters:
        slot.apply(module)
        return
    del module.__dict__[_SLOT], module.__dict__["forward"]
    if slot.earlier is not None:
        module.forward = slot.earlier
