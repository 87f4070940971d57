"""What this machine can do of what the settings ask for.

A choice that cannot be done is a problem that names its replacement. With ``allow_fallback`` the
replacement is used instead and becomes a note.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from backend.errors import EnvironmentFault, Problem
from backend.settings import Settings
from backend.settings.optimizers import find, missing_library
from backend.settings.sections import PrecisionSettings
from backend.system import devices
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
        return settings, _remarks(settings)
    allowed = settings.precision.allow_fallback
    refused = [one.problem for one in found if one.replacement is None or not allowed]
    if refused:
        raise EnvironmentFault(refused)
    changes = {key: value for one in found for key, value in (one.replacement or {}).items()}
    notes = [
        Problem(f"{o.problem.what}: {_words(o.replacement or {})} is used instead", key=o.problem.key)
        for o in found
    ]
    able = settings.replace(**changes)
    return able, [*notes, *_remarks(able)]


def _remarks(settings: Settings) -> list[Problem]:
    """What this machine does otherwise than one may expect."""
    name = settings.optimizer.optimizer_type
    if find(name).library != "bitsandbytes" or torch.cuda.is_available():
        return []
    what = f"{name} saves memory on a processor, but no time, and pages nothing"
    return [Problem(what, next="AdamW or Lion are faster here", key="optimizer_type")]


def on_processor() -> list[Problem]:
    """Why a run will not use a card, and what that costs; nothing where it will."""
    if torch.cuda.is_available():
        return []
    cards = devices.cards()
    return [
        Problem(
            devices.summary(cards, devices.torch_build()),
            why="PyTorch sees no card, so that training uses the processor" if cards else "",
            next="small models learn in minutes so; Stable Diffusion takes minutes a step, not seconds",
        )
    ]


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
    yield from _precision(settings.precision, cuda)
    yield from _compiler(settings.precision, cuda)


def _compiler(wanted: PrecisionSettings, cuda: bool) -> Iterator[Obstacle]:
    """What inductor needs to turn its programs into machine code."""
    if not wanted.torch_compile or wanted.dynamo_backend != "inductor":
        return
    ready = (
        find_spec("triton")
        if cuda
        else next(filter(None, map(shutil.which, ("c++", "g++", "clang++", "cl"))), None)
    )
    if ready is None:
        why = "the library triton is not installed" if cuda else "there is no C++ compiler"
        yield Obstacle(
            _problem("torch_compile", "torch_compile", why, "no torch_compile"), {"torch_compile": False}
        )


def _precision(wanted: PrecisionSettings, cuda: bool) -> Iterator[Obstacle]:
    asked = wanted.mixed_precision
    if asked == "fp16" and not cuda:
        why = "half precision is slower than full precision on a processor"
        yield Obstacle(
            _problem("mixed_precision", "mixed precision fp16", why, "mixed_precision=no"),
            {"mixed_precision": "no", "full_fp16": False, "fp8_base": False, "fp8_base_unet": False},
        )
    if asked == "bf16" and cuda and not torch.cuda.is_bf16_supported():
        yield Obstacle(
            _problem(
                "mixed_precision",
                "mixed precision bf16",
                "this card does not have it",
                "mixed_precision=fp16",
            ),
            {"mixed_precision": "fp16", "full_bf16": False, "full_fp16": wanted.full_bf16},
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
