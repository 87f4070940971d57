"""Checks of the files and folders that settings name. Nothing is created but a test file."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from backend.errors import Problem
from backend.settings.declare import Declared, declarations, nearest
from backend.settings.settings import Settings

MODEL_KEYS = ("pretrained_model_name_or_path", "vae")
"""A diffusers folder serves as well as a file."""
LABELS = {
    "pretrained_model_name_or_path": "Base model",
    "vae": "VAE",
    "train_data_dir": "Picture folder",
    "reg_data_dir": "Regularisation folder",
    "dataset_config": "Dataset file",
    "network_weights": "LoRA file",
    "resume": "State folder",
    "sample_prompts": "Prompt file",
}


LONGEST_NAME = 255
"""Bytes (letters on Windows) of the name of a file or folder, the limit of every common file system."""

LONGEST_PATH = {"win32": 32767, "darwin": 1024}.get(sys.platform, 4096)
"""Bytes (letters on Windows) of a whole path that the system takes, the zero at its end among them."""

_ENDING = "-step00000000.safetensors.partial-4294967295"
"""The longest that is put behind a result's name."""


def check_files(settings: Settings) -> list[Problem]:
    """What is wrong with the paths in the settings, before anything is loaded."""
    values = settings.flat()
    folders = ("train_data_dir", "reg_data_dir", "conditioning_data_dir")
    unused = set(folders) if values["dataset_config"] else set[str]()
    if values["resume_from_huggingface"]:
        unused |= {"resume"}
    if values["num_class_images"] and values["reg_data_dir"]:
        unused |= {"reg_data_dir"}  # it is made when class pictures are drawn
    problems: list[Problem] = []
    for key, declared in declarations().items():
        if declared.info.path and values[key] and key not in unused:
            problems += _check(declared, Path(values[key]))
    pictures = [values[key] for key in folders if values[key] and key not in unused]
    if values["output_name"] and (problem := name_problem(Path(f"{values['output_name']}{_ENDING}"))):
        problems.append(replace(problem, where="output_name", key="output_name"))
    for key in ("output_dir", "logging_dir"):
        problems += output_conflicts(values[key], pictures, key)
    if values["num_class_images"] and values["reg_data_dir"]:
        problem = write_problem(Path(values["reg_data_dir"]), "reg_data_dir")
        problems += [problem] if problem else []
    return problems


def output_conflicts(
    output: str | Path | None, pictures: Iterable[str | Path], key: str = "output_dir"
) -> list[Problem]:
    """Picture folders that an output folder equals or contains, by their real paths."""
    if not output:
        return []
    real = Path(output).resolve()
    found: list[Problem] = []
    for folder in pictures:
        inner = Path(folder).resolve()
        if inner == real or real in inner.parents:
            relation = "is" if inner == real else "contains"
            found.append(
                Problem(
                    f"{key}: {real} {relation} the picture folder {inner}",
                    why="results among the pictures would be taken for pictures",
                    next="choose another output folder",
                    key=key,
                )
            )
    return found


def missing(label: str, path: Path, key: str | None = None) -> Problem:
    """The problem of a path that does not exist, with the nearest name that does."""
    near = _nearest_path(path)
    why = "" if _exists(path.parent) else f"there is no folder {path.parent} either"
    advice = f"Did you mean {near}?" if near else "check the path"
    if key in MODEL_KEYS and len(path.parts) == 2 and not path.is_absolute() and not _exists(path.parent):
        why = "this looks like a name on a model site, and Atelier downloads nothing"
        advice = "download the model and give its file"
    return Problem(f"{label} not found: {path}", why=why, next=advice, key=key)


