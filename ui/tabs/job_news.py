"""What jobs of the Captioning and Tagging pages have told so far, taken from their events as these grow.

A job over tens of thousands of pictures tells its progress for hours; each look reads what is new only.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.jobs.events import read_events
from backend.jobs.runs import Run


@dataclass
class News:
    """What a job has told, in its own words (English)."""

    done: int = 0
    total: int = 0
    rate: float = 0.0
    """Pictures a second; 0 while it is not known."""
    note: str = ""
    errors: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    result: dict[str, Any] = field(default_factory=dict[str, Any])
    offset: int = 0
    """Bytes of the events that are taken in."""
    _started: float = 0.0

    def read(self, events: Path) -> None:
        """Take in what came since the last time."""
        records, self.offset = read_events(events, self.offset)
        for record in records:
            self._take(record)

    def _take(self, record: dict[str, Any]) -> None:
        match record["type"]:
            case "progress":
                self._started = self._started or record["t"]
                self.done, self.total = record["done"], record["total"]
                passed = record["t"] - self._started
                self.rate = self.done / max(0.1, passed) if passed > 0 else 0.0
            case "note":
                self.note = str(record["text"])
            case "error":
                self.errors = list(record["problems"])
            case "result":
                self.result = dict(record.get("facts") or {})
            case _:
                pass


class Newsroom:
    """The news of the jobs that were looked at last."""

    def __init__(self, keep: int = 8) -> None:
        self._keep, self._lock = keep, threading.Lock()
        self._known: OrderedDict[Path, News] = OrderedDict()

    def of(self, run: Run) -> News:
        """What a job has told up to now. Not to be changed."""
        with self._lock:
            news = self._known.setdefault(run.path, News())
            self._known.move_to_end(run.path)
            while len(self._known) > self._keep:
                self._known.popitem(last=False)
            news.read(run.events)
            return news
