"""Following a run: its events and log, read as they grow, kept as one compact view."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from backend.jobs.curve import Curve
from backend.jobs.events import read_events
from backend.jobs.logtext import LogTail, printable, without_codes
from backend.jobs.runs import Run
from backend.jobs.state import RunState, state

_CHUNK = 1024 * 1024
_LOG_TAIL = 256 * 1024
_RECENT = 50
"""Steps over whose time the speed is taken."""


@dataclass
class Sample:
    """A picture drawn while training."""

    path: str
    """Relative to the run folder, with forward slashes, and never outside it."""
    step: int
    epoch: int = 0
    index: int = 0
    prompt: str = ""
    seed: int | None = None
    thumb: str | None = None
    """A small copy, likewise inside the run folder, when the run made one."""


@dataclass
class Saved:
    """A file that the run wrote."""

    path: str
    step: int
    epoch: int
    kind: str


@dataclass
class Message:
    """A note, a warning or an error; equal ones are counted, not repeated."""

    kind: str
    text: str = ""
    problem: dict[str, Any] = field(default_factory=dict)
    time: float = 0.0
    count: int = 1


@dataclass
class RunView:
    """All that a page shows of a run."""

    run: Run
    state: RunState
    phase: str = ""
    phase_title: str = ""
    done: float = 0
    """Progress of a phase other than training, of ``goal``; ``unit`` says of what."""
    goal: float = 0
    unit: str = ""
    step: int = 0
    total: int = 0
    epoch: int = 0
    epochs: int = 0
    seconds_per_step: float | None = None
    """Median over the last steps, pauses for saving and drawing left out."""
    images_per_second: float | None = None
    loss: float | None = None
    average: float | None = None
    lr: dict[str, float] = field(default_factory=dict)
    grad_norm: float | None = None
    memory: float | None = None
    curve: Curve = field(default_factory=Curve)
    validation: Curve = field(default_factory=Curve)
    """Losses on the pictures held out."""
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=1000))
    saved: deque[Saved] = field(default_factory=lambda: deque(maxlen=1000))
    messages: deque[Message] = field(default_factory=lambda: deque(maxlen=200))
    plan: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    log: LogTail = field(default_factory=LogTail)
    log_start: int = 0
    """Byte of ``log.txt`` at which the lines kept begin."""
    catching_up: bool = False
    """More is on disk than was read so far; the next call reads on."""

    @property
    def eta(self) -> float | None:
        """Seconds of training left, without pauses; None while unknown or when nothing runs."""
        if not self.state.active or self.seconds_per_step is None or self.total <= 0:
            return None
        return max(0, self.total - self.step) * self.seconds_per_step


class Follower:
    """Reads what a run wrote since the last call. Memory does not grow with the run.

    Safe to use from several threads.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._lock = threading.Lock()
        self._view = RunView(run, state(run))
        self._offset = 0
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._log_offset = -1
        self._take: dict[str, Callable[[dict[str, Any]], None]] = {
            "phase": self._phase,
            "progress": self._progress,
            "plan": self._plan,
            "differences": self._differences,
            "step": self._step,
            "validation": self._validation,
            "sample": self._sample,
            "saved": self._saved,
            "note": self._message,
            "warning": self._message,
            "error": self._error,
            "state": self._state,
            "result": self._result,
        }

    def update(self, budget: float = 1.0) -> RunView:
        """The view of now. Reading stops after about ``budget`` seconds; the next call goes on.

        The view is the follower's own and changes with the next call; see :meth:`reading`.
        """
        with self.reading(budget) as view:
            return view

    @contextlib.contextmanager
    def reading(self, budget: float = 1.0) -> Generator[RunView]:
        """The view of now, which nobody changes while the block runs."""
        with self._lock:
            self._read_events(time.monotonic() + budget)
            self._read_log()
            self._view.state = state(self.run)
            yield self._view

    def _read_events(self, deadline: float) -> None:
        self._view.catching_up = True
        while time.monotonic() < deadline:
            records, offset = read_events(self.run.events, self._offset, _CHUNK)
            for record in records:
                self._record(record)
            if offset == self._offset:
                self._view.catching_up = False
                return
            self._offset = offset

    def _record(self, record: dict[str, Any]) -> None:
        take = self._take.get(record["type"])
        if take is None:
            return
        try:
            take(record)
        except (TypeError, ValueError, AttributeError, KeyError):
            return  # a record of another version, or a damaged one: the rest of the run still counts

    def _read_log(self) -> None:
        try:
            size = self.run.log.stat().st_size
            if self._log_offset < 0:
                self._log_offset = self._view.log_start = max(0, size - _LOG_TAIL)
            if size == self._log_offset:
                return
            with self.run.log.open("rb") as file:
                self._skip_unread(file, size)
                data = file.read(_LOG_TAIL)
        except OSError:
            return
        # A character may be cut in two at the end; its bytes are left for the next call.
        data = data[: len(data) - _cut_character(data)]
        self._log_offset += len(data)
        self._view.log.feed(data.decode("utf-8", errors="replace"))

    def _skip_unread(self, file: Any, size: int) -> None:
        """Go to where reading continues; what is far behind the end is not worth reading."""
        if size - self._log_offset > _LOG_TAIL or size < self._log_offset:
            self._log_offset = max(0, size - _LOG_TAIL)
        file.seek(self._log_offset)

    def _phase(self, record: dict[str, Any]) -> None:
        view = self._view
        view.phase = str(record.get("name") or "")
        view.phase_title = printable(str(record.get("title") or view.phase))
        view.done = view.goal = 0
        view.unit = ""

    def _progress(self, record: dict[str, Any]) -> None:
        view, phase = self._view, str(record.get("phase") or "")
        if phase and phase != view.phase:
            view.phase, view.phase_title = phase, ""
        view.done, view.goal = float(record.get("done") or 0), float(record.get("total") or 0)
        view.unit = str(record.get("unit") or "")

    def _plan(self, record: dict[str, Any]) -> None:
        facts = {key: value for key, value in record.items() if key not in {"t", "type"}}
        self._view.plan = facts
        self._view.total = _whole(facts.get("steps")) or self._view.total
        self._view.epochs = _whole(facts.get("epochs")) or self._view.epochs

    def _step(self, record: dict[str, Any]) -> None:
        view, step = self._view, int(record["step"])
        view.step, view.total = step, _whole(record.get("total")) or view.total
        view.epoch = _whole(record.get("epoch")) or view.epoch
        view.epochs = _whole(record.get("epochs")) or view.epochs
        view.loss, view.average = _number(record.get("loss")), _number(record.get("average"))
        view.grad_norm = _number(record.get("grad_norm"))
        view.memory = _number(record.get("memory"))
        view.images_per_second = _number(record.get("images_per_second"))
        rates = record.get("lr")
        view.lr = {str(key): float(rate) for key, rate in rates.items()} if isinstance(rates, dict) else {}
        self._time(_number(record.get("seconds")))
        first_rate = next(iter(view.lr.values()), None)
        loss = float("nan") if view.loss is None else view.loss
        view.curve.add(step, loss, view.total, (first_rate, view.grad_norm))

    def _validation(self, record: dict[str, Any]) -> None:
        loss = _number(record.get("loss"))
        self._view.validation.add(int(record["step"]), float("nan") if loss is None else loss)

    def _time(self, seconds: float | None) -> None:
        if seconds is None or seconds <= 0:
            return
        self._seconds.append(seconds)
        # The median of 50 at every step of a long run is most of the reading time: take it now and then.
        if len(self._seconds) < _RECENT or self._view.step % 10 == 0:
            self._view.seconds_per_step = statistics.median(self._seconds)

    def _sample(self, record: dict[str, Any]) -> None:
        path = inside(str(record["path"]))
        if path is None:
            return
        sample = Sample(
            path,
            _whole(record.get("step")),
            _whole(record.get("epoch")),
            _whole(record.get("index")),
            printable(str(record.get("prompt") or "")),
            record.get("seed") if isinstance(record.get("seed"), int) else None,
            inside(str(record["thumb"])) if record.get("thumb") else None,
        )
        _without(self._view.samples, path)
        self._view.samples.append(sample)

    def _saved(self, record: dict[str, Any]) -> None:
        path = without_codes(str(record["path"]))  # whole, so that it can be copied and used
        saved = Saved(path, _whole(record.get("step")), _whole(record.get("epoch")), str(record.get("kind")))
        _without(self._view.saved, path)
        self._view.saved.append(saved)

    def _message(self, record: dict[str, Any]) -> None:
        problem = record.get("problem")
        problem = _printable_problem(problem) if isinstance(problem, dict) else {}
        self._tell(
            Message(record["type"], printable(str(record.get("text") or "")), problem, _time_of(record))
        )

    def _differences(self, record: dict[str, Any]) -> None:
        """What changed since the restore point, in one message; a warning when the result will differ."""
        found = record.get("rows")
        rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
        grave = any(row.get("effect") != "safe" for row in rows)
        parts = "; ".join(f"{row.get('what')} was {row.get('before')}, is {row.get('now')}" for row in rows)
        text = f"changed since the restore point of step {record.get('step')}: {parts}"
        self._tell(Message("warning" if grave else "note", printable(text), time=_time_of(record)))

    def _error(self, record: dict[str, Any]) -> None:
        problems = record.get("problems")
        for problem in problems if isinstance(problems, list) else []:
            if isinstance(problem, dict):
                self._tell(Message("error", problem=_printable_problem(problem), time=_time_of(record)))

    def _tell(self, message: Message) -> None:
        for known in self._view.messages:
            if (known.kind, known.text, known.problem) == (message.kind, message.text, message.problem):
                # A resumed run says its notes again; only for faults is it worth knowing how often.
                known.count += message.kind != "note"
                known.time = message.time
                return
        self._view.messages.append(message)

    def _state(self, record: dict[str, Any]) -> None:
        if record.get("state") not in {"starting", "running"}:
            return
        # A new attempt: what ended the one before is settled.
        kept = [message for message in self._view.messages if message.kind != "error"]
        self._view.messages = deque(kept, maxlen=self._view.messages.maxlen)
        self._view.result = None
        if record["state"] == "starting":
            self._seconds.clear()
            self._view.seconds_per_step = None

    def _result(self, record: dict[str, Any]) -> None:
        facts = record.get("facts")
        path = without_codes(str(record.get("path") or ""))
        self._view.result = {"path": path, "facts": facts if isinstance(facts, dict) else {}}


def inside(path: str) -> str | None:
    """A path that stays inside the run folder, with forward slashes, or None."""
    plain = PurePosixPath(path.replace("\\", "/"))
    outside = plain.is_absolute() or ".." in plain.parts or ":" in path or "\0" in path
    return None if outside or not plain.parts else plain.as_posix()


def _without(items: deque[Any], path: str) -> None:
    """Drop what a resumed run makes anew under the same name."""
    for item in [item for item in items if item.path == path]:
        items.remove(item)


def _printable_problem(problem: dict[str, Any]) -> dict[str, Any]:
    return {str(key): printable(str(value)) for key, value in problem.items() if value}


def _time_of(record: dict[str, Any]) -> float:
    return _number(record.get("t")) or 0.0


def _whole(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) else 0


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _cut_character(data: bytes) -> int:
    """Bytes at the end that begin a UTF-8 character without finishing it."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return 0
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back else 0
    return 0
