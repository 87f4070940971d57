"""Gradient checkpointing: recompute a block in the backward pass instead of keeping its activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

Result = TypeVar("Result")


class Checkpointed(nn.Module):
    """A network whose blocks may be run under gradient checkpointing."""

    checkpointing: bool = False
    parked: bool = False
    """What is kept of a block, its inputs, waits in the processor's memory."""

    def run(self, block: Callable[..., Result], *inputs: Any) -> Result:
        """``block(*inputs)``; activations inside are not kept when checkpointing is on and grads flow."""
        if self.checkpointing and torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint

            if self.parked:
                return cast(
                    "Result", checkpoint(_fetching(block, inputs), *park(inputs), use_reentrant=False)
                )
            return cast("Result", checkpoint(block, *inputs, use_reentrant=False))
        return block(*inputs)


def park(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs with their tensors in the processor's memory; gradients pass."""
    return tuple(value.to("cpu") if isinstance(value, Tensor) else value for value in inputs)


def _fetching(block: Callable[..., Result], inputs: tuple[Any, ...]) -> Callable[..., Result]:
    """``block``, for parked inputs: brings them back to where they were."""
    places = [value.device if isinstance(value, Tensor) else None for value in inputs]

    def run(*parked: Any) -> Result:
        pairs = zip(parked, places, strict=True)
        return block(*(value if place is None else value.to(place) for value, place in pairs))

    return run
