"""Small files that must never be seen half written, and a lock that dies with its holder."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

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


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader, or a power cut, finds the old text or the new, never a part.

    Raises:
        OSError: as the file system reports it; the old file is untouched.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}-{time.monotonic_ns()}")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _replace(source: Path, target: Path) -> None:
    """Rename over ``target``. Windows refuses for a moment while a reader has it open."""
    for attempt in range(20):
        try:
            source.replace(target)
            return
        except PermissionError:
            if sys.platform != "win32" or attempt == 19:
                raise
            time.sleep(0.05)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Windows has no such call and needs none."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, or None when it is missing, empty, damaged or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


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
                    f"another process has been starting a job for {timeout:.0f} seconds",
                    where=str(path),
                    next="wait a moment and try again; if it stays, restart the other Atelier",
                ) from error
            time.sleep(0.02)
