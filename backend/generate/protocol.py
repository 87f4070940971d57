"""The lines a generation worker reads, checked, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from backend.errors import InputError, Problem
from backend.generate.request import FIELDS, Request

MAX_COUNT = 1000
MAX_BATCH = 64
_WHOLE = {"width", "height", "seed", "steps", "count", "batch", "clip_skip", "max_token_length"}
_MAY_BE_EMPTY = {"width", "height", "seed", "clip_skip", "max_token_length"}
ENCODERS = ("clip_l", "clip_g", "t5xxl")
_TEXTS = {"prompt", "negative", "sampler"}
_RANGES = {"count": (1, MAX_COUNT), "batch": (1, MAX_BATCH), "clip_skip": (1, 12)}


@dataclass(frozen=True)
class Order:
    """One ``generate`` line: what to draw, with which files, and where pictures go."""

    model: Path
    vae: Path | None
    encoders: Mapping[str, Path]
    """Own files of text encoders, for models that come without them: ``clip_l``, ``clip_g``, ``t5xxl``."""
    loras: tuple[tuple[Path, float], ...]
    request: Request
    out: Path


def order_of(data: Mapping[str, Any]) -> Order:
    """The order in a line. Raises InputError with every problem found."""
    problems: list[Problem] = []
    if not _text(data.get("model")):
        problems.append(Problem("no base model was chosen", next="Choose a model file.", key="model"))
    if not _text(data.get("out")):
        problems.append(Problem("no folder for the pictures was given", key="out"))
    loras = data.get("loras") or []
    if not isinstance(loras, list) or not all(map(_is_lora, loras)):
        problems.append(Problem("LoRA files must be a list of path and strength", key="loras"))
    wanted = data.get("request") or {}
    values = wanted if isinstance(wanted, Mapping) else {}
    problems += [problem for key, value in values.items() if (problem := _problem(str(key), value))]
    if problems:
        raise InputError(problems)
    return Order(
        model=Path(data["model"]),
        vae=Path(data["vae"]) if _text(data.get("vae")) else None,
        encoders={key: Path(data[key]) for key in ENCODERS if _text(data.get(key))},
        loras=tuple((Path(lora["path"]), float(lora.get("strength", 1.0))) for lora in loras),
        request=Request(**{key: _value(key, value) for key, value in values.items()}),
        out=Path(data["out"]),
    )


def _is_lora(item: Any) -> bool:
    return isinstance(item, Mapping) and _text(item.get("path")) and _is_number(item.get("strength", 1.0))


def _problem(key: str, value: Any) -> Problem | None:
    """What is wrong with one value of a request, if anything."""
    if key not in FIELDS:
        return Problem(f"'{key}' is not a setting of pictures", key=key)
    if key in _TEXTS:
        return None if isinstance(value, str) else Problem(f"{key} must be text, not {value!r}", key=key)
    if value is None and key in _MAY_BE_EMPTY:
        return None
    if not _is_number(value) or (key in _WHOLE and value != int(value)):
        return Problem(f"{key} must be a {'whole ' * (key in _WHOLE)}number, not {value!r}", key=key)
    low, high = _RANGES.get(key, (-math.inf, math.inf))
    return (
        None if low <= value <= high else Problem(f"{key} must be from {low} to {high}, not {value}", key=key)
    )


def _value(key: str, value: Any) -> Any:
    return int(value) if key in _WHOLE and value is not None else value


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
