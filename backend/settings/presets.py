"""Presets: named settings that say how to train, and leave out on what.

A preset is a settings file with a ``[preset]`` table: title, description (when to use it), family
and method. Bundled ones lie in ``presets/<family>/``; a user's own lie in a folder of theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from backend.errors import AtelierError, InputError, Problem
from backend.settings.declare import Declared, declarations
from backend.settings.settings import Settings, read_values
from backend.settings.tomlfile import read_flat, to_toml, write_checked

BUNDLED = Path(__file__).resolve().parents[2] / "presets"
HEADER_KEYS = ("title", "description", "family", "method")


@dataclass(frozen=True)
class Preset:
    """A preset as a page shows it."""

    path: Path
    title: str
    settings: Settings
    description: str = ""
    """When to use it."""
    family: str = ""
    """Family it is meant for; empty: any."""
    method: str = ""
    own: bool = False
    """It is the user's and may be deleted."""
    problems: tuple[Problem, ...] = ()
    """Why it cannot be used."""

    @property
    def values(self) -> dict[str, Any]:
        """``{key: value}`` of what it sets; everything else is at its default."""
        return self.settings.changed()


def read_preset(path: Path | str, own: bool = False) -> Preset:
    """A preset out of its file.

    Raises:
        InputError: everything that is wrong in the file.
    """
    path = Path(path)
    flat = read_flat(path)
    reading = read_values(flat.values, flat.where)
    problems = [*flat.problems, *reading.problems, *_not_for_presets(reading.settings, flat.where)]
    if problems:
        raise InputError(problems)
    title, about, family, method = (str(flat.header.get(name, "")) for name in HEADER_KEYS)
    return Preset(path, title or path.stem, reading.settings, about, family, method, own)


def list_presets(own: Path | None = None, bundled: Path = BUNDLED) -> list[Preset]:
    """Bundled presets by family and title, then the user's by title. A broken one says why."""
    ours = [path for path in bundled.glob("*/*.toml") if path.parent != own and not path.name.startswith(".")]
    theirs = [path for path in own.glob("*.toml") if not path.name.startswith(".")] if own else []
    return [
        *_sorted(_read_or_tell(path, False) for path in ours),
        *_sorted(_read_or_tell(path, True) for path in theirs),
    ]


def save_preset(
    folder: Path,
    title: str,
    settings: Settings,
    description: str = "",
    family: str = "",
    method: str = "",
    replace: bool = False,
) -> Path:
    """Keep how ``settings`` train as a preset of the user's own. Returns its file.

    ``method``: that of the settings when empty.

    Raises:
        InputError: the title is empty, or taken and ``replace`` is off.
        EnvironmentFault: the file cannot be written.
    """
    title = " ".join(title.split())
    path = folder / f"{_slug(title)}.toml"
    if not title:
        raise InputError("the preset has no name", next="give it one")
    if path.exists() and not replace:
        raise InputError(
            f"there is a preset '{title}' already", where=str(path), next="choose another name, or replace it"
        )
    kept = without_subject(settings)
    method = method or settings.model.training_method
    header = dict(zip(HEADER_KEYS, (title, description.strip(), family, method), strict=True))
    write_checked(path, to_toml(kept, {name: text for name, text in header.items() if text}), kept)
    return path


def delete_preset(path: Path | str) -> Path:
    """Move a preset of the user's own into the folder ``.trash`` beside it. Returns where it is.

    Raises:
        InputError: it is a bundled preset, or there is none.
    """
    path = Path(path).resolve()
    if path.parent.parent == BUNDLED and (path.parent.name, path.suffix) != ("own", ".toml"):
        raise InputError(f"{path.stem} comes with Atelier and cannot be deleted")
    if not path.is_file():
        raise InputError(f"there is no preset {path}")
    trash = path.parent / ".trash"
    trash.mkdir(exist_ok=True)
    names = (f"{path.stem}{'' if number == 0 else f'-{number}'}{path.suffix}" for number in count())
    target = next(trash / name for name in names if not (trash / name).exists())
    return path.replace(target)


def rename_preset(path: Path | str, title: str, description: str | None = None) -> Path:
    """Give a preset of the user's own another title, and another description. Returns its file.

    Raises:
        InputError: the title is empty or taken, or the preset is damaged.
    """
    path = Path(path)
    old = read_preset(path, own=True)
    about = old.description if description is None else description
    same = path.stem == _slug(" ".join(title.split()))
    new = save_preset(path.parent, title, old.settings, about, old.family, old.method, replace=same)
    if new != path:
        path.unlink()
    return new


def restore_preset(trashed: Path | str) -> Path:
    """Take a preset out of the trash again. Returns where it is.

    Raises:
        InputError: it is not there any more, or its place is taken.
    """
    trashed = Path(trashed)
    target = trashed.parent.parent / trashed.name
    if not trashed.is_file() or trashed.parent.name != ".trash":
        raise InputError(f"there is no preset {trashed.stem} in the trash")
    if target.exists():
        raise InputError(f"there is a preset {target.stem} again", next="rename that one first")
    return trashed.replace(target)


def without_subject(settings: Settings) -> Settings:
    """The settings without what belongs to one run: paths, names, prompts and secrets."""
    kept = {
        key: value for key, value in settings.changed().items() if not _belongs_to_run(declarations()[key])
    }
    return Settings.from_flat(kept)


def _belongs_to_run(declared: Declared) -> bool:
    return bool(declared.info.path or declared.info.per_run or declared.info.secret)


def _not_for_presets(settings: Settings, where: dict[str, str]) -> list[Problem]:
    return [
        Problem(f"{key} belongs to one run and not into a preset", where=where.get(key, ""), key=key)
        for key in settings.changed()
        if _belongs_to_run(declarations()[key])
    ]


def _read_or_tell(path: Path, own: bool) -> Preset:
    try:
        return read_preset(path, own)
    except AtelierError as error:
        return Preset(path, path.stem, Settings(), own=own, problems=error.problems)


def _sorted(presets: Iterable[Preset]) -> list[Preset]:
    return sorted(presets, key=lambda preset: (preset.family, preset.title.lower(), preset.path))


def _slug(title: str) -> str:
    """A file name out of a title: letters and digits of any script, joined by '-'."""
    return re.sub(r"[^\w]+", "-", title.lower()).strip("-_")[:80] or "preset"
