"""Precisions by the names that command lines use."""

from __future__ import annotations

import torch

from backend.errors import EnvironmentFault, InputError

PRECISIONS = ("float", "fp16", "bf16")
_TYPES = {"float": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def dtype_named(name: str | None) -> torch.dtype | None:
    """``float``, ``fp16`` or ``bf16`` as a torch type; None stays None.

    Raises:
        InputError: another name.
    """
    if name is None:
        return None
    if name not in _TYPES:
        raise InputError(f"unknown precision {name}", next=f"choose one of {', '.join(PRECISIONS)}")
    return _TYPES[name]


def rounded(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Float32 values as they are after a stay in ``dtype``."""
    return tensor if dtype in (None, torch.float32) else tensor.to(dtype).float()


def device_named(name: str | None) -> torch.device:
    """Where to calculate; None is the CPU.

    Raises:
        InputError: no device has that name.
        EnvironmentFault: this machine or this torch has no such device.
    """
    try:
        device = torch.device(name or "cpu")
    except RuntimeError as error:
        raise InputError(f"unknown device {name}", why=str(error).splitlines()[0], key="device") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EnvironmentFault(
            f"there is no CUDA device here for --device {name}",
            why="no NVIDIA card, no driver, or a torch that was built without CUDA",
            next="leave --device out, or run again with --allow_fallback, to use the processor",
            key="device",
        )
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"--device {name} is not supported", next="cpu, cuda or cuda:1", key="device")
    return device
