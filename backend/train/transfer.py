"""From the processor's memory to the card without waiting for what the card is still computing."""

from __future__ import annotations

import torch
from torch import Tensor


def onto(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on the device.

    A copy from ordinary memory makes the program wait until the card has come to it, at each step; one
    from pinned memory is only put in line.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
