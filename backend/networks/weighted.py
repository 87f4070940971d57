"""Networks that change a module's weight as a whole, instead of adding a path beside it.

A kind says what it adds to the weight; the output is that of the module with ``W + strength *
delta``. With DoRA (Liu et al. 2024, "DoRA") the changed weight is brought to trained lengths first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MethodType
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.networks.base import NetworkSpec
from backend.networks.common import Adapter, Forward


@dataclass(frozen=True)
class Dropouts:
    """Shares left out in training."""

    values: float = 0.0
    """Of the rank's activations, one by one."""
    ranks: float = 0.0
    """Of ranks for each picture; of rows of the change where there is no path of ranks."""
    modules: float = 0.0
    """Of modules, for the whole batch."""
    rescale: bool = True
    """What is left after ``ranks`` is made stronger by as much as was left out."""

    @classmethod
    def of(cls, spec: NetworkSpec, rescale: bool = True) -> Dropouts:
        return cls(spec.dropout or 0.0, spec.rank_dropout or 0.0, spec.module_dropout or 0.0, rescale)


@dataclass(frozen=True)
class Options:
    """How an adapter is made. Each kind reads what it knows."""

    rank: int = 4
    alpha: float = 0.0
    """0 means the rank; for rotations the constraint, 0 for none."""
    drop: Dropouts = Dropouts()
    tucker: bool = False
    """Kernels larger than 1x1 have a core of their own between two 1x1 parts."""
    scalar: bool = False
    """One trained factor that starts at 0, in place of a part that starts at 0."""
    dora: str = ""
    """"output" or "input": the trained lengths are those of rows or of columns. Empty: none."""
    bypass: bool = False
    """Compute the change beside the module, not inside its weight."""
    factor: int = -1
    full_matrix: bool = False
    decompose_both: bool = False
    rescaled: bool = False
    on_input: bool = False
    unit: int = 1

    @property
    def own_alpha(self) -> float:
        return float(self.alpha or self.rank)


