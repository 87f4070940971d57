"""A training run from settings to result: check, load, cache, train, save."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend import settings as settings_package
from backend.data.config import dataset_toml
from backend.errors import AtelierError, Problem
from backend.jobs import launch
from backend.jobs.control import ControlReader, send
from backend.jobs.events import EventLog, NoEvents, Sink
from backend.jobs.process import create_and_register, register_current_process
from backend.jobs.runs import Run, open_run, runs_root
from backend.settings import Settings
from backend.settings.secrets import hand_over
from backend.train import several
from backend.train.class_pictures import Halted, draw_class_pictures
from backend.train.console import Console
from backend.train.hub import uploading, with_local_state
from backend.train.preflight import Prepared, prepare, with_seed
from backend.train.team import Team, calling_off, join
from backend.train.tracking import tracked
from backend.weights.safefile import write_text_atomic

if TYPE_CHECKING:
    from backend.train.checkpoints import Position
    from backend.train.loop import Ending
    from backend.train.session import Session


def train_from_settings(settings: Settings, notes: Iterable[Problem] = ()) -> int:
    """Make a run folder for a command line's settings and train in this process.

    When the settings ask for several processes, they are started here; when this is one of several
    that a launcher started, the main one makes the run and the others train along. Returns the exit
    code. Everything is checked before a folder is made.
    """
    if several.is_wanted(settings):
        _tell(notes)
        return several.train_launched(settings, lambda: _make_run(settings)[0])
    team = join(settings.launch.ddp_timeout)
    if not team.main:
        return several.follow(team, _train)
    _tell(notes)
    with calling_off(team):
        run, prepared = _make_run(settings)
    return _execute(run, prepared, resume=False, keep_log=True, team=team)


def _tell(notes: Iterable[Problem]) -> None:
    for note in notes:
        print(f"note: {note.text()}")
    if several.lone_cpu_launch():
        print("note: accelerate launch --cpu starts one process; give --num_processes to Atelier instead")


def _make_run(settings: Settings) -> tuple[Run, Prepared]:
    settings = with_seed(with_local_state(hand_over(settings)))
    draw_class_pictures(settings, Console(NoEvents()))
    prepared = prepare(settings)
    name = prepared.settings.saving.output_name or "training"
    config, dataset = settings_package.to_toml(settings), dataset_toml(prepared.plan)
    return create_and_register(runs_root(), name, config, dataset), prepared


def train_folder(path: Path, resume: bool = False, keep_log: bool = False) -> int:
    """Train what a run folder's ``config.toml`` says; what ``python -m backend.train`` calls.

    With ``keep_log``, what is printed goes into the run's log as well.
    """
    run = open_run(path)
    team = join(launch.choices(run.config).get("ddp_timeout"))
    if not team.main:
        return several.follow(team, _train)
    with calling_off(team):
        register_current_process(run)
    return _execute(run, None, resume=resume, keep_log=keep_log, team=team)


def join_others(timeout_minutes: int | None) -> int:
    """On a machine that is not the first one: train along with the run there."""
    return several.follow(join(timeout_minutes), _train)


def _execute(run: Run, prepared: Prepared | None, *, resume: bool, keep_log: bool, team: Team) -> int:
    """Run to an end and say which: every error becomes an event and an exit code."""
    log = EventLog(run.events)
    copy = run.log.open("a", encoding="utf-8") if keep_log else None
    events = Console(log, copy=copy)
    stop_on_signals(run)
    try:
        events.emit("state", state="running")
        events.emit("phase", name="checking", title="Checking settings, files and pictures")
        with calling_off(team):
            prepared = prepared or _prepare(run, events)
            events.follow(prepared.settings.tracking)
        team.tell(several.Task(run, prepared, resume))
        ending = _train(run, prepared, resume, events, team)
        events.emit("state", state=ending)
        return 0
    except Halted:
        events.emit("state", state="stopped")
        return 0
    except AtelierError as error:
        events.emit("error", problems=[problem.as_dict() for problem in error.problems])
        events.emit("state", state=error.ends_as, exit_code=error.exit_code)
        return error.exit_code
    except Exception as error:
        if team.size > 1 and several.has_ended(run):
            return 4  # another process has said what happened
        told = several.told(error, prepared)
        events.emit("error", problems=[problem.as_dict() for problem in told.problems])
        events.emit("state", state="failed", exit_code=told.exit_code)
        return told.exit_code
    finally:
        events.close()
        log.close()
        if copy is not None:
            with contextlib.suppress(OSError):  # a full disk; what happened is in the events
                copy.close()


def _prepare(run: Run, events: Sink) -> Prepared:
    """Check everything, once the class pictures that are asked for are there."""
    settings = settings_of(run)
    draw_class_pictures(settings, events, ControlReader(run.control).stop_waits)
    return prepare(settings)


def settings_of(run: Run) -> Settings:
    """The run's own settings, with the seed it was given once and for all."""
    settings = settings_package.read_toml(run.config)
    if settings.schedule.seed is None:
        settings = with_seed(with_local_state(settings))
        write_text_atomic(run.config, settings_package.to_toml(settings))
    dataset = run.path / "dataset.toml"
    if dataset.is_file():
        settings = settings.replace(
            dataset_config=str(dataset),
            train_data_dir=None,
            reg_data_dir=None,
            in_json=None,
            conditioning_data_dir=None,
            num_class_images=None,
            class_prompt=None,
        )
    return settings


