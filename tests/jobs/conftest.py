"""Runs in a temporary folder, and small programs that act as jobs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.jobs.runs import Run, create_run
from backend.jobs.state import RunState, state

PROGRAM = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from backend.jobs.control import ControlReader
from backend.jobs.events import EventLog
from backend.jobs.runs import open_run
run = open_run(Path(sys.argv[1]))
events, control = EventLog(run.events), ControlReader(run.control)
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return create_run(tmp_path / "runs", "my cat", "learning_rate = 1e-4\n")


@pytest.fixture
def program(tmp_path: Path, root: Path) -> Callable[[str], Callable[[Run], list[str]]]:
    """Turns code into the command line of a job; the code finds ``run``, ``events`` and ``control``."""

    def write(code: str) -> Callable[[Run], list[str]]:
        path = tmp_path / f"job{time.monotonic_ns()}.py"
        path.write_text(PROGRAM.format(root=str(root)) + code, encoding="utf-8")
        return lambda run: [sys.executable, str(path), str(run.path)]

    return write


@pytest.fixture
def until() -> Callable[..., RunState]:
    """Waits until a run is in one of the states named."""

    def wait(run: Run, *names: str, seconds: float = 20) -> RunState:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            now = state(run)
            if now.state in names:
                return now
            time.sleep(0.05)
        raise AssertionError(f"{run.id} is {state(run)} and not {names}")

    return wait
