"""A second look at the finished file, as other programs will read it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open

from backend.errors import AtelierError, Problem
from backend.system.identify import identify

_SECOND_FACTOR = "lora_up.weight"
"""Starts at 0 in a LoRA: still 0 everywhere, nothing was learned."""


def result_fault(path: Path) -> Problem | None:
    """What is wrong with a result, read back from the disk; None when it is in order.

    Its kind must be recognised from its content, every value finite, and something learned. A
    ``.ckpt`` or ``.pt`` is read back when it is written. Of a folder all files are looked at.
    """
    if path.is_dir():
        return _fault_of_folder(path)
    if path.suffix != ".safetensors":
        return None
    try:
        if identify(path).kind == "unknown":
            return _fault(path, "its content is not recognised")
        return _fault_of_values(path)
    except (AtelierError, OSError, ValueError, RuntimeError) as error:
        return _fault(path, f"it cannot be read back: {error}")


def _fault_of_folder(path: Path) -> Problem | None:
    try:
        if identify(path).kind != "base":
            return _fault(path, "its content is not recognised as a model")
        found = (_fault_of_values(file) for file in sorted(path.rglob("*.safetensors")))
        return next((fault for fault in found if fault), None)
    except (AtelierError, OSError, ValueError, RuntimeError) as error:
        return _fault(path, f"it cannot be read back: {error}")


def _fault_of_values(path: Path) -> Problem | None:
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        second = [name for name in names if name.endswith(_SECOND_FACTOR)] or names
        learned = False
        for name in names:
            tensor = file.get_tensor(name)
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                return _fault(path, f"{name} has values that are not finite")
            learned = learned or (name in second and bool(tensor.any()))
    return None if learned else _fault(path, "all of it is zero: nothing was learned")


def _fault(path: Path, why: str) -> Problem:
    return Problem(
        f"the result {path.name} is not usable",
        where=str(path),
        why=why,
        next="use an earlier file of the run, or train again with another learning rate or precision",
    )
