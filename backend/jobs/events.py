"""The records a job appends to ``events.jsonl`` and a page reads.

One JSON object a line: ``{"t": unix seconds, "type": ..., ...fields}``. Readers skip types and
fields they do not know. A line is written with one ``write`` and flushed, so a reader never sees
half of one that ends in a newline.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

EventType = Literal[
    "phase",  # name, title: what the job does now (loading, caching, training, saving, sampling, ...)
    "progress",  # phase, done, total, unit: progress of a phase other than training
    "plan",  # what will be trained, as plain data (steps, epochs, images, buckets, parts, family)
    "differences",  # step, rows [{what, before, now, effect (safe, changes, impossible), key}]: changed since the restore point
    "step",  # step, total, epoch, epochs, loss, average, lr {group: rate}, grad_norm, seconds (per step), images_per_second, memory
    "validation",  # step, total, epoch, when (step, epoch), loss, divergence (from the training average), levels {timestep: loss}, pictures, seconds
    "sample",  # step, epoch, index, prompt, path (relative to the run), seed
    "saved",  # step, epoch, kind (result, epoch, step, state, recovery), path
    "note",  # text: worth knowing
    "warning",  # text, problem: something was skipped, replaced or failed without ending the job
    "error",  # problems [{what, where, why, next, key, detail}]: ends the job
    "state",  # state: starting, running, paused, stopping, finished, stopped, failed
    "result",  # path, facts: the final file
]


class Sink(Protocol):
    """Anything that takes events."""

    def emit(self, type: EventType, /, **fields: Any) -> None: ...


class EventLog:
    """Appends events to a file. Safe to use from several threads of one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def emit(self, type: EventType, /, **fields: Any) -> None:
        """Write one record. ``fields`` must be JSON; non-finite numbers become null."""
        record = {"t": round(time.time(), 3), "type": type, **fields}
        line = json.dumps(_finite(record), ensure_ascii=False) + "\n"
        with self._lock:
            self._file.write(line)
            self._file.flush()

    def close(self) -> None:
        self._file.close()


class NoEvents:
    """A sink that drops everything, for tests and tools."""

    def emit(self, type: EventType, /, **fields: Any) -> None:
        return


def read_events(path: Path, offset: int = 0, limit: int | None = None) -> tuple[list[dict[str, Any]], int]:
    """Records from byte ``offset`` on, and the offset to go on from.

    An unfinished last line is left for the next call; a damaged line is skipped. With ``limit``, about
    so many bytes are read at most (a whole line at least), so that a long file is taken in parts.
    """
    records, offset = read_records(path, offset, limit)
    return [record for record in records if "type" in record], offset


def read_records(path: Path, offset: int = 0, limit: int | None = None) -> tuple[list[dict[str, Any]], int]:
    """As :func:`read_events`, for any file with one JSON object a line."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read() if limit is None else file.read(limit) + file.readline()
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    return list(_parse(data[:end])), offset + end


def _parse(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
