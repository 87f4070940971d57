"""Kinds without a product: whole differences, scales (IA3) and norm layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from backend.networks.common import Adapter, Forward
from backend.networks.weighted import Dropouts, Host, Options, WeightAdapter, sides


class FullDifference(WeightAdapter):
    """``diff`` shaped as the weight, ``diff_b`` as the bias."""

    factors = ("diff",)

    def __init__(self, host: nn.Module, options: Options, bias: bool = True) -> None:
        super().__init__(host, options)
        self.diff = nn.Parameter(torch.zeros(self.host.weight.shape))
        own = self.host.bias is not None and bias
        self.diff_b = nn.Parameter(torch.zeros(self.host.weight.shape[0])) if own else None

    @classmethod
    def shaped_like(cls, host: nn.Module, parts: Mapping[str, Tensor], drop: Dropouts) -> FullDifference:
        return cls(host, Options(drop=drop), "diff_b" in parts)

    def change(self) -> Tensor:
        return self.diff

    def bias_change(self) -> Tensor | None:
        return self.diff_b


class IA3(WeightAdapter):
    """``weight``: a factor, less 1, for each output (or input) of the weight; the bias stays
    (Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning")."""

    on_input: Tensor

    def __init__(self, host: nn.Module, options: Options) -> None:
        super().__init__(host, options)
        inputs, outputs, kernel = sides(host)
        size = inputs if options.on_input else outputs
        self.weight = nn.Parameter(torch.zeros((1, size, 1, 1) if kernel else (size,)))
        self.register_buffer("on_input", torch.tensor(options.on_input))

    @classmethod
    def shaped_like(cls, host: nn.Module, parts: Mapping[str, Tensor], drop: Dropouts) -> IA3:
        return cls(host, Options(drop=drop, on_input=bool(parts["on_input"])))

    def change(self) -> Tensor:
        base = self.base_weight(self.weight)
        axis = 1 if self.options.on_input else 0
        return base * self.weight.reshape([-1 if n == axis else 1 for n in range(base.dim())])


class Norm(Adapter):
    """``w_norm`` and ``b_norm``: what is added to a norm layer's weight and bias."""

    def __init__(self, host: nn.Module, options: Options, bias: bool = True) -> None:
        super().__init__()
        assert isinstance(host, (nn.LayerNorm, nn.GroupNorm))
        self._host = Host(host)
        self.drop = options.drop
        self.w_norm = nn.Parameter(torch.zeros(host.weight.shape))
        self.b_norm = nn.Parameter(torch.zeros(host.weight.shape)) if bias else None

    @classmethod
    def shaped_like(cls, host: nn.Module, parts: Mapping[str, Tensor], drop: Dropouts) -> Norm:
        return cls(host, Options(drop=drop), "b_norm" in parts)

    def forward(self, x: Tensor, base: Forward) -> Tensor:
        host, out = self._host.module, base(x)
        added = _normalised(host, x, self.w_norm, self.b_norm)
        if self.training and self.drop.modules:
            added = added * (torch.rand((), device=x.device) >= self.drop.modules).to(added.dtype)
        return out + (self.strength * added).to(out.dtype)

    def weight_delta(self) -> Tensor:
        return self.w_norm.detach().float()

    def bias_delta(self) -> Tensor | None:
        return None if self.b_norm is None else self.b_norm.detach().float()


def _normalised(host: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x = x.to(weight.dtype)
    if isinstance(host, nn.GroupNorm):
        return F.group_norm(x, host.num_groups, weight, bias, host.eps)
    own = cast("Any", host)
    return F.layer_norm(x, own.normalized_shape, weight, bias, own.eps)
