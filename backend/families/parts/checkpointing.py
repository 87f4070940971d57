"""Gradient checkpointing: recompute a block in the backward pass instead of keeping its activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import nn

Result = TypeVar("Result")


class Checkpointed(nn.Module):
    """A network whose blocks may be run under gradient checkpointing."""

    checkpointing: bool = False

    def run(self, block: Callable[..., Result], *inputs: Any) -> Result:
        """``block(*inputs)``; activations inside are not kept when checkpointing is on and grads flow."""
        if self.checkpointing and torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint

            return cast("Result", checkpoint(block, *inputs, use_reentrant=False))
        return block(*inputs)
