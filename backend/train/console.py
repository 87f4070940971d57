"""Events as lines of text, for a terminal and for ``log.txt``."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from backend.errors import InputError, Problem, visible
from backend.jobs.events import EventType, Sink
from backend.settings.sections import TrackingSettings

_LINE_SECONDS = 10.0
"""Seconds between progress lines where a line cannot be overwritten."""
_LEVELS = {"warning": logging.WARNING, "error": logging.ERROR}
"""Levels of events; of all others INFO."""


class Console:
    """Writes every event to a log of events and, in words, to a stream and perhaps two more."""

    def __init__(self, events: Sink, stream: TextIO | None = None, copy: TextIO | None = None) -> None:
        self._events = events
        self._stream = stream or sys.stdout
        self._copy = copy
        """A command line's ``log.txt``, with everything; a job of the page has its output there anyway."""
        self._file: TextIO | None = None
        """``console_log_file``, which takes the terminal's lines."""
        self._level, self._simple = logging.INFO, False
        self._live = self._stream.isatty()
        self._last = 0.0
        self._open_line = False

    def follow(self, rules: TrackingSettings) -> None:
        """Show what the settings ask for from now on.

        Raises:
            InputError: the file for the terminal's lines cannot be written.
        """
        self._level = getattr(logging, rules.console_log_level or "INFO")
        self._simple = rules.console_log_simple
        self._live = self._live and not self._simple
        if rules.console_log_file:
            self._file = _open(Path(rules.console_log_file).expanduser())

    def close(self) -> None:
        """Close the file for the terminal's lines."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def emit(self, type: EventType, /, **fields: Any) -> None:
        self._events.emit(type, **fields)
        words = _WORDS.get(type)
        if words is None:
            return
        text = visible(words(fields))
        if type in ("step", "progress"):
            self._progress(text, fields)
        elif text:
            self._line(text, _LEVELS.get(type, logging.INFO))

    def _progress(self, text: str, fields: dict[str, Any]) -> None:
        final = fields.get("step", fields.get("done")) == fields.get("total")
        now, shown = time.monotonic(), self._level <= logging.INFO
        due = (
            final or now - self._last >= _LINE_SECONDS or ("step" in fields and self._level <= logging.DEBUG)
        )
        if self._live and shown:
            self._stream.write(f"\r{text:<78}")
            self._stream.flush()
            self._open_line = True
        elif due and shown and self._file is None:
            _write(self._stream, text)
        if due:
            _write(self._copy, text)
            self._last = now
            if shown:
                self._to_file(text, logging.INFO)

    def _line(self, text: str, level: int) -> None:
        if self._open_line:
            self._stream.write("\n")
            self._open_line = False
        _write(self._copy, text)
        if level < self._level:
            return
        self._to_file(text, level)
        if self._file is None or level >= logging.ERROR:
            _write(self._stream, text)

    def _to_file(self, text: str, level: int) -> None:
        moment = time.strftime("%Y-%m-%d %H:%M:%S")
        _write(self._file, text if self._simple else f"{moment} {logging.getLevelName(level):<8} {text}")


def _open(path: Path) -> TextIO:
    """A file to add lines to; what is in it stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"console_log_file: {path} cannot be written ({error.strerror})",
            next="choose another file",
            key="console_log_file",
        ) from error


def _write(stream: TextIO | None, text: str) -> None:
    """A line for a person to read: a disk that does not take it ends no run."""
    if stream is None:
        return
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except BrokenPipeError:
        raise  # nobody reads any more, which is known to whoever started this
    except OSError:
        return


def _step(fields: dict[str, Any]) -> str:
    rate = 1.0 / fields["seconds"] if fields["seconds"] else 0.0
    return (
        f"step {fields['step']}/{fields['total']}  epoch {fields['epoch']}/{fields['epochs']}  "
        f"loss {fields['loss']:.4f}  average {fields['average']:.4f}  {rate:.2f} it/s"
    )


def _progress(fields: dict[str, Any]) -> str:
    return f"{fields['phase']}: {fields['done']}/{fields['total']} {fields.get('unit', '')}".rstrip()


def _plan(fields: dict[str, Any]) -> str:
    return (
        f"{fields['title']} on {fields['images']} pictures: {fields['steps']} steps in {fields['epochs']} "
        f"epochs, {fields['batches_per_epoch']} batches an epoch, seed {fields['seed']}"
    )


_EFFECTS = {
    "safe": "no effect on the result",
    "changes": "changes the result",
    "impossible": "cannot be resumed",
}


def _differences(fields: dict[str, Any]) -> str:
    """A table of what changed since the restore point."""
    rows = [(r["what"], r["before"], r["now"], _EFFECTS[r["effect"]]) for r in fields["rows"]]
    table = [("changed since", f"step {fields['step']}", "now", ""), *rows]
    widths = [min(44, max(len(row[column]) for row in table)) for column in range(3)]
    return "\n".join("  ".join((*map(str.ljust, row, widths), row[3])).rstrip() for row in table)


def _problems(fields: dict[str, Any]) -> str:
    return "\n".join(f"error: {Problem(**problem).text()}" for problem in fields["problems"])


_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "phase": lambda f: f"{f['title']} ...",
    "progress": _progress,
    "plan": _plan,
    "differences": _differences,
    "step": _step,
    "validation": lambda f: (
        f"validation loss at step {f['step']}: {f['loss']:.4f} on {f['pictures']} pictures"
    ),
    "sample": lambda f: f"sample: {f['path']}",
    "saved": lambda f: f"saved ({f['kind']}, step {f['step']}): {f['path']}",
    "note": lambda f: f"note: {f['text']}",
    "warning": lambda f: f"warning: {f['text']}",
    "error": _problems,
    "result": lambda f: f"result: {f['path']}",
}
