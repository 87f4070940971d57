"""Room on the disk: how much a run's files will need, and waiting when there is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import AtelierError, EnvironmentFault, InputError, Problem, StorageFault
from backend.settings import Settings
from backend.settings.length import Length
from backend.system.headers import readable_size
from backend.train.retention import Retention

if TYPE_CHECKING:
    from backend.train.session import Session

RETRY_SECONDS = 30.0
"""Seconds between two tries to write where there was no room."""
_FILE_BYTES = {"float": 4, "fp16": 2, "bf16": 2}
_STATE_BYTES = 12
"""Of a trained number in a restore point: the number itself and, for Adam and its like, two more."""
_MEAN_BYTES = 4
"""Of its running mean, where there is one."""


@dataclass(frozen=True)
class Forecast:
    """Files of one kind that will lie on the disk together."""

    kind: str
    """``result``, ``state`` or ``recovery``."""
    folder: Path
    count: int
    size: int
    """Bytes of one file."""

    @property
    def total(self) -> int:
        return self.count * self.size


def forecast(
    settings: Settings, length: Length, numbers: int, output: Path, run: Path, beside: int = 0
) -> list[Forecast]:
    """What a run will write. ``numbers``: how many numbers are trained; ``run``: the run's folder;
    ``beside``: how many more stand in the result.

    Of the rolling restore point there are two for a moment while a new one is written.
    """
    saving = settings.saving
    keep = Retention.of(saving, length.epochs)
    files = keep.most(length, keep.files) + 1
    states = keep.most(length, keep.states) + 1 if saving.save_state else int(saving.save_state_on_train_end)
    state = numbers * (_STATE_BYTES + (0 if settings.optimizer.ema_decay is None else _MEAN_BYTES))
    size = (numbers + beside) * _FILE_BYTES.get(saving.save_precision or "", 4)
    found = (
        Forecast("result", output, files, size),
        Forecast("state", output, states, state),
        Forecast("recovery", run, 2 if saving.recovery_minutes else 0, state),
    )
    return [one for one in found if one.count]


@dataclass(frozen=True)
class Disk:
    """Room on one disk. Sizes are in bytes."""

    folder: Path
    needed: int
    free: int


def disks(files: Iterable[Forecast], written: Iterable[Path] = ()) -> list[Disk]:
    """Needed and free room for each disk that ``files`` lie on.

    Args:
        written: those of the files (folders of restore points) that are there already.
    """
    needed: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for one in files:
        device = _disk_of(one.folder)
        folders.setdefault(device, one.folder)
        needed[device] = needed.get(device, 0) + one.total
    for path in written:
        device = _disk_of(path.parent)
        needed[device] = needed.get(device, 0) - size_of(path)
    return [
        Disk(folder, max(0, needed[device]), shutil.disk_usage(existing(folder)).free)
        for device, folder in folders.items()
    ]


def _disk_of(folder: Path) -> int:
    """What tells the disk of a folder, which may be to be made yet, from others."""
    return existing(folder).stat().st_dev


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files of a folder; 0 when it is gone."""
    if path.is_dir():
        return sum(size_of(one) for one in path.iterdir())
    try:
        return path.stat().st_size
    except OSError:
        return 0


def check_space(files: list[Forecast], written: Iterable[Path] = ()) -> None:
    """Refuse a run whose files will not fit on the disk.

    Raises:
        InputError: says how much is needed and how much is free.
    """
    for disk in disks(files, written):
        if disk.needed > disk.free:
            here = [one for one in files if _disk_of(one.folder) == _disk_of(disk.folder)]
            what = ", ".join(f"{one.count} x {one.kind} of {readable_size(one.size)}" for one in here)
            needed, free = readable_size(disk.needed), readable_size(disk.free)
            raise InputError(
                f"the run's files need about {needed}; {free} are free",
                where=str(disk.folder),
                why=what,
                next="free some space, save less often, keep only the last files (save_last_n_epochs, "
                "save_last_n_steps), or choose a folder on another disk",
                key="output_dir",
            )


def patiently(session: Session, write: Callable[[], None]) -> None:
    """Write, and while that fails for the disk's sake, wait for room: nothing trained is lost.

    The run is paused meanwhile and tries again by itself, or at once when told to resume. A stop
    ends the run with the fault.

    Raises:
        StorageFault, EnvironmentFault: the user stopped while there was no room.
    """
    while True:
        try:
            return write()
        except (StorageFault, EnvironmentFault) as fault:
            if not worth_another_try(session, fault, _FULL if isinstance(fault, StorageFault) else _CLOSED):
                raise


_FULL = Problem("paused: free some space and press Resume; it goes on by itself then")
_CLOSED = Problem(
    "paused: bring the drive or the permission back and press Resume; it goes on by itself then"
)


def worth_another_try(session: Session, fault: AtelierError, paused: Problem) -> bool:
    """Pause for what another try may cure, until told to resume or for a while; False when told to stop.

    ``paused``: what to do meanwhile, for a person.
    """
    session.events.emit("warning", text=fault.text(), problem=fault.problems[0].as_dict())
    session.events.emit("note", text=paused.text())
    session.events.emit("state", state="paused")
    if session.wait(RETRY_SECONDS) == "stop":
        return False
    session.events.emit("state", state="running")
    return True


def existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that is there."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
