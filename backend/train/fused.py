"""The optimizer step inside the backward pass, weight by weight or a few weights at a time.

As soon as all weights of a bundle have their gradients, they are changed and the gradients let go, so
that the gradients of all weights never lie in memory together. The price: no accumulation, and clipping
looks at each weight's gradient alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from backend.settings import Settings

Bundles = Sequence[Sequence[Tensor]]


class FusedBackward:
    """Lets an optimizer step its weights as soon as those of a bundle have gradients.

    The optimizer keeps its groups, rates and memory, so a restore point is the same with and without.
    Its own ``step`` at the end of the pass finds no gradient and does nothing.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, max_norm: float = 0.0, bundles: Bundles | None = None
    ) -> None:
        """``max_norm``: the longest gradient that a single weight may have; 0: any. ``bundles``: weights
        that step together; None: each alone."""
        self._optimizer = optimizer
        self._max_norm = max_norm or float("inf")
        self._squares: list[Tensor] = []
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self._bundles = [list(bundle) for bundle in bundles] if bundles else [[one] for one in weights]
        self._missing = [len(bundle) for bundle in self._bundles]
        for index, bundle in enumerate(self._bundles):
            for weight in bundle:
                weight.register_post_accumulate_grad_hook(self._counting(index))

    def _counting(self, index: int) -> Callable[[Tensor], None]:
        def count(weight: Tensor) -> None:
            self._squares.append(nn.utils.clip_grad_norm_([weight], self._max_norm).square())
            self._missing[index] -= 1
            if not self._missing[index]:
                self._step(self._bundles[index])

        return count

    def _step(self, bundle: Sequence[Tensor]) -> None:
        """Change these weights alone, and let their gradients go."""
        groups, own = self._optimizer.param_groups, {id(weight) for weight in bundle}
        self._optimizer.param_groups = [
            {**group, "params": inside}
            for group in groups
            if (inside := [weight for weight in group["params"] if id(weight) in own])
        ]
        try:
            self._optimizer.step()
        finally:
            self._optimizer.param_groups = groups
        for weight in bundle:
            weight.grad = None

    def norm(self) -> Tensor:
        """L2 norm of all gradients of the latest backward pass, before clipping, 0-d.

        Ends the pass: bundles with weights that were not used in it have not stepped yet, and do.
        """
        for index, bundle in enumerate(self._bundles):
            if 0 < self._missing[index] < len(bundle):
                self._step(bundle)
            self._missing[index] = len(bundle)
        squares, self._squares = self._squares, []
        return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())


def fused_backward(
    settings: Settings, optimizer: torch.optim.Optimizer, names: Mapping[int, str]
) -> FusedBackward | None:
    """Steps inside the backward pass, when the settings ask for them.

    ``names``: ``id`` of a trained weight -> its name, for steps block by block.
    """
    limit, whole = settings.optimizer.max_grad_norm, settings.whole
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if settings.precision.fused_backward_pass:
        return FusedBackward(optimizer, limit)
    if whole.blockwise_fused_optimizers:
        return FusedBackward(optimizer, limit, by_block(weights, names))
    if whole.fused_optimizer_groups:
        return FusedBackward(optimizer, limit, of_equal_size(weights, whole.fused_optimizer_groups))
    return None


def of_equal_size(weights: Sequence[Tensor], count: int) -> list[list[Tensor]]:
    """At most ``count`` bundles of neighbouring weights with about as many numbers each."""
    total, before = sum(weight.numel() for weight in weights), 0
    places: list[int] = []
    for weight in weights:
        places.append(min(count - 1, before * count // total))
        before += weight.numel()
    pairs = groupby(zip(places, weights, strict=True), key=lambda pair: pair[0])
    return [[weight for _, weight in inside] for _, inside in pairs]


def by_block(weights: Sequence[Tensor], names: Mapping[int, str]) -> list[list[Tensor]]:
    """A bundle for each transformer block, and one for all other weights."""
    found: dict[str, list[Tensor]] = {}
    for weight in weights:
        words: list[Any] = names[id(weight)].split(".")
        block = ".".join(words[: words.index("joint_blocks") + 2]) if "joint_blocks" in words else ""
        found.setdefault(block, []).append(weight)
    return list(found.values())
