"""The plan of a run before it starts, worked out by a process of its own: the page holds no torch.

The process is ``python -m backend.train.plan_card``, which reads names and shapes of the model but no
weights. One question is worked on at a time; a newer one ends the older.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend.errors import Problem
from backend.jobs.process import environment
from backend.system import doctor
from backend.system.paths import REPOSITORY
from ui.i18n import t

_KEPT = 6
"""Answers that are remembered."""
_LONGEST = 180.0
"""Seconds after which a plan is given up."""
_DOCTOR_FRESH = 600.0


@dataclass
class _Work:
    """A plan that is being worked out."""

    key: str
    process: subprocess.Popen[bytes]
    folder: tempfile.TemporaryDirectory[str]
    out: Path
    err: Path
    began: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.folder.cleanup()


class Planner:
    """Answers what a run with some settings would do, when asked again and again until it knows."""

    def __init__(self, command: Callable[[Path], list[str]] | None = None) -> None:
        self._command = command or _plan_card
        self._work: _Work | None = None
        self._known: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def ask(self, key: str, toml: str, secrets: Mapping[str, str]) -> dict[str, Any]:
        """The plan, or how far it is.

        Args:
            key: what tells this question from others: settings and the state of their files.
            toml: the settings; ``secrets``: environment variables for the process.

        Returns:
            ``{"state": "working", "seconds": ...}``, or ``{"state": "done", "card": ...}``, whose card
            may hold nothing but ``problems``.
        """
        with self._lock:
            if key in self._known:
                return {"state": "done", "card": self._known[key]}
            if self._work is None or self._work.key != key:
                self._begin(key, toml, secrets)
            return self._look()

    def close(self) -> None:
        """End what is being worked out."""
        with self._lock:
            self._drop()

    def _begin(self, key: str, toml: str, secrets: Mapping[str, str]) -> None:
        self._drop()
        folder = tempfile.TemporaryDirectory(prefix="atelier-plan-")
        folder_path = Path(folder.name)
        config = folder_path / "config.toml"
        config.write_text(toml, encoding="utf-8")
        out, err = (folder_path / name for name in ("out", "err"))
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                self._command(config), cwd=REPOSITORY, env=environment() | dict(secrets),
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            )  # fmt: skip
        self._work = _Work(key, process, folder, out, err)

    def _look(self) -> dict[str, Any]:
        work = self._work
        assert work is not None
        seconds = time.monotonic() - work.began
        if work.process.poll() is None and seconds < _LONGEST:
            return {"state": "working", "seconds": round(seconds, 1)}
        card = _read(work)
        self._drop()
        self._known = {**dict(list(self._known.items())[-_KEPT + 1 :]), work.key: card}
        return {"state": "done", "card": card}

    def _drop(self) -> None:
        if self._work is not None:
            self._work.close()
            self._work = None


def _plan_card(config: Path) -> list[str]:
    return [sys.executable, "-m", "backend.train.plan_card", str(config), "--json"]


def _read(work: _Work) -> dict[str, Any]:
    """The card, or a problem in its place. Libraries may print lines of their own before it."""
    lines = work.out.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in reversed(lines):
        try:
            found: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found  # type: ignore[reportUnknownVariableType]
    detail = work.err.read_text(encoding="utf-8", errors="replace")[-4000:]
    late = work.process.poll() is None
    problem = Problem(t("train.plan_late" if late else "train.plan_failed"), detail=detail)
    return {"problems": [problem.as_dict()]}


class DoctorReport:
    """What the doctor finds on this machine, asked for in the background and kept for a while."""

    def __init__(self, gather: Callable[[], list[doctor.Finding]] | None = None) -> None:
        self._gather = gather or (lambda: list(doctor.examine(doctor.gather())))
        self._found: list[doctor.Finding] | None = None
        self._at = 0.0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def look(self, again: bool = False) -> list[doctor.Finding] | None:
        """The findings; None while they are being made."""
        with self._lock:
            working = self._thread is not None and self._thread.is_alive()
            stale = again or self._found is None or time.monotonic() - self._at > _DOCTOR_FRESH
            if stale and not working:
                self._found = None
                self._thread = threading.Thread(target=self._work, name="doctor", daemon=True)
                self._thread.start()
            return self._found

    def _work(self) -> None:
        found = self._gather()
        with self._lock:
            self._found, self._at = found, time.monotonic()
