"""What is drawn after what, what a page sees of it, and how it makes room for trainings."""

from __future__ import annotations

import threading
import time

from backend.errors import RunFault
from tests.ui.generate.kit import drawn, finished, stack, values, waited, with_worker
from ui import studio as studio_module
from ui.studio import Job, Order


def test_jobs_wait_their_turn_and_can_be_taken_away(context, desk, calls):
    going = threading.Event()

    def slow(worker, message):
        going.wait(10)
        yield {"type": "done", "stopped": False}

    worker = with_worker(desk.studio, slow)
    for prompt in ("first", "second", "third"):
        reply = calls.draw({"values": values(context, prompt=prompt)})
    assert [job["title"] for job in reply["waiting"]] == ["second", "third"] and reply["now"]["busy"]
    reply = calls.cancel({"job": reply["now"]["job"], "waiting": reply["waiting"][0]["id"]})
    assert [job["title"] for job in reply["waiting"]] == ["third"]
    going.set()
    finished(desk.studio)
    assert [message["request"]["prompt"] for message in worker.asked] == ["first", "third"]
    assert desk.studio.cancel("gone") is False


def test_stop_ends_what_is_drawn_and_the_next_goes_on(context, desk, calls):
    stopped = threading.Event()

    def script(worker, message):
        yield {"type": "progress", "step": 1, "total": 9, "picture": 1, "pictures": 1}
        if message["request"]["prompt"] == "first":
            stopped.wait(10)
            yield {"type": "alive"}
        yield {"type": "done", "stopped": message["request"]["prompt"] == "first"}

    worker = with_worker(desk.studio, script)
    calls.draw({"values": values(context, prompt="first")})
    calls.draw({"values": values(context, prompt="second")})
    assert calls.stop({})["now"]["state"] == "stopping" and worker.told[0]["op"] == "stop"
    assert desk.studio.release() is False, "a worker that draws is not ended"
    stopped.set()
    view = finished(desk.studio)
    assert len(worker.asked) == 2 and not view.stopped and view.title == "second"
    assert desk.studio.release() is True and not worker.running


def test_a_stop_between_two_passes_is_obeyed(context, desk, calls):
    def script(worker, message):
        desk.studio.stop()
        yield {"type": "loading", "path": "x"}
        yield {"type": "done", "stopped": False}

    worker = with_worker(desk.studio, script)
    calls.draw({"values": values(context, loras=stack(context), compare=True)})
    assert finished(desk.studio).stopped and len(worker.asked) == 1


def test_errors_of_the_worker_are_shown_and_the_next_try_works(context, desk, calls):
    problem = {"what": "<b>x</b>.safetensors is damaged", "next": "download it again", "detail": "line 1"}
    with_worker(desk.studio, lambda w, m: iter([{"type": "error", "problems": [problem]}]))
    calls.draw({"values": values(context)})
    finished(desk.studio)
    assert calls.look({})["now"]["problems"][0]["what"].startswith("<b>x</b>")

    def died(worker, message):
        raise RunFault("the picture worker ended", next="try again")
        yield

    with_worker(desk.studio, died)
    calls.draw({"values": values(context)})
    assert "picture worker ended" in finished(desk.studio).problems[0]["what"]
    with_worker(desk.studio, drawn)
    calls.draw({"values": values(context)})
    assert finished(desk.studio).problems == []


def test_a_page_gets_only_what_it_has_not_seen(context, desk, calls):
    with_worker(desk.studio, drawn)
    calls.draw({"values": values(context, count=3)})
    finished(desk.studio)
    now = calls.look({})["now"]
    assert (now["first"], len(now["shots"])) == (0, 3)
    assert now["shots"][0]["url"].startswith("/gradio_api/file=")
    again = calls.look({"job": now["job"], "shots": 2, "preview": 3})["now"]
    assert (again["first"], [shot["seed"] for shot in again["shots"]]) == (2, [7])
    assert len(calls.look({"job": "another", "shots": 3})["now"]["shots"]) == 3


def test_memory_is_asked_of_an_idle_worker_only(desk):
    def script(worker, message):
        yield {"type": "pong", "memory": {"process": 7, "model": "m"}}
        yield {"type": "done"}

    worker = with_worker(desk.studio, script)
    desk.studio.measure()
    assert worker.asked == [] and desk.studio.view().memory == {}, "none is started for that"
    worker.running = True
    desk.studio.measure()
    assert desk.studio.view().memory == {"process": 7, "model": "m"}
    desk.studio.release()
    assert desk.studio.view().memory == {}


def test_a_training_gets_the_memory(context, desk, calls, monkeypatch):
    monkeypatch.setattr(studio_module, "_LOOK", 0.05)
    worker = with_worker(desk.studio, drawn)
    calls.draw({"values": values(context)})
    finished(desk.studio)
    assert worker.running
    monkeypatch.setattr(desk.studio, "training", lambda: "my cat")
    assert waited(lambda: not worker.running)
    assert calls.look({})["training"] == "my cat"


def test_a_grid_makes_way_for_a_training_that_begins(desk, monkeypatch):
    monkeypatch.setattr(studio_module, "_LOOK", 0.05)
    training = [None]
    monkeypatch.setattr(desk.studio, "training", lambda: training[0])

    def script(worker, message):
        yield {"type": "progress", "step": 1, "total": 9}
        waited(lambda: bool(worker.told))
        yield {"type": "done", "stopped": True}

    worker = with_worker(desk.studio, script)
    for id in ("one", "two"):
        desk.studio.add(Job((Order({"op": "grid"}),), id, 4, "grid", id))
    assert waited(lambda: desk.studio.view().state == "drawing")
    time.sleep(0.2)
    assert not worker.told, "nothing is left while nobody trains"
    training[0] = "my cat"
    view = finished(desk.studio)
    assert view.stopped and "my cat" in view.notes[0] and len(worker.asked) == 1
    assert waited(lambda: not worker.running)
