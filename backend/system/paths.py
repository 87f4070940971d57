"""Where Atelier keeps what it writes of its own accord.

Everything lies under one home: the folder in the environment variable ``ATELIER_HOME``, or the
folder Atelier was unpacked into.
"""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
"""The folder with ``app.py``, wherever the home is."""


def home() -> Path:
    """The folder that holds runs, caches and presets."""
    chosen = os.environ.get("ATELIER_HOME", "").strip()
    return Path(chosen).expanduser().resolve() if chosen else REPOSITORY


def runs_root() -> Path:
    """Run folders: ``ATELIER_RUNS`` where it is set, else inside the home."""
    chosen = os.environ.get("ATELIER_RUNS", "").strip()
    return Path(chosen).expanduser().resolve() if chosen else home() / "runs"


def cache_root() -> Path:
    """What can be computed again: latents, encoded captions, facts about files."""
    return home() / ".cache"


def presets_root() -> Path:
    """Presets of settings."""
    return home() / "presets"
