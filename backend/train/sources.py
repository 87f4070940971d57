"""Pictures whose files change while a run uses them: it goes on, and says so."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from backend.data.index import stamp_of
from backend.data.report import count, listing
from backend.data.types import DatasetPlan
from backend.jobs.events import Sink

MOST_OFTEN = 60.0
"""Seconds between two looks at the files, which may lie on a slow drive."""


class Sources:
    """The files of a plan as they were at first. Each change is told once."""

    def __init__(self, plan: DatasetPlan | None = None, *, cached: bool = True) -> None:
        pictures = [picture for dataset in plan.datasets for picture in dataset.pictures] if plan else []
        self._stamps = {picture.path: stamp_of(picture.path) for picture in pictures}
        self._cached = cached
        self._looked = time.monotonic()

    def look(self, events: Sink, *, at_end: bool = False) -> None:
        """Tell which files have changed or gone since the last look."""
        if not at_end and time.monotonic() - self._looked < MOST_OFTEN:
            return
        now = {path: stamp_of(path) for path in self._stamps}
        other = [path for path, stamp in now.items() if stamp != self._stamps[path]]
        self._changed([path for path in other if now[path]], events)
        self._gone([path for path in other if not now[path]], events)
        self._stamps, self._looked = now, time.monotonic()

    def _changed(self, paths: Sequence[Path], events: Sink) -> None:
        if paths:
            names, number = _names(paths), count(len(paths), "picture was", "pictures were")
            text = (
                f"{number} changed during the run, which goes on with what was encoded at the start: {names}"
                if self._cached
                else f"{number} changed during the run, which goes on with what is there now: {names}"
            )
            events.emit("note", text=text)

    def _gone(self, paths: Sequence[Path], events: Sink) -> None:
        if paths and self._cached:  # without a cache the run waits for them
            names, gone = _names(paths), count(len(paths), "picture is", "pictures are")
            text = f"{gone} no longer there, and the run goes on with what was encoded at the start: {names}"
            events.emit("note", text=text)


def _names(paths: Sequence[Path]) -> str:
    return listing(path.name for path in paths)
