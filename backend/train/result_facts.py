"""What is said of a finished file, so that a person knows what they have and how to use it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from backend.data.types import DatasetPlan
from backend.errors import AtelierError
from backend.weights.inspect import Inspection, inspect

_TEXT_BLOCK = "BASE"
"""How block lists name the text encoders."""


def file_facts(path: Path, plan: DatasetPlan) -> dict[str, Any]:
    """Kind, size, hashes, norms and the line to use it by, read from the file itself.

    ``norms``: Frobenius norm of the change at strength 1, of the text encoders and of the rest,
    where it does not depend on the model's weights. Nothing is said of a file that cannot be read.
    """
    try:
        found = inspect(path)
    except (AtelierError, OSError):
        return {}
    facts = {
        "file": path.name,
        "kind": found.title,
        "size": found.size,
        "sha256": found.sha256,
        "legacy_hash": found.legacy_hash,
        "modules": len(found.layers),
        "norms": _norms(found),
        "usage": usage(path, found.kind, plan),
    }
    return {key: value for key, value in facts.items() if value}


def _norms(found: Inspection) -> dict[str, float]:
    squares: dict[str, float] = {}
    for block, facts in found.blocks.items():
        part = "text encoder" if block == _TEXT_BLOCK else "denoiser"
        squares[part] = squares.get(part, 0.0) + facts["norm"] ** 2
    return {part: round(math.sqrt(square), 4) for part, square in squares.items() if square > 0}


def usage(path: Path, kind: str, plan: DatasetPlan) -> str:
    """What to write into a prompt: a network's tag, a taught word, and the names of what was shown."""
    words = [
        subset.class_tokens.strip()
        for dataset in plan.datasets
        for subset in dataset.subsets
        if subset.class_tokens and not subset.is_reg
    ]
    if kind == "embedding":  # the word itself, which is all that it knows
        return path.stem
    tag = [f"<lora:{path.stem}:1>"] if kind == "lora" else []
    return " ".join([*tag, ", ".join(dict.fromkeys(words))]).strip()
