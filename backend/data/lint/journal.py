"""The doctor's journal: every step is written down before it is taken, so that it can be taken back.

One file of JSON lines in Atelier's own folder, never in the dataset. A fix is a line ``begin``, a line
for each step, and ``end``; a line ``undone`` closes it. One without an end was interrupted and can be
taken back like any other.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import EnvironmentFault
from backend.system import paths


def journal_path() -> Path:
    return paths.home() / ".atelier" / "dataset_fixes.jsonl"


@dataclass(frozen=True)
class Undo:
    """One fix that was made and can be taken back, also after a restart."""

    id: str
    rule: str
    description: str
    time: float
    """Seconds since 1970."""
    roots: tuple[Path, ...]
    files: int
    """Steps that were taken."""
    journal: Path

    def apply(self) -> list[str]:
        """Take every step back, the last first. Gives a sentence for each one that could not be."""
        return take_back(self.journal, self.id)


class Journal:
    """Takes the steps of one fix and writes them down."""

    def __init__(self, path: Path, id: str) -> None:
        self.path, self.id = path, id

    @classmethod
    def begin(cls, rule: str, description: str, roots: Sequence[Path]) -> Journal:
        """Raises :class:`EnvironmentFault` when nothing can be written down."""
        journal = cls(journal_path(), uuid.uuid4().hex[:12])
        facts = {"rule": rule, "description": description, "roots": [str(root) for root in roots]}
        try:
            journal.path.parent.mkdir(parents=True, exist_ok=True)
            journal._write({"do": "begin", "time": time.time(), **facts})
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise EnvironmentFault(
                f"cannot write to {journal.path} ({reason}).",
                why="What a fix does is written down there, so that it can be taken back.",
                next="Free some space or set ATELIER_HOME to a folder of your own.",
            ) from None
        return journal

    def move(self, source: Path, target: Path) -> None:
        """Rename within the dataset; an existing file is never replaced."""
        if os.path.lexists(target):
            raise FileExistsError(17, f"{target} exists already")
        self._write({"do": "move", "from": str(source), "to": str(target)})
        source.rename(target)

    def create(self, target: Path, data: bytes) -> None:
        """Write a new file, whole or not at all; an existing one is never replaced."""
        if os.path.lexists(target):
            raise FileExistsError(17, f"{target} exists already")
        self._write({"do": "create", "to": str(target), "digest": _digest(data)})
        partial = target.with_name(f".{target.name}.{self.id}.tmp")
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)

    def folder(self, target: Path) -> None:
        self._write({"do": "folder", "to": str(target)})
        target.mkdir()

    def end(self) -> Undo:
        self._write({"do": "end"})
        return next(undo for undo in _undos(self.path) if undo.id == self.id)

    def _write(self, line: dict[str, Any]) -> None:
        _append(self.path, {"fix": self.id, **line})


def pending(roots: Sequence[Path]) -> list[Undo]:
    """Fixes of these folders, or of folders inside, that are not taken back yet, the newest first."""
    wanted = [root.resolve() for root in roots]
    found = [undo for undo in _undos(journal_path()) if _within(undo.roots, wanted)]
    return found[::-1]


def _within(roots: Sequence[Path], wanted: Sequence[Path]) -> bool:
    return any(root.resolve().is_relative_to(place) for root in roots for place in wanted)


def take_back(path: Path, id: str) -> list[str]:
    """Reverse the steps of one fix; a sentence for each one that could not be reversed."""
    steps = [line for line in _lines(path) if line.get("fix") == id]
    if any(line["do"] == "undone" for line in steps):
        return ["This fix was taken back before."]
    left = [wrong for step in reversed(steps) if (wrong := _reverse(step))]
    if not left:
        _append(path, {"fix": id, "do": "undone"})
    return left


def _reverse(step: dict[str, Any]) -> str:
    """Take back one step; why it could not be, or ''. A step that was not taken is passed over."""
    do, target = step["do"], Path(step.get("to", ""))
    try:
        if do == "move":
            return _move_back(Path(step["from"]), target)
        if do == "create":
            return _remove_own(target, step["digest"])
        if do == "folder" and target.is_dir() and not any(target.iterdir()):
            target.rmdir()
    except OSError as error:
        return f"{target} could not be put back ({(error.strerror or str(error)).lower()})."
    return ""


def _move_back(source: Path, target: Path) -> str:
    if not os.path.lexists(target):
        return "" if os.path.lexists(source) else f"{target} is gone; it cannot be put back as {source.name}."
    if os.path.lexists(source):
        return f"{target} cannot be put back: {source.name} exists again."
    target.rename(source)
    return ""


def _remove_own(target: Path, digest: str) -> str:
    """Remove a file this journal made, only while it is as it was made."""
    if not os.path.lexists(target):
        return ""
    if _digest(target.read_bytes()) != digest:
        return f"{target} was changed since and stays."
    target.unlink()
    return ""


@dataclass
class _Open:
    """A fix while the journal is read."""

    begin: dict[str, Any]
    steps: int = 0


def _undos(path: Path) -> list[Undo]:
    found: dict[str, _Open] = {}
    for line in _lines(path):
        id, do = line["fix"], line["do"]
        if do == "begin":
            found[id] = _Open(line)
        elif do == "undone":
            found.pop(id, None)
        elif id in found and do in ("move", "create"):
            found[id].steps += 1
    return [
        Undo(
            id,
            item.begin["rule"],
            item.begin["description"],
            item.begin["time"],
            tuple(Path(root) for root in item.begin["roots"]),
            item.steps,
            path,
        )
        for id, item in found.items()
        if item.steps
    ]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            found: Any = json.loads(line)
        except ValueError:
            continue  # cut off when the machine stopped
        if isinstance(found, dict) and "fix" in found and "do" in found:
            yield found


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
