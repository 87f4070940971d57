"""Muon for matrices and AdamW for the rest, in one optimizer.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): momentum whose matrix is brought
near the closest orthogonal one by a Newton-Schulz iteration before it is applied. On these small
networks it needs far fewer steps than AdamW. Matrices of one shape are iterated together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_MOMENTUM = 0.95
PLAIN_NAMES = ("conv_in.", "conv_out.", "embedding", "quant_conv.", "norm")
"""Parts of names whose parameters AdamW trains, whatever their shape: ends of a network and tables."""


def orthogonal(stack: Tensor) -> Tensor:
    """Matrices (N, rows, columns) with singular values near 1, by the quintic iteration.

    The polynomials are worked out on the small Gram matrix and applied once, at a fifth of the cost of
    iterating on the matrices themselves.
    """
    a, b, c = _COEFFICIENTS
    tall = stack.shape[1] > stack.shape[2]
    x = stack.transpose(1, 2) if tall else stack
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram = x @ x.transpose(1, 2)
    one = torch.eye(gram.shape[1])
    whole = one.expand_as(gram)
    for _ in range(_ITERATIONS):
        polynomial = a * one + b * gram + c * gram @ gram
        whole = polynomial @ whole
        gram = polynomial @ gram @ polynomial
    x = whole @ x
    return x.transpose(1, 2) if tall else x


class MuonAdamW:
    """``rate`` is Muon's (spectral size of a step); AdamW runs at ``rate * plain``."""

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], plain: float) -> None:
        self.plain = plain
        rest: list[nn.Parameter] = []
        self.groups: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in named:
            if parameter.ndim < 2 or any(part in name for part in PLAIN_NAMES):
                rest.append(parameter)
            else:
                self.groups[(parameter.shape[0], parameter[0].numel())].append(parameter)
        self.momenta = {shape: torch.zeros(len(members), *shape) for shape, members in self.groups.items()}
        self.adam = torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, foreach=True)

    def step(self, rate: float) -> None:
        """One update from the gradients that are there."""
        for group in self.adam.param_groups:
            group["lr"] = rate * self.plain
        self.adam.step()
        for shape, members in self.groups.items():
            self._matrices(shape, members, rate)

    @torch.no_grad()
    def _matrices(self, shape: tuple[int, int], members: list[nn.Parameter], rate: float) -> None:
        gradients = [member.grad for member in members]
        if any(gradient is None for gradient in gradients):
            return
        stack = torch.stack([gradient.reshape(shape) for gradient in gradients if gradient is not None])
        momentum = self.momenta[shape].mul_(_MOMENTUM).add_(stack)
        update = orthogonal(stack.add(momentum, alpha=_MOMENTUM))
        update.mul_(-rate * max(1.0, shape[0] / shape[1]) ** 0.5)
        for member, change in zip(members, update.unbind(), strict=True):
            member.add_(change.view_as(member))

    def zero_grad(self) -> None:
        self.adam.zero_grad(set_to_none=True)
        for members in self.groups.values():
            for member in members:
                member.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self.adam.state_dict(), "momenta": list(self.momenta.values())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["adam"])
        for own, stored in zip(self.momenta.values(), state["momenta"], strict=True):
            own.copy_(stored)
