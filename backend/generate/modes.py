"""The state that a model is in while it draws, and the one it had before."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from backend.families.base import DiffusionModel

_HALF = (torch.float16, torch.bfloat16)


def device_of(model: DiffusionModel) -> torch.device:
    """Where the denoiser is."""
    return next(model.denoiser.parameters()).device


def dtype_of(model: DiffusionModel) -> torch.dtype:
    """The denoiser's floating type; types made for storage only count as float32."""
    dtype = next(model.denoiser.parameters()).dtype
    return dtype if dtype in _HALF else torch.float32


def autocast(model: DiffusionModel) -> AbstractContextManager[Any]:
    """Autocast for half-precision weights, so that networks kept in float32 can be attached."""
    dtype = dtype_of(model)
    return torch.autocast(device_of(model).type, dtype=dtype) if dtype in _HALF else nullcontext()


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Generator[None, None, None]:
    """Evaluation mode (no dropout) meanwhile; every submodule gets its own mode back."""
    training = [module for root in modules for module in root.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def interruptible(module: nn.Module, check: Callable[[], None]) -> Generator[None, None, None]:
    """``check`` is called before every block of ``module`` runs, so that a long step can be left inside
    of it. Blocks are what lies in lists of modules; a compiled module is left as it is."""
    if any(getattr(each, "_compiled_call_impl", None) for each in module.modules()):
        yield
        return
    blocks = (block for each in module.modules() if isinstance(each, nn.ModuleList) for block in each)

    def look(_module: nn.Module, _inputs: Any) -> None:
        check()

    hooks = [block.register_forward_pre_hook(look) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
