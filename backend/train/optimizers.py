"""Optimizers by the names people know. Each library is imported only when it is chosen."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from backend.errors import EnvironmentFault, InputError, Problem

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class OptimizerKind:
    """A row of the table: how to make it, and what it needs."""

    name: str
    make: Callable[[Groups, float, dict[str, Any]], torch.optim.Optimizer]
    needs: str = ""
    """Library it comes from, when that is optional."""
    replacement: str = ""


def parse_arguments(items: Iterable[str]) -> dict[str, Any]:
    """``["weight_decay=0.01", "betas=.9,.999"]`` -> values; Python literals as sd-scripts reads them.

    Raises:
        InputError: an item without ``=`` or with a value that is no literal.
    """
    values: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        try:
            values[name.strip()] = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError):
            equals = ""
        if not equals:
            raise InputError(
                f"optimizer argument '{item}' cannot be read",
                next="write key=value with a number, True, False or a list, such as weight_decay=0.01",
                key="optimizer_args",
            )
    return values


def _adamw(groups: Groups, lr: float, arguments: dict[str, Any]) -> torch.optim.Optimizer:
    from backend.train.quick_adamw import AdamW

    return AdamW(groups, lr, **{"fused": True, **arguments})


def _adamw8bit(groups: Groups, lr: float, arguments: dict[str, Any]) -> torch.optim.Optimizer:
    from bitsandbytes.optim import AdamW8bit  # type: ignore[import-not-found]

    return AdamW8bit(groups, lr=lr, **arguments)


def _adafactor(groups: Groups, lr: float, arguments: dict[str, Any]) -> torch.optim.Optimizer:
    from transformers.optimization import Adafactor

    if arguments.get("relative_step", True):
        bare = [{key: value for key, value in group.items() if key != "lr"} for group in groups]
        return Adafactor(bare, lr=None, **{"relative_step": True, **arguments})
    options = {"scale_parameter": False, "warmup_init": False, **arguments, "relative_step": False}
    return Adafactor(groups, lr=lr, **options)


_KINDS = {
    kind.name.lower(): kind
    for kind in (
        OptimizerKind("AdamW", _adamw),
        OptimizerKind("AdamW8bit", _adamw8bit, needs="bitsandbytes", replacement="AdamW"),
        OptimizerKind("AdaFactor", _adafactor),
    )
}


def find(name: str) -> OptimizerKind:
    """The table's row, whatever the case of letters.

    Raises:
        InputError: there is no such optimizer; the message lists those there are.
    """
    kind = _KINDS.get((name or "AdamW").lower())
    if kind is None:
        known = ", ".join(row.name for row in _KINDS.values())
        raise InputError(
            f"there is no optimizer '{name}'", next=f"choose one of {known}", key="optimizer_type"
        )
    return kind


def missing(name: str) -> Problem | None:
    """Why this machine cannot run an optimizer, or None when it can."""
    kind = find(name)
    if not kind.needs or find_spec(kind.needs) is not None:
        return None
    return Problem(
        f"the optimizer {kind.name} needs the library {kind.needs}, which is not installed",
        next=f"use {kind.replacement}, or run again with --allow_fallback to have it replaced, "
        f"or install it: pip install {kind.needs}",
        key="optimizer_type",
    )


def sets_own_rate(name: str, arguments: Mapping[str, Any]) -> bool:
    """True for Adafactor with relative steps: schedule and learning rates do not apply."""
    return find(name).name == "AdaFactor" and bool(arguments.get("relative_step", True))


def make(name: str, groups: Groups, lr: float, arguments: dict[str, Any]) -> torch.optim.Optimizer:
    """An optimizer over ``groups`` (each with its own ``lr``).

    Raises:
        EnvironmentFault: its library is missing.
        InputError: it does not take one of the arguments.
    """
    problem = missing(name)
    if problem is not None:
        raise EnvironmentFault(problem)
    kind = find(name)
    try:
        return kind.make(groups, lr, arguments)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the optimizer {kind.name} does not accept its arguments",
            why=str(error),
            next="correct optimizer_args",
            key="optimizer_args",
        ) from error


def describe(optimizer: torch.optim.Optimizer, arguments: Mapping[str, Any]) -> str:
    """``torch.optim.adamw.AdamW(weight_decay=0.01)``, as stored in a LoRA's metadata."""
    kind = type(optimizer)
    if kind.__module__.startswith("backend."):
        kind = kind.__mro__[1]
    text = ",".join(f"{key}={value}" for key, value in arguments.items())
    return f"{kind.__module__}.{kind.__name__}" + (f"({text})" if text else "")
