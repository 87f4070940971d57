"""Restore points: everything needed to go on as if nothing had happened.

A state is a folder with the trained weights in float32, the optimizer's state and ``state.json``,
which is written last and carries a SHA-256 of every other file. A folder without a ``state.json``
that matches is no state, so a torn one is never used. Which images come next, their noise and
their captions need no storage: they follow from the seed and the step (see ``backend.keyed``).
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from torch import Tensor

from backend.errors import InputError, Problem, StorageFault, disk_is_full
from backend.system.headers import readable_size
from backend.train.manifest import STATE_FILE
from backend.weights.safefile import pickle_into, write_safetensors, write_text_atomic
from backend.wholefile import settle_folder

VERSION = 1
_WEIGHTS, _OPTIMIZER, _MANIFEST = "weights.safetensors", "optimizer.pt", STATE_FILE


@dataclass(frozen=True)
class Position:
    """How far a run has come. Counters never restart."""

    step: int = 0
    """Optimizer steps done."""
    epoch: int = 1
    """Epoch that the next batch belongs to, 1-based."""
    batch: int = 0
    """Batches of that epoch already used."""


@dataclass(frozen=True)
class State:
    """A restore point in memory."""

    position: Position
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    """``optimizer``: its state dict; ``scaler``: that of the fp16 gradient scaler, or None; ``ema``: the
    means of the weights, or None; ``losses``: the sums behind the table of losses by picture."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Seed and settings that decide what a resumed run may change."""


def save_state(folder: Path, state: State) -> None:
    """Write a restore point. An older one at the same place is replaced only when this is whole.

    Raises:
        StorageFault: the disk is full or cannot be written; the older one is untouched.
    """
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        write_safetensors(partial / _WEIGHTS, dict(state.weights), {"format": "pt"})
        _write_optimizer(partial / _OPTIMIZER, state.optimizer)
        sums = {name: _sha256(partial / name) for name in (_WEIGHTS, _OPTIMIZER)}
        manifest = {
            "version": VERSION,
            "position": asdict(state.position),
            "facts": state.facts,
            "sha256": sums,
        }
        write_text_atomic(partial / _MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
        replace_folder(partial, folder)
        _clear_left_over(folder)
    except OSError as error:
        raise _not_written(folder, state, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _clear_left_over(folder: Path) -> None:
    """Remove what attempts that were killed have left of this restore point, now that it is whole."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.partial-*"):
        shutil.rmtree(left, ignore_errors=True)


def _not_written(folder: Path, state: State, error: OSError) -> StorageFault:
    advice = "free some space or choose another folder; the earlier restore point is untouched"
    if not disk_is_full(error):
        return StorageFault(
            "the restore point could not be written", where=str(folder), why=str(error), next=advice
        )
    needed, free = _size([state.weights, state.optimizer]), shutil.disk_usage(folder.parent).free
    return StorageFault(
        f"the disk is full: the restore point needs {readable_size(needed)}, {readable_size(free)} are free",
        where=str(folder),
        next=advice,
    )


def _size(tree: Any) -> int:
    """Bytes of the tensors in nested lists and mappings."""
    if isinstance(tree, Tensor):
        return tree.numel() * tree.element_size()
    if isinstance(tree, Mapping):
        return sum(map(_size, cast("Mapping[Any, Any]", tree).values()))
    return sum(map(_size, cast("list[Any]", tree))) if isinstance(tree, list) else 0


def load_state(folder: Path) -> State:
    """Read a restore point and check every byte of it.

    Raises:
        InputError: it is missing, damaged, made by a newer version or by another program.
    """
    manifest = _read_manifest(folder)
    for name, expected in manifest["sha256"].items():
        if not (folder / name).is_file() or _sha256(folder / name) != expected:
            raise InputError(
                f"the restore point is damaged: {name} does not match its checksum",
                where=str(folder),
                next="resume from an earlier restore point, or start again",
                key="resume",
            )
    return State(
        position=Position(**manifest["position"]),
        weights=load_file(folder / _WEIGHTS),
        optimizer=torch.load(folder / _OPTIMIZER, map_location="cpu", weights_only=True),
        facts=manifest["facts"],
    )


def seed_of(folder: Path) -> int | None:
    """The seed of the run that made a restore point. Raises InputError as :func:`load_state`."""
    seed = _read_manifest(folder)["facts"].get("seed")
    return seed if isinstance(seed, int) else None


def remove_state(folder: Path) -> None:
    """Remove a restore point; what else lies in its folder stays. Raises OSError.

    The file that makes it one goes first, so that half of it is never taken for a whole.
    """
    for name in (_MANIFEST, _OPTIMIZER, _WEIGHTS):
        with contextlib.suppress(FileNotFoundError):
            (folder / name).unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def newest_state(folders: Iterable[Path]) -> tuple[Path | None, list[Problem]]:
    """The valid restore point with the highest step, and what is wrong with damaged ones."""
    found: list[tuple[int, float, Path]] = []
    problems: list[Problem] = []
    for folder in folders:
        if not _has_content(folder / _MANIFEST):
            continue
        try:
            position = load_state(folder).position
        except InputError as error:
            problems.extend(error.problems)
            continue
        found.append((position.step, (folder / _MANIFEST).stat().st_mtime, folder))
    return (max(found)[2] if found else None), problems


def _has_content(path: Path) -> bool:
    """A power cut may leave a file with its name and nothing in it, which is as good as none."""
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / _MANIFEST
    try:
        manifest: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = (folder / "train_state.json").is_file()
        raise InputError(
            "this folder holds a state of sd-scripts" if known else "this folder is no restore point",
            where=str(folder),
            why="" if not known else "its optimizer state belongs to another program",
            next="start from its LoRA file with network_weights"
            if known
            else "choose a folder that holds state.json",
            key="resume",
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            "the restore point cannot be read",
            where=str(path),
            why=str(error),
            next="resume from an earlier restore point, or start again",
            key="resume",
        ) from error
    version = manifest.get("version") if isinstance(manifest, dict) else None
    if not isinstance(version, int) or (version <= VERSION and not _is_whole(manifest)):
        raise InputError(
            "the restore point cannot be read",
            where=str(path),
            why="it does not hold what Atelier writes into it",
            next="resume from an earlier restore point, or start again",
            key="resume",
        )
    if version > VERSION:
        raise InputError(
            f"this restore point is of version {version}; this Atelier reads up to {VERSION}",
            where=str(folder),
            next="update Atelier",
            key="resume",
        )
    return manifest


def _is_whole(manifest: Mapping[str, Any]) -> bool:
    """Whether everything is there that :func:`save_state` writes."""
    position, sums = manifest.get("position"), manifest.get("sha256")
    if not (
        isinstance(position, dict) and isinstance(sums, dict) and isinstance(manifest.get("facts"), dict)
    ):
        return False
    counters = cast("dict[str, Any]", position)
    return (
        counters.keys() == asdict(Position()).keys()
        and all(isinstance(count, int) for count in counters.values())
        and {_WEIGHTS, _OPTIMIZER} <= cast("dict[str, Any]", sums).keys()
    )


def _write_optimizer(path: Path, state: Mapping[str, Any]) -> None:
    with path.open("wb") as file:
        pickle_into(file, dict(state))
        file.flush()
        os.fsync(file.fileno())


def replace_folder(new: Path, final: Path) -> None:
    """Put ``new`` at ``final``, which may be there. Between the two renames the old one lies beside."""
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    new.rename(final)
    settle_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
