"""``optimizer_args`` and ``lr_scheduler_args``: key=value items with Python literals."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from backend.errors import Problem
from backend.settings.conditions import TEXT_ARGUMENTS, literals
from backend.settings.declare import nearest
from backend.settings.optimizers import find
from backend.settings.types import read_text_list

SCHEDULE_TAKES: Mapping[str, tuple[str, ...]] = {
    "cosine_with_min_lr": ("min_lr", "min_lr_rate"),
    "piecewise_constant": ("step_rules",),
    "polynomial": ("lr_end",),
    "warmup_stable_decay": ("warmup_type", "decay_type"),
}
"""Schedule -> what it takes in ``lr_scheduler_args``; the others take nothing."""

_HINTS: Mapping[str, str] = {
    "lr": "give it as learning_rate",
    "last_epoch": "leave it out; where a run goes on is known",
    "num_cycles": "give it as lr_scheduler_num_cycles",
    "num_warmup_steps": "give it as lr_warmup_steps",
    "num_decay_steps": "give it as lr_decay_steps",
    "power": "give it as lr_scheduler_power",
    "timescale": "give it as lr_scheduler_timescale",
    "min_lr_ratio": "give it as lr_scheduler_min_lr_ratio",
}


def read_arguments(items: Iterable[str]) -> dict[str, Any]:
    """``["weight_decay=0.01", "betas=.9,.999"]`` -> values; Python literals as sd-scripts reads them.

    Items that cannot be read are left out: they were told when the settings were read.
    """
    return literals(items)


def argument_problems(values: Mapping[str, Any], where: Mapping[str, str]) -> list[Problem]:
    """What is wrong with the items of both lists, each in one problem."""
    scheduler = str(values.get("lr_scheduler") or "constant").lower()
    takes = None if values.get("lr_scheduler_type") else SCHEDULE_TAKES.get(scheduler, ())
    return [
        *_problems("optimizer_args", values, _optimizer_takes(values), where),
        *_problems("lr_scheduler_args", values, takes, where),
    ]


def _optimizer_takes(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    try:
        return find(str(values.get("optimizer_type") or "")).takes
    except ValueError:
        return None


def _problems(
    key: str, values: Mapping[str, Any], takes: tuple[str, ...] | None, where: Mapping[str, str]
) -> list[Problem]:
    try:
        items = read_text_list(values.get(key))
    except ValueError:
        return []
    found = [_problem(item, takes) for item in items]
    return [
        Problem(f"{key}: {what}", where=where.get(key, ""), next=advice, key=key)
        for what, advice in filter(None, found)
    ]


def _problem(item: str, takes: tuple[str, ...] | None) -> tuple[str, str] | None:
    """What is wrong with an item and what to do about it; None when it is right."""
    name, equals, text = (part.strip() for part in item.partition("="))
    if not equals or not name.isidentifier():
        return f"'{item}' is not of the form key=value", "write for example weight_decay=0.01"
    if name not in TEXT_ARGUMENTS and not _readable(text):
        return (
            f"the value of '{item}' cannot be read",
            "give a number, True, False, a list or a text in quotes",
        )
    if name in ("lr", "last_epoch") or (takes is not None and name not in takes):
        return f"unknown key {name}", _advice(name, takes or ())
    return None


def _readable(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False
    return True


def _advice(name: str, takes: tuple[str, ...]) -> str:
    if name in _HINTS:
        return _HINTS[name]
    near = nearest(name, takes)
    if near:
        return f"Did you mean {near}?"
    return f"known are {', '.join(takes)}" if takes else "leave it out: this schedule takes no arguments"
