"""What an optimizer has besides steps: its memory, weights to show, and the rates it really uses."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def inner(optimizer: Any) -> Any:
    """The optimizer itself, without accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def load_memory(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """As ``load_state_dict``, with every tensor in the type it was saved in.

    torch gives an optimizer's tensors the type of the weights, and one that keeps smaller ones would
    go on with other numbers.

    Raises:
        ValueError, KeyError: the groups are others.
    """
    optimizer.load_state_dict(dict(saved))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    for parameter, number in zip(parameters, numbers, strict=True):
        state = optimizer.state[parameter]
        for key, value in saved["state"].get(number, {}).items():
            now = state.get(key)
            if isinstance(value, Tensor) and isinstance(now, Tensor) and now.dtype != value.dtype:
                state[key] = value.to(now.device, copy=True)


def averages(optimizer: Any) -> bool:
    """True for schedule-free optimizers: they train one set of weights and mean another.

    Defazio et al. 2024, "The Road Less Scheduled": gradients are taken at y, and the result is the
    mean x of the sequence z.
    """
    bare = inner(optimizer)
    modes = callable(getattr(bare, "train", None)) and callable(getattr(bare, "eval", None))
    return modes and any(group.get("train_mode") for group in bare.param_groups)


@contextmanager
def averaged(optimizer: Any) -> Generator[None, None, None]:
    """The trained parameters are what the optimizer means to give meanwhile, for files and samples.

    Afterwards they are as before to the bit: going to x and back by arithmetic would round, and a
    run with samples would not equal one without. Other optimizers change nothing.
    """
    if not averages(optimizer):
        yield
        return
    bare = inner(optimizer)
    moved = [p for group in bare.param_groups for p in group["params"] if p in bare.state]
    kept = [p.detach().to("cpu", copy=True) for p in moved]
    bare.eval()
    try:
        yield
    finally:
        bare.train()
        with torch.no_grad():
            for parameter, values in zip(moved, kept, strict=True):
                parameter.copy_(values)


def rates(optimizer: Any) -> dict[str, float | Tensor]:
    """Learning rates by group name as they are now; tensors stay on their device.

    Of optimizers that find their step size d, ``d*lr/<group>`` comes first, as sd-scripts logs it.
    """
    bare = inner(optimizer)
    plain: dict[str, float | Tensor] = {}
    found: dict[str, float | Tensor] = {}
    for index, group in enumerate(bare.param_groups):
        name = str(group.get("name", index))
        plain[name] = _rate(bare, group)
        if "d" in group and group["lr"] is not None:
            found[f"d*lr/{name}"] = group["d"] * group["lr"]
    return found | plain


def _rate(optimizer: Any, group: dict[str, Any]) -> float | Tensor:
    if group["lr"] is None:
        return _relative_rate(optimizer, group)
    rate = group.get("scheduled_lr") or group["lr"]  # schedule-free optimizers warm up by themselves
    return rate if isinstance(rate, Tensor) else float(rate)


def _relative_rate(optimizer: Any, group: dict[str, Any]) -> float | Tensor:
    """The step size of AdaFactor for the group's first tensor (Shazeer & Stern 2018, sections 7 and 8)."""
    state = optimizer.state.get(group["params"][0]) or {}
    step = state.get("step", 0)
    if not step:
        return 0.0
    size = min(1e-6 * step if group["warmup_init"] else 1e-2, 1.0 / math.sqrt(step))
    if not group["scale_parameter"]:
        return size
    return size * torch.as_tensor(state["RMS"]).detach().clamp(min=group["eps"][1])
