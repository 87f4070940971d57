"""What is not drawn yet outlives the server, and is drawn when a person says so."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from backend.jobs.identity import ProcessIdentity
from tests.ui.generate.kit import drawn, drawn_grid, finished, values, waited, with_worker
from ui.kept_jobs import Job, KeptJobs, Order
from ui.tabs.generate.drawing import Desk, DrawCalls
from ui.tabs.generate.grids import GridCalls

ORDER = Order({"op": "generate", "model": "m", "request": {"prompt": "a cat"}, "out": "o"}, "with")


def job(title: str, **changes) -> Job:
    return replace(Job((ORDER,), title, 2, seed=7), **changes)


@pytest.fixture(scope="module")
def gone() -> ProcessIdentity:
    """A process that was there and has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        found = ProcessIdentity.of(process.pid)
        process.communicate(b"\n")
    assert found is not None and not found.alive()
    return found


def titles(rows) -> list[str]:
    return [row["title"] for row in rows]


def kept(context) -> list[str]:
    """Titles in the file of this process."""
    files = list((context.home / ".atelier" / "drawing").glob("*.json"))
    return [each["title"] for path in files for each in json.loads(path.read_text())["jobs"]]


def end_of(context, gone: ProcessIdentity) -> None:
    """Make what this process keeps that of one that is gone."""
    for path in (context.home / ".atelier" / "drawing").glob("*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "owner": gone.as_dict()}))


def test_jobs_come_back_as_they_were(tmp_path: Path, gone: ProcessIdentity) -> None:
    jobs = [job("one"), job("two", orders=(ORDER, ORDER), seed=None)]
    grid = job("three", orders=(Order({"op": "grid", "folder": "f"}),), kind="grid", grid="g")
    KeptJobs(tmp_path, gone).keep([*jobs, grid])
    later = KeptJobs(tmp_path)
    assert later.left_behind() == [*jobs, grid]
    assert later.left_behind() == [], "what was taken over is one's own"
    assert [json.loads(path.read_text())["jobs"][0]["title"] for path in tmp_path.glob("*.json")] == ["one"]
    later.keep([])
    assert not list(tmp_path.glob("*.json"))


def test_what_another_server_draws_is_its_own(tmp_path: Path, gone: ProcessIdentity) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        other = KeptJobs(tmp_path, ProcessIdentity.of(process.pid))
        other.keep([job("theirs")])
        assert KeptJobs(tmp_path).left_behind() == []
        process.communicate(b"\n")
    assert titles_of(KeptJobs(tmp_path).left_behind()) == ["theirs"]


def titles_of(jobs: list[Job]) -> list[str]:
    return [each.title for each in jobs]


def test_what_makes_no_sense_is_left_out(tmp_path: Path, gone: ProcessIdentity) -> None:
    KeptJobs(tmp_path, gone).keep([job("good")])
    (path,) = tmp_path.glob("*.json")
    facts = json.loads(path.read_text())
    whole = facts["jobs"][0]
    odd = [
        {},
        7,
        {**whole, "orders": []},
        {**whole, "orders": [{"message": {"op": "quit"}, "caption": ""}]},
        {**whole, "total": "many"},
    ]
    path.write_text(json.dumps({**facts, "jobs": [*odd, whole]}))
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{")
    assert titles_of(KeptJobs(tmp_path).left_behind()) == ["good"]
    assert damaged.read_text() == "{", "it is not ours to throw away"


def test_the_queue_outlives_the_server(context, desk, calls, gone) -> None:
    going = threading.Event()

    def slow(worker, message):
        going.wait(20)
        yield {"type": "done", "stopped": False}

    with_worker(desk.studio, slow)
    for prompt in ("first", "second", "third"):
        calls.draw({"values": values(context, prompt=prompt)})
    assert kept(context) == ["first", "second", "third"]
    end_of(context, gone)

    after = Desk(context)
    again = DrawCalls(after)
    worker = with_worker(after.studio, drawn)
    reply = again.look({})
    assert titles(reply["left"]) == ["first", "second", "third"] and not reply["waiting"]
    assert worker.asked == [] and not reply["now"]["busy"], "nothing is drawn by surprise"
    reply = again.cancel({"waiting": reply["left"][1]["id"]})
    assert titles(reply["left"]) == ["first", "third"] == kept(context)

    again.draw({"values": values(context, prompt="new")})  # that is drawn, and the others stay where they are
    finished(after.studio)
    assert [message["request"]["prompt"] for message in worker.asked] == ["new"]
    assert kept(context) == ["first", "third"]

    assert again.go_on({})["left"] == []
    finished(after.studio)
    assert [message["request"]["prompt"] for message in worker.asked] == ["new", "first", "third"]
    assert waited(lambda: kept(context) == [])
    going.set()
    finished(desk.studio)


def test_pictures_that_are_there_are_not_drawn_again(context, desk, calls, gone) -> None:
    def cut_short(worker, message):
        for event in drawn(worker, message):
            if event["type"] == "picture" and event["index"] == 2:
                waited(lambda: bool(worker.told))
                yield {"type": "done", "stopped": True}
                return
            yield event

    with_worker(desk.studio, cut_short)
    calls.draw({"values": values(context, prompt="four", count=4)})
    assert waited(lambda: desk.studio.view().done == 2)
    end_of(context, gone)

    after = Desk(context)
    again = DrawCalls(after)
    worker = with_worker(after.studio, drawn)
    (left,) = again.look({})["left"]
    assert left["total"] == 2
    again.go_on({})
    view = finished(after.studio)
    assert worker.asked[0]["first"] == 2
    assert [(shot.place, shot.seed) for shot in view.shots] == [((2, 0), 7), ((3, 0), 8)]
    assert (view.done, view.total, after.studio.left()) == (4, 4, [])
    desk.studio.stop()
    finished(desk.studio)


def test_of_two_passes_the_second_goes_on(tmp_path: Path, gone: ProcessIdentity) -> None:
    two = job("both", orders=(ORDER, ORDER), total=6).after({0: 3, 1: 1})
    KeptJobs(tmp_path, gone).keep([two])
    (back,) = KeptJobs(tmp_path).left_behind()
    assert [order.first for order in back.orders] == [3, 1] and back.done == 4
    assert [order.first for order in back.after({1: 2}).orders] == [3, 2]


def test_what_is_stopped_or_fails_does_not_come_back(context, desk, calls) -> None:
    with_worker(desk.studio, lambda w, m: iter([{"type": "error", "problems": [{"what": "no"}]}]))
    calls.draw({"values": values(context)})
    finished(desk.studio)
    assert waited(lambda: kept(context) == [])
    assert Desk(context).studio.left() == []


def test_a_grid_goes_on_where_it_was(context, desk, gone) -> None:
    grid = GridCalls(desk)
    axes = [{"key": "seed", "text": "1, 2, 3"}]

    def two(worker, message):
        yield from list(drawn_grid(worker, message))[:2]
        waited(lambda: bool(worker.told))
        yield {"type": "done", "stopped": True}

    with_worker(desk.studio, two)
    id = grid.start_grid({"values": values(context), "axes": axes, "name": "mine"})["id"]
    assert waited(lambda: desk.studio.view().done == 2)
    (desk.outputs / "grids" / id / "cells" / "2.png").unlink()
    end_of(context, gone)

    after = Desk(context)
    with_worker(after.studio, drawn_grid)
    grids = GridCalls(after)
    assert titles_of(after.studio.left()) == ["mine"]
    assert grids.show_grid({"grid": id})["wanted"] is False
    grids.continue_grid({"grid": id})  # by its own button; the one that was left is the same
    view = finished(after.studio)
    assert (view.done, view.total, len(view.shots)) == (3, 3, 1)
    assert after.studio.left() == []
    desk.studio.stop()
    finished(desk.studio)


def test_a_full_disk_is_said_and_stops_nothing(context, desk, calls, monkeypatch) -> None:
    def full(self, jobs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(KeptJobs, "keep", full)
    worker = with_worker(desk.studio, drawn)
    calls.draw({"values": values(context)})
    view = finished(desk.studio)
    assert len(worker.asked) == 1 and "No space left" in view.notes[0]
