"""An append-only record of edits, from which they are undone after any restart.

One JSON object a line. ``do`` records hold the bytes of every file before and after, ``more`` records
those of further files of an edit that is still going on; ``undo`` and ``redo`` records name the ``do``
record that they belong to. A record is on the disk before the first
file is touched. Several processes may append to one journal under a common lock.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from backend.data.edit.types import HistoryItem

Kind = Literal["do", "undo", "redo"]


@dataclass(frozen=True)
class FileChange:
    """Bytes of one file before and after; None when there was no file."""

    path: Path
    before: bytes | None
    after: bytes | None

    def reversed(self) -> FileChange:
        return FileChange(self.path, self.after, self.before)


@dataclass
class _Known:
    """Where a ``do`` record lies in the file, and whether it holds."""

    id: int
    time: float
    title: str
    files: int
    parts: list[int]
    """Where its records begin: the ``do``, then each ``more``."""
    state: Literal["done", "undone"] = "done"


class Journal:
    """The edits recorded in one file, which is made by the first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[int, _Known] = {}
        self._undone: list[int] = []
        """Undone edits that can be made again, the next one last."""
        self._read = 0

    def refresh(self) -> None:
        """Take in what other processes appended."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                data = file.read()
        except (FileNotFoundError, NotADirectoryError):
            return
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            self._take(line, self._read)
            self._read += len(line)

    def add(self, title: str, changes: Iterable[FileChange]) -> int:
        """Record a new edit; what was undone before it cannot be made again. Raises OSError."""
        id = max(self._known, default=0) + 1
        files = [_as_dict(change) for change in changes]
        self._append({"kind": "do", "id": id, "title": title, "files": files})
        return id

    def extend(self, id: int, changes: Iterable[FileChange]) -> bool:
        """Record more files of an edit; False when it was undone or is not known. Raises OSError."""
        known = self._known.get(id)
        if known is None or known.state != "done":
            return False
        self._append({"kind": "more", "id": id, "files": [_as_dict(change) for change in changes]})
        return True

    def mark(self, kind: Literal["undo", "redo"], id: int) -> None:
        """Record that an edit is undone, or made again. Raises OSError."""
        self._append({"kind": kind, "id": id})

    def to_undo(self) -> HistoryItem | None:
        """The newest edit that holds."""
        done = [known for known in self._known.values() if known.state == "done"]
        return _item(max(done, key=lambda known: known.id)) if done else None

    def to_redo(self) -> HistoryItem | None:
        """The edit that was undone last and can be made again."""
        return _item(self._known[self._undone[-1]]) if self._undone else None

    def history(self, count: int) -> list[HistoryItem]:
        """The newest edits that hold or can be made again, newest first."""
        shown = [known for known in self._known.values() if known.state == "done" or known.id in self._undone]
        return [_item(known) for known in sorted(shown, key=lambda known: -known.id)[:count]]

    def changes(self, id: int) -> tuple[FileChange, ...]:
        """What an edit did, each file once. Raises OSError."""
        found: dict[Path, FileChange] = {}
        with self.path.open("rb") as file:
            for start in self._known[id].parts:
                file.seek(start)
                for change in map(_from_dict, json.loads(file.readline())["files"]):
                    first = found.get(change.path, change)
                    found[change.path] = FileChange(change.path, first.before, change.after)
        return tuple(found.values())

    def _append(self, record: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"t": round(time.time(), 3), **record}, ensure_ascii=False)
        with self.path.open("ab") as file:
            end = file.tell()
            # A line that a crash or a full disk cut off is closed, so that it spoils no other.
            torn = end > 0 and not self._ends_with_newline()
            try:
                file.write(b"\n" * torn + line.encode("utf-8", "surrogatepass") + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, end)
                raise
        self.refresh()

    def _ends_with_newline(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _take(self, line: bytes, start: int) -> None:
        try:
            record = json.loads(line)
            kind, id = record["kind"], int(record["id"])
            if kind == "do":
                title, files = str(record["title"]), len(record["files"])
                self._known[id] = _Known(id, float(record["t"]), title, files, [start])
                self._undone.clear()
            elif kind == "more" and id in self._known:
                self._known[id].files += len(record["files"])
                self._known[id].parts.append(start)
            elif kind == "undo" and id in self._known:
                self._known[id].state = "undone"
                self._undone.append(id)
            elif kind == "redo" and id in self._undone:
                self._known[id].state = "done"
                self._undone.remove(id)
        except (ValueError, KeyError, TypeError):
            return  # a line that was cut off


def _item(known: _Known) -> HistoryItem:
    return HistoryItem(known.id, known.time, known.title, known.files, known.state)


def _as_dict(change: FileChange) -> dict[str, Any]:
    return {"path": str(change.path), "before": _spell(change.before), "after": _spell(change.after)}


def _from_dict(entry: Mapping[str, Any]) -> FileChange:
    return FileChange(Path(entry["path"]), _bytes(entry["before"]), _bytes(entry["after"]))


def _spell(data: bytes | None) -> str | dict[str, str] | None:
    """Text where the bytes are UTF-8, so that a person can read the journal; base64 otherwise."""
    if data is None:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def _bytes(value: object) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode("utf-8")
    return base64.b64decode(cast(dict[str, str], value)["base64"])
