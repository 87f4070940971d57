"""Telling a running job what to do: one JSON object a line in ``control.jsonl``.

``{"t": unix seconds, "command": "stop" | "stop_now" | "sample" | "save" | "pause" | "resume"}``, and
``{"t": ..., "command": "prompts", "text": other sample prompts, one a line}``
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal, get_args

from backend.errors import InputError
from backend.jobs.events import read_records
from backend.jobs.files import read_json
from backend.jobs.identity import ProcessIdentity, ProcessTree
from backend.jobs.runs import JOB_FILE, Run
from backend.jobs.state import Attempt, last_attempt, read_last_attempt

Command = Literal["stop", "stop_now", "sample", "save", "pause", "resume", "prompts"]
_GRACE = 10.0
"""Seconds between asking a process to end and ending it."""


def send(run: Run, command: Command, **fields: Any) -> None:
    """Tell the job of ``run`` something; it reads it between two steps.

    Raises:
        InputError: there is no such command.
    """
    if command not in get_args(Command):
        raise InputError(
            f"there is no command {command!r}", next=f"use one of {', '.join(get_args(Command))}"
        )
    line = json.dumps({"t": round(time.time(), 3), "command": command, **fields}) + "\n"
    with run.control.open("a", encoding="utf-8") as file:
        file.write(line)


class ControlReader:
    """New commands, for the job itself. Costs one ``stat`` while there are none.

    Commands given since the run's newest attempt was started count, so a Stop pressed while the job
    was loading is heard; older ones were meant for an earlier attempt. In a folder without an
    attempt only commands from now on count.
    """

    def __init__(self, path: Path) -> None:
        facts = read_json(path.with_name(JOB_FILE)) or {}
        attempt = read_last_attempt(facts)
        self._path = path
        self._offset = attempt.control_offset if attempt else _size(path)

    def poll(self) -> list[dict[str, Any]]:
        """Commands since the last call, oldest first, each with ``t`` and ``command``. Never waits."""
        if _size(self._path) <= self._offset:
            return []
        records, self._offset = read_records(self._path, self._offset)
        return _commands(records)

    def stop_waits(self) -> bool:
        """True when a stop is among what :meth:`poll` will give next. Costs as little."""
        if _size(self._path) <= self._offset:
            return False
        records, _ = read_records(self._path, self._offset)
        return any(record["command"] in ("stop", "stop_now") for record in _commands(records))


def _commands(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record.get("command") in get_args(Command)]


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 - half the cost of Path.stat, and called at every step
    except OSError:
        return 0


def stop(run: Run) -> None:
    """Ask the job to finish its step, save and end. Returns at once."""
    send(run, "stop")


def stop_now(run: Run, grace: float = _GRACE) -> threading.Thread | None:
    """End the job's processes: ask them, and end those that live ``grace`` seconds later.

    Returns at once. The thread that sees to it is given back, or None when nothing of ours lives:
    a process that merely got the same pid later is never touched.
    """
    attempt = last_attempt(run)
    if attempt is None or attempt.process is None or not attempt.process.alive():
        return None
    send(run, "stop_now")
    if attempt.process.pid == os.getpid():
        return None  # a command line stopping itself hears the command
    thread = threading.Thread(
        target=_end, args=(attempt, attempt.process, grace), name="stop-now", daemon=True
    )
    thread.start()
    return thread


def _end(attempt: Attempt, process: ProcessIdentity, grace: float) -> None:
    tree = ProcessTree(process, attempt.own_group)
    # Windows cannot ask a process without a window to end, so there the command in the file is the asking.
    if sys.platform != "win32":
        tree.terminate()
    if not tree.wait(grace):
        tree.kill()
        tree.wait(grace)
