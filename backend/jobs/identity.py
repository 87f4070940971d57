"""Is that process still the one we started? A pid alone does not say: pids are used again."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

_CLOCK_TOLERANCE = 2.0
"""Seconds by which a process's start time may seem to move when the clock is set."""


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, told apart from a later one with the same pid by when it started."""

    pid: int
    created: float
    """Start, Unix seconds."""
    birth: str = ""
    """Start in ticks since boot, with the boot's id, where the system tells (Linux): no clock moves it."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def of(pid: int) -> ProcessIdentity | None:
        """The identity of a living process, or None."""
        try:
            return ProcessIdentity(pid, psutil.Process(pid).create_time(), _birth(pid))
        except (psutil.Error, ValueError):
            return None

    @staticmethod
    def read(facts: dict[str, Any]) -> ProcessIdentity | None:
        """What :meth:`as_dict` wrote, or None when it is damaged."""
        pid, created, birth = facts.get("pid"), facts.get("created"), facts.get("birth", "")
        if not isinstance(pid, int) or not isinstance(created, (int, float)) or pid <= 0:
            return None
        return ProcessIdentity(pid, float(created), birth if isinstance(birth, str) else "")

    def process(self) -> psutil.Process | None:
        """The living process, or None when it ended, even if its pid is in use again."""
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE or not self._same(process):
                return None
        except psutil.Error:
            return None
        return process

    def alive(self) -> bool:
        return self.process() is not None

    def _same(self, process: psutil.Process) -> bool:
        birth = _birth(self.pid)
        if birth and self.birth:
            return birth == self.birth
        return abs(process.create_time() - self.created) < _CLOCK_TOLERANCE

    def is_ancestor(self, pid: int) -> bool:
        """Whether process ``pid`` is this one or was started, however indirectly, by it."""
        try:
            family = [psutil.Process(pid), *psutil.Process(pid).parents()]
        except psutil.Error:
            return False
        return any(member.pid == self.pid for member in family) and self.alive()


def _birth(pid: int) -> str:
    if not sys.platform.startswith("linux"):
        return ""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    # The second field is the program's name in brackets and may hold spaces and brackets itself.
    return f"{boot}:{stat.rpartition(')')[2].split()[19]}"


class ProcessTree:
    """A process of ours and all it started, remembered while they live, so that all can be ended.

    Args:
        leader: the process; when it is gone, or another has its pid, the tree is empty.
        own_group: it was started in a process group of its own, so signalling that group is safe.
    """

    def __init__(self, leader: ProcessIdentity, own_group: bool) -> None:
        process = leader.process()
        self._members: list[psutil.Process] = []
        self._group = leader.pid if own_group and sys.platform != "win32" else None
        if process:
            with contextlib.suppress(psutil.Error):
                self._members = process.children(recursive=True)
            self._members.append(process)

    def terminate(self) -> None:
        """Ask all to end. On Windows there is no asking: they end."""
        self._signal(signal.SIGTERM, psutil.Process.terminate)

    def kill(self) -> None:
        """End all that are left."""
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM), psutil.Process.kill)

    def wait(self, timeout: float) -> bool:
        """True when all have ended within ``timeout`` seconds."""
        _, self._members = psutil.wait_procs(self._members, timeout=timeout)
        return not self._members

    def _signal(self, number: signal.Signals, single: Any) -> None:
        # psutil compares start times before it signals, so a pid used again is never hit. The group's
        # number cannot be given to anybody else while one of its members lives.
        living = [process for process in self._members if _running(process)]
        if sys.platform != "win32" and self._group and any(_in_group(p.pid, self._group) for p in living):
            with contextlib.suppress(OSError):
                os.killpg(self._group, number)
        for process in living:
            with contextlib.suppress(psutil.Error):
                single(process)


def _running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _in_group(pid: int, group: int) -> bool:
    if sys.platform == "win32":
        return False
    try:
        return os.getpgid(pid) == group
    except OSError:
        return False
