"""The list of a run's own files: what it wrote, when, and whether it is still as it was written.

``manifest.json`` of the run folder. It alone decides what the run may write over or remove: a file
that is not listed, or that somebody has changed or exchanged since, belongs to somebody else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from backend.weights.safefile import write_text_atomic

Kind = Literal["result", "epoch", "step", "state", "recovery"]
Moment = Literal["end", "epoch", "step", "asked", "recovery"]
"""Why a file was written: by the clock of epochs or steps, because somebody asked, or at the end."""

STATE_FILE = "state.json"
"""The file of a restore point that is written last."""
_MARKS = (STATE_FILE, "model_index.json")
"""Files that make a folder a restore point, or a model for diffusers."""


@dataclass(frozen=True)
class Entry:
    """One file, or one folder of a restore point, that the run wrote."""

    path: str
    kind: Kind
    moment: Moment
    step: int
    epoch: int
    stamp: tuple[int, int]
    """Bytes and time of change (ns) as it was written; of a folder those of the file that makes it one."""

    @classmethod
    def of(cls, path: Path, kind: Kind, moment: Moment, step: int, epoch: int) -> Entry:
        """An entry for what was just written under ``path``."""
        return cls(str(path), kind, moment, step, epoch, _stamp(path) or (0, 0))

    def untouched(self) -> bool:
        """Whether the file is there and as the run left it."""
        return _stamp(Path(self.path)) == self.stamp


class Manifest:
    """The entries, by path. Read anew at each use: they are few, and the file is the truth."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> list[Entry]:
        """Everything in the list, oldest first; a damaged file counts as an empty one."""
        try:
            records: list[dict[str, Any]] = json.loads(self._path.read_text(encoding="utf-8"))
            return [Entry(**{**record, "stamp": _pair(record["stamp"])}) for record in records]
        except (OSError, ValueError, TypeError, KeyError):
            return []

    def add(self, entry: Entry) -> None:
        """Put an entry into the list, in place of an older one of the same path."""
        self._write([*self._others({entry.path}), entry])

    def forget(self, entries: Iterable[Entry]) -> None:
        """Take entries whose files are gone out of the list."""
        self._write(self._others({entry.path for entry in entries}))

    def owns(self, path: Path) -> bool:
        """Whether the run may write over ``path``: it wrote it, and nobody else has since."""
        return any(entry.path == str(path) and entry.untouched() for entry in self.entries())

    def _others(self, paths: set[str]) -> list[Entry]:
        return [entry for entry in self.entries() if entry.path not in paths]

    def _write(self, entries: list[Entry]) -> None:
        records = [asdict(entry) for entry in entries]
        write_text_atomic(self._path, json.dumps(records, ensure_ascii=False, indent=1))


def _pair(stamp: Any) -> Any:
    """JSON has lists only."""
    return tuple(stamp)


def _stamp(path: Path) -> tuple[int, int] | None:
    if path.is_dir():
        path = next((path / name for name in _MARKS if (path / name).is_file()), path / STATE_FILE)
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns
