"""The warm helper: asked, answering, dying and hanging without taking us along."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from backend.errors import EnvironmentFault, RunFault
from backend.jobs.worker import Worker

HELPER = """
import json, os, sys, time
for line in sys.stdin:
    request = json.loads(line)
    print("a library talks", flush=True)
    do = request["type"]
    ids = {"id": request["id"]} if "id" in request else {}
    if do == "die":
        sys.stderr.write("CUDA went away\\n"); sys.stderr.flush(); os._exit(9)
    if do == "hang":
        time.sleep(60)
    for number in range(request.get("count", 2)):
        print(json.dumps({**ids, "type": "progress", "done": number, "of": request.get("who")}), flush=True)
        time.sleep(request.get("pause", 0))
    print(json.dumps({**ids, "type": "done", "pid": os.getpid(), "text": request.get("text")}), flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path):
    path = tmp_path / "helper.py"
    path.write_text(HELPER)
    made = Worker(
        [sys.executable, str(path)], tmp_path / "logs" / "helper.log", name="picture helper", timeout=20
    )
    yield made
    made.stop()


def test_it_starts_with_the_first_request_and_stays(worker: Worker) -> None:
    assert not worker.running
    events = list(worker.request({"type": "draw", "text": "猫\n<b>"}))
    assert [event["type"] for event in events] == ["progress", "progress", "done"]
    assert events[-1]["text"] == "猫\n<b>"
    assert worker.ask({"type": "draw"})["pid"] == events[-1]["pid"] == worker.pid
    assert "a library talks" in worker._log.read_text()


def test_a_death_is_told_with_the_reason_and_the_next_request_works(worker: Worker) -> None:
    with pytest.raises(RunFault, match=r"'die' \(a red fox\) \(exit code 9\)") as caught:
        list(worker.request({"type": "die", "prompt": "a red fox"}))
    assert "CUDA went away" in caught.value.problems[0].detail
    assert worker.ask({"type": "draw"})["type"] == "done"


def test_a_hang_ends_with_the_name_of_the_item(worker: Worker) -> None:
    with pytest.raises(RunFault, match=r"no sign of life for 1 seconds during 'hang' \(cat\.png\)"):
        list(worker.request({"type": "hang", "image": "cat.png"}, timeout=1))
    assert not worker.running
    assert worker.ask({"type": "draw"})["type"] == "done"


def test_requests_of_several_threads_do_not_mix(worker: Worker) -> None:
    seen: dict[str, list[str]] = {}

    def ask(who: str) -> None:
        events = list(worker.request({"type": "draw", "who": who, "count": 5, "pause": 0.01}))
        seen[who] = [event["of"] for event in events[:-1]]

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    [thread.start() for thread in threads]
    [thread.join(20) for thread in threads]
    assert seen == {name: [name] * 5 for name in "abcd"}


def test_an_answer_nobody_waits_for_is_not_given_to_the_next(worker: Worker) -> None:
    events = worker.request({"type": "draw", "who": "first", "count": 5, "pause": 0.02})
    next(events)
    events.close()
    assert [event.get("of") for event in worker.request({"type": "draw", "who": "second"})] == [
        "second",
        "second",
        None,
    ]


def test_what_is_only_told_does_not_end_a_request(worker: Worker) -> None:
    assert not worker.tell({"id": "t", "type": "draw"})
    events = worker.request({"id": "r", "type": "draw", "who": "r", "count": 3, "pause": 0.05})
    seen = [next(events)]
    assert worker.tell({"id": "t", "type": "draw", "who": "t"})
    seen += list(events)
    assert [event.get("of") for event in seen] == ["r", "r", "r", None]
    assert [event.get("of") for event in worker.request({"id": "s", "type": "draw", "who": "s"})] == [
        "s",
        "s",
        None,
    ]


def test_stop_frees_the_process_and_ends_a_request_under_way(worker: Worker) -> None:
    events = worker.request({"type": "hang"})
    threading.Timer(1.0, worker.stop, kwargs={"grace": 0.2}).start()
    with pytest.raises(RunFault, match="ended in the middle"):
        next(events)
    assert not worker.running
    worker.stop()


def test_a_helper_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="cannot be started"):
        Worker(["/no/such/helper"], tmp_path / "log").ask({"type": "x"})
