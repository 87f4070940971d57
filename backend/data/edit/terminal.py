"""Progress of a command line: one line that is overwritten, or a line now and then in a file."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

_EVERY = 10.0
"""Seconds between lines where a line cannot be overwritten."""


class ProgressLine:
    """Call it with how many are done and how many there are; it adds the rate."""

    def __init__(self, doing: str, unit: str = "pictures", stream: TextIO | None = None) -> None:
        self._doing, self._unit = doing, unit
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._started = self._last = time.monotonic()

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._stream.write("\n")
            self._stream.flush()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._live and done < total and now - self._last < _EVERY:
            return
        self._last = now
        rate = done / max(now - self._started, 1e-6)
        text = f"{self._doing}: {done}/{total} {self._unit}, {rate:.1f}/s"
        self._stream.write(f"\r{text:<78}" if self._live else f"{text}\n")
        self._stream.flush()
