"""Checks of ``optimizer_args``: key=value items with Python literals."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from backend.errors import Problem
from backend.settings.declare import nearest
from backend.settings.types import read_text_list

_TAKES = {
    "adamw": "betas eps weight_decay amsgrad foreach maximize capturable differentiable fused",
    "adamw8bit": "betas eps weight_decay amsgrad min_8bit_size percentile_clipping block_wise",
    "adafactor": "eps clip_threshold decay_rate beta1 weight_decay scale_parameter relative_step warmup_init",
}
TAKES: Mapping[str, tuple[str, ...]] = {name: tuple(takes.split()) for name, takes in _TAKES.items()}
"""Optimizer, in small letters -> the arguments that its library takes."""


def optimizer_argument_problems(values: Mapping[str, Any], place: str) -> list[Problem]:
    """What is wrong with the items, each in one problem."""
    try:
        items = read_text_list(values.get("optimizer_args"))
    except ValueError:
        return []
    takes = TAKES.get(str(values.get("optimizer_type") or "AdamW").lower())
    found = [_problem(item, takes) for item in items]
    return [
        Problem(f"optimizer_args: {what}", where=place, next=advice, key="optimizer_args")
        for what, advice in filter(None, found)
    ]


def _problem(item: str, takes: tuple[str, ...] | None) -> tuple[str, str] | None:
    """What is wrong with an item and what to do about it; None when it is right."""
    name, equals, text = (part.strip() for part in item.partition("="))
    if not equals or not name.isidentifier():
        return f"'{item}' is not of the form key=value", "write for example weight_decay=0.01"
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return (
            f"the value of '{item}' cannot be read",
            "give a number, True, False, a list or a text in quotes",
        )
    if takes is not None and name not in takes:
        near = nearest(name, takes)
        return f"unknown key {name}", f"Did you mean {near}?" if near else f"known are {', '.join(takes)}"
    return None
