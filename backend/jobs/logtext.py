"""Log text made fit to be shown: no terminal codes, no tokens, no home folder, progress folded."""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache
from pathlib import Path

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]")
_SECRETS = re.compile(
    r"\b(hf_|sk-|gh[pousr]_)[A-Za-z0-9_-]{16,}|(?i:(?<=api_key=)|(?<=token=))[^\s&'\"]{12,}"
)
_PROGRESS = re.compile(r"\d{1,3}%\|.*\||\b\d+/\d+ \[\d+:\d+<|\b\d+(?:\.\d+)?(?:it/s|s/it)\b")


def without_codes(text: str) -> str:
    """Text without terminal codes and control characters; carriage returns, tabs, line breaks stay."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def printable(text: str) -> str:
    """Text as :func:`without_codes` leaves it, also without access tokens and the user's home path."""
    text = without_codes(text)
    text = _SECRETS.sub(lambda found: (found.group(1) or "") + "[hidden]", text)
    return _home_pattern().sub("~", text)


@lru_cache(maxsize=1)
def _home_pattern() -> re.Pattern[str]:
    home = str(Path.home())
    if len(home) < 4:
        return re.compile(r"(?!)")
    parts = [re.escape(part) for part in re.split(r"[\\/]+", home)]
    return re.compile(r"[\\/]+".join(parts) + r"(?=[\\/]|$|[\s'\":,;)])", re.MULTILINE)


def is_progress(line: str) -> bool:
    """Whether a line is a state of a progress bar, which the next such line makes void."""
    return bool(_PROGRESS.search(line))


class LogTail:
    """The last lines of a log that is fed in pieces, numbered from the first line seen.

    Only the newest line may still change: while it is unfinished, or while it is a progress line,
    which the next progress line replaces.
    """

    def __init__(self, keep: int = 400, width: int = 2000) -> None:
        self._lines: deque[str] = deque(maxlen=keep)
        self._open = ""
        self._width = width
        self.end = 0
        """Number of lines so far, dropped ones included; the unfinished one is not counted."""

    def feed(self, text: str) -> None:
        """Add text that may end anywhere."""
        *whole, rest = (self._open + text).replace("\r\n", "\n").split("\n")
        for line in whole:
            self._add(line)
        # A progress bar rewrites an unfinished line for hours; only its last state is worth keeping.
        kept = rest.rstrip("\r").rpartition("\r")[2] + ("\r" if rest.endswith("\r") else "")
        self._open = kept[-self._width :]

    def _add(self, line: str) -> None:
        line = printable(line.rstrip("\r").rpartition("\r")[2])[: self._width].rstrip()
        if self._lines and is_progress(line) and is_progress(self._lines[-1]):
            self._lines[-1] = line
            return
        if line or (self._lines and self._lines[-1]):
            self._lines.append(line)
            self.end += 1

    def lines(self) -> list[str]:
        """The lines kept, the unfinished one last."""
        rest = printable(self._open.rstrip("\r")).rstrip()
        if rest and self._lines and is_progress(rest) and is_progress(self._lines[-1]):
            return [*list(self._lines)[:-1], rest]
        return [*self._lines, rest] if rest else list(self._lines)

    def since(self, number: int) -> tuple[int, list[str]]:
        """Lines from ``number`` on, or from the oldest kept: the number of the first and the lines."""
        first = self.end - len(self._lines)
        start = min(max(number, first), self.end)
        return start, self.lines()[start - first :]
