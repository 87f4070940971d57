"""Values of a grid's axis as people write them.

Numbers stand between commas; ``1-5`` counts, ``0.4-1 (+0.2)`` counts in steps of 0.2, and
``0-1 [5]`` gives five values at equal distances, the notation that other programs' grids know.
Prompts and files stand one a line, samplers between commas.
"""

from __future__ import annotations

import re
from pathlib import Path

from backend.errors import InputError, Problem
from backend.generate import samplers
from backend.generate.grid import AXES, MAX_CELLS, Axis

_NUMBER = r"-?\d+(?:\.\d+)?"
_RANGE = re.compile(rf"^({_NUMBER})\s*-\s*({_NUMBER})\s*(?:\(\s*([+-]\d+(?:\.\d+)?)\s*\)|\[\s*(\d+)\s*\])?$")
_LINES = ("prompt", "file")


def axis_of(key: str, text: str) -> Axis:
    """The axis that a person wrote. Raises InputError naming the value that cannot be read."""
    if key not in AXES:
        raise InputError(f"'{key}' cannot stand on an axis", next=f"Choose one of: {', '.join(AXES)}.")
    parts = text.splitlines() if key in _LINES else text.split(",")
    written = [part.strip() for part in parts if part.strip()]
    if key == "prompt":
        values: list[object] = list(written)
    elif key == "file":
        values = [str(Path(part.strip("\"'")).expanduser()) for part in written]
    elif key == "sampler":
        values = [_sampler(part) for part in written]
    else:
        values = [value for part in written for value in _numbers(key, part)]
    return Axis(key, tuple(dict.fromkeys(values)))


def _sampler(text: str) -> str:
    name = samplers.canonical(text)
    if name is None:
        known = ", ".join(samplers.SAMPLERS)
        raise InputError(Problem(f"there is no sampler '{text}'", next=f"Known are: {known}.", key="axes"))
    return name


def _numbers(key: str, text: str) -> list[float] | list[int]:
    """One number, or all those of a range."""
    found = _RANGE.match(text)
    if found is None:
        return [_number(key, text)]
    low, high = float(found[1]), float(found[2])
    if found[4]:
        count = int(found[4])
        gap = (high - low) / (count - 1) if count > 1 else 0.0
    else:
        gap = float(found[3] or (1 if high >= low else -1))
        count = int((high - low) / gap + 1e-9) + 1 if gap and (high - low) / gap >= 0 else 0
    if not 0 < count <= MAX_CELLS:
        raise InputError(Problem(f"the range '{text}' has no values, or too many", key="axes"))
    return [_number(key, f"{low + gap * index:.6g}") for index in range(count)]


def _number(key: str, text: str) -> float | int:
    try:
        value = float(text)
        if not AXES[key].whole:
            return value
        if value == int(value):
            # A seed may have more digits than a float holds.
            return int(text) if re.fullmatch(r"-?\d+", text) else int(value)
    except (ValueError, OverflowError):
        pass
    kind = "whole number" if AXES[key].whole else "number"
    raise InputError(Problem(f"{key}: '{text}' is no {kind}", key="axes"))
