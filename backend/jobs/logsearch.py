"""Finding lines in a whole log, however long it is."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from backend.jobs.logtext import is_progress, printable

Level = Literal["all", "warning", "error"]
_ERROR = re.compile(r"error\b|\btraceback\b|exception\b|\bfatal\b", re.IGNORECASE)
_WARNING = re.compile(r"\bwarn(ing)?\b", re.IGNORECASE)
_LONGEST = 2000
_MOST_BYTES = 64 * 1024 * 1024
"""Of a longer log the end is searched."""


@dataclass(frozen=True)
class FoundLines:
    """The newest lines that fit."""

    lines: list[str]
    total: int
    """How many fit, those that are not given included."""


def find_lines(path: Path, words: str = "", level: str = "all", most: int = 400) -> FoundLines:
    """The last ``most`` lines that hold every one of ``words`` and are of a level.

    Args:
        path: the log; one that is not there has no lines.
        words: parted by blanks; upper and lower case are the same.
        level: "warning" finds warnings and errors, "error" errors only.
    """
    wanted = words.lower().split()
    kind: Level = level if level in get_args(Level) else "all"  # type: ignore[assignment]
    kept: deque[str] = deque(maxlen=most)
    total = 0
    for line in _lines(path):
        lower = line.lower()
        if of_level(line, kind) and all(word in lower for word in wanted):
            kept.append(line)
            total += 1
    return FoundLines(list(kept), total)


def of_level(line: str, level: Level) -> bool:
    """Whether a line is at least as grave as a level says."""
    if level == "all":
        return True
    return bool(_ERROR.search(line)) or (level == "warning" and bool(_WARNING.search(line)))


def _lines(path: Path) -> Iterator[str]:
    """Printable lines without the states of progress bars, which say nothing afterwards."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _MOST_BYTES))
            for raw in file:
                text = raw[: 4 * _LONGEST].decode("utf-8", errors="replace").rstrip("\r\n")
                line = printable(text.rpartition("\r")[2])[:_LONGEST]
                if line and not is_progress(line):
                    yield line
    except FileNotFoundError:
        return
