"""The base model's file while a run uses it."""

from __future__ import annotations

from pathlib import Path

from backend.jobs.events import Sink

_Stamp = tuple[tuple[str, int, int], ...]


class BaseWatch:
    """Notices that a base model was replaced after it was loaded, and tells it once.

    The run is as before: its weights are in memory. But a resume would begin with other ones, and is refused.
    """

    def __init__(self, path: Path) -> None:
        """To be made before the model is loaded."""
        self._path = path
        self._stamp = _stamp_of(path)

    def look(self, events: Sink) -> None:
        """Look again, which opens nothing."""
        if self._stamp is None or _stamp_of(self._path) == self._stamp:
            return
        self._stamp = None
        events.emit(
            "warning",
            text=f"{self._path.name} was changed while this run uses it: the run goes on with what it "
            "loaded, but it cannot be resumed unless the file is put back",
        )


def _stamp_of(path: Path) -> _Stamp | None:
    """Name, size and time of change of a file, or of all in a folder; None where it cannot be asked."""
    try:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        return tuple((file.name, (facts := file.stat()).st_size, facts.st_mtime_ns) for file in files)
    except OSError:
        return None
