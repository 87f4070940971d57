"""What a run is doing, derived from facts each time and stored nowhere.

The facts are: the attempts in ``job.json``, whether the last attempt's process still lives, what it
wrote last into ``events.jsonl``, and what it was told last in ``control.jsonl``.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from backend.errors import Problem
from backend.jobs.events import read_events, read_records
from backend.jobs.identity import ProcessIdentity
from backend.jobs.logtext import printable
from backend.jobs.runs import Run

StateName = Literal[
    "created",  # never started
    "starting",  # the process lives and has not said that it runs
    "running",
    "paused",
    "stopping",  # asked to stop, finishing its step and saving
    "finished",  # all steps done
    "stopped",  # ended on request
    "failed",  # ended by an error
    "interrupted",  # the process is gone and left no word: killed, crashed, power cut
]
ACTIVE: frozenset[str] = frozenset({"starting", "running", "paused", "stopping"})
ENDED: frozenset[str] = frozenset({"finished", "stopped", "failed", "interrupted"})
_SAID: frozenset[str] = frozenset(get_args(StateName)) - {"created", "interrupted"}
_TAIL_BYTES = 128 * 1024
_FAULT_CODES: frozenset[int] = frozenset({1, 2, 3, 4})
"""Exit codes that a Python program chooses itself; others come from whatever killed it."""


@dataclass(frozen=True)
class Attempt:
    """One process that worked, or works, on a run."""

    process: ProcessIdentity | None
    started: float
    events_offset: int = 0
    """Size of ``events.jsonl`` when it began."""
    control_offset: int = 0
    own_group: bool = False
    exit_code: int | None = None
    ended: float | None = None
    index: int = 0
    out_of_memory: bool = False
    """The system ended it because there was no memory (RAM) left."""


@dataclass(frozen=True)
class RunState:
    """A run at one moment."""

    state: StateName
    started: float | None = None
    """Start of the last attempt, Unix seconds."""
    ended: float | None = None
    step: int = 0
    total: int = 0
    pid: int | None = None
    """Only while the process lives."""
    exit_code: int | None = None
    """Known only when the process that started the job saw it end."""
    resumable: bool = False
    """Not active, not finished, and a restore point exists."""
    problems: tuple[dict[str, Any], ...] = field(default=())

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


@dataclass
class _Said:
    """What the last attempt's latest records say."""

    state: str | None = None
    last_time: float | None = None
    step: int = 0
    total: int = 0
    problems: list[dict[str, Any]] = field(default_factory=list)


def state(run: Run) -> RunState:
    """What ``run`` is doing now. Reads a few kilobytes, whatever the length of the run."""
    attempt = last_attempt(run)
    if attempt is None:
        return RunState("created")
    alive = bool(attempt.process and attempt.process.alive())
    said = _said(run, attempt)
    name = _name(attempt, said, alive, _last_command(run, attempt))
    over = name in ENDED
    return RunState(
        state=name,
        started=attempt.started,
        ended=(attempt.ended or said.last_time or attempt.started) if over else None,
        step=said.step,
        total=said.total,
        pid=attempt.process.pid if alive and attempt.process else None,
        exit_code=attempt.exit_code,
        resumable=over and name != "finished" and has_restore_point(run),
        problems=_problems(run, attempt, name, said),
    )


def _problems(run: Run, attempt: Attempt, name: StateName, said: _Said) -> tuple[dict[str, Any], ...]:
    if name == "interrupted":
        return (_interrupted(run, attempt).as_dict(),)
    if name != "failed":
        return ()
    return tuple(said.problems) or (_silent_failure(run, attempt).as_dict(),)


def _interrupted(run: Run, attempt: Attempt) -> Problem:
    advice = (
        "press Resume to go on from the last restore point" if has_restore_point(run) else "start it again"
    )
    if attempt.out_of_memory:
        return Problem(
            "the system ran out of memory (RAM) and ended the job",
            where=run.name,
            next=f"end other programs, or choose fewer loading threads and a smaller batch; then {advice}",
            detail=log_end(run),
        )
    code = attempt.exit_code
    signalled = f"signal {-code} ended it" if code is not None and code < 0 else "it left no word"
    return Problem(
        "the job's process is gone before the job was done",
        where=run.name,
        why=f"{signalled}: it was killed, it crashed, memory ran out, or the computer went down",
        next=advice,
        detail=log_end(run),
    )


