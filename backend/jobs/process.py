"""Starting jobs so that they outlive the page, one training at a time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backend.errors import EnvironmentFault, InputError
from backend.filelock import exclusive
from backend.jobs import launch
from backend.jobs.files import write_json
from backend.jobs.identity import ProcessIdentity
from backend.jobs.ram import killed_for_memory, was_for_memory
from backend.jobs.runs import JOB_FILE, Run, asked, create_run, list_runs
from backend.jobs.state import RunState, last_attempt, state
from backend.system.paths import REPOSITORY

__all__ = [
    "RunState",
    "create_and_register",
    "create_and_start",
    "environment",
    "register_current_process",
    "running_training",
    "start",
    "state",
]

_LOCK = ".start.lock"
_TRAINER = "backend.train"
_EXIT_WAIT = 10.0
"""Seconds that a job which has said its last word may take to leave."""


def start(
    run: Run,
    command: list[str] | None = None,
    resume: bool = False,
    secrets: Mapping[str, str] | None = None,
) -> RunState:
    """Start the job of ``run`` as a process of its own that goes on when this one ends.

    Starting a job that is already at work changes nothing, so two clicks give one job.

    Args:
        run: the run folder; its log, events and control files are appended to.
        command: the command line; by default ``python -m backend.train <run folder>``.
        resume: adds ``--resume`` to the default command line.
        secrets: environment variables for this process alone, written nowhere.

    Raises:
        InputError: another training is running (named, with its pid), or there is nothing to resume.
        EnvironmentFault: the program cannot be started.
    """
    with _starting(run.path.parent):
        _wait_for_exit(run)
        now = state(run)
        if now.active:
            return now
        if resume and not now.resumable and command is None:
            raise InputError(
                f"{run.name!r} cannot be resumed: it has no restore point",
                where=run.id,
                next="start it again from the beginning",
            )
        _refuse_second(run)
        _spawn(run, command or _default_command(run, resume), secrets)
    return state(run)


def create_and_start(
    root: Path,
    name: str,
    config_toml: str,
    dataset_toml: str | None = None,
    module: str = _TRAINER,
    secrets: Mapping[str, str] | None = None,
) -> Run:
    """Make a training run and start it, or give back the one that is running with these very files.

    The second of two clicks, in the same or another tab, thus finds the first one's job, and a
    refused start leaves no empty run folder. ``module`` is what ``python -m`` runs; ``secrets`` are
    environment variables for it alone, written nowhere.

    Raises:
        InputError: another training is running, or the name cannot be used.
        EnvironmentFault: the program cannot be started.
    """
    with _starting(root):
        running = running_training(root)
        if running and running.facts().get("asked") == asked(config_toml, dataset_toml):
            return running
        if running:
            _refuse(running)
        run = create_run(root, name, config_toml, dataset_toml)
        _spawn(run, _default_command(run, resume=False, module=module), secrets or {})
    return run


def create_and_register(root: Path, name: str, config_toml: str, dataset_toml: str | None = None) -> Run:
    """Make a training run whose job is this process: for command lines, in one act.

    Raises:
        InputError: another training is running (then no folder is made), or the name cannot be used.
    """
    with _starting(root):
        running = running_training(root)
        if running:
            _refuse(running)
        run = create_run(root, name, config_toml, dataset_toml)
        _register(run)
    return run


def register_current_process(run: Run) -> None:
    """Make this process the job of ``run``: what a command line calls in place of :func:`start`.

    Does nothing in a process that :func:`start` started (or that such a process started in turn).

    Raises:
        InputError: another training is running, or this run is already at work.
    """
    with _starting(run.path.parent):
        attempt = last_attempt(run)
        if attempt and attempt.process and attempt.process.is_ancestor(os.getpid()):
            return
        if state(run).active:
            _refuse(run)
        _refuse_second(run)
        _register(run)


def _register(run: Run) -> None:
    # The arguments may hold tokens; what matters of them is in the run's config.toml.
    _add_attempt(run, ProcessIdentity.of(os.getpid()), [Path(sys.argv[0]).name], own_group=False)


def running_training(root: Path) -> Run | None:
    """The training that is at work, if any."""
    return next((run for run in list_runs(root) if run.kind == "train" and _at_work(run)), None)


def _at_work(run: Run) -> bool:
    attempt = last_attempt(run)
    return bool(attempt and attempt.process and attempt.process.alive()) and state(run).active


def _starting(root: Path) -> contextlib.AbstractContextManager[None]:
    """Hold what everybody must hold who starts a job: looking and starting are one act."""
    return exclusive(root / _LOCK)


def _refuse_second(run: Run) -> None:
    running = running_training(run.path.parent) if run.kind == "train" else None
    if running and running.path != run.path:
        _refuse(running)


def _refuse(running: Run) -> None:
    pid = state(running).pid
    raise InputError(
        f"{running.name!r} is already training (process {pid})",
        where=running.id,
        why="two trainings at once would slow each other down or run out of memory",
        next="wait until it has ended, or stop it first",
    )


def _wait_for_exit(run: Run) -> None:
    """Let a job that has said it ended leave, so that two processes never write into one folder."""
    deadline = time.monotonic() + _EXIT_WAIT
    while time.monotonic() < deadline:
        attempt = last_attempt(run)
        if not (attempt and attempt.process and attempt.process.alive()) or state(run).active:
            return
        time.sleep(0.1)
    raise InputError(
        f"the process {state(run).pid} of {run.name!r} has not left yet",
        where=run.id,
        next="wait a moment, or press Stop now, and try again",
    )


def _default_command(run: Run, resume: bool, module: str = _TRAINER) -> list[str]:
    """``python -m module <run folder>``, by accelerate's launcher when the run asks for several processes."""
    arguments = [str(run.path), *(["--resume"] if resume else [])]
    return launch.command(module, arguments, launch.choices(run.config))


