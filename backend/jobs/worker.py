"""A helper process that stays warm: requests in, events out, one JSON object a line.

The helper reads a request from its standard input and answers on its standard output with events
``{"type": ...}``, the last of which has type ``done`` or ``error``. When its input ends, it ends.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from backend.errors import EnvironmentFault, Problem, RunFault
from backend.jobs.identity import ProcessIdentity, ProcessTree
from backend.jobs.process import environment
from backend.system.paths import REPOSITORY

_LAST: frozenset[str] = frozenset({"done", "error"})
_DETAIL_BYTES = 4000


class Worker:
    """One helper process, started with the first request and again after it died.

    Requests of several threads are served one after the other.

    Args:
        command: its command line, for example ``[sys.executable, "-m", "backend.generate.worker"]``.
        log: file that its error output, and anything on its output that is no event, is added to.
        name: what people call it, for messages.
        timeout: seconds without any event after which it counts as hung.
    """

    def __init__(self, command: list[str], log: Path, name: str = "helper", timeout: float = 60.0) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._timeout = timeout
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._unfinished: dict[str, Any] | None = None

    @property
    def running(self) -> bool:
        """Whether the process lives, and so holds its memory."""
        process = self._process
        return process is not None and process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.running else None

    def request(self, message: dict[str, Any], timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """Send a request and give its events as they come; the last has type ``done`` or ``error``.

        Args:
            message: the request, as JSON.
            timeout: seconds without an event, where this request needs another limit.

        Raises:
            EnvironmentFault: the helper cannot be started.
            RunFault: it died or hung; the message names the request. The next request starts it anew.
        """
        with self._turn:
            limit = self._timeout if timeout is None else timeout
            if self._unfinished is not None:
                self._drain(self._unfinished, limit)
            self._send(message)
            yield from self._answers(message, limit)

    def ask(self, message: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """Send a request and give its last event. Raises as :meth:`request`."""
        return list(self.request(message, timeout))[-1]

    def tell(self, message: dict[str, Any]) -> bool:
        """Send a message whose answer nobody waits for, also in the middle of a request.

        The message needs an ``id`` of its own, so that its answer is not taken for the request's.
        False when no process runs; none is started.
        """
        process = self._process
        if process is None or process.stdin is None or not self.running:
            return False
        try:
            process.stdin.write(json.dumps(message, ensure_ascii=False).encode("utf-8") + b"\n")
            process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def stop(self, grace: float = 3.0) -> None:
        """End the process, so that its memory is free. A request under way ends with a RunFault."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        # Who is listed now can still be ended when the process itself is gone.
        identity = ProcessIdentity.of(process.pid)
        tree = ProcessTree(identity, own_group=sys.platform != "win32") if identity else None
        with contextlib.suppress(OSError):
            assert process.stdin is not None
            process.stdin.close()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.terminate()
        if tree and not tree.wait(grace):
            tree.kill()
        process.wait()

    def _drain(self, message: dict[str, Any], limit: float) -> None:
        """Let an answer that its asker left pass by; a helper that does not come to its end is ended."""
        try:
            while (event := self._events.get(timeout=limit)) is not None:
                if event.get("type") in _LAST and _answers_to(event, message):
                    break
        except queue.Empty:
            self.stop(grace=0)
        self._unfinished = None

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message, ensure_ascii=False).encode("utf-8") + b"\n"
        for attempt in (1, 2):
            process = self._process if self.running else self._start()
            assert process is not None and process.stdin is not None
            try:
                process.stdin.write(line)
                process.stdin.flush()
                self._unfinished = message
                return
            except OSError:
                # It died between the look and the write. A second death in a row is a fault to tell.
                self.stop(grace=0)
                if attempt == 2:
                    raise self._died(message) from None

    def _answers(self, message: dict[str, Any], limit: float) -> Iterator[dict[str, Any]]:
        while True:
            try:
                event = self._events.get(timeout=limit)
            except queue.Empty:
                self.stop(grace=0)
                self._unfinished = None
                raise RunFault(self._hung(message, limit)) from None
            if event is None:
                self._unfinished = None
                raise self._died(message)
            if not _answers_to(event, message):
                continue  # a sign of life, or the answer to something that was only told
            if event.get("type") in _LAST:
                self._unfinished = None
                yield event
                return
            yield event

    def _start(self) -> subprocess.Popen[bytes]:
        self._events = queue.Queue()
        self._unfinished = None
        self._log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._log.open("ab") as log:
                process = subprocess.Popen(
                    self._command,
                    cwd=REPOSITORY,
                    env=environment(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    # Ctrl-C in our terminal is for us; the helper ends when its input does.
                    start_new_session=sys.platform != "win32",
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
        except OSError as error:
            raise EnvironmentFault(
                f"the {self.name} cannot be started", where=self._command[0], why=str(error)
            ) from error
        reader = threading.Thread(
            target=self._read, args=(process.stdout, self._events), name=f"{self.name}-events", daemon=True
        )
        reader.start()
        self._process = process
        return process

    def _read(self, output: IO[bytes], events: queue.Queue[dict[str, Any] | None]) -> None:
        for line in output:
            event = _event(line)
            if event is not None:
                events.put(event)
            elif line.strip():
                with contextlib.suppress(OSError), self._log.open("ab") as log:
                    log.write(line)
        events.put(None)

    def _died(self, message: dict[str, Any]) -> RunFault:
        code = self._process.wait() if self._process else None
        return RunFault(
            f"the {self.name} ended in the middle of {_named(message)} (exit code {code})",
            why="it crashed, was ended, or ran out of memory",
            next="try again: it starts anew; its log has the details",
            where=str(self._log),
            detail=self._log_end(),
        )

    def _hung(self, message: dict[str, Any], limit: float) -> Problem:
        return Problem(
            f"the {self.name} gave no sign of life for {limit:g} seconds during {_named(message)}",
            why="it was ended, so that nothing waits for it for ever",
            next="try again: it starts anew; its log has the details",
            where=str(self._log),
            detail=self._log_end(),
        )

    def _log_end(self) -> str:
        try:
            with self._log.open("rb") as file:
                file.seek(max(0, self._log.stat().st_size - _DETAIL_BYTES))
                return file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "type" in event else None


def _answers_to(event: dict[str, Any], message: dict[str, Any]) -> bool:
    """Whether an event belongs to a request: helpers that know ids repeat them."""
    return event.get("id", message.get("id")) == message.get("id")


def _named(message: dict[str, Any]) -> str:
    """A request in a few words."""
    kind = str(message.get("op") or message.get("type") or "a request")
    inner = message.get("request")
    facts = {**message, **(inner if isinstance(inner, dict) else {})}
    item = next((str(facts[key]) for key in ("prompt", "image", "path", "model") if facts.get(key)), "")
    return f"{kind!r} ({item[:80]})" if item else repr(kind)