def _silent_failure(run: Run, attempt: Attempt) -> Problem:
    return Problem(
        f"the job ended with exit code {attempt.exit_code} before it could say why",
        where=run.name,
        next="look at the last lines of its log",
        detail=log_end(run),
    )


def log_end(run: Run, size: int = 4096) -> str:
    """The last lines of the log, at most ``size`` bytes."""
    try:
        with run.log.open("rb") as file:
            file.seek(max(0, run.log.stat().st_size - size))
            return printable(file.read().decode("utf-8", errors="replace")).strip()
    except OSError:
        return ""


def _name(attempt: Attempt, said: _Said, alive: bool, command: str | None) -> StateName:
    if said.state in {"finished", "stopped", "failed"}:
        return said.state  # type: ignore[return-value]
    if alive:
        return _living_name(said, command)
    if command == "stop_now":
        return "stopped"
    if said.problems or attempt.exit_code in _FAULT_CODES:
        return "failed"
    if attempt.exit_code == 0:
        return "stopped" if command == "stop" else "finished"
    return "interrupted"


def _living_name(said: _Said, command: str | None) -> StateName:
    if said.state == "stopping" or command in {"stop", "stop_now"}:
        return "stopping"
    if said.state == "paused":
        return "paused"
    return "starting" if said.state in {None, "starting"} else "running"


def last_attempt(run: Run) -> Attempt | None:
    """The newest attempt in ``job.json``, or None before the first or when it is damaged."""
    return read_last_attempt(run.facts())


def read_last_attempt(facts: dict[str, Any]) -> Attempt | None:
    """As :func:`last_attempt`, from what ``job.json`` says."""
    attempts = facts.get("attempts")
    if not isinstance(attempts, list) or not attempts or not isinstance(attempts[-1], dict):
        return None
    with contextlib.suppress(TypeError, ValueError):
        return _read_attempt(attempts[-1], len(attempts) - 1)
    return None


def _read_attempt(facts: dict[str, Any], index: int) -> Attempt:
    process, code, ended = facts.get("process"), facts.get("exit_code"), facts.get("ended")
    return Attempt(
        process=ProcessIdentity.read(process) if isinstance(process, dict) else None,
        started=float(facts.get("started") or 0),
        events_offset=int(facts.get("events_offset") or 0),
        control_offset=int(facts.get("control_offset") or 0),
        own_group=bool(facts.get("own_group")),
        exit_code=code if isinstance(code, int) else None,
        ended=float(ended) if ended else None,
        index=index,
        out_of_memory=facts.get("out_of_memory") is True,
    )


def _said(run: Run, attempt: Attempt) -> _Said:
    """Read the last records only: a state record is followed by steps just while it is 'running'."""
    size = run.events.stat().st_size if run.events.is_file() else 0
    start = max(attempt.events_offset, size - _TAIL_BYTES)
    said = _Said(state="running" if start > attempt.events_offset else None)
    for record in read_events(run.events, start)[0]:
        _take(said, record)
    return said


def _take(said: _Said, record: dict[str, Any]) -> None:
    time, type = record.get("t"), record["type"]
    said.last_time = float(time) if isinstance(time, (int, float)) else said.last_time
    if type == "state" and record.get("state") in _SAID:
        said.state = record["state"]
    elif type == "step":
        said.step, said.total = _count(record.get("step")), _count(record.get("total"))
        said.state = "running" if said.state in {None, "starting"} else said.state
    elif type == "error" and isinstance(record.get("problems"), list):
        said.problems = [problem for problem in record["problems"] if isinstance(problem, dict)]


def _count(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) else 0


def _last_command(run: Run, attempt: Attempt) -> str | None:
    records, _ = read_records(run.control, attempt.control_offset)
    stops = [record["command"] for record in records if record.get("command") in {"stop", "stop_now"}]
    return "stop_now" if "stop_now" in stops else (stops[-1] if stops else None)


def has_restore_point(run: Run) -> bool:
    """Whether the run folder holds a complete state (its ``state.json`` is written last).

    One that was being replaced when the power went lies under a name with a dot, and serves as well.
    """
    folder = run.path / "state"
    found = (path for pattern in ("state.json", "*/state.json") for path in folder.glob(pattern))
    return any(path.stat().st_size > 0 for path in found)
