"""Which files a run writes, under which names, and when.

Names are sd-scripts': ``{name}-{epoch:06d}``, ``{name}-step{step:08d}``, ``{name}`` for the result,
each with ``-state`` for a restore point beside it. The run's own rolling restore point lies in
``state/`` of the run folder. Every file written is listed in ``manifest.json`` of the run.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backend.errors import EnvironmentFault, InputError, StorageFault
from backend.settings import Settings
from backend.system.headers import readable_size
from backend.train.checkpoints import Position, State, save_state
from backend.train.provenance import TrainingFacts
from backend.weights.safefile import write_text_atomic

if TYPE_CHECKING:
    from backend.train.session import Session

RETRY_SECONDS = 30.0
"""Seconds between two tries to write where there was no room."""
Kind = Literal["result", "epoch", "step", "stopped", "state", "recovery"]


class Saver:
    """Writes results and restore points of one run. Only the main process writes."""

    def __init__(self, settings: Settings, run: Path, output: Path, facts: TrainingFacts, main: bool) -> None:
        self._settings = settings.saving
        self._run, self._output, self._facts, self._main = run, output, facts, main
        self._names = {"result": settings.saving.output_name or "last"}
        self._names["epoch"] = settings.saving.output_name or "epoch"
        self._names["step"] = settings.saving.output_name or "at"
        self._recovered = time.monotonic()
        self._manifest = run / "manifest.json"

    def after_step(self, session: Session, position: Position) -> None:
        """Files due after an optimizer step."""
        every = self._settings.save_every_n_steps
        if every and position.step % every == 0 and position.step < session.length.steps:
            self._save(session, position, "step", f"{self._names['step']}-step{position.step:08d}")
        minutes = self._settings.recovery_minutes
        if minutes and time.monotonic() - self._recovered >= minutes * 60:
            self.recovery(session, position)

    def after_epoch(self, session: Session, position: Position) -> None:
        """Files due after an epoch. The last epoch's file is the result."""
        every = self._settings.save_every_n_epochs
        if every and position.epoch % every == 0 and position.step < session.length.steps:
            self._save(session, position, "epoch", f"{self._names['epoch']}-{position.epoch:06d}")

    def save_now(self, session: Session, position: Position) -> None:
        """A file because the user asked for one."""
        self._save(session, position, "step", f"{self._names['step']}-step{position.step:08d}")
        self.recovery(session, position)

    def stopped(self, session: Session, position: Position) -> None:
        """What a stop leaves: the weights so far, and a restore point to go on from."""
        self.save_now(session, position)

    def finish(self, session: Session, position: Position) -> Path:
        """The result and, when asked for, a restore point to train on from later."""
        path = self._write(session, position, "result", self._names["result"])
        if self._settings.save_state or self._settings.save_state_on_train_end:
            self._state(session, position, self._output / f"{self._names['result']}-state", "state")
        return path

    def recovery(self, session: Session, position: Position) -> None:
        """Replace the run's rolling restore point."""
        self._state(session, position, self._run / "state" / "recovery", "recovery")
        self._recovered = time.monotonic()

    def _save(self, session: Session, position: Position, kind: Kind, name: str) -> None:
        self._write(session, position, kind, name)
        if self._settings.save_state:
            self._state(session, position, self._output / f"{name}-state", "state")

    def _write(self, session: Session, position: Position, kind: Kind, name: str) -> Path:
        session.meter.flush()
        path = free_name(self._output / f"{name}{session.method.suffix()}", self.written())
        if self._main:
            facts = self._facts.at(position.step, position.epoch)
            patiently(session, lambda: session.method.save(path, facts))
            self._announce(session, position, kind, path)
        return path

    def _state(self, session: Session, position: Position, folder: Path, kind: Kind) -> None:
        session.meter.flush()
        if not self._main:
            return
        if kind == "state":
            folder = free_name(folder, self.written())
        scaler = session.accelerator.scaler
        optimizer = {
            "optimizer": session.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        state = State(position, session.method.weights(), optimizer, session.facts())
        patiently(session, lambda: save_state(folder, state))
        self._announce(session, position, kind, folder)

    def written(self) -> dict[str, str]:
        """Path -> kind of everything this run has written so far."""
        try:
            entries: dict[str, str] = json.loads(self._manifest.read_text(encoding="utf-8"))
            return entries
        except (FileNotFoundError, ValueError):
            return {}

    def _announce(self, session: Session, position: Position, kind: Kind, path: Path) -> None:
        write_text_atomic(
            self._manifest, json.dumps({**self.written(), str(path): kind}, ensure_ascii=False, indent=1)
        )
        session.events.emit("saved", step=position.step, epoch=position.epoch, kind=kind, path=str(path))


def patiently(session: Session, write: Callable[[], None]) -> None:
    """Write, and while that fails for the disk's sake, wait for room: nothing trained is lost.

    The run is paused meanwhile and tries again by itself, or at once when told to resume. A stop
    ends the run with the fault.

    Raises:
        StorageFault, EnvironmentFault: the user stopped while there was no room.
    """
    while True:
        try:
            return write()
        except (StorageFault, EnvironmentFault) as fault:
            session.events.emit("warning", text=fault.text(), problem=fault.problems[0].as_dict())
            session.events.emit(
                "note", text="paused: free some space and press Resume; it goes on by itself then"
            )
            session.events.emit("state", state="paused")
            if session.wait(RETRY_SECONDS) == "stop":
                raise
            session.events.emit("state", state="running")


def check_space(session: Session, output: Path) -> None:
    """Refuse a run whose files will not fit on the disk.

    Raises:
        InputError: says how much is needed and how much is free.
    """
    weights = sum(tensor.nbytes for tensor in session.method.weights().values())
    saving, length = session.settings.saving, session.length
    files = 1 + (length.steps // saving.save_every_n_steps if saving.save_every_n_steps else 0)
    files += length.epochs // saving.save_every_n_epochs if saving.save_every_n_epochs else 0
    states = files if saving.save_state else int(saving.save_state_on_train_end)
    # A restore point holds the weights and, for Adam and its like, two more numbers for each.
    needed = weights * (files + 3 * states) + (3 * weights if saving.recovery_minutes else 0)
    free = shutil.disk_usage(existing(output)).free
    if needed > free:
        raise InputError(
            f"the run's files need about {readable_size(needed)}; {readable_size(free)} are free",
            where=str(output),
            why=f"{files} results and {states} restore points",
            next="free some space, save less often, or choose a folder on another disk",
            key="output_dir",
        )


def existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def free_name(path: Path, own: dict[str, str]) -> Path:
    """``path``, or ``name (2)`` and so on when a file that this run did not write is there."""
    candidate, number = path, 2
    while candidate.exists() and str(candidate) not in own:
        candidate = path.with_name(f"{path.stem} ({number}){path.suffix}")
        number += 1
    return candidate
