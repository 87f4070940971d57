"""Whether this machine has DeepSpeed."""

from __future__ import annotations

from backend.settings.optimizers import is_installed

VERSION = "0.19.8"
"""The one that it was tried with."""


def missing() -> str:
    """How to get it; '' when it is there. It is not imported."""
    return "" if is_installed("deepspeed") else f"not installed: pip install deepspeed=={VERSION}"