class Host:
    """The model's module that an adapter changes: no child of the adapter, and not copied with it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: object) -> Host:
        return self


class WeightAdapter(Adapter):
    """An adapter whose effect is a change of the module's weight (and bias).

    Subclasses give :meth:`change`. ``W`` is (out, in) or (out, in, k, k).
    """

    folds: ClassVar[tuple[str, ...]] = ()
    """Parameters that take the scalar's value in a file."""

    def __init__(self, host: nn.Module, options: Options) -> None:
        super().__init__()
        assert isinstance(host, (nn.Linear, nn.Conv2d)) and getattr(host, "groups", 1) == 1
        self._host = Host(host)
        self.options = options
        self.dora_scale: nn.Parameter | None = None
        self.scalar: nn.Parameter | None = None
        if options.dora:
            self.dora_scale = nn.Parameter(_lengths(host.weight.detach().float(), options.dora))
        if options.scalar:
            self.scalar = nn.Parameter(torch.zeros(()))

    def factors_named(self, prefix: str) -> tuple[str, ...]:
        """The parameters that the change is a product of; none with DoRA, which is no product."""
        if self.dora_scale is not None:
            return ()
        return tuple(name for name, _ in self.named_parameters() if name.startswith(prefix))

    @property
    def host(self) -> nn.Linear | nn.Conv2d:
        return cast("nn.Linear | nn.Conv2d", self._host.module)

    def base_weight(self, like: Tensor) -> Tensor:
        """The module's own weight in ``like``'s dtype, without a gradient."""
        return self.host.weight.detach().to(like.dtype)

    def change(self) -> Tensor:
        """What is added to the weight, before DoRA; shaped as the weight."""
        raise AssertionError("a kind without a change")

    def bias_change(self) -> Tensor | None:
        """What is added to the bias, if anything."""
        return None

    def delta(self) -> Tensor:
        """What is added to the weight at strength 1, with gradients."""
        change = self.change().reshape(self.host.weight.shape)
        if self.scalar is not None:
            change = change * self.scalar
        if self.dora_scale is None:
            return change
        base = self.base_weight(change)
        whole = base + change
        lengths = _lengths(whole, self.options.dora) + torch.finfo(whole.dtype).eps
        return whole * (self.dora_scale / lengths) - base

    def weight_delta(self) -> Tensor:
        return self.delta().detach().float()

    def bias_delta(self) -> Tensor | None:
        bias = self.bias_change()
        return None if bias is None else bias.detach().float()

    def forward(self, x: Tensor, base: Forward) -> Tensor:
        """Shapes as the base module's; dtype as its output."""
        with torch.autocast(x.device.type, enabled=False):  # small products: exact ones are cheap
            delta = self._dropped(self.delta()) * self.strength
            bias = self.bias_change()
            bias = None if bias is None else bias * self.strength
        host = self.host
        alone = isinstance(base, MethodType) and base.__self__ is host
        if alone and not self.options.bypass and type(host) in (nn.Linear, nn.Conv2d):
            weight = host.weight.to(delta.dtype) + delta
            if host.bias is not None:
                bias = host.bias if bias is None else host.bias.to(bias.dtype) + bias
            return _apply(host, x, weight, bias)
        out = base(x)
        return out + _apply(host, x, delta, bias).to(out.dtype)

    def complete(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A file has no scalar: it stands in other weights there."""
        if self.scalar is not None and "scalar" not in tensors:
            return {**tensors, "scalar": torch.ones(())}
        return tensors

    def export(self) -> dict[str, Tensor]:
        tensors = dict(super().export())
        scalar = tensors.pop("scalar", None)
        if scalar is not None:
            for name in self.folds:
                if name in tensors:
                    tensors[name] = tensors[name] * scalar
        return tensors

    def _dropped(self, delta: Tensor) -> Tensor:
        """Dropouts on rows of the change and on the whole of it, in training only."""
        if not self.training:
            return delta
        drop, device = self.options.drop, delta.device
        if drop.ranks:
            rows = (torch.rand(delta.shape[0], device=device) >= drop.ranks).to(delta.dtype)
            if drop.rescale:
                rows = rows / (1.0 - drop.ranks)
            delta = delta * rows.view(-1, *[1] * (delta.dim() - 1))
        if drop.modules:
            delta = delta * (torch.rand((), device=device) >= drop.modules).to(delta.dtype)
        return delta


class Scaled(WeightAdapter):
    """A :class:`WeightAdapter` with an ``alpha`` in the file: the change counts alpha / rank."""

    alpha: Tensor

    def __init__(self, host: nn.Module, options: Options, alpha: float | None = None) -> None:
        super().__init__(host, options)
        self.rank = options.rank
        self.register_buffer("alpha", torch.tensor(options.own_alpha if alpha is None else alpha))
        self.scale = 1.0
        self.refresh()
        self.register_load_state_dict_post_hook(lambda module, _: module.refresh())

    def refresh(self) -> None:
        self.scale = float(self.alpha) / self.rank

    def complete(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """No alpha, or 0, means alpha = rank."""
        tensors = super().complete(tensors)
        alpha = tensors.get("alpha")
        if alpha is not None and float(alpha):
            return tensors
        return {**tensors, "alpha": torch.tensor(float(self.rank))}


def sides(host: nn.Module) -> tuple[int, int, tuple[int, ...]]:
    """(inputs, outputs, kernel) of a linear layer (kernel ``()``) or a convolution."""
    if isinstance(host, nn.Linear):
        return host.in_features, host.out_features, ()
    assert isinstance(host, nn.Conv2d)
    return host.in_channels, host.out_channels, tuple(host.kernel_size)


def drawn(shape: tuple[int, ...], init: torch.Generator | None) -> nn.Parameter:
    """Kaiming-uniform with a = sqrt(5), as linear layers start; undefined without a generator."""
    tensor = torch.empty(shape)
    if init is not None:
        nn.init.kaiming_uniform_(tensor, a=math.sqrt(5), generator=init)
    return nn.Parameter(tensor)


def normal(shape: tuple[int, ...], deviation: float, init: torch.Generator | None) -> nn.Parameter:
    """Normal with mean 0; undefined without a generator."""
    tensor = torch.empty(shape)
    if init is not None:
        nn.init.normal_(tensor, std=deviation, generator=init)
    return nn.Parameter(tensor)


def zeros(shape: tuple[int, ...]) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


class Weight(nn.Module):
    """Holds one tensor, so that its name in the file ends in ``.weight``."""

    weight: Tensor

    def __init__(self, weight: Tensor, frozen: bool = False) -> None:
        super().__init__()
        if frozen:
            self.register_buffer("weight", weight)
        else:
            self.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight)


def dora_of(parts: Mapping[str, Tensor]) -> str:
    """Which lengths a file's DoRA scale has: ``Options.dora``."""
    scale = parts.get("dora_scale")
    if scale is None:
        return ""
    return "input" if scale.dim() > 1 and scale.shape[0] == 1 and scale.shape[1] != 1 else "output"


def _lengths(weight: Tensor, side: str) -> Tensor:
    """L2 lengths of the rows (out, 1, ...) or of the columns (1, in, ...) of a weight."""
    keep = 0 if side == "output" else 1
    others = [axis for axis in range(weight.dim()) if axis != keep]
    return torch.linalg.vector_norm(weight, dim=others, keepdim=True)


def _apply(host: nn.Linear | nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The module's operation with other weights."""
    if not torch.is_autocast_enabled(x.device.type):
        weight = weight.to(x.dtype)
        bias = None if bias is None else bias.to(x.dtype)
    if isinstance(host, nn.Linear):
        return F.linear(x, weight, bias)
    return F.conv2d(x, weight, bias, host.stride, host.padding, host.dilation)
