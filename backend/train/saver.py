"""Which files a run writes, under which names, and when.

Names are sd-scripts': ``{name}-{epoch:06d}``, ``{name}-step{step:08d}``, ``{name}`` for the result,
each with ``-state`` for a restore point beside it. The run's own rolling restore point lies in
``state/`` of the run folder. Every file written is listed in ``manifest.json`` of the run, and only
what is listed there is ever written over or removed.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.settings import Settings
from backend.train.checkpoints import Position, State, remove_state, save_state
from backend.train.manifest import Entry, Kind, Manifest, Moment
from backend.train.provenance import TrainingFacts
from backend.train.retention import Retention
from backend.train.room import patiently
from backend.weights.folder import remove_folder

if TYPE_CHECKING:
    from backend.train.session import Session


class Saver:
    """Writes results and restore points of one run. Only the main process writes."""

    def __init__(self, settings: Settings, run: Path, output: Path, facts: TrainingFacts, main: bool) -> None:
        self._settings = settings.saving
        self._run, self._output, self._facts, self._main = run, output, facts, main
        self._names = {"end": settings.saving.output_name or "last"}
        self._names["epoch"] = settings.saving.output_name or "epoch"
        self._names["step"] = self._names["asked"] = settings.saving.output_name or "at"
        self._recovered = time.monotonic()
        self._retention = Retention.of(settings.saving, facts.num_epochs)
        self.manifest = manifest_of(run)

    def after_step(self, session: Session, position: Position) -> None:
        """Files due after an optimizer step."""
        every = self._retention.every_steps
        if every and position.step % every == 0 and position.step < session.length.steps:
            self._save(session, position, "step")
        if self._settings.recovery_minutes and self._recovery_due(session):
            self.recovery(session, position)

    def _recovery_due(self, session: Session) -> bool:
        """By the clock; by that of the main process where all have to take part."""
        due = time.monotonic() - self._recovered >= self._settings.recovery_minutes * 60
        return session.team.tell(due) if session.parts.split else due

    def after_epoch(self, session: Session, position: Position) -> None:
        """Files due after an epoch. The last epoch's file is the result."""
        every = self._retention.every_epochs
        if every and position.epoch % every == 0 and position.step < session.length.steps:
            self._save(session, position, "epoch")

    def save_now(self, session: Session, position: Position) -> None:
        """A file because the user asked for one. It is never removed to make room for others."""
        self._save(session, position, "asked")
        self.recovery(session, position)

    def stopped(self, session: Session, position: Position) -> None:
        """What a stop leaves: the weights so far, and a restore point to go on from."""
        self.save_now(session, position)

    def finish(self, session: Session, position: Position) -> Path:
        """The result and, when asked for, a restore point to train on from later."""
        path = self._write(session, position, "end", "result")
        if self._settings.save_state or self._settings.save_state_on_train_end:
            self._state(session, position, self._output / f"{self._stem(position, 'end')}-state", "end")
        if self._settings.recovery_minutes:
            self.recovery(session, position)  # so that a finished run can be extended
        return path

    def recovery(self, session: Session, position: Position) -> None:
        """Replace the run's rolling restore point."""
        self._state(session, position, self._run / "state" / "recovery", "recovery")
        self._recovered = time.monotonic()

    def results(self) -> list[Path]:
        """Files of epochs and steps that this run wrote and that are still there, oldest first."""
        found = (entry for entry in self.manifest.entries() if entry.kind in ("epoch", "step"))
        return [Path(entry.path) for entry in found if entry.untouched()]

    def _save(self, session: Session, position: Position, moment: Moment) -> None:
        self._write(session, position, moment, "epoch" if moment == "epoch" else "step")
        if self._settings.save_state:
            self._state(session, position, self._output / f"{self._stem(position, moment)}-state", moment)

    def _stem(self, position: Position, moment: Moment) -> str:
        if moment == "end":
            return self._names["end"]
        count = f"{position.epoch:06d}" if moment == "epoch" else f"step{position.step:08d}"
        return f"{self._names[moment]}-{count}"

    def _write(self, session: Session, position: Position, moment: Moment, kind: Kind) -> Path:
        session.meter.flush()
        name = f"{self._stem(position, moment)}{session.method.suffix()}"
        path = free_name(self._output / name, self.manifest)
        if self._main or session.parts.split:
            facts = self._facts.at(position.step, position.epoch)
            with session.kept_weights(), session.parts.whole():
                if self._main:
                    patiently(session, lambda: session.method.save(path, facts))
        if self._main:
            self._announce(session, Entry.of(path, kind, moment, position.step, position.epoch))
        return path

    def _state(self, session: Session, position: Position, folder: Path, moment: Moment) -> None:
        session.meter.flush()
        if not (self._main or session.parts.split):
            return
        memory = session.parts.memory(session.optimizer)
        with session.parts.whole():
            if self._main:
                self._write_state(session, position, folder, moment, memory)

    def _write_state(
        self, session: Session, position: Position, folder: Path, moment: Moment, memory: dict[str, Any]
    ) -> None:
        kind: Kind = "recovery" if moment == "recovery" else "state"
        if kind == "state":
            folder = free_name(folder, self.manifest)
        scaler = session.accelerator.scaler
        optimizer = {
            "optimizer": memory,
            "scaler": scaler.state_dict() if scaler is not None else None,
            "ema": session.ema.state() if session.ema is not None else None,
            "losses": session.meter.table.state(),
        }
        state = State(position, session.method.weights(), optimizer, session.identity)
        patiently(session, lambda: save_state(folder, state))
        self._announce(session, Entry.of(folder, kind, moment, position.step, position.epoch))

    def _announce(self, session: Session, entry: Entry) -> None:
        patiently(session, lambda: self.manifest.add(entry))
        session.events.emit("saved", step=entry.step, epoch=entry.epoch, kind=entry.kind, path=entry.path)
        if session.base_file is not None:
            session.base_file.look(session.events)
        self._prune(session, entry)

    def _prune(self, session: Session, newest: Entry) -> None:
        """Remove files that ``newest`` makes superfluous, and tell which."""
        gone: list[Entry] = []
        for entry in self._retention.outdated(self.manifest.entries(), newest):
            try:
                if entry.untouched():
                    remove(entry)
            except OSError as error:
                name = Path(entry.path).name
                session.events.emit("warning", text=f"{name} could not be removed: {error.strerror}")
                continue
            gone.append(entry)
        if gone:
            patiently(session, lambda: self.manifest.forget(gone))
            names = ", ".join(Path(entry.path).name for entry in gone)
            session.events.emit("note", text=f"removed, as only the last ones are kept: {names}")


def manifest_of(run: Path) -> Manifest:
    """The list of what the run of this folder wrote."""
    return Manifest(run / "manifest.json")


def planned(run: Path) -> list[Path]:
    """What an earlier attempt has written already of the files that a run plans from the start."""
    return [Path(entry.path) for entry in manifest_of(run).entries() if entry.moment != "asked"]


def remove(entry: Entry) -> None:
    """Remove a file of the run, or the files of a folder that it wrote. Other files in that stay."""
    path = Path(entry.path)
    if entry.kind == "state":
        remove_state(path)
    elif path.is_dir():
        remove_folder(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def free_name(path: Path, own: Manifest) -> Path:
    """``path``, or ``name (2)`` and so on when a file that this run did not write is there."""
    candidate, number = path, 2
    while candidate.exists() and not own.owns(candidate):
        candidate = path.with_name(f"{path.stem} ({number}){path.suffix}")
        number += 1
    return candidate
