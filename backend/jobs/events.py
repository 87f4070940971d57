"""The records a job appends to ``events.jsonl`` and a page reads.

One JSON object a line: ``{"t": unix seconds, "type": ..., ...fields}``. Readers skip types and
fields they do not know. A line is written with one ``write`` and flushed, so a reader never sees
half of one that ends in a newline.
"""

from __future__ import annotations

import contextlib
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


_KEPT = 1 << 20
"""Bytes of records that wait for room on a full disk; what comes after them is dropped."""


class EventLog:
    """Appends events to a file. Safe to use from several threads of one process.

    A disk that takes nothing ends no job: records wait for room and are written in order once it is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._waiting = bytearray()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def emit(self, type: EventType, /, **fields: Any) -> None:
        """Write one record. ``fields`` must be JSON; non-finite numbers become null."""
        record = {"t": round(time.time(), 3), "type": type, **fields}
        line = (json.dumps(_finite(record), ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        with self._lock:
            if not self._waiting or len(self._waiting) + len(line) <= _KEPT:
                self._waiting += line
            self._write()

    def close(self) -> None:
        with self._lock:
            self._write()
            self._file.close()

    def _write(self) -> None:
        """As much as the disk takes; the rest of a line that was cut off comes next time."""
        with contextlib.suppress(OSError):
            while self._waiting:
                del self._waiting[: self._file.write(self._waiting) or 0]


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
