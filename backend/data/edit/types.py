"""What the editing functions take and give: plain records that a page can show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backend.errors import InputError, Problem

MISSING = ""
"""Version of a caption file that does not exist."""


@dataclass(frozen=True)
class Caption:
    """The caption of one picture, as its file holds it now."""

    id: str
    """'<folder number>/<file name>' of the picture; stable while the store lives."""
    picture: Path
    path: Path
    """The caption file, whether it exists or not."""
    text: str
    """'' when the file is missing or empty."""
    version: str
    """Hash of the file's bytes, :data:`MISSING` when there is no file. An edit names what it was based on."""
    encoding: str = "UTF-8"
    """How the file is written now; every edit writes UTF-8."""
    problem: str = ""
    """Why the file cannot be used (a folder, too large), '' when it can. Such a one is not edited."""

    @property
    def missing(self) -> bool:
        return self.version == MISSING

    def tags(self, separator: str = ",") -> list[str]:
        """The parts of all lines between separators, without blanks around them, empty ones left out."""
        parts = (part.strip() for line in self.text.splitlines() for part in line.split(separator))
        return [part for part in parts if part]

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "picture": str(self.picture),
            "name": self.picture.name,
            "text": self.text,
            "version": self.version,
            "missing": self.missing,
            "encoding": self.encoding,
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Filter:
    """Which captions are wanted; all conditions that are set must hold. Upper and lower case are alike."""

    tags: tuple[str, ...] = ()
    """Has every one of these tags."""
    without: tuple[str, ...] = ()
    """Has none of these tags."""
    text: str = ""
    """Has this text somewhere."""
    regex: str = ""
    """This expression is found somewhere."""
    missing: bool | None = None
    """True: no caption file, or an empty one. False: has text."""
    name: str = ""
    """This text is part of the picture's file name."""

    def expression(self) -> re.Pattern[str] | None:
        """The compiled ``regex``. Raises InputError when it is none."""
        return compile_regex(self.regex) if self.regex else None


def compile_regex(text: str) -> re.Pattern[str]:
    """A regular expression, upper and lower case alike. Raises InputError naming the place that is wrong."""
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        place = f" at character {error.pos + 1}" if error.pos is not None else ""
        raise InputError(
            f"{text!r} is not a regular expression: {error.msg}{place}",
            next="put a backslash before characters such as ( ) [ ] * + ? . that are meant as they are",
            key="regex",
        ) from None


@dataclass(frozen=True)
class Page:
    """A slice of a list."""

    total: int
    """How many there are in all."""
    offset: int
    items: tuple[Caption, ...]


@dataclass(frozen=True)
class Change:
    """What one caption file is to become."""

    id: str
    """Of the first picture that the file belongs to."""
    path: Path
    before: str
    after: str
    version: str
    """The version that ``before`` was read from."""

    @property
    def creates(self) -> bool:
        """There is no file yet."""
        return self.version == MISSING

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id, "name": self.path.name, "before": self.before, "after": self.after,
            "version": self.version, "creates": self.creates,
        }  # fmt: skip


@dataclass(frozen=True)
class Preview:
    """Changes that have not been made. ``CaptionStore.apply`` makes them."""

    title: str
    """What is done, in words: 'Add tag: 1girl'."""
    changes: tuple[Change, ...]
    unchanged: int
    """Captions that were looked at and stay as they are."""


@dataclass(frozen=True)
class Conflict:
    """A caption that changed elsewhere since it was read. The file was left as it is."""

    id: str
    path: Path
    yours: str
    """The text that was to be written."""
    theirs: str
    """The text that the file holds now."""
    version: str
    """Version of ``theirs``: an edit based on it will be taken."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id, "name": self.path.name, "yours": self.yours, "theirs": self.theirs,
            "version": self.version, "what": f"{self.path.name} was changed elsewhere",
        }  # fmt: skip


@dataclass(frozen=True)
class Applied:
    """What came of an edit, an undo or a redo."""

    title: str
    written: tuple[Caption, ...] = ()
    """Captions as they are now (one for each file)."""
    conflicts: tuple[Conflict, ...] = ()
    failed: tuple[Problem, ...] = ()
    """Files that could not be written; they hold what they held before."""
    edit: int | None = None
    """Number of the edit in the history; None when nothing was to be done."""


@dataclass(frozen=True)
class HistoryItem:
    """One edit that can be undone or redone."""

    id: int
    time: float
    """Unix seconds."""
    title: str
    files: int
    state: Literal["done", "undone"]


@dataclass(frozen=True)
class TagStatistics:
    """Which tags occur how often, and together."""

    captions: int
    """Captions that were counted, empty ones included."""
    counts: Mapping[str, int]
    """Tag -> captions that have it; the most frequent first."""
    pairs: tuple[tuple[str, str, int], ...] = ()
    """(tag, tag, captions that have both), the most frequent first."""


@dataclass(frozen=True)
class Report:
    """How a tool over many files ended."""

    done: int
    """Pictures dealt with."""
    written: tuple[Path, ...]
    failed: tuple[tuple[str, str], ...] = ()
    """(file name, what is wrong with it)."""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def text(self) -> str:
        """The end of a command line: what was done, how fast, and what failed."""
        rate = f", {self.done / self.seconds:.1f} pictures/s" if self.seconds > 0 and self.done else ""
        total = self.done + len(self.failed)
        lines = [f"{self.done} of {total} pictures done, {len(self.written)} files written{rate}"]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"failed: {name} {what}" for name, what in self.failed]
        return "\n".join(lines)


@dataclass(frozen=True)
class Written:
    """What :func:`write` made, and what to train with."""

    files: tuple[Path, ...]
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Settings for the training: option -> value."""