def write_problem(path: Path, key: str = "output_dir") -> Problem | None:
    """Why nothing can be written into a folder, found by writing; None when it can.

    A folder that does not exist yet is judged by the nearest one above it that does.
    """
    if problem := name_problem(path, key):
        return problem
    folder = path.absolute()
    while not _exists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        return Problem(f"cannot write to {path} ({folder} is a file)", next="choose another folder", key=key)
    try:
        handle, name = tempfile.mkstemp(prefix=".write-test-", dir=folder)
        os.close(handle)
        Path(name).unlink()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return Problem(
            f"cannot write to {path} ({reason})",
            next="choose another folder, or change the permissions of this one",
            key=key,
        )
    return None


def name_problem(path: Path, key: str | None = None) -> Problem | None:
    """What is wrong with a path whatever the disk holds: a name in it, or all of it, is too long."""
    long = next((part for part in path.parts if _length(part) > LONGEST_NAME), None)
    if long is None:
        return _path_problem(path, key)
    return Problem(
        f"the name {long[:20]}... is too long",
        where=str(path),
        why=f"it has {_length(long)} bytes; {LONGEST_NAME} is the limit",
        next="choose a shorter name",
        key=key,
    )


def _path_problem(path: Path, key: str | None) -> Problem | None:
    """What is wrong with a path as a whole: longer than the system takes, with room for a result's name."""
    length, most = _length(str(path.absolute())), LONGEST_PATH - LONGEST_NAME
    if length <= most:
        return None
    return Problem(
        f"the path {str(path)[:40]}... is too long",
        why=f"it has {length} bytes; {most} is the limit, so that a result's name fits behind it",
        next="choose a folder nearer to the top",
        key=key,
    )


def _length(name: str) -> int:
    return len(name) if sys.platform == "win32" else len(os.fsencode(name))


def _check(declared: Declared, path: Path) -> Iterator[Problem]:
    key, label = declared.key, LABELS.get(declared.key, declared.info.label)
    if problem := name_problem(path, key):
        yield problem
    elif declared.info.path == "written":
        if path.is_dir():
            yield Problem(
                f"{label}: {path} is a folder, and a file is needed", next="give a file in it", key=key
            )
        elif problem := write_problem(path.absolute().parent, key):
            yield problem
    elif declared.info.path == "output":
        problem = write_problem(path, key)
        if problem:
            yield problem
    elif not _exists(path):
        yield missing(label, path, key)
    elif declared.info.path == "folder" and not path.is_dir():
        advice = f"did you mean its folder {path.parent}?"
        yield Problem(f"{label}: {path} is a file, and a folder is needed", next=advice, key=key)
    elif declared.info.path == "file" and path.is_dir() and not (key in MODEL_KEYS and _is_diffusers(path)):
        yield _folder_instead(label, path, key)


def _folder_instead(label: str, path: Path, key: str) -> Problem:
    if key not in MODEL_KEYS:
        return Problem(
            f"{label}: {path} is a folder, and a file is needed", next="choose a file in it", key=key
        )
    return Problem(
        f"{label}: {path} is a folder, but not of the diffusers kind",
        why="it has no model_index.json or config.json",
        next="choose a .safetensors or .ckpt file, or a diffusers folder",
        key=key,
    )


def _is_diffusers(path: Path) -> bool:
    return (
        (path / "model_index.json").is_file() or (path / "config.json").is_file() or (path / "unet").is_dir()
    )


def _exists(path: Path) -> bool:
    """False as well for a path that the system cannot hold, such as one that is too long."""
    with contextlib.suppress(OSError, ValueError):
        return path.exists()
    return False


def _nearest_path(path: Path) -> Path | None:
    """The path with its first wrong part exchanged for the nearest name beside it."""
    above = [parent for parent in path.parents if _exists(parent)]
    if not above:
        return None
    folder = above[0]
    wrong, *rest = path.relative_to(folder).parts
    with contextlib.suppress(OSError):
        names = {found.name.lower(): found.name for found in sorted(folder.iterdir())}
        near = nearest(wrong.lower(), names, likeness=0.5)
        return folder.joinpath(names[near], *rest) if near and names[near] != wrong else None
    return None
