"""Errors written for people: what happened, where, why, and what to do next.

Every error that a user can cause or meet is an :class:`AtelierError` holding one or more
:class:`Problem`. A command line prints them and ends with the class's exit code; the page shows
them beside the field that ``key`` names.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from backend import messages

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that move a terminal's cursor, change its colours or the direction of writing."""
_UNREAD = 141
"""Exit code where the reader of the output went away; what a shell says of programs ended by SIGPIPE."""


def visible(text: str) -> str:
    """``text`` with control characters spelt out (``\\x1b``); tabs and line breaks stay."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, in the four parts a person needs."""

    what: str
    """What happened, in one sentence, naming the value found."""
    where: str = ""
    """File, line, field or step."""
    why: str = ""
    """The cause, when it is known."""
    next: str = ""
    """What to do about it."""
    key: str | None = None
    """The option it belongs to, so that the form can jump there."""
    detail: str = ""
    """Technical text, folded away in the page."""

    def text(self) -> str:
        """The problem as lines for a terminal, which nothing that a file's name may hold can steer."""
        head = f"{self.where}: {self.what}" if self.where else self.what
        rest = [part for part in (self.why, self.next and f"-> {self.next}") if part]
        return visible("\n".join([head, *(f"   {line}" for line in rest)]))

    def as_dict(self) -> dict[str, str | None]:
        return asdict(self)


class AtelierError(Exception):
    """Base of all errors that are meant for people."""

    exit_code = 4
    ends_as = "failed"
    """The state that a run is in which ends by it."""

    def __init__(self, problems: Problem | str | Iterable[Problem], **parts: str | None) -> None:
        if isinstance(problems, str):
            problems = Problem(problems, **parts)  # type: ignore[arg-type]
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        assert self.problems, "an error without a problem"
        super().__init__(self.text())

    def text(self) -> str:
        return "\n".join(problem.text() for problem in self.problems)


class InputError(AtelierError):
    """Files or settings that cannot be used as they are (exit code 2)."""

    exit_code = 2


class EnvironmentFault(AtelierError):
    """Something this machine lacks: a library, a device, a permission (exit code 3)."""

    exit_code = 3


class RunFault(AtelierError):
    """A fault in the middle of a run (exit code 4)."""

    exit_code = 4


class StorageFault(RunFault):
    """A file could not be written for lack of room or a vanished folder; trying again may work."""


@contextlib.contextmanager
def said_of(where: str, key: str | None = None) -> Generator[None, None, None]:
    """What is found wrong inside is said of ``where`` and of the option ``key``, unless it names its own."""
    try:
        yield
    except AtelierError as error:
        problems = [replace(one, where=one.where or where, key=one.key or key) for one in error.problems]
        raise type(error)(problems) from error


_WRONG_PATH = ("ENOENT", "ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG", "ELOOP", "EINVAL")
"""Refusals of the system that another path cures; behind others stand permissions, disks and networks."""


def kind_of(error: OSError) -> type[AtelierError]:
    """Bad input where another path is the cure; else the environment."""
    wrong = error.errno in {getattr(errno, name, None) for name in _WRONG_PATH}
    return InputError if wrong else EnvironmentFault


def disk_is_full(error: OSError) -> bool:
    """Whether a write failed for want of room."""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


def of_system(error: OSError | MemoryError) -> AtelierError:
    """What the operating system refused where nobody foresaw it, in words."""
    if isinstance(error, MemoryError):
        return EnvironmentFault(
            "the memory (RAM) of this machine is not enough", next="close other programs, or use less at once"
        )
    if disk_is_full(error):
        return EnvironmentFault(
            "the disk is full (no space left on device)",
            where=str(error.filename or ""),
            next="free some space, then try again",
        )
    reason = (error.strerror or str(error)).lower()
    problem = Problem(
        f"the system refused this file or folder ({reason})",
        where=str(error.filename or ""),
        next="check the name, the permissions and the free space, or choose another",
    )
    return kind_of(error)(problem)


def run_main(main: Callable[[], int | None]) -> int:
    """Call ``main`` and turn errors into readable text on stderr and an exit code.

    An error of ours prints its problems only, and so does what the system refuses. Any other exception
    is our own mistake: it prints one sentence first and the traceback after it, for a report. When nobody
    reads the output any more (``| head``), it ends without a word.
    """
    _print_every_letter()
    try:
        code = main() or 0
        sys.stdout.flush()
        return code
    except AtelierError as error:
        return _end(error)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # What is still in the buffer must go somewhere, or Python complains about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNREAD
    except (OSError, MemoryError) as error:
        return _end(of_system(error))
    except subprocess.CalledProcessError as error:
        problem = Problem(
            f"{_name(error)} ended with exit code {error.returncode}", next="what it printed above says why"
        )
        return _end(RunFault(problem))
    except Exception as error:
        print(f"error: something unexpected went wrong: {error!r}", file=sys.stderr)
        print("   This is a fault in Atelier. The details below help to find it.", file=sys.stderr)
        traceback.print_exc()
        return 4


def _print_every_letter() -> None:
    """Names of files may hold letters that a terminal's encoding lacks; they are printed as escapes then."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError):
                stream.reconfigure(errors="backslashreplace")


def _end(error: AtelierError) -> int:
    print(f"error: {_told(error)}", file=sys.stderr)
    return error.exit_code


def _name(error: subprocess.CalledProcessError) -> str:
    """The program that was started, without its arguments but for a script's name."""
    words = [error.cmd] if isinstance(error.cmd, str) else [str(word) for word in error.cmd]
    return " ".join(Path(word).name for word in words[:2])


def _told(error: AtelierError) -> str:
    """The error in the language of command lines."""
    language = messages.of_command_line()
    parts = (messages.translated_problem(problem.as_dict(), language) for problem in error.problems)
    return "\n".join(Problem(**part).text() for part in parts)
