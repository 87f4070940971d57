"""Modules without memory, to be filled with weights from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

Module = TypeVar("Module", bound=nn.Module)


class WithoutInit(TorchFunctionMode):
    """Skips ``torch.nn.init`` meanwhile: weights on the meta device have no values to set, and setting
    them there makes torch import its compiler, over half a second of CPU time. Elsewhere it leaves
    memory untouched, so that it is not taken from the machine."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def skeleton(make: Callable[[], Module]) -> Module:
    """``make()`` with every tensor on the meta device."""
    with torch.device("meta"), WithoutInit():
        return make()
