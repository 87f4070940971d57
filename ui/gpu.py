"""What the cards are doing, asked of the driver now and then and never waited for."""

from __future__ import annotations

import shutil
import threading
import time

from backend.system import devices

_FRESH = 2.0
"""Seconds between two questions to the driver."""


class CardWatch:
    """The newest answer of the driver. Asking costs a process, so that it happens beside."""

    def __init__(self) -> None:
        self._found: tuple[devices.Load, ...] = ()
        self._asked = float("-inf")
        self._lock = threading.Lock()
        self._there = shutil.which("nvidia-smi") is not None

    def look(self) -> tuple[devices.Load, ...]:
        """What was found last; a new question is on its way when that is old. Empty without cards."""
        with self._lock:
            if self._there and time.monotonic() - self._asked > _FRESH:
                self._asked = time.monotonic()
                threading.Thread(target=self._ask, name="cards", daemon=True).start()
            return self._found

    def _ask(self) -> None:
        found = devices.load()
        with self._lock:
            self._found = found


_watch = CardWatch()


def cards_at_work() -> tuple[devices.Load, ...]:
    """The cards' load of at most a few seconds ago."""
    return _watch.look()
