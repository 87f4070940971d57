"""One run, several processes: starting them from a command line, and what all but the main one do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backend.errors import AtelierError, Problem, RunFault, of_system
from backend.jobs import launch
from backend.jobs.events import EventLog, NoEvents, Sink, read_events
from backend.jobs.process import environment
from backend.jobs.runs import Run
from backend.jobs.state import last_attempt, state
from backend.settings import Settings
from backend.system.paths import REPOSITORY
from backend.train.preflight import Prepared
from backend.train.team import Team

_GRACE = 5.0
"""Seconds that a process leaves to the main one to report a fault that both have met."""
_MODULE = "backend.train"


@dataclass(frozen=True)
class Task:
    """What the main process has found out, for all."""

    run: Run
    prepared: Prepared
    resume: bool


Train = Callable[[Run, Prepared, bool, Sink, Team], str]


def follow(team: Team, train: Train) -> int:
    """Train along with the main process. Returns the exit code.

    Nothing is written by this process, unless it alone meets a fault.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave_it_to_the_main_process)
    task: Task | None = team.tell(None)
    if task is None:
        return 0  # it told why
    try:
        train(task.run, task.prepared, task.resume, NoEvents(), team)
        return 0
    except AtelierError as error:
        problems, code = error.problems, error.exit_code
    except Exception as error:
        ended = told(error, task.prepared)
        problems, code = ended.problems, ended.exit_code
    if not has_ended(task.run, _GRACE) and task.run.path.is_dir():
        _report(task.run, problems, code)
    return code


def _leave_it_to_the_main_process(number: int, frame: Any) -> None:
    """The first signal is for all; the main process sees to it that all stop. A second one ends this."""
    signal.signal(number, signal.SIG_DFL)


def has_ended(run: Run, seconds: float = 0.0) -> bool:
    """Whether some process has said how the run ended, or says so within ``seconds``."""
    end = time.monotonic() + seconds
    while (ended := state(run).state in ("finished", "stopped", "failed")) is False:
        if time.monotonic() >= end:
            break
        time.sleep(0.1)
    return ended


def _report(run: Run, problems: tuple[Problem, ...], code: int) -> None:
    log = EventLog(run.events)
    log.emit("error", problems=[problem.as_dict() for problem in problems])
    log.emit("state", state="failed", exit_code=code)
    log.close()


def told(error: Exception, prepared: Prepared | None = None) -> AtelierError:
    """Any error in words: memory that ran out, what the system refused, a card that failed, or a fault of
    ours, whose details are printed for a report."""
    from backend.generate.faults import is_out_of_memory

    if is_out_of_memory(error):
        from backend.train.memory import problem_of

        settings = prepared.settings if prepared is not None else Settings()
        return RunFault(problem_of(error, settings))
    if isinstance(error, OSError):
        return of_system(error)
    if "cuda error" in str(error).lower():
        return RunFault(_lost_card(error))
    traceback.print_exception(error)
    return RunFault(unexpected(error))


def _lost_card(error: Exception) -> Problem:
    return Problem(
        "the graphics card or its driver failed",
        why=str(error).strip().partition("\n")[0],
        next="restart the machine, then resume the run: it goes on from its last restore point",
        detail="".join(traceback.format_exception(error)),
    )


def unexpected(error: Exception) -> Problem:
    """A fault of ours."""
    return Problem(
        f"something unexpected went wrong: {error!r}",
        next="the details help whoever looks into it",
        detail="".join(traceback.format_exception(error)),
    )


def train_launched(settings: Settings, make_run: Callable[[], Run]) -> int:
    """Start the processes that the settings ask for, wait for them, and give the exit code.

    On a machine that is not the first one there is no run: its processes join those of machine 0.
    """
    chosen = settings.launch.model_dump()
    if chosen["machine_rank"]:
        return _wait(_start(chosen, ["--join", *_minutes(chosen["ddp_timeout"])]))
    run = make_run()
    code = _wait(_start(chosen, [str(run.path), "--keep_log"]))
    return _said_code(run) or code


def _minutes(timeout: int | None) -> list[str]:
    return ["--ddp_timeout", str(timeout)] if timeout else []


def _start(chosen: dict[str, Any], arguments: list[str]) -> subprocess.Popen[bytes]:
    # The folder stays, since paths may be written from where it is.
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    surroundings = {**environment(), "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(launch.command(_MODULE, arguments, chosen), env=surroundings)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait; a Ctrl-C reaches the processes by itself, a polite kill is passed on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: process.terminate())
    code = process.wait()
    sys.stdout.flush()
    return code


def _said_code(run: Run) -> int | None:
    """The exit code that the run's own last word has."""
    attempt = last_attempt(run)
    records, _ = read_events(run.events, attempt.events_offset if attempt else 0)
    said = [record for record in records if record["type"] == "state"]
    return said[-1].get("exit_code") if said else None


def is_wanted(settings: Settings) -> bool:
    """Whether a launcher is needed that nobody has used yet."""
    return "LOCAL_RANK" not in os.environ and launch.is_several(settings.launch.model_dump())


def lone_cpu_launch() -> bool:
    """``accelerate launch --cpu --num_processes 2`` starts one process, and says nothing."""
    return "MASTER_ADDR" in os.environ and "LOCAL_RANK" not in os.environ and "RANK" not in os.environ
