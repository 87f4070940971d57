"""The records of a job, on a disk that takes them and on one that does not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend.jobs import events
from backend.jobs.events import EventLog, read_events

needs_limits = pytest.mark.skipif(sys.platform == "win32", reason="a file's size has no limit here")


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """Writes of this process end where a file has ``size`` bytes, in the middle of a line too."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@needs_limits
def test_a_full_disk_ends_no_job_and_loses_no_record(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    with no_room_beyond(500):
        for step in range(1, 21):
            log.emit("step", step=step)
    seen, offset = read_events(log.path)
    assert 0 < len(seen) < 20
    log.emit("step", step=21)
    log.close()
    assert [one["step"] for one in seen + read_events(log.path, offset)[0]] == list(range(1, 22))


@needs_limits
def test_what_waits_for_room_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_KEPT", 400)
    log = EventLog(tmp_path / "events.jsonl")
    with no_room_beyond(100):
        for step in range(1, 101):
            log.emit("step", step=step)
    log.close()
    steps = [one["step"] for one in read_events(log.path)[0]]
    assert steps == list(range(1, len(steps) + 1)) and 5 < len(steps) < 20


def test_a_name_that_is_no_unicode_is_kept(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.emit("note", text="a\udcff.png is cut off")
    log.close()
    assert read_events(log.path)[0][0]["text"] == "a\udcff.png is cut off"
