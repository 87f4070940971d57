"""What the server knows about the pictures being made: one worker, and what waits for it.

It lives on the server, so a page that is reloaded finds everything again. What is not drawn yet is kept in
a file besides: after a restart it is offered, and drawn when a person says so.
"""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backend.errors import AtelierError, Problem
from backend.generate import grid as grids
from backend.jobs.process import running_training
from backend.jobs.worker import Worker
from ui.context import Context
from ui.i18n import t
from ui.kept_jobs import Job, JobKind, KeptJobs, Order

__all__ = ["Job", "Order", "Shot", "State", "Studio", "View"]

State = Literal["idle", "starting", "loading", "drawing", "stopping"]
_COMMAND = [sys.executable, "-m", "backend.generate.worker"]
_SILENCE = 120.0
"""Seconds without a sign of life after which the worker counts as hung; it gives one every 10."""
_LOOK = 1.5
"""Seconds between two looks whether a training needs the memory."""
_PING = 20.0
"""Seconds that a worker without work has to say how much memory it holds."""


@dataclass(frozen=True)
class Shot:
    """A finished picture."""

    path: Path
    seed: int | None
    caption: str
    text: str = ""
    """Its ``parameters``."""
    place: tuple[int, ...] = ()
    """Where it belongs: (picture, pass), or its place in a grid."""


@dataclass
class View:
    """Everything a page shows, at one moment."""

    state: State = "idle"
    job: str = ""
    kind: JobKind = "pictures"
    title: str = ""
    grid: str = ""
    detail: str = ""
    """Name of the file being loaded."""
    step: int = 0
    steps: int = 0
    done: int = 0
    """Pictures finished."""
    total: int = 0
    shots: list[Shot] = field(default_factory=list)
    """In the order in which they were finished."""
    columns: int = 0
    """Pictures side by side that belong together; 0: as fits."""
    preview: str = ""
    """The picture being drawn, as a ``data:`` address."""
    previews: int = 0
    """How many previews there were, to tell them apart."""
    notes: list[str] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False
    seed: int | None = None
    """Seed of the first picture."""
    memory: dict[str, Any] = field(default_factory=dict)
    """Bytes: ``process`` and, with a card, ``device``; and the ``model`` that is loaded. Empty when no
    worker runs."""

    @property
    def busy(self) -> bool:
        return self.state != "idle"


