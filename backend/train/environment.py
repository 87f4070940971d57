"""What this machine can do of what the settings ask for.

A choice that cannot be done is a problem that names its replacement. With ``allow_fallback`` the
replacement is used instead and becomes a note.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from backend.errors import EnvironmentFault, Problem
from backend.settings import Settings
from backend.settings.optimizers import missing_library
from backend.train import optimizers


@dataclass(frozen=True)
class Obstacle:
    """One choice this machine cannot do, and the settings that replace it."""

    problem: Problem
    replacement: dict[str, Any] | None
    """None when there is nothing like it."""


def adapt(settings: Settings) -> tuple[Settings, list[Problem]]:
    """Settings that this machine can do, and notes of what was replaced.

    Raises:
        EnvironmentFault: something cannot be done and ``allow_fallback`` is off, or nothing replaces it;
            all of it in one list.
    """
    found = list(obstacles(settings))
    if not found:
        return settings, []
    allowed = settings.precision.allow_fallback
    refused = [one.problem for one in found if one.replacement is None or not allowed]
    if refused:
        raise EnvironmentFault(refused)
    changes = {key: value for one in found for key, value in (one.replacement or {}).items()}
    notes = [
        Problem(f"{o.problem.what}: {_words(o.replacement or {})} is used instead", key=o.problem.key)
        for o in found
    ]
    return settings.replace(**changes), notes


def obstacles(settings: Settings) -> Iterator[Obstacle]:
    """Everything in the settings that this machine cannot do."""
    cuda = torch.cuda.is_available()
    wanted = settings.optimizer
    missing = missing_library(wanted.optimizer_type)
    if missing is not None:
        yield Obstacle(missing, optimizers.replacement(wanted.optimizer_type, wanted.optimizer_args))
    if settings.precision.xformers and not (cuda and find_spec("xformers")):
        why = "it is not installed" if find_spec("xformers") is None else "it needs an NVIDIA card"
        yield Obstacle(
            _problem("xformers", "xformers attention", why, "sdpa"), {"xformers": False, "sdpa": True}
        )
    yield from _precision(settings.precision.mixed_precision, cuda)


def _precision(asked: str, cuda: bool) -> Iterator[Obstacle]:
    if asked == "fp16" and not cuda:
        why = "half precision is slower than full precision on a processor"
        yield Obstacle(
            _problem("mixed_precision", "mixed precision fp16", why, "mixed_precision=no"),
            {"mixed_precision": "no"},
        )
    if asked == "bf16" and cuda and not torch.cuda.is_bf16_supported():
        yield Obstacle(
            _problem(
                "mixed_precision",
                "mixed precision bf16",
                "this card does not have it",
                "mixed_precision=fp16",
            ),
            {"mixed_precision": "fp16"},
        )


def _problem(key: str, asked: str, why: str, instead: str) -> Problem:
    return Problem(
        f"this machine cannot use {asked}",
        why=why,
        next=f"use {instead}, or run again with --allow_fallback to have it replaced",
        key=key,
    )


def _words(changes: dict[str, Any]) -> str:
    return ", ".join(
        f"{key}={' '.join(value) if isinstance(value, list) else value}"
        for key, value in changes.items()
        if value is not False
    )
