"""A lock between processes that dies with its holder."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO

from backend.errors import EnvironmentFault

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _unlock(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)


@contextlib.contextmanager
def exclusive(path: Path, timeout: float = 20.0) -> Generator[None]:
    """Hold the lock ``path`` while the block runs.

    The operating system frees it when its holder ends in whatever way, so it cannot go stale.
    The file itself stays and means nothing.

    Raises:
        EnvironmentFault: somebody else held it for ``timeout`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _acquire(file, path, timeout)
        try:
            yield
        finally:
            _unlock(file)


def _acquire(file: IO[bytes], path: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return _try_lock(file)
        except OSError as error:
            if time.monotonic() > deadline:
                raise EnvironmentFault(
                    f"another process has held {path.name} for {timeout:.0f} seconds",
                    where=str(path),
                    next="wait a moment and try again; if it stays, restart the other Atelier",
                ) from error
            time.sleep(0.02)
