"""A job in a process of its own: how it ends stands in its events and in the exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from backend.errors import AtelierError, Problem, of_system
from backend.jobs.events import EventLog


def attend(log: EventLog, work: Callable[[], Mapping[str, Any]]) -> int:
    """Do ``work`` and tell how it ended; closes ``log``.

    A signal to end reaches the work as KeyboardInterrupt, once, so that it can clear away, or keep, what
    it has begun.

    Args:
        work: gives the facts of the result: ``text`` for a person, the ``output`` it wrote, and
            ``stopped`` when it was ended early with something worth keeping.

    Returns:
        The exit code: 0, 130 when it was stopped, otherwise that of the error.

    Raises:
        Exception: a fault of our own, for its traceback; the events have it by then.
    """
    earlier = signal.signal(signal.SIGTERM, _end)
    try:
        return _done(log, work)
    finally:
        signal.signal(signal.SIGTERM, earlier)
        log.close()


def interrupted() -> KeyboardInterrupt:
    """To be raised by work that has read that it is to end. The signal that comes with the command no
    longer disturbs it then while it keeps what it has."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return KeyboardInterrupt()


def _end(number: int, frame: object) -> NoReturn:
    raise interrupted()


def _done(log: EventLog, work: Callable[[], Mapping[str, Any]]) -> int:
    log.emit("state", state="running")
    try:
        found = work()
    except AtelierError as error:
        return _refused(log, error)
    except KeyboardInterrupt:
        log.emit("state", state="stopped")
        return 130
    except (OSError, MemoryError) as error:
        return _refused(log, of_system(error))
    except Exception as error:
        problem = Problem("something unexpected went wrong", why=repr(error), next="the log has the details")
        _failed(log, [problem])
        raise
    print(found.get("text", ""))
    log.emit("result", path=found.get("output", found.get("path", "")), facts=found)
    log.emit("state", state="stopped" if found.get("stopped") else "finished")
    return 0


def _refused(log: EventLog, error: AtelierError) -> int:
    print(f"error: {error.text()}", file=sys.stderr)
    _failed(log, error.problems)
    return error.exit_code


def _failed(log: EventLog, problems: list[Problem] | tuple[Problem, ...]) -> None:
    log.emit("error", problems=[problem.as_dict() for problem in problems])
    log.emit("state", state="failed")
