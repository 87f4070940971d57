"""The optimizer step inside the backward pass, weight by weight.

As soon as a weight's gradient is there, the weight is changed and the gradient let go, so that the
gradients of all weights never lie in memory together. The price: no accumulation, and clipping
looks at each weight's gradient alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class FusedBackward:
    """Lets an optimizer step each of its weights as soon as it has a gradient.

    The optimizer keeps its groups, rates and memory, so a restore point is the same with and without.
    Its own ``step`` at the end of the pass finds no gradient and does nothing.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_norm: float = 0.0) -> None:
        """``max_norm``: the longest gradient that a single weight may have; 0: any."""
        self._optimizer = optimizer
        self._max_norm = max_norm or float("inf")
        self._squares: list[Tensor] = []
        for index, group in enumerate(optimizer.param_groups):
            for weight in group["params"]:
                weight.register_post_accumulate_grad_hook(self._stepping(index))

    def _stepping(self, index: int) -> Callable[[Tensor], None]:
        def step(weight: Tensor) -> None:
            self._squares.append(nn.utils.clip_grad_norm_([weight], self._max_norm).square())
            self._step_alone(weight, self._optimizer.param_groups[index])
            weight.grad = None

        return step

    def _step_alone(self, weight: Tensor, group: dict[str, Any]) -> None:
        groups = self._optimizer.param_groups
        self._optimizer.param_groups = [{**group, "params": [weight]}]
        try:
            self._optimizer.step()
        finally:
            self._optimizer.param_groups = groups

    def norm(self) -> Tensor:
        """L2 norm of all gradients of the latest backward pass, before clipping, 0-d."""
        squares, self._squares = self._squares, []
        return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())
