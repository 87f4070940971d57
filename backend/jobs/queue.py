"""Trainings that wait for their turn: one file beside the runs, kept by whichever server is up.

A waiting training is an ordinary run folder that was never started. ``queue.json`` in the folder of
runs says the order, whether to go on after a failure, and why the queue holds when it does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backend.errors import AtelierError, InputError
from backend.filelock import exclusive
from backend.jobs import process
from backend.jobs.files import read_json, write_json
from backend.jobs.runs import Run, create_run, find_run, list_runs
from backend.jobs.state import state

FILE = "queue.json"
_LOCK = ".queue.lock"
_EVERY = 3.0
"""Seconds between two looks of a keeper."""


@dataclass(frozen=True)
class Queue:
    """The queue at one moment."""

    waiting: tuple[str, ...] = ()
    """Ids of runs, the next one first."""
    go_on: bool = True
    """Start the next one after a failure too."""
    last: str = ""
    """The run that the queue started last."""
    held: str = ""
    """Why nothing is started; empty while it works. Adding to it does not release it."""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"waiting": list(self.waiting), "go_on": self.go_on, "last": self.last, "held": self.held}


def read(root: Path) -> Queue:
    """The queue of a folder of runs; runs that are gone or were started otherwise are left out.

    In place of a damaged file the run folders tell what waits: see :func:`_rebuilt`.
    """
    facts = read_json(root / FILE)
    if facts is None:
        return _rebuilt(root) if (root / FILE).is_file() else Queue()
    named = facts.get("waiting")
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    waiting = tuple(name for name in dict.fromkeys(names) if _may_wait(root, name))
    return Queue(
        waiting,
        facts.get("go_on") is not False,
        str(facts.get("last") or ""),
        str(facts.get("held") or ""),
    )


def _rebuilt(root: Path) -> Queue:
    """Trainings that were never started, oldest first. Nobody knows whether all of them were to wait, so
    the queue holds until somebody has looked at it."""
    runs = [run for run in reversed(list_runs(root)) if run.kind == "train"]
    waiting = tuple(run.id for run in runs if state(run).state == "created")
    if not waiting:
        return Queue()
    reason = "the list of what waits was damaged and is made anew from the run folders: look at it first"
    return Queue(waiting, held=reason)


def _may_wait(root: Path, id: str) -> bool:
    run = find_run(root, id)
    if run is None:
        return False
    now = state(run)
    return now.state == "created" or now.resumable


def enqueue(root: Path, name: str, config_toml: str, dataset_toml: str | None = None) -> Run:
    """Make a training run that waits at the queue's end.

    Raises:
        InputError: the name cannot be used, or the folder cannot be written.
    """
    run = create_run(root, name, config_toml, dataset_toml)
    add(root, run.id)
    return run


def add(root: Path, id: str) -> None:
    """Put a run that was never started, or that can be resumed, at the end. Twice is once.

    Raises:
        InputError: there is no such run, or nothing of it is left to do.
    """
    if not _may_wait(root, id):
        raise InputError("this run cannot wait for its turn", where=id, why="it runs, is done or is gone")
    with _changing(root):
        now = read(root)
        if id not in now.waiting:
            _write(root, replace(now, waiting=(*now.waiting, id)))


def remove(root: Path, id: str) -> None:
    """Take a run out. Its folder stays."""
    with _changing(root):
        now = read(root)
        _write(root, replace(now, waiting=tuple(name for name in now.waiting if name != id)))


def move(root: Path, id: str, place: int) -> None:
    """Put a waiting run at a place, 0 being the next; places behind the end mean the end."""
    with _changing(root):
        now = read(root)
        if id not in now.waiting:
            return
        others = [name for name in now.waiting if name != id]
        others.insert(max(0, place), id)
        _write(root, replace(now, waiting=tuple(others)))


def go_on_after_failure(root: Path, go_on: bool) -> None:
    """Say whether the next one starts when one has failed."""
    with _changing(root):
        _write(root, replace(read(root), go_on=go_on))


def hold(root: Path, why: str) -> None:
    """Start nothing more until :func:`release`. What runs goes on."""
    with _changing(root):
        _write(root, replace(read(root), held=why))


def release(root: Path) -> None:
    """Start the next one when the machine is free; a failure before is forgiven."""
    with _changing(root):
        _write(root, replace(read(root), held="", last=""))


def turn(root: Path, secrets: Mapping[str, Mapping[str, str]] | None = None) -> Run | None:
    """Start the next run if it is its turn; gives it, or None.

    ``secrets``: environment variables by run id, for that run's process alone.
    """
    with _changing(root):
        now = read(root)
        if now.held or not now.waiting or process.running_training(root):
            return None
        if not now.go_on and (name := _failed(root, now.last)):
            _write(root, replace(now, held=f"{name} failed"))
            return None
        run = find_run(root, now.waiting[0])
        assert run is not None  # read() leaves out what is gone
        try:
            process.start(run, resume=state(run).resumable, secrets=(secrets or {}).get(run.id))
        except InputError:
            return None  # another training began between the look and the start
        except AtelierError as error:
            _write(root, replace(now, held=error.problems[0].text()))
            return None
        _write(root, replace(now, waiting=now.waiting[1:], last=run.id))
        return run


def _failed(root: Path, id: str) -> str:
    """The run's name when it ended badly, else nothing."""
    run = find_run(root, id) if id else None
    return run.name if run and state(run).state in ("failed", "interrupted") else ""


def _changing(root: Path) -> AbstractContextManager[None]:
    return exclusive(root / _LOCK)


def _write(root: Path, queue: Queue) -> None:
    if (root / FILE).is_file() and read_json(root / FILE) is None:
        (root / FILE).replace(root / f"queue.damaged-{time.strftime('%Y%m%d-%H%M%S')}.json")
    write_json(root / FILE, {"version": 1, **queue.as_dict()})


class Keeper:
    """Starts what waits, as long as the program that made it is up.

    Several may keep one queue: a lock lets one of them act at a time. Secrets of waiting runs are
    held here, in memory only; after a restart of the server a run starts without them.
    """

    def __init__(self, root: Path, every: float = _EVERY) -> None:
        self.root = root
        self.secrets: dict[str, Mapping[str, str]] = {}
        self._every = every
        self._end = threading.Event()

    def start(self) -> None:
        """Keep the queue in a thread of its own."""
        threading.Thread(target=self._keep, name="queue", daemon=True).start()

    def end(self) -> None:
        """Keep it no longer. What runs goes on."""
        self._end.set()

    def _keep(self) -> None:
        while not self._end.wait(self._every):
            try:
                self._look()
            except (AtelierError, OSError) as error:
                print(f"note: the queue could not be read: {error}", flush=True)

    def _look(self) -> None:
        if not (self.root / FILE).is_file():
            return
        started = turn(self.root, self.secrets)
        if started:
            self.secrets.pop(started.id, None)
