"""A training run from settings to result: check, load, cache, train, save."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backend import settings as settings_package
from backend.data.config import dataset_toml
from backend.errors import AtelierError, InputError, Problem
from backend.jobs.control import send
from backend.jobs.events import EventLog, Sink
from backend.jobs.process import create_and_register, register_current_process
from backend.jobs.runs import Run, open_run, runs_root
from backend.settings import Settings
from backend.train.console import Console
from backend.train.preflight import Prepared, prepare, with_seed
from backend.weights.safefile import write_text_atomic


def train_from_settings(settings: Settings, notes: Iterable[Problem] = ()) -> int:
    """Make a run folder for a command line's settings and train in this process.

    Returns the exit code. Everything is checked before a folder is made.
    """
    for note in notes:
        print(f"note: {note.text()}")
    _refuse_several_processes()
    settings = with_seed(settings)
    prepared = prepare(settings)
    name = settings.saving.output_name or "training"
    config, dataset = settings_package.to_toml(settings), dataset_toml(prepared.plan)
    run = create_and_register(runs_root(), name, config, dataset)
    return _execute(run, settings, resume=False, prepared=prepared)


def _refuse_several_processes() -> None:
    """``accelerate launch`` starts a process for every card it finds unless it is told otherwise."""
    count = int(os.environ.get("WORLD_SIZE", "1") or 1)
    if count > 1:
        raise InputError(
            f"{count} processes were started for one training; Atelier trains with one",
            next="start it with accelerate launch --num_processes 1, or without accelerate",
        )


def train_folder(path: Path, resume: bool = False) -> int:
    """Train what a run folder's ``config.toml`` says; what ``python -m backend.train`` calls."""
    run = open_run(path)
    register_current_process(run)
    return _execute(run, None, resume=resume, prepared=None)


def _execute(run: Run, settings: Settings | None, *, resume: bool, prepared: Prepared | None) -> int:
    """Run to an end and say which: every error becomes an event and an exit code."""
    log = EventLog(run.events)
    copy = run.log.open("a", encoding="utf-8") if prepared else None
    events = Console(log, copy=copy)
    stop_on_signals(run)
    try:
        events.emit("state", state="running")
        events.emit("phase", name="checking", title="Checking settings, files and pictures")
        if settings is None:
            settings = settings_of(run)
        prepared = prepared or prepare(settings)
        ending = _train(run, prepared, resume, events)
        events.emit("state", state=ending)
        return 0
    except AtelierError as error:
        events.emit("error", problems=[problem.as_dict() for problem in error.problems])
        events.emit("state", state="failed", exit_code=error.exit_code)
        return error.exit_code
    except Exception as error:
        import traceback

        problem = Problem(
            f"something unexpected went wrong: {error!r}",
            next="the details help whoever looks into it",
            detail=traceback.format_exc(),
        )
        events.emit("error", problems=[problem.as_dict()])
        events.emit("state", state="failed", exit_code=4)
        traceback.print_exc()
        return 4
    finally:
        log.close()
        if copy is not None:
            copy.close()


def settings_of(run: Run) -> Settings:
    """The run's own settings, with the seed it was given once and for all."""
    settings = settings_package.read_toml(run.config)
    if settings.schedule.seed is None:
        settings = with_seed(settings)
        write_text_atomic(run.config, settings_package.to_toml(settings))
    dataset = run.path / "dataset.toml"
    if dataset.is_file():
        settings = settings.replace(
            dataset_config=str(dataset), train_data_dir=None, reg_data_dir=None, in_json=None
        )
    return settings


def _train(run: Run, prepared: Prepared, resume: bool, events: Sink) -> str:
    """Load everything heavy and train. Returns the state the run ends in."""
    started = time.time()
    from backend.train.build import build_session
    from backend.train.caching import StopRequested
    from backend.train.loop import Ending, train
    from backend.train.losses import tell as tell_losses
    from backend.weights.hashes import prefetch

    for note in prepared.notes:
        events.emit("note", text=note.text())
    events = _with_tensorboard(prepared.settings, run, events)
    try:
        session, position = build_session(run, prepared, resume, events, started)
    except StopRequested:
        return "stopped"
    if position.step >= session.length.steps:
        raise InputError(
            f"this run is complete at step {position.step}; nothing is left to train",
            next="ask for more steps to extend it",
            key="max_train_steps",
        )
    prefetch(prepared.base.path)
    try:
        ending, position = train(session, position)
    except AtelierError:
        _point_to_last_good(session.saver.results(), events)
        raise
    if ending is Ending.STOPPED:
        events.emit("state", state="stopping")
        session.saver.stopped(session, position)
        tell_losses(session.meter.table, run.path, events)
        return "stopped"
    events.emit("phase", name="saving", title="Saving the result")
    path = session.saver.finish(session, position)
    facts = {**session.result_facts(position), **tell_losses(session.meter.table, run.path, events)}
    events.emit("result", path=str(path), facts=facts)
    return "finished"


def _with_tensorboard(settings: Settings, run: Run, events: Sink) -> Sink:
    """Logs for TensorBoard beside our own, when they are asked for."""
    from backend.train.tracking import TensorBoard, tensorboard_folder

    folder = tensorboard_folder(settings, run.path)
    return TensorBoard(events, folder) if folder else events


def _point_to_last_good(files: list[Path], events: Sink) -> None:
    """After a fault: name the last file that was saved whole, as the result so far."""
    if files:
        newest = max(files, key=lambda path: path.stat().st_mtime)
        events.emit("result", path=str(newest), facts={"last_good": True})


def stop_on_signals(run: Run) -> None:
    """Ctrl-C or a polite kill ends the run after the current step; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        return

    def ask(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        send(run, "stop")
        print("stopping after this step; once more stops at once", flush=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
