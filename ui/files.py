"""Choosing files and folders of the server in the page: inside allowed places, by looking only.

No window opens on the server. On this machine alone, the places are the user's home and the drives;
when others can reach the page, they are Atelier's own folders and those that ``ATELIER_ROOTS`` names.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend.errors import InputError
from backend.settings import declarations
from backend.system.paths import REPOSITORY
from ui.calls import Call
from ui.drafts import Drafts
from ui.i18n import t

VARIABLE = "ATELIER_ROOTS"
"""Folders that may be looked into, parted as in PATH; in place of the usual ones."""
_DRIVES = ("/mnt", "/media", "/data", "/workspace", "/Volumes")
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
_MODELS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_ENDINGS = {
    "dataset_config": (".toml", ".json"),
    "in_json": (".json", ".jsonl"),
    "sample_prompts": (".txt", ".json", ".toml"),
    "log_tracker_config": (".toml",),
    "metadata_thumbnail": tuple(sorted(_PICTURES)),
}
"""Option -> endings of its files; the other options that take files take models."""
_MOST = 2000
_RECENT = "files"


@dataclass(frozen=True)
class Entry:
    """One line of a folder."""

    name: str
    path: str
    folder: bool
    size: int
    time: float


def usual_roots(home: Path, runs: Path, local: bool) -> tuple[Path, ...]:
    """The places that the page may look into.

    Args:
        home: Atelier's own folder; ``runs``: that of run folders.
        local: nobody but this machine reaches the page.
    """
    named = os.environ.get(VARIABLE, "").strip()
    if named:
        wanted = [Path(one).expanduser() for one in named.split(os.pathsep) if one]
    elif local:
        wanted = [Path.home(), home, REPOSITORY, runs, *map(Path, _DRIVES), *_letters()]
    else:
        wanted = [home, runs]
    found = (path.resolve() for path in wanted if path.is_dir())
    return tuple(dict.fromkeys(found))


def _letters() -> Iterable[Path]:
    return (Path(f"{letter}:\\") for letter in string.ascii_uppercase) if os.name == "nt" else ()


class FileBrowser:
    """Answers what lies in a folder, as far as that may be seen."""

    def __init__(self, roots: Sequence[Path], drafts: Drafts) -> None:
        self.roots = tuple(roots)
        self.drafts = drafts

    def methods(self) -> tuple[Call, ...]:
        """What a script of the page may call."""
        return (self.browse, self.browsed)

    def browse(self, data: dict[str, Any]) -> dict[str, Any]:
        """A folder's content: ``path`` (or the nearest folder above it that is there) and ``key``, the
        option a file is chosen for."""
        key = str(data.get("key") or "")
        folder = self._start(str(data.get("path") or ""))
        entries, pictures, more = _content(folder, endings(key))
        parent = folder.parent if self._allowed(folder.parent) and folder.parent != folder else None
        return {
            "path": str(folder),
            "parent": str(parent) if parent else None,
            "entries": [asdict(entry) for entry in entries],
            "pictures": pictures,
            "more": more,
            "places": [{"name": root.name or str(root), "path": str(root)} for root in self.roots],
            "recent": [path for path in self.drafts.recent(_RECENT).get("place", []) if self._seen(path)],
        }

    def browsed(self, data: dict[str, Any]) -> dict[str, Any]:
        """Remember the place of what was chosen."""
        path = Path(str(data["path"])).expanduser()
        place = path if path.is_dir() else path.parent
        if self._allowed(place) and place.is_dir():
            self.drafts.remember(_RECENT, {"place": str(place.resolve())})
        return {}

    def _start(self, wanted: str) -> Path:
        """The folder to show: the nearest that exists above what stands in the field, or the first place."""
        path = Path(wanted.strip().strip("\"'")).expanduser() if wanted.strip() else None
        while path is not None and path.is_absolute():
            if path.is_dir() and self._allowed(path):
                return path.resolve()
            path = path.parent if path.parent != path else None
        recent = [Path(one) for one in self.drafts.recent(_RECENT).get("place", []) if self._seen(one)]
        if not recent and not self.roots:
            raise InputError(t("files.no_place"))
        return recent[0] if recent else self.roots[0]

    def _seen(self, path: str) -> bool:
        return self._allowed(Path(path)) and Path(path).is_dir()

    def _allowed(self, path: Path) -> bool:
        """Inside a root, links followed."""
        try:
            real = path.resolve()
        except (OSError, RuntimeError, ValueError):
            return False
        return any(real == root or root in real.parents for root in self.roots)


def endings(key: str) -> tuple[str, ...]:
    """Endings of the files that an option takes; none for folders, and for everything."""
    declared = declarations().get(key)
    if declared is None or declared.info.path != "file":
        return ()
    return _ENDINGS.get(key, _MODELS)


def _content(folder: Path, wanted: tuple[str, ...]) -> tuple[list[Entry], int, int]:
    """Folders first, then files with the endings wanted; the number of pictures, and of lines left out."""
    found: list[Entry] = []
    pictures = 0
    try:
        with os.scandir(folder) as lines:
            for line in lines:
                pictures += os.path.splitext(line.name)[1].lower() in _PICTURES  # noqa: PTH122 - a text
                entry = _entry(line, wanted)
                if entry is not None:
                    found.append(entry)
    except OSError as error:
        raise InputError(t("files.unreadable", path=str(folder), why=error.strerror or str(error))) from None
    found.sort(key=lambda one: (not one.folder, _natural(one.name)))
    return found[:_MOST], pictures, max(0, len(found) - _MOST)


def _entry(line: os.DirEntry[str], wanted: tuple[str, ...]) -> Entry | None:
    if line.name.startswith("."):
        return None
    try:
        folder, facts = line.is_dir(), line.stat()
    except OSError:
        return None
    if not folder and wanted and not line.name.lower().endswith(wanted):
        return None
    return Entry(line.name, line.path, folder, 0 if folder else facts.st_size, facts.st_mtime)


def _natural(name: str) -> list[tuple[int, str]]:
    """2 before 10."""
    return [
        (int(part), "") if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", name) if part
    ]
