"""Deleted runs: moved aside, not destroyed, until the trash is emptied."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from backend.errors import InputError
from backend.jobs.runs import Run, find_run
from backend.jobs.state import state

FOLDER = ".trash"
"""Inside the folder of runs; its dot keeps it out of the list of runs."""


@dataclass(frozen=True)
class Deleted:
    """A run in the trash."""

    id: str
    name: str
    size: int
    """Bytes of all its files."""


def throw_away(root: Path, run: Run) -> None:
    """Move a run folder to the trash. Results that were written elsewhere stay where they are.

    Raises:
        InputError: the run is at work.
    """
    if state(run).active:
        raise InputError(f"{run.name!r} is at work", where=run.id, next="stop it first")
    place = root / FOLDER / run.id
    place.parent.mkdir(exist_ok=True)
    number = 2
    while place.exists():
        place = root / FOLDER / f"{run.id}-{number}"
        number += 1
    run.path.rename(place)


def bring_back(root: Path, id: str) -> Run:
    """Move a run out of the trash.

    Raises:
        InputError: it is not there, or a run of that name is in its place.
    """
    run = find_run(root / FOLDER, id)
    if run is None:
        raise InputError("this run is not in the trash", where=id)
    place = root / run.id
    if place.exists():
        raise InputError("a run of that name is in its place", where=str(place))
    run.path.rename(place)
    found = find_run(root, id)
    assert found is not None
    return found


def deleted(root: Path) -> list[Deleted]:
    """What is in the trash, by name."""
    folder = root / FOLDER
    if not folder.is_dir():
        return []
    runs = (find_run(folder, path.name) for path in sorted(folder.iterdir(), reverse=True) if path.is_dir())
    return [Deleted(run.id, run.name, _size(run.path)) for run in runs if run]


def empty(root: Path) -> int:
    """Destroy everything in the trash; gives the bytes that became free."""
    freed = sum(item.size for item in deleted(root))
    for item in deleted(root):
        shutil.rmtree(root / FOLDER / item.id)
    return freed


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
