"""Programs that logs can be written for, and which of them this machine has."""

from __future__ import annotations

from collections.abc import Mapping

from backend.settings.optimizers import is_installed

LIBRARIES: Mapping[str, str] = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""Tracker -> the library that writes for it."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "all": ("tensorboard", "wandb"),
}
"""``log_with`` -> trackers."""


def missing(tracker: str) -> str:
    """How to get a tracker's library; '' when it is there."""
    library = LIBRARIES[tracker]
    return "" if is_installed(library) else f"not installed: pip install {library}"


def missing_trackers() -> dict[str, str]:
    """Choice of ``log_with`` -> why it cannot be chosen here."""
    found = {choice: next(filter(None, map(missing, trackers)), "") for choice, trackers in CHOICES.items()}
    return {choice: why for choice, why in found.items() if why}
