"""Gradient checkpointing: recompute a block in the backward pass instead of keeping its activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Checkpointed(nn.Module):
    """A network whose blocks may be run under gradient checkpointing."""

    checkpointing: bool = False

    def run(self, block: nn.Module, *inputs: Any) -> Tensor:
        """``block(*inputs)``; activations inside are not kept when checkpointing is on and grads flow."""
        if self.checkpointing and torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint

            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)