def environment() -> dict[str, str]:
    """What our subprocesses get: unbuffered UTF-8 output, and no look-ups outside this machine."""
    asked = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "PYTHONIOENCODING": "utf-8",
        "TOKENIZERS_PARALLELISM": "false",
    }
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        # Threads that wait sleep instead of spinning: on a busy processor that is many times faster.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    # Whoever sets one of the second kind, say to upload to the hub, is followed.
    return {**quiet, **os.environ, **asked}


def _detached(command: list[str], common: dict[str, Any]) -> subprocess.Popen[Any]:
    """Start a process that our terminal, our signals and our end do not reach."""
    if sys.platform != "win32":
        return subprocess.Popen(command, start_new_session=True, **common)
    # A console of its own, never shown: with none at all, each program it starts would open one.
    flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    free = flags | subprocess.CREATE_BREAKAWAY_FROM_JOB
    try:
        return subprocess.Popen(command, creationflags=free, **common)
    except PermissionError:
        # Some Windows shells forbid leaving their job object; then the job ends with that shell.
        return subprocess.Popen(command, creationflags=flags, **common)


def _spawn(run: Run, command: list[str], secrets: Mapping[str, str] | None = None) -> None:
    killed = killed_for_memory()
    with run.log.open("ab") as log:
        process = _popen(run, command, log, secrets or {})
    identity = ProcessIdentity.of(process.pid)
    index = _add_attempt(run, identity, command, own_group=True)
    threading.Thread(
        target=_note_exit, args=(run, index, process.wait, killed), name=f"exit-{process.pid}", daemon=True
    ).start()


def _popen(run: Run, command: list[str], log: Any, secrets: Mapping[str, str]) -> subprocess.Popen[Any]:
    common: dict[str, Any] = {
        "cwd": REPOSITORY,
        "env": environment() | dict(secrets),
        "stdin": subprocess.DEVNULL,
        "stdout": log,
        "stderr": subprocess.STDOUT,
    }
    try:
        return _detached(command, common)
    except OSError as error:
        raise EnvironmentFault(
            f"{command[0]} cannot be started", where=run.id, why=error.strerror or str(error)
        ) from error


def _add_attempt(run: Run, process: ProcessIdentity | None, command: list[str], own_group: bool) -> int:
    """Write a new attempt into ``job.json`` and give its index. The caller holds the lock."""
    facts = run.facts() or {"version": 1, "name": run.name, "kind": run.kind}
    attempts = facts.get("attempts")
    attempts = attempts if isinstance(attempts, list) else []
    attempts.append(
        {
            "process": process.as_dict() if process else None,
            "own_group": own_group,
            "command": command,
            "started": round(time.time(), 3),
            "events_offset": _size(run.events),
            "control_offset": _size(run.control),
        }
    )
    write_json(run.path / JOB_FILE, {**facts, "attempts": attempts})
    return len(attempts) - 1


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _note_exit(run: Run, index: int, wait: Callable[[], int], killed: int | None = None) -> None:
    """Wait for the process and keep its exit code; also takes a dead child off the system's table.

    ``killed``: see :func:`was_for_memory`.
    """
    code = wait()
    for_memory = {"out_of_memory": True} if was_for_memory(killed, code) else {}
    with contextlib.suppress(OSError, EnvironmentFault), exclusive(run.path.parent / _LOCK):
        facts = run.facts()
        attempts = facts.get("attempts")
        if isinstance(attempts, list) and index < len(attempts) and isinstance(attempts[index], dict):
            attempts[index].update(exit_code=code, ended=round(time.time(), 3), **for_memory)
            write_json(run.path / JOB_FILE, facts)
