"""Writing so that nothing is half written and nothing that stood there is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from dataclasses import replace
from pathlib import Path

from backend.errors import EnvironmentFault, InputError, Problem, RunFault, disk_is_full
from backend.settings import paths
from backend.wholefile import replacing


def replace_bytes(path: Path, data: bytes) -> None:
    """Write a file that is found whole, the old one or the new one. Raises OSError; the old stays then."""
    with replacing(path) as new:
        new.file.write(data)
        with contextlib.suppress(OSError):
            shutil.copymode(path, new.path)


def new_bytes(path: Path, data: bytes, *, flush: bool = True) -> None:
    """Write a file that did not exist. Raises FileExistsError, OSError; no part of it stays then.

    Without ``flush`` it is left to the system when the bytes reach the disk: for what can be made again.
    """
    partial = _partial(path)
    try:
        with partial.open("xb") as file:
            file.write(data)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        _appear(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """A name beside ``path`` that is not longer than any file's may be."""
    return path.with_name(f".{secrets.token_hex(6)}.partial")


def _appear(partial: Path, path: Path) -> None:
    """Give a finished file its name unless that is taken: in one act where the file system has links."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError(errno.EEXIST, "exists already", str(path)) from None
        partial.rename(path)


def copy_new(source: Path, target: Path, *, link: bool = False) -> None:
    """Copy a file, with its times, to a name that is free; ``link`` shares the bytes where that is possible.

    Raises FileExistsError when the name is taken, OSError otherwise; no part of a copy stays then.
    """
    if link:
        try:
            os.link(source.resolve(), target)
            return
        except FileExistsError:
            raise
        except OSError:
            pass  # another disk, or a file system without links: a copy serves as well
    partial = _partial(target)
    try:
        shutil.copy2(source, partial)
        _appear(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def reason(error: OSError) -> str:
    """'cannot be written (no space left on device)'."""
    return f"cannot be written ({(error.strerror or str(error)).lower()})"


def write_problem(path: Path, error: OSError) -> Problem:
    """What a person is told of a file that could not be written."""
    full = disk_is_full(error)
    advice = "free some space and try again" if full else "check that you may write there, and try again"
    return Problem(
        f"{path.name} {reason(error)}", where=str(path), why="it holds what it held before", next=advice
    )


def target_folder(path: Path, *sources: Path) -> Path:
    """``path`` as a folder that exists and is no source folder.

    Raises:
        InputError: it is a file, or a source folder, or nothing can be written there.
        EnvironmentFault: it cannot be made.
    """
    target = path.expanduser().resolve()
    for source in sources:
        if target == source.resolve():
            raise InputError(
                f"the new files would go into {target}, where the originals are",
                why="nothing is ever written among the original pictures",
                next="choose another folder",
            )
    if problem := paths.name_problem(target):
        raise InputError(problem)
    if target.is_file():
        raise InputError(f"{target} is a file; a folder is needed", next="choose another folder")
    if problem := paths.write_problem(target):
        raise InputError(replace(problem, key=None))
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"the folder {target} {reason(error)}") from error
    return target


def stop_if_full(error: OSError, path: Path) -> None:
    """A full disk ends the work; other faults concern one file. Raises RunFault."""
    if disk_is_full(error):
        raise RunFault(write_problem(path, error)) from error
