"""Frozen weights kept in 8 bits (float8 e4m3) and brought to the computing type where they are used.

Half the memory of half precision for the base model. Norms, biases and embeddings stay as they are.
Only the 8-bit numbers are kept for the backward pass: keeping what they were turned into would cost
more than it saves.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

STORED = torch.float8_e4m3fn


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stored: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(stored)
        return F.linear(x, stored.to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (stored,) = ctx.saved_tensors
        return gradient @ stored.to(gradient.dtype), None, None


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, stored: Tensor, bias: Tensor | None, how: tuple[Any, ...]) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(stored)
        ctx.size, ctx.how = x.shape, how
        return F.conv2d(x, stored.to(x.dtype), bias, *how)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (stored,) = ctx.saved_tensors
        weight = stored.to(gradient.dtype)
        return conv2d_input(ctx.size, weight, gradient, *ctx.how), None, None, None


class _Stored(nn.Module):
    """What both kinds of layer share: ``stored`` in 8 bits, ``weight`` as it is computed with."""

    stored: Tensor
    computes_in: torch.dtype

    @property
    def weight(self) -> Tensor:
        return self.stored.to(self.computes_in)

    def own_bias(self) -> Tensor | None:
        """The bias as it is computed with."""
        bias = cast("Tensor | None", self.bias)
        return None if bias is None else bias.to(self.computes_in)


class StoredLinear(_Stored, nn.Linear):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A linear layer with its weight in 8 bits."""

    def forward(self, input: Tensor) -> Tensor:
        bias = self.own_bias()
        return cast(Tensor, _Linear.apply(input.to(self.computes_in), self.stored, bias))


class StoredConv2d(_Stored, nn.Conv2d):  # pyright: ignore[reportIncompatibleVariableOverride]
    """A convolution with its weight in 8 bits."""

    def forward(self, input: Tensor) -> Tensor:
        bias = self.own_bias()
        how = (self.stride, self.padding, self.dilation, self.groups)
        return cast(Tensor, _Conv2d.apply(input.to(self.computes_in), self.stored, bias, how))


_KINDS: dict[type[nn.Module], type[_Stored]] = {nn.Linear: StoredLinear, nn.Conv2d: StoredConv2d}


def store_in_8_bits(module: nn.Module, computes_in: torch.dtype) -> int:
    """Keep the weights of every linear layer and convolution in 8 bits, in place; gives how many.

    They have to be frozen, and what changes weights for good (merging) has to come before. Weights
    beyond the type's range (448) are cut off.
    """
    limit = torch.finfo(STORED).max
    count = 0
    for part in module.modules():
        kind = _KINDS.get(type(part))
        if kind is None:
            continue
        layer = cast("nn.Linear | nn.Conv2d", part)
        weight = layer.weight.detach()
        del layer.weight
        layer.__class__ = cast(Any, kind)
        layer.register_buffer("stored", weight.clamp(-limit, limit).to(STORED))
        cast("Any", layer).computes_in = computes_in
        count += 1
    return count
