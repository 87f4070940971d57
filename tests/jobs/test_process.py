"""Jobs as processes: started once, outliving us, recognised, stopped, never mistaken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from backend.errors import EnvironmentFault, InputError
from backend.filelock import exclusive
from backend.jobs import control, process, ram
from backend.jobs.events import EventLog, read_events
from backend.jobs.identity import ProcessIdentity
from backend.jobs.runs import Run, create_run, list_runs
from backend.jobs.state import state

STEPS = """
events.emit("state", state="running")
for step in range(1, 2000):
    events.emit("step", step=step, total=2000, loss=0.1)
    for command in control.poll():
        if command["command"] == "stop":
            events.emit("state", state="stopping")
            events.emit("state", state="stopped")
            sys.exit(0)
    time.sleep(0.02)
"""
DEAF = 'events.emit("state", state="running")\ntime.sleep(60)\n'

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture(autouse=True)
def _no_job_is_left(tmp_path: Path):
    yield
    for run in list_runs(tmp_path / "runs"):
        thread = control.stop_now(run, grace=0.2)
        if thread:
            thread.join(10)


def test_a_job_runs_to_its_end(run: Run, program, until) -> None:
    job = program(
        'print("héllo 猫", flush=True)\n'
        'events.emit("state", state="running")\n'
        'events.emit("step", step=7, total=7, loss=0.5)\n'
        'events.emit("state", state="finished")\n'
    )
    assert state(run).state == "created"
    assert process.start(run, job(run)).active
    now = until(run, "finished")
    assert (now.step, now.total, now.problems, now.resumable) == (7, 7, (), False)
    assert now.ended is not None
    assert "héllo 猫" in run.log.read_text(encoding="utf-8")


def test_stop_lets_the_job_end_by_itself(run: Run, program, until) -> None:
    process.start(run, program(STEPS)(run))
    until(run, "running")
    control.stop(run)
    assert state(run).state in {"stopping", "stopped"}
    assert until(run, "stopped").problems == ()


def test_a_stop_pressed_while_the_job_loads_is_heard(run: Run, program, until) -> None:
    process.start(run, program(STEPS)(run))
    control.stop(run)
    until(run, "stopped")
    steps = [record for record in read_events(run.events)[0] if record["type"] == "step"]
    assert len(steps) <= 1


def test_stop_now_ends_a_job_that_does_not_listen_and_its_children(run: Run, program, until) -> None:
    child = "import subprocess\nc = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    process.start(run, program(deaf + child + f'events.emit("note", text=str(c.pid))\n{DEAF}')(run))
    pid = until(run, "running").pid
    assert pid is not None
    children = psutil.Process(pid).children()
    assert len(children) == 1
    before = time.monotonic()
    thread = control.stop_now(run, grace=0.5)
    assert thread is not None
    assert time.monotonic() - before < 0.3
    assert until(run, "stopped").pid is None
    thread.join(10)
    assert not children[0].is_running() or children[0].status() == psutil.STATUS_ZOMBIE


@posix
def test_a_killed_job_is_interrupted_and_can_be_resumed_from_its_state(run: Run, program, until) -> None:
    process.start(run, program(STEPS)(run))
    pid = until(run, "running").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    now = until(run, "interrupted", seconds=3)
    assert not now.resumable
    with pytest.raises(InputError, match="no restore point"):
        process.start(run, resume=True)
    (run.path / "state" / "step-5").mkdir()
    (run.path / "state" / "step-5" / "state.json").write_text("{}")
    assert state(run).resumable
    assert "Resume" in state(run).problems[0]["next"]
    assert process.start(run, program(STEPS)(run), resume=True).active
    until(run, "running")
    assert len(run.facts()["attempts"]) == 2


@posix
def test_a_job_that_the_system_ended_for_want_of_memory_says_so(
    run: Run, program, until, monkeypatch, tmp_path: Path
) -> None:
    counters = tmp_path / "vmstat"
    counters.write_text("nr_free_pages 9\noom_kill 3\n")
    monkeypatch.setattr(ram, "_COUNTERS", counters)
    process.start(run, program(STEPS)(run))
    pid = until(run, "running").pid
    counters.write_text("nr_free_pages 9\noom_kill 4\n")
    os.kill(pid, signal.SIGKILL)
    until(run, "interrupted", seconds=3)
    deadline = time.monotonic() + 3
    while state(run).exit_code is None and time.monotonic() < deadline:
        time.sleep(0.02)
    problem = state(run).problems[0]
    assert problem["what"] == "the system ran out of memory (RAM) and ended the job"
    (run.path / "state" / ".recovery.old").mkdir()
    (run.path / "state" / ".recovery.old" / "state.json").write_text("{}")
    assert state(run).resumable, "a restore point that was being replaced is one"
    assert "Resume" in state(run).problems[0]["next"]
    assert not ram.was_for_memory(4, -9) and not ram.was_for_memory(3, 1), "another one, or another end"
    monkeypatch.setattr(ram, "_COUNTERS", tmp_path / "nowhere")
    assert ram.killed_for_memory() is None and not ram.was_for_memory(3, -9)


def test_a_job_that_dies_before_its_first_word_shows_its_log(run: Run, program, until) -> None:
    process.start(run, program('raise SystemExit("no module named atlantis")')(run))
    now = until(run, "failed")
    assert now.exit_code == 1
    assert "atlantis" in now.problems[0]["detail"]


def test_problems_of_a_failed_job_are_told(run: Run, program, until) -> None:
    job = program('events.emit("error", problems=[{"what": "disk is full"}])\nsys.exit(4)\n')
    process.start(run, job(run))
    assert until(run, "failed").problems[0]["what"] == "disk is full"


def test_a_program_that_is_not_there_is_told(run: Run) -> None:
    with pytest.raises(EnvironmentFault, match="cannot be started"):
        process.start(run, ["/no/such/program"])
    assert state(run).state == "created"


def test_starting_a_running_job_again_changes_nothing(run: Run, program, until) -> None:
    job = program(STEPS)(run)
    process.start(run, job)
    pid = until(run, "running").pid
    assert process.start(run, job).pid == pid
    assert len(run.facts()["attempts"]) == 1


def test_many_starts_at_once_give_one_job(tmp_path: Path, program, monkeypatch) -> None:
    job = program(STEPS)
    monkeypatch.setattr(process, "_default_command", lambda run, resume, module: job(run))
    results: list[Run] = []

    def click() -> None:
        results.append(process.create_and_start(tmp_path / "runs", "my cat", "a = 1\n", "b = 2\n"))

    threads = [threading.Thread(target=click) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(results) == 6
    assert len({run.id for run in results}) == 1
    assert len(list_runs(tmp_path / "runs")) == 1
    results[0].config.write_text("a = 1\nseed = 7\n")
    click()
    assert results[-1].id == results[0].id


def test_a_second_training_is_refused_by_name_and_process(run: Run, program, until, monkeypatch) -> None:
    job = program(STEPS)
    process.start(run, job(run))
    pid = until(run, "running").pid
    other = create_run(run.path.parent, "my dog", "")
    with pytest.raises(InputError, match=rf"'my cat' is already training \(process {pid}\)"):
        process.start(other, job(other))
    with pytest.raises(InputError, match="my cat"):
        process.register_current_process(other)
    for make in (process.create_and_start, process.create_and_register):
        with pytest.raises(InputError, match="my cat"):
            make(run.path.parent, "third", "other = 1\n")
    assert {found.name for found in list_runs(run.path.parent)} == {"my cat", "my dog"}
    tool = create_run(run.path.parent, "merge", "", kind="tool")
    assert process.start(tool, program("time.sleep(0.2)")(tool)).state in {"starting", "running"}


def test_a_command_line_registers_itself(run: Run) -> None:
    process.register_current_process(run)
    now = state(run)
    assert (now.state, now.pid) == ("starting", os.getpid())
    process.register_current_process(run)
    assert len(run.facts()["attempts"]) == 1
    EventLog(run.events).emit("state", state="finished")
    assert not state(run).active


def test_a_command_line_makes_its_run_and_registers_in_one_act(tmp_path: Path) -> None:
    made = process.create_and_register(tmp_path / "runs", "x", "a = 1\n")
    assert state(made).pid == os.getpid()
    assert control.stop_now(made) is None, "it does not kill itself"
    assert control.ControlReader(made.control).poll()[0]["command"] == "stop_now"


def test_a_started_job_that_registers_itself_is_not_a_second_one(run: Run, program, until) -> None:
    job = "from backend.jobs.process import register_current_process\nregister_current_process(run)\n" + STEPS
    process.start(run, program(job)(run))
    until(run, "running")
    assert len(run.facts()["attempts"]) == 1


def test_a_process_with_a_pid_used_again_is_neither_alive_nor_touched(run: Run) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    try:
        for created, birth in ((1.0, ""), (psutil.Process(stranger.pid).create_time(), "other-boot:1")):
            if birth and not sys.platform.startswith("linux"):
                continue
            attempt = {
                "process": {"pid": stranger.pid, "created": created, "birth": birth},
                "own_group": True,
                "started": 1.0,
            }
            run.job.write_text(json.dumps({"name": "x", "kind": "train", "attempts": [attempt]}))
            assert state(run).state == "interrupted"
            assert process.running_training(run.path.parent) is None
            assert control.stop_now(run) is None
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_zombie_is_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    identity = ProcessIdentity.of(child.pid)
    deadline = time.monotonic() + 10
    while identity and identity.alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert identity is None or not identity.alive()
    child.wait()


@posix
def test_a_job_outlives_the_process_that_started_it(run: Run, program, root: Path, until) -> None:
    server = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from pathlib import Path\n"
        "from backend.jobs.process import start\n"
        "from backend.jobs.runs import open_run\n"
        f"start(open_run(Path({str(run.path)!r})), {program(STEPS)(run)!r})\n"
        "import os, signal; os.killpg(os.getpgid(0), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", server], start_new_session=True, check=False, timeout=30)
    now = until(run, "running")
    assert now.pid is not None
    control.stop(run)
    until(run, "stopped")


def test_a_lock_is_free_once_its_holder_is_gone(tmp_path: Path, root: Path) -> None:
    lock = tmp_path / "lock"
    holder = (
        f"import sys, time; sys.path.insert(0, {str(root)!r})\n"
        "from pathlib import Path\nfrom backend.filelock import exclusive\n"
        f"with exclusive(Path({str(lock)!r})):\n    print('held', flush=True)\n    time.sleep(30)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline().strip() == b"held"
    with pytest.raises(EnvironmentFault, match="another process has held"), exclusive(lock, timeout=0.2):
        pass
    other.kill()
    other.wait()
    with exclusive(lock, timeout=5):
        pass


def test_control_reads_each_command_once(run: Run) -> None:
    control.send(run, "save")
    reader = control.ControlReader(run.control)
    assert reader.poll() == []
    control.send(run, "pause")
    control.send(run, "resume")
    with run.control.open("a") as file:
        file.write('{"t": 1, "command": "format the disk"}\nnot json\n{"t": 1, "command": "sa')
    assert [command["command"] for command in reader.poll()] == ["pause", "resume"]
    with run.control.open("a") as file:
        file.write('ve"}\n')
    assert [command["command"] for command in reader.poll()] == ["save"]
    with pytest.raises(InputError, match="no command 'explode'"):
        control.send(run, "explode")  # type: ignore[arg-type]
