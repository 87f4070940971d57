"""Going on from a restore point: which one, whether it fits, and the place to go on at.

Numbering never restarts: steps, epochs, file names and the learning rate go on where they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from backend.errors import InputError, Problem
from backend.jobs.events import Sink
from backend.jobs.runs import Run
from backend.settings import Settings
from backend.settings.length import Length
from backend.train import optimizers
from backend.train.checkpoints import Position, State, load_state, newest_state
from backend.train.differences import differences, require_possible, require_same_pictures
from backend.train.manifest import Manifest
from backend.train.methods.base import Method

if TYPE_CHECKING:
    from accelerate import Accelerator


class Complete(InputError):
    """A finished run was to go on without being asked for more. It stays what it is."""

    ends_as = "finished"


def find_state(run: Run, settings: Settings, resume: bool, events: Sink) -> State | None:
    """The restore point to go on from: the run's own newest, or the one that was named.

    Raises:
        InputError: the one that was named cannot be used, or none of the run's own.
    """
    if settings.saving.resume and not resume:
        return load_state(Path(settings.saving.resume).expanduser())
    if not resume:
        return None
    newest, damaged = newest_state(restore_points(run))
    for problem in damaged:
        events.emit("warning", text=problem.text(), problem=problem.as_dict())
    if newest is None and damaged:
        # To begin anew without being told to would write over the files of what was trained already.
        raise InputError(damaged)
    if newest is None:
        if settings.saving.resume:
            return load_state(Path(settings.saving.resume).expanduser())
        events.emit("note", text="there is no restore point yet: starting from the beginning")
        return None
    events.emit("note", text=f"going on from {newest.name}")
    return load_state(newest)


def restore_points(run: Run) -> list[Path]:
    """Folders of a run's restore points, its rolling one and those beside its files, sound or not."""
    entries = Manifest(run.path / "manifest.json").entries()
    beside = [Path(entry.path) for entry in entries if entry.kind == "state"]
    own = run.path / "state"
    return [*(own.iterdir() if own.is_dir() else ()), *beside]


def compare(state: State, identity: Mapping[str, Any], events: Sink, other_pictures: bool = False) -> None:
    """Tell what changed since the restore point was made.

    Args:
        other_pictures: pictures may have been added and removed.

    Raises:
        InputError: the pictures are others, or something changed that it cannot live with.
    """
    found = differences(state.facts, identity)
    if found:
        events.emit("differences", step=state.position.step, rows=[asdict(one) for one in found])
    note = require_same_pictures(state.facts, identity, state.position.step, other_pictures)
    if note is not None:
        events.emit("note", text=note.text())
    require_possible(found)


def place(settings: Settings, length: Length, state: State | None, own: bool) -> tuple[Length, Position]:
    """Length of the run and the position to begin at.

    Args:
        own: the restore point is the run's own, so that ``initial_step`` has had its effect already.

    Raises:
        Complete: the run has come to its end already.
        InputError: the position lies at or behind the end of a new run.
    """
    position = Position()
    if state is not None:
        length, position = _carried_over(settings, length, state)
    if state is None or not own:
        position = _asked_for(settings, length, position)
    if position.step >= length.steps:
        problem = Problem(
            f"this run is complete at step {position.step}; nothing is left to train",
            why=f"it is asked for {length.steps} steps",
            next=f"extend it: give more than {position.step} as max_train_steps, or more max_train_epochs",
            key="max_train_epochs" if settings.schedule.max_train_epochs else "max_train_steps",
        )
        raise Complete(problem) if own else InputError(problem)
    return length, position


def _carried_over(settings: Settings, length: Length, state: State) -> tuple[Length, Position]:
    """The restore point's position in an epoch that may have another number of batches now.

    The share of the epoch that is done stays, in whole steps; epochs, where they decide the length,
    are counted on from here.
    """
    position = state.position
    before = int(state.facts.get("batches_per_epoch") or length.batches_per_epoch)
    old_accumulation = int(state.facts.get("settings", {}).get("gradient_accumulation_steps", 1))
    if (before, old_accumulation) == (length.batches_per_epoch, length.accumulation):
        return length, position
    batch = position.batch * length.batches_per_epoch // before
    position = replace(position, batch=batch - batch % length.accumulation)
    if settings.schedule.max_train_epochs:
        whole = max(0, length.epochs - position.epoch + 1) * length.steps_per_epoch
        done = position.batch // length.accumulation
        length = replace(length, steps=position.step + max(0, whole - done))
    return length, position


def _asked_for(settings: Settings, length: Length, position: Position) -> Position:
    """``initial_step`` or ``initial_epoch`` in place of a restore point's count."""
    saving = settings.saving
    if saving.initial_step is not None:
        step = saving.initial_step
    elif saving.initial_epoch is not None:
        step = (saving.initial_epoch - 1) * length.steps_per_epoch
    else:
        return position
    epochs, rest = divmod(step, length.steps_per_epoch)
    batch = rest * length.accumulation if saving.skip_until_initial_step else 0
    return Position(step, epochs + 1, batch)


def restore(
    state: State,
    method: Method,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    settings: Settings,
) -> None:
    """Put weights and optimizer where they were, with arguments as the settings have them.

    Raises:
        InputError: the network or the optimizer's groups are not those of the restore point.
    """
    method.load(state.weights)
    fresh = [dict(group) for group in optimizer.param_groups]
    try:
        optimizers.load_memory(optimizer, state.optimizer["optimizer"])
    except (ValueError, KeyError) as error:
        raise InputError(
            "the optimizer's memory in the restore point does not fit",
            why=str(error),
            next="put parts, learning rates of 0 and the optimizer back as they were, or start anew with "
            "its LoRA file as network_weights",
            key="optimizer_type",
        ) from error
    before = state.facts.get("settings", {}).get("optimizer_args", [])
    _take_arguments(optimizer, fresh, before, settings.optimizer.optimizer_args)
    if accelerator.scaler is not None and state.optimizer.get("scaler"):
        accelerator.scaler.load_state_dict(state.optimizer["scaler"])


def _take_arguments(
    optimizer: torch.optim.Optimizer, fresh: list[dict[str, Any]], before: Iterable[str], now: Iterable[str]
) -> None:
    """Loading brings the old arguments back; those that were changed since count as they are now."""
    old, new = optimizers.parse_arguments(before), optimizers.parse_arguments(now)
    changed = {name for name in {**old, **new} if old.get(name) != new.get(name)}
    for group, made in zip(optimizer.param_groups, fresh, strict=True):
        group.update({name: made[name] for name in changed if name in made})
