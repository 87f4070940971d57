"""A run's progress as text: one line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

WIDTH = 24
"""Characters of the bar itself."""
_TITLE = 20
_QUIET_SECONDS = 5.0
"""Seconds between two lines where a line cannot be overwritten."""


def bar(share: float, blocks: bool) -> str:
    """A bar that is full to ``share`` (0 to 1), of block characters or of plain ones."""
    full = round(min(max(share, 0.0), 1.0) * WIDTH)
    done, left = ("█", "░") if blocks else ("#", "-")
    return f"[{done * full}{left * (WIDTH - full)}]"


def clock(seconds: float) -> str:
    """Minutes and seconds, ``1:05``."""
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


def draws_blocks(stream: TextIO) -> bool:
    """Whether the stream's encoding has block characters; old Windows consoles have none."""
    try:
        "█░".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class Progress:
    """Prints titles and bars. A line that is being changed is ended before anything else is printed."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._blocks = draws_blocks(self._stream)
        self._open = False
        self._last = 0.0
        self._shown = ""

    def say(self, text: str = "") -> None:
        """One whole line."""
        if self._open:
            self._stream.write("\n")
        self._open = False
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def show(self, title: str, done: float, total: float, rest: str = "") -> None:
        """Progress of ``title``: a share of ``total``, with a few words behind. No total: the title alone."""
        share = done / total if total else 0.0
        meter = f"{title:<{_TITLE}.{_TITLE}} {bar(share, self._blocks)} {share:>4.0%}  {rest}"
        text = f"  {meter if total else title + ' ...'}".rstrip()
        if text == self._shown:
            return
        if self._live:
            columns = shutil.get_terminal_size((80, 24)).columns - 1
            self._stream.write(f"\r{text[:columns]:<{columns}}")
            self._open = True
        elif share >= 1 or time.monotonic() - self._last >= _QUIET_SECONDS:
            self._stream.write(f"{text}\n")
            self._last = time.monotonic()
        self._shown = text
        self._stream.flush()
