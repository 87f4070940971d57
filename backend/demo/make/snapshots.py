"""Snapshots of a stage: written whole or not at all, the newest two are kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

KEPT = 2


def save(work: Path, stage: str, step: int, state: dict[str, Any]) -> Path:
    """Write ``state`` as ``<stage>-<step>.pt`` and drop all but the newest two of the stage."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{stage}-{step:08d}.pt"
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    for old in _found(work, stage)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def load(work: Path, stage: str) -> dict[str, Any] | None:
    """The newest snapshot of a stage that can be read, None when there is none."""
    for path in reversed(_found(work, stage)):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError):
            continue
    return None


def forget(work: Path, stage: str) -> None:
    """Remove all snapshots of a stage."""
    for path in _found(work, stage):
        path.unlink(missing_ok=True)


def _found(work: Path, stage: str) -> list[Path]:
    return sorted(work.glob(f"{stage}-*.pt"))