class Studio:
    """Asks the generation worker for pictures, one job after the other, and keeps what it says."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.worker = Worker(
            _COMMAND, context.home / ".atelier" / "generate.log", t("gen.worker_name"), timeout=_SILENCE
        )
        self._view = View()
        self._job = Job((), "", 0)
        self._waiting: list[Job] = []
        self._kept = KeptJobs(context.home / ".atelier" / "drawing")
        self._left: list[Job] | None = None
        """Of a server that ended; None until someone looks."""
        self._lock = threading.Lock()
        self._keeper: threading.Thread | None = None

    # -- asking ----------------------------------------------------------------

    def view(self) -> View:
        """A copy of what is known now."""
        with self._lock:
            return deepcopy(self._view)

    def waiting(self) -> list[Job]:
        """What comes next, in order."""
        with self._lock:
            return list(self._waiting)

    def left(self) -> list[Job]:
        """What was not finished when the server ended; it is drawn when :meth:`go_on` is called."""
        with self._lock:
            return list(self._left_jobs())

    def add(self, *jobs: Job) -> None:
        """Draw jobs as soon as those before them are finished; returns at once."""
        wanted = {job.grid for job in jobs if job.grid}
        with self._lock:
            self._left = [job for job in self._left_jobs() if job.grid not in wanted]
            self._waiting += jobs
            idle = bool(self._waiting) and not self._view.busy
            if idle:
                self._begin(self._waiting.pop(0))
            self._keep_jobs()
        if idle:
            threading.Thread(target=self._work, name="studio", daemon=True).start()
        self._watch()

    def go_on(self) -> None:
        """Draw what was left, after what waits already."""
        with self._lock:
            jobs, self._left = self._left_jobs(), []
        self.add(*jobs)

    def cancel(self, job: str) -> bool:
        """Take away a job that waits or was left. False when it does neither any more."""
        with self._lock:
            left, waiting = self._left_jobs(), self._waiting
            self._left = [item for item in left if item.id != job]
            self._waiting = [item for item in waiting if item.id != job]
            found = len(self._left) + len(self._waiting) < len(left) + len(waiting)
            if found:
                self._keep_jobs()
            return found

    def stop(self) -> None:
        """End what is being drawn, in the middle of a step. What waits is drawn next."""
        with self._lock:
            if self._view.busy:
                self._view.state = "stopping"
        self._tell_stop()

    def release(self) -> bool:
        """End the worker, so that all its memory is free, unless it is drawing."""
        if self.view().busy or not self.worker.running:
            return False
        self.worker.stop()
        with self._lock:
            self._view.memory = {}
        return True

    def training(self) -> str | None:
        """The name of the training that is running, if any."""
        run = running_training(self.context.runs)
        return run.name if run else None

    def measure(self) -> None:
        """Ask an idle worker how much memory it holds; a busy one says so by itself."""
        with self._lock:
            if self._view.busy:
                return
            if not self.worker.running:
                self._view.memory = {}
                return
            try:
                for event in self.worker.request({"id": secrets.token_hex(6), "op": "ping"}, timeout=_PING):
                    if event["type"] == "pong":
                        self._view.memory = event.get("memory", {})
            except AtelierError:
                self._view.memory = {}

    # -- keeping ---------------------------------------------------------------

    def _left_jobs(self) -> list[Job]:
        """What a server that ended has left. The lock is held."""
        if self._left is None:
            self._left = self._kept.left_behind()
        return self._left

    def _keep_jobs(self) -> None:
        """Have everything that is not finished in the file. The lock is held."""
        now = [self._job.after(_pictures(self._view))] if self._view.busy else []
        try:
            self._kept.keep([*self._left_jobs(), *now, *self._waiting])
        except OSError as error:
            note = t("gen.queue_not_kept", why=error.strerror or str(error))
            self._view.notes += [] if note in self._view.notes else [note]

    # -- drawing ---------------------------------------------------------------

    def _tell_stop(self) -> None:
        self.worker.tell({"id": "stop", "op": "stop"})

    def _begin(self, job: Job) -> None:
        """Show a job as the one at work. The lock is held."""
        self._job = job
        self._view = View(
            state="starting",
            job=job.id,
            kind=job.kind,
            title=job.title,
            grid=job.grid,
            total=job.total,
            done=_finished(job),
            columns=len(job.orders) if len(job.orders) > 1 else 0,
            seed=job.seed,
            memory=self._view.memory,
        )

    def _work(self) -> None:
        """Draw until nothing waits."""
        while True:
            began = time.monotonic()
            try:
                for turn, order in enumerate(self._job.orders):
                    if not self._ask(order, turn):
                        break
            except AtelierError as error:
                self._fail(error.problems)
            except Exception as error:
                self._fail([Problem(t("app.fault", error=repr(error)), next=t("app.fault_next"))])
            with self._lock:
                view = self._view
                view.seconds = time.monotonic() - began
                view.stopped |= view.state == "stopping"
                view.state, view.preview = "idle", ""
                more = bool(self._waiting)
                if more:
                    self._begin(self._waiting.pop(0))
                self._keep_jobs()
                if not more:
                    return

    def _ask(self, order: Order, turn: int) -> bool:
        """One message. False when there is no point in going on."""
        message = {**order.message, "id": secrets.token_hex(6)}
        message |= {"first": order.first} if order.first else {}
        stopping = False
        for event in self.worker.request(message):
            if event.get("id") != message["id"]:
                continue
            with self._lock:
                self._take(event, order.caption, turn)
                stopping = self._view.state == "stopping"
            if event["type"] == "error" or event.get("stopped"):
                return False
            if stopping:
                # The first word may have come before the worker was there to hear it.
                self._tell_stop()
        return not stopping

    def _take(self, event: dict[str, Any], caption: str, turn: int) -> None:
        view = self._view
        match event["type"]:
            case "loading":
                view.detail = str(event.get("path", ""))
                self._set_state("loading")
            case "progress":
                view.step, view.steps = event["step"], event["total"]
                self._set_state("drawing")
            case "preview":
                view.preview, view.previews = event["image"], view.previews + 1
            case "picture":
                self._shot(event, caption, (event["index"], turn))
                self._keep_jobs()
            case "cell":
                self._cell(event)
            case "note" if event["text"] not in view.notes:
                view.notes.append(event["text"])
            case "error":
                view.problems = event["problems"]
            case "done":
                view.stopped = bool(event.get("stopped"))
            case _:
                pass
        if event.get("memory"):
            view.memory = event["memory"]

    def _cell(self, event: dict[str, Any]) -> None:
        """A cell of a grid: its picture, or why there is none."""
        if event.get("path"):
            self._shot(event, str(event["label"]), tuple(event["place"]))
        problems = event.get("problems") or []
        self._view.problems += [problem for problem in problems if problem not in self._view.problems]

    def _shot(self, event: dict[str, Any], caption: str, place: tuple[int, ...]) -> None:
        text = str(event.get("parameters", ""))
        self._view.shots.append(Shot(Path(event["path"]), event.get("seed"), caption, text, place))
        self._view.done += 1
        self._view.step, self._view.preview = 0, ""

    def _set_state(self, state: State) -> None:
        if self._view.state != "stopping":
            self._view.state = state

    def _fail(self, problems: Sequence[Problem]) -> None:
        with self._lock:
            self._view.problems = [problem.as_dict() for problem in problems]

    # -- making room -----------------------------------------------------------

    def _watch(self) -> None:
        """Look, as long as the worker lives, whether a training needs the memory."""
        if self._keeper is None or not self._keeper.is_alive():
            self._keeper = threading.Thread(target=self._keep, name="studio-keeper", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        before = self.training()
        while True:
            time.sleep(_LOOK)
            if not self.worker.running and not self.view().busy:
                return
            training = self.training()
            if training and training != before:
                self._leave_grid(training)
            if training:
                self.release()
            before = training

    def _leave_grid(self, training: str) -> None:
        """Let a grid wait for the training that began; its finished cells stay."""
        with self._lock:
            grid = self._view.busy and self._view.kind == "grid"
            if grid:
                self._view.notes.append(t("gen.grid_left", name=training))
            self._waiting = [job for job in self._waiting if job.kind != "grid"]
            self._keep_jobs()
        if grid:
            self.stop()


def _pictures(view: View) -> dict[int, int]:
    """How many pictures of each pass are finished, where any were drawn now."""
    counts: dict[int, int] = {}
    for shot in view.shots if view.kind == "pictures" else ():
        index, turn = shot.place
        counts[turn] = max(counts.get(turn, 0), index + 1)
    return counts


def _finished(job: Job) -> int:
    """Pictures of a job that are there already: of a grid its cells, else those drawn before a restart."""
    if job.kind != "grid":
        return job.done
    try:
        return len(grids.opened(Path(str(job.orders[0].message.get("folder")))).finished())
    except AtelierError:
        return 0  # the worker says what is wrong with it
