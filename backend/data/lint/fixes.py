"""What can be done about a finding: files moved aside, copies written, a config changed.

Nothing is deleted and no file's content is lost: a picture that is left out moves to ``_excluded``, a file
that is written anew keeps its original beside it as ``.bak``. Every step is journalled before it is taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from backend.data.lint.journal import Journal, Undo, take_back
from backend.errors import EnvironmentFault, InputError, Problem

EXCLUDED = "_excluded"

Kind = Literal["exclude", "rename", "convert", "caption", "config"]
Make = Callable[[bytes], bytes]


class Change(NamedTuple):
    """One line of a preview."""

    what: str
    source: Path
    target: Path


@dataclass(frozen=True)
class Move:
    """A file gets another name or folder."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Rewrite:
    """A file is made anew from the bytes of ``source``, which is kept under another name or stays."""

    source: Path
    target: Path
    make: Make
    kept: Path | None = None
    """New name of ``source``; None leaves it where it is."""


Step = Move | Rewrite


@dataclass(frozen=True)
class Fix:
    """A cure for all files of one finding."""

    kind: Kind
    description: str
    steps: tuple[Step, ...]
    roots: tuple[Path, ...]
    """Folders (or the one config file) of the dataset; nothing else is touched."""
    rule: str = ""
    text: str | None = None
    """The new text of the dataset config, for the kind ``config``."""

    def preview(self) -> list[Change]:
        """What would be done, file by file."""
        return [change for step in self.steps for change in _changes(step)]

    def apply(self) -> Undo:
        """Do it, whole or not at all.

        Raises :class:`InputError` when a file has changed meanwhile, cannot be made anew, or lies outside
        the dataset, and :class:`EnvironmentFault` when a folder cannot be written to; then nothing is
        different from before.
        """
        self._check()
        journal = Journal.begin(self.rule, self.description, self.roots)
        try:
            for step in self.steps:
                _take(step, journal)
        except (OSError, ValueError) as error:
            left = take_back(journal.path, journal.id)
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise InputError(
                f"The fix was not made: {reason}.",
                why=" ".join(left) or "What was begun was taken back.",
                next="Check again.",
            ) from None
        return journal.end()

    def as_dict(self) -> dict[str, object]:
        return {"kind": self.kind, "description": self.description, "changes": len(self.preview())}

    def _check(self) -> None:
        changes = self.preview()
        roots = [root.resolve() for root in self.roots]
        for path in {path for change in changes for path in (change.source, change.target)}:
            if not any((path.parent.resolve() / path.name).is_relative_to(root) for root in roots):
                raise InputError(f"{path} lies outside the dataset and is not touched.")
        for step in self.steps:
            if not os.path.lexists(step.source):
                raise InputError(f"{step.source} has changed or gone since the check.", next="Check again.")
        folders = {_existing(change.target.parent) for change in changes}
        check_writable(sorted(folders | {change.source.parent for change in changes}))


def check_writable(folders: Sequence[Path]) -> None:
    """Raises :class:`EnvironmentFault` naming the folders in which no file can be made."""
    problems: list[Problem] = []
    for folder in folders:
        probe = folder / f".atelier-{os.getpid()}.tmp"
        try:
            os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            probe.unlink()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            problems.append(
                Problem(
                    f"cannot write to {folder} ({reason}).",
                    why="The fix would change files there; nothing was changed.",
                    next="Copy the dataset to a place of your own, or allow writing there.",
                )
            )
    if problems:
        raise EnvironmentFault(problems)


def free_name(path: Path, taken: set[Path]) -> Path:
    """``path``, or the first of ``name_2``, ``name_3`` ... that neither exists nor is taken; it then is."""
    found, number = path, 1
    while found in taken or os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.stem}_{number}{path.suffix}")
    taken.add(found)
    return found


def backup_name(path: Path, taken: set[Path]) -> Path:
    """Where the original of a file that is made anew is kept: the same name and ``.bak``."""
    return free_name(path.with_name(f"{path.name}.bak"), taken)


def _existing(folder: Path) -> Path:
    return folder if folder.is_dir() else folder.parent


def _changes(step: Step) -> Iterator[Change]:
    if isinstance(step, Move):
        yield Change(
            "move" if step.source.parent != step.target.parent else "rename", step.source, step.target
        )
        return
    if step.kept is not None:
        yield Change("keep the original as", step.source, step.kept)
    yield Change("write", step.source, step.target)


def _take(step: Step, journal: Journal) -> None:
    if isinstance(step, Move):
        _move(step.source, step.target, journal)
        return
    made = step.make(step.source.read_bytes())
    if step.kept is not None:
        _move(step.source, step.kept, journal)
    journal.create(step.target, made)


def _move(source: Path, target: Path, journal: Journal) -> None:
    if not target.parent.is_dir():
        journal.folder(target.parent)
    journal.move(source, target)
