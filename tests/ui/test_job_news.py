"""What jobs of the Captioning and Tagging pages have told."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.jobs.events import EventLog
from backend.jobs.runs import create_run
from ui.tabs.job_news import Newsroom


def test_each_look_reads_what_is_new_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, room = create_run(tmp_path, "tag", "", kind="tool"), Newsroom()
    log = EventLog(run.events)
    for done in range(1, 1000):
        log.emit("progress", done=done, total=50_000)
    log.emit("note", text="on the processor")
    news = room.of(run)
    assert (news.done, news.total, news.note, news.result) == (999, 50_000, "on the processor", {})
    assert news.offset == run.events.stat().st_size

    seen: list[int] = []
    from ui.tabs import job_news

    read = job_news.read_events

    def reading(path: Path, offset: int) -> object:
        seen.append(offset)
        return read(path, offset)

    monkeypatch.setattr(job_news, "read_events", reading)
    before = news.offset
    log.emit("error", problems=[{"what": "no"}])
    log.emit("result", facts={"written": 3})
    again = room.of(run)
    assert seen == [before] and again.done == 999
    assert again.errors == [{"what": "no"}] and again.result == {"written": 3}


def test_only_the_last_jobs_are_kept(tmp_path: Path) -> None:
    room = Newsroom(keep=1)
    first, second = (create_run(tmp_path, name, "", kind="tool") for name in ("a", "b"))
    EventLog(first.events).emit("progress", done=1, total=2)
    one = room.of(first)
    room.of(second)
    assert room.of(first) is not one and room.of(first).done == 1
