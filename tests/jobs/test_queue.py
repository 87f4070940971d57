"""Trainings that wait: their order, and who starts them when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.errors import EnvironmentFault, InputError
from backend.jobs import control, process, queue
from backend.jobs.process import start
from backend.jobs.runs import Run, create_run
from backend.jobs.state import RunState, state

GOOD = "events.emit('state', state='finished')"
BAD = "events.emit('state', state='failed', exit_code=4); sys.exit(4)"
LONG = """
events.emit('state', state='running')
while not control.poll(): time.sleep(0.05)
events.emit('state', state='stopped')
"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


Commands = dict[str, list[str]]


@pytest.fixture
def acts(
    monkeypatch: pytest.MonkeyPatch, program: Callable[[str], Callable[[Run], list[str]]]
) -> Iterator[Callable[[Run, str], None]]:
    """Says what a run does when it is started with its default command."""
    commands: Commands = {}
    monkeypatch.setattr(process, "_default_command", lambda run, resume, module="": commands[run.id])
    yield lambda run, code: commands.__setitem__(run.id, program(code)(run))


def made(runs: Path, *names: str) -> list[Run]:
    return [queue.enqueue(runs, name, "") for name in names]


def test_they_wait_in_order_and_the_order_can_be_changed(runs: Path) -> None:
    a, b, c = (run.id for run in made(runs, "a", "b", "c"))
    queue.add(runs, a)
    assert queue.read(runs).waiting == (a, b, c)
    queue.move(runs, c, 0)
    assert queue.read(runs).waiting == (c, a, b)
    queue.move(runs, c, 99)
    queue.move(runs, "nobody", 0)
    assert queue.read(runs).waiting == (a, b, c)
    queue.remove(runs, b)
    assert queue.read(runs).waiting == (a, c)
    assert (runs / b).is_dir()


def test_one_at_a_time_each_in_its_turn(
    runs: Path, acts: Callable[[Run, str], None], until: Callable[..., RunState]
) -> None:
    first, second = made(runs, "first", "second")
    acts(first, LONG)
    acts(second, GOOD)
    assert queue.turn(runs) == first
    until(first, "running")
    assert queue.turn(runs) is None
    assert queue.read(runs).waiting == (second.id,)
    control.stop(first)
    until(first, "stopped")
    assert queue.turn(runs) == second
    until(second, "finished")
    assert queue.turn(runs) is None and queue.read(runs).waiting == ()


def test_after_a_failure_it_goes_on_or_holds_as_it_was_told(
    runs: Path, acts: Callable[[Run, str], None], until: Callable[..., RunState]
) -> None:
    bad, other, last = made(runs, "bad", "other", "last")
    for run, code in ((bad, BAD), (other, BAD), (last, GOOD)):
        acts(run, code)
    queue.turn(runs)
    until(bad, "failed")
    assert queue.turn(runs) == other
    until(other, "failed")
    queue.go_on_after_failure(runs, False)
    assert queue.turn(runs) is None
    assert queue.read(runs).held == "other failed"
    queue.release(runs)
    assert queue.turn(runs) == last
    until(last, "finished")


def test_held_it_starts_nothing(runs: Path, acts: Callable[[Run, str], None]) -> None:
    (run,) = made(runs, "a")
    queue.hold(runs, "dinner")
    assert queue.turn(runs) is None
    made(runs, "b")
    assert queue.read(runs).held == "dinner" and state(run).state == "created"


def test_what_cannot_be_started_holds_it_with_the_reason(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = made(runs, "a")

    def refuse(*_: object, **__: object) -> None:
        raise EnvironmentFault("python cannot be started")

    monkeypatch.setattr(process, "start", refuse)
    assert queue.turn(runs) is None
    assert "cannot be started" in queue.read(runs).held
    assert queue.read(runs).waiting == (run.id,)


def test_a_run_that_was_started_or_deleted_meanwhile_waits_no_longer(
    runs: Path, acts: Callable[[Run, str], None], until: Callable[..., RunState]
) -> None:
    a, b = made(runs, "a", "b")
    acts(a, GOOD)
    start(a)
    until(a, "finished")
    b.path.rename(runs / ".elsewhere")
    assert queue.read(runs).waiting == ()
    with pytest.raises(InputError, match="cannot wait"):
        queue.add(runs, a.id)
    with pytest.raises(InputError, match="cannot wait"):
        queue.add(runs, "../elsewhere")


def test_a_damaged_file_is_made_anew_from_the_run_folders(
    runs: Path, acts: Callable[[Run, str], None], until: Callable[..., RunState]
) -> None:
    runs.mkdir()
    for text in ("", "[]", '{"waiting": 3, "held": null}', "{"):
        (runs / queue.FILE).write_text(text, encoding="utf-8")
        assert queue.read(runs) == queue.Queue(), "nothing waits where there is nothing"
    first, second = made(runs, "a", "b")
    half = '{"version": 1, "waiting": ["' + second.id
    (runs / queue.FILE).write_text(half, encoding="utf-8")
    found = queue.read(runs)
    assert found.waiting == (first.id, second.id) and "made anew from the run folders" in found.held
    assert queue.turn(runs) is None, "somebody has to look at it first"
    assert (runs / queue.FILE).read_text(encoding="utf-8") == half, "looking changes nothing"
    acts(first, GOOD)
    queue.release(runs)
    (kept,) = runs.glob("queue.damaged-*.json")
    assert kept.read_text(encoding="utf-8") == half
    assert queue.turn(runs) == first and queue.read(runs).waiting == (second.id,)
    until(first, "finished")


def test_a_keeper_starts_what_waits_with_its_secrets(
    runs: Path, acts: Callable[[Run, str], None], until: Callable[..., RunState]
) -> None:
    keeper = queue.Keeper(runs, every=0.05)
    keeper.start()
    run = create_run(runs, "a", "")
    acts(run, "import os; events.emit('note', text=os.environ['WANDB_API_KEY']); " + GOOD)
    keeper.secrets[run.id] = {"WANDB_API_KEY": "abc"}
    queue.add(runs, run.id)
    until(run, "finished")
    keeper.end()
    assert '"text": "abc"' in run.events.read_text(encoding="utf-8")
    assert keeper.secrets == {} and queue.read(runs).last == run.id
