"""Run folders: one folder a job, holding everything there is to know about it.

::

    runs/20260131-142500-my-cat/
        config.toml  dataset.toml     what the job was asked to do
        job.json                      its name, kind, and each attempt (process, times, exit code)
        events.jsonl  log.txt         what it says while it runs (``backend.jobs.events``, plain text)
        control.jsonl                 what it is told while it runs (``backend.jobs.control``)
        samples/ checkpoints/ state/  what it makes
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from backend.errors import InputError, Problem
from backend.jobs.files import read_json, write_json
from backend.system.paths import runs_root
from backend.wholefile import write_text

__all__ = ["Kind", "Run", "create_run", "list_runs", "open_run", "runs_root"]

Kind = Literal["train", "tool"]

JOB_FILE = "job.json"
_FOLDERS = ("samples", "checkpoints", "state")
_LONGEST_SUFFIX = "-step00000000.safetensors"
"""The longest ending that a result's name gets."""
_LONGEST_NAME = 255 - len(_LONGEST_SUFFIX) - len(".partial-4294967295")
"""Bytes left for a name in a file name of 255 bytes, the limit of every common file system."""
_WINDOWS_PATH = 259
_SLUG_LENGTH = 48
_FOLDER_NAME = re.compile(r"^\d{8}-\d{6}-")


@dataclass(frozen=True)
class Run:
    """One run folder. Cheap: only the name has been read."""

    path: Path
    id: str
    """The folder's name."""
    name: str
    """What the user called it, in any script."""
    kind: Kind = "train"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def control(self) -> Path:
        return self.path / "control.jsonl"

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def job(self) -> Path:
        return self.path / JOB_FILE

    def facts(self) -> dict[str, Any]:
        """What ``job.json`` says; empty when it is missing or damaged."""
        return read_json(self.job) or {}


def create_run(
    root: Path, name: str, config_toml: str, dataset_toml: str | None = None, kind: Kind = "train"
) -> Run:
    """Make a new run folder. An existing one is never reused, so equal names never collide.

    Raises:
        InputError: the name is too long or has control characters, or the folder cannot be written.
    """
    _check_name(root, name)
    now = time.time()
    try:
        path = _new_folder(root, time.strftime("%Y%m%d-%H%M%S", time.localtime(now)), slug(name))
        for folder in _FOLDERS:
            (path / folder).mkdir()
        write_text(path / "config.toml", config_toml)
        if dataset_toml is not None:
            write_text(path / "dataset.toml", dataset_toml)
        for empty in ("events.jsonl", "log.txt", "control.jsonl"):
            (path / empty).touch()
        facts = {
            "version": 1,
            "name": name,
            "kind": kind,
            "created": round(now, 3),
            "asked": asked(config_toml, dataset_toml),
            "attempts": [],
        }
        write_json(path / JOB_FILE, facts)
    except OSError as error:
        raise InputError(
            "the run folder cannot be made",
            where=str(root),
            why=error.strerror or str(error),
            next="free some space, or choose a folder you may write to by setting ATELIER_HOME",
        ) from error
    return Run(path, path.name, name, kind)


def asked(config_toml: str, dataset_toml: str | None) -> str:
    """A mark of what a run was asked to do; the job may complete its files later, say with a seed."""
    return hashlib.sha256(f"{config_toml}\0{dataset_toml or ''}".encode()).hexdigest()


def _new_folder(root: Path, stamp: str, words: str) -> Path:
    """Make ``<stamp>-<words>`` or, when taken, ``<stamp>-<words>-2`` and so on."""
    root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = root / (f"{stamp}-{words}" if number == 1 else f"{stamp}-{words}-{number}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1


def slug(name: str) -> str:
    """A part of a folder name that is valid on Windows, macOS and Linux and can still be read.

    Letters and digits of every script stay; everything else becomes a hyphen.
    """
    text = unicodedata.normalize("NFC", name)
    kept = "".join(char if unicodedata.category(char)[0] in "LMN" else "-" for char in text)
    words = re.sub(r"-+", "-", kept).strip("-")
    return words[:_SLUG_LENGTH].strip("-") or "run"


def _check_name(root: Path, name: str) -> None:
    problem = _name_problem(root, name)
    if problem:
        raise InputError(problem)


def _name_problem(root: Path, name: str) -> Problem | None:
    shorter = "choose a shorter name"
    if any(unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"} for char in name):
        return Problem(
            f"the name {name!r} has a control character or line break in it",
            next="remove it",
            key="output_name",
        )
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > _LONGEST_NAME:
        return Problem(
            f"the name is too long: {size} bytes, at most {_LONGEST_NAME} fit into a file name",
            where=f"{name[:40]}...",
            next=shorter,
            key="output_name",
        )
    deepest = root / ("0" * 16 + slug(name) + "-2") / "checkpoints" / f"{name}{_LONGEST_SUFFIX}"
    if sys.platform == "win32" and len(str(deepest)) > _WINDOWS_PATH:
        return Problem(
            f"the path of the result would be {len(str(deepest))} characters; Windows allows {_WINDOWS_PATH}",
            where=str(root),
            next=f"{shorter}, or move Atelier to a folder nearer to the drive's root",
            key="output_name",
        )
    return None


def open_run(path: Path) -> Run:
    """The run in a folder. A damaged ``job.json`` does not hide it: the folder's name serves.

    Raises:
        InputError: there is no run in that folder.
    """
    facts = read_json(path / JOB_FILE)
    if facts is None and not _looks_like_run(path):
        raise InputError(
            f"{path.name!r} is not a run folder", where=str(path), next="choose a folder inside runs"
        )
    facts = facts or {}
    name = facts.get("name")
    kind: Kind = "tool" if facts.get("kind") == "tool" else "train"
    return Run(path, path.name, name if isinstance(name, str) else _FOLDER_NAME.sub("", path.name), kind)


def _looks_like_run(path: Path) -> bool:
    """A folder whose ``job.json`` was lost still counts once its job has said something."""
    events = path / "events.jsonl"
    return (path / "config.toml").is_file() and events.is_file() and events.stat().st_size > 0


def find_run(root: Path, id: str) -> Run | None:
    """The run of that name directly inside ``root``, or None. Never looks anywhere else."""
    if not id or id in {".", ".."} or re.search(r"[/\\:\0]", id):
        return None
    try:
        return open_run(root / id)
    except (InputError, OSError):
        return None


def list_runs(root: Path) -> list[Run]:
    """All runs, newest first. Folders that are no runs are passed over."""
    try:
        folders = [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return []
    runs = (find_run(root, folder.name) for folder in sorted(folders, key=_newest_first, reverse=True))
    return [run for run in runs if run]


def _newest_first(path: Path) -> tuple[str, float, str]:
    """Order by the time in the name; runs made in one second by the time on disk."""
    with_time = _FOLDER_NAME.match(path.name)
    try:
        made = path.stat().st_mtime if not with_time else (path / "config.toml").stat().st_mtime
    except OSError:
        made = 0.0
    stamp = path.name[:15] if with_time else time.strftime("%Y%m%d-%H%M%S", time.localtime(made))
    return stamp, made, path.name
