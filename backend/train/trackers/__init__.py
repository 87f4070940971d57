"""Programs that keep the curves of many trainings: TensorBoard and Weights & Biases.

Each is used only when it is asked for, and its library is imported only then.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class Tracker(Protocol):
    """Takes a run's numbers and pictures. Whatever it raises is told once and ends only itself."""

    title: str
    """For messages."""

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a moment, by sd-scripts' tags."""
        ...

    def picture(self, tag: str, path: Path, caption: str, step: int) -> None:
        """A sample picture. ``tag`` is the same for one prompt all through the run."""
        ...

    def close(self, failed: bool) -> None:
        """Finish writing."""
        ...