def _train(run: Run, prepared: Prepared, resume: bool, events: Sink, team: Team) -> str:
    """Train, with logs for other programs where they are asked for. Returns the state the run ends in."""
    if not team.main:
        return _load_and_train(run, prepared, resume, events, team)
    settings = prepared.settings
    with tracked(settings, run.path, events) as seen, uploading(settings, seen) as kept:
        return _load_and_train(run, prepared, resume, kept, team)


def _load_and_train(run: Run, prepared: Prepared, resume: bool, events: Sink, team: Team) -> str:
    """Load everything heavy and train. Returns the state the run ends in."""
    started = time.time()
    from backend.train.build import build_session
    from backend.train.caching import StopRequested
    from backend.train.loop import train
    from backend.train.plan_card import warn_of_shortage
    from backend.weights.hashes import prefetch

    for note in prepared.notes:
        events.emit("note", text=note.text())
    if team.main:
        warn_of_shortage(prepared, events)
    try:
        session, position = build_session(run, prepared, resume, events, started, team)
    except StopRequested:
        return "stopped"
    prefetch(prepared.base.path)
    try:
        ending, position = train(session, position)
    except AtelierError:
        _point_to_last_good(session.saver.results(), events)
        raise
    session.meter.flush()
    session.meter.gather(team)
    if not session.parts.split:
        team.leave()
        if not team.main:
            return ending.value
    return _end(session, prepared, ending, position, run)


def _end(session: Session, prepared: Prepared, ending: Ending, position: Position, run: Run) -> str:
    """Files and last words; by the main process, which the others help where weights are in parts."""
    from backend.train.loop import Ending
    from backend.train.losses import tell as tell_losses
    from backend.train.result_facts import file_facts

    events, team = session.events, session.team
    if ending is Ending.STOPPED:
        events.emit("state", state="stopping")
        session.saver.stopped(session, position)
        if team.main:
            tell_losses(session.meter.table, run.path, events)
        return "stopped"
    events.emit("phase", name="saving", title="Saving the result")
    path = session.saver.finish(session, position)
    if session.parts.split:
        team.leave()
    if not team.main:
        return "finished"
    facts = {**session.result_facts(position), **tell_losses(session.meter.table, run.path, events)}
    facts |= file_facts(path, prepared.plan) | _second_look(path, events)
    events.emit("result", path=str(path), facts=facts)
    return "finished"


def _second_look(path: Path, events: Sink) -> dict[str, str]:
    """Read the result back; what is wrong with it is told and marks it."""
    from backend.train.verify import result_fault

    fault = result_fault(path)
    if fault is None:
        return {}
    events.emit("warning", text=fault.text(), problem=fault.as_dict())
    return {"fault": fault.why}


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
