"""AdamW without the second of CPU time that torch spends on importing its compiler.

``torch.optim`` tells the compiler to leave ``step`` and its like alone, and imports all
of it to say so, even where nothing is ever compiled. The functions underneath are the same; called
directly, they give the same numbers. Where torch's wrappers look different one day, the import
happens as before and nothing else changes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch


class AdamW(torch.optim.AdamW):
    """``torch.optim.AdamW``, to the bit."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, **options: Any) -> None:
        for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
            _spare(getattr(torch.optim.Optimizer, name))
        super().__init__(groups, lr=lr, **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update; see ``torch.optim.AdamW.step``."""
        return inspect.unwrap(torch.optim.AdamW.step)(self, closure)


def _spare(function: Callable[..., Any]) -> None:
    """Let ``torch._disable_dynamo`` find its answer in the place where it keeps it after a first call."""
    bare = getattr(function, "__wrapped__", None)
    if bare is not None and not hasattr(bare, "__dynamo_disable"):
        setattr(bare, "__dynamo_disable", bare)
